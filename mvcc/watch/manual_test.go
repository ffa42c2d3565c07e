package watch

import (
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
)

func TestAManualHubDoesNothingByItself(t *testing.T) {
	store, err := mvcc.Create(mvcc.Config{
		FS: vfs.OS(), Dir: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}, mvcc.Identity{Cluster: 7})
	if err != nil {
		t.Fatal(err)
	}
	h := NewHub(Config{Logger: hclog.NewNullLogger(), Manual: true}, store)
	s := h.NewStream()
	if _, err := s.Watch(Request{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if b, ok, err := s.Poll(); err != nil || !ok || b.Kind != Created {
		t.Fatalf("%+v, %v, %v", b, ok, err)
	}
	e := store.Begin(ident.Index(1), 1, 1)
	tx := e.Tx()
	if _, err := tx.Put(mvcc.PutArgs{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	if b, ok, err := s.Poll(); ok || err != nil {
		t.Fatalf("an answer without a turn: %+v, %v", b, err)
	}
	for more := true; more; {
		if more, err = h.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b, ok, err := s.Poll(); err != nil || !ok || b.Kind != Events || len(b.Events) != 1 {
		t.Fatalf("%+v, %v, %v", b, ok, err)
	}
	if err := errors.Join(h.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
}

package mvcc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// bbolt has two meta pages and falls back to the older one when the newest is
// damaged. A store that was just made has no log yet that would tell the commits
// of its making apart.
func TestANewStoreIsWholeWithEitherMetaPage(t *testing.T) {
	for page := range 2 {
		cfg := diskConfig(t)
		meta := backend.Meta{Revision: 1, Compacted: backend.Point{Revision: NeverCompacted}, Merged: backend.Point{Revision: NeverCompacted}}
		rows := []backend.RowChange{{Table: backend.TableMember, Key: []byte("m"), Value: []byte("row")}}
		s, err := CreateFrom(cfg, Seed{Meta: meta, Rows: rows})
		if err != nil {
			t.Fatal(err)
		}
		s.fail(os.ErrClosed) // So that closing adds no checkpoint: the process is killed.
		_ = s.Close()
		patch(t, filepath.Join(cfg.Dir, baseName), int64(page)*4096+32, 0xdead)
		s = mustOpen(t, cfg)
		found := 0
		if err := s.Rows(backend.TableMember, func(key, value []byte) error { found++; return nil }); err != nil {
			t.Fatal(err)
		}
		if found != 1 {
			t.Errorf("with meta page %d damaged the store has %d of 1 rows", page, found)
		}
		mustClose(t, s)
	}
}

// The log notes checkpoints, not merges. A base that is older than the last
// merge alone would lack what was merged and is not in history any more.
func TestABaseOlderThanTheMergeThatGaveHistoryBackIsRefused(t *testing.T) {
	for first, behind := range map[ident.Revision]string{20: "20", 0: "-1"} { // At 0 there is nothing, and base has merged it.
		olderThanTheMerge(t, first, behind)
	}
}

func olderThanTheMerge(t *testing.T, first ident.Revision, behind string) {
	t.Helper()
	cfg := diskConfig(t)
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	for i := range 60 {
		w.put(fmt.Sprint("k", i%7), strings.Repeat("v", 200))
	}
	w.compact(first)
	stepAll(t, s)
	base := filepath.Join(cfg.Dir, baseName)
	older, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	w.compact(55)
	stepAll(t, s)
	s.fail(os.ErrClosed) // The process is killed.
	_ = s.Close()
	now, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(base, older, 0o600); err != nil {
		t.Fatal(err)
	}
	damage := (*history.DamageError)(nil)
	if _, err := Open(cfg); !errors.As(err, &damage) || !strings.Contains(err.Error(), "base needs what followed revision "+behind) {
		t.Fatalf("opening the older base: %v", err)
	}
	if err := os.WriteFile(base, now, 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	wantValue(t, s, "k3", 0, strings.Repeat("v", 200))
	mustClose(t, s)
}

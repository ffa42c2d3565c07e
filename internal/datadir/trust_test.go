package datadir

import (
	"errors"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func openMem(t *testing.T) (*Dir, vfs.FS) {
	t.Helper()
	mem := vfstest.NewMem()
	d, err := Open(mem, "/data")
	if err != nil {
		t.Fatal(err)
	}
	return d, mem
}

func TestTheFirstMarkOfAGenerationStaysUntilItIsRemoved(t *testing.T) {
	d, _ := openMem(t)
	if _, found, err := d.Mark(); found || err != nil {
		t.Fatalf("a fresh directory: %v, %v", found, err)
	}
	first := Mark{Generation: 3, Reason: "sync failed", Diverged: true}
	for _, m := range []Mark{first, {Generation: 3, Reason: "follow-up"}} {
		if err := d.Distrust(m); err != nil {
			t.Fatal(err)
		}
	}
	if m, found, err := d.Mark(); m != first || !found || err != nil {
		t.Fatalf("mark is %+v, %v, %v", m, found, err)
	}
	if err := d.Distrust(Mark{Generation: 4, Reason: "another"}); err != nil {
		t.Fatal(err)
	}
	if m, _, _ := d.Mark(); m.Generation != 4 {
		t.Fatalf("mark is %+v", m)
	}
	for range 2 {
		if err := d.Unmark(); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := d.Mark(); found || err != nil {
		t.Fatalf("after its removal: %v, %v", found, err)
	}
}

func TestAMarkThatCanNotBeReadIsNotNone(t *testing.T) {
	d, fsys := openMem(t)
	if err := d.Distrust(Mark{Generation: 1, Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := vfs.ReplaceFile(fsys, filepath.Join(d.Path(), untrustedName), []byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Mark(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a damaged mark: %v", err)
	}
	if err := d.Unmark(); err != nil {
		t.Fatal(err)
	}
}

func TestPeersAreAHintThatMayBeGone(t *testing.T) {
	d, fsys := openMem(t)
	if d.Peers() != nil {
		t.Fatal("peers of a fresh directory")
	}
	want := []Peer{{ID: 7, URLs: []string{"http://a:1"}}, {ID: 8}}
	if err := d.SetPeers(want); err != nil {
		t.Fatal(err)
	}
	if got := d.Peers(); !reflect.DeepEqual(got, want) {
		t.Fatalf("peers are %v", got)
	}
	if err := vfs.ReplaceFile(fsys, filepath.Join(d.Path(), peersName), []byte("?")); err != nil {
		t.Fatal(err)
	}
	if got := d.Peers(); got != nil {
		t.Fatalf("damaged peers are %v", got)
	}
}

// CURRENT itself may be what is damaged.
func TestAGenerationCanBeAbandonedWhileCurrentIsDamaged(t *testing.T) {
	d, fsys := openMem(t)
	for range 2 {
		n, err := d.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := fsys.MkdirAll(d.Generation(n)); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			if err := d.SetCurrent(n, Began{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := vfs.ReplaceFile(fsys, filepath.Join(d.Path(), currentName), []byte("?")); err != nil {
		t.Fatal(err)
	}
	if err := d.Abandon(2); err != nil {
		t.Fatal(err)
	}
	names, err := fsys.List(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range names {
		seen[name] = true
	}
	if !seen["gen-000001"] || !seen["old-unused-gen-000002"] || seen["gen-000002"] {
		t.Fatalf("there are %v", names)
	}
	if err := d.SetCurrent(1, Began{}); err != nil { // What is good replaces it.
		t.Fatal(err)
	}
	if n, err := d.Current(); n != 1 || err != nil {
		t.Fatalf("current is %d, %v", n, err)
	}
}

func TestADamagedIdentityComesBackFromItsCopy(t *testing.T) {
	d, fsys := openMem(t)
	want := Identity{Cluster: 1, Member: 2, Timeline: 3, Incarnation: 4}
	if err := d.SetIdentity(want); err != nil {
		t.Fatal(err)
	}
	damage := func(name string) {
		t.Helper()
		if err := vfs.ReplaceFile(fsys, filepath.Join(d.Path(), name), []byte("?")); err != nil {
			t.Fatal(err)
		}
	}
	damage(identityName)
	for _, name := range []string{identityCopy, identityName} { // The first is whole again, then the copy.
		if id, err := d.Identity(); id != want || err != nil {
			t.Fatalf("identity %+v, %v", id, err)
		}
		if err := d.MendIdentity(want); err != nil {
			t.Fatal(err)
		}
		damage(name)
	}
	damage(identityCopy)
	if id, err := d.Identity(); !errors.Is(err, ErrDamaged) || id != (Identity{}) {
		t.Fatalf("both are damaged: %+v, %v", id, err)
	}
	if err := fsys.Remove(filepath.Join(d.Path(), identityName)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Identity(); !errors.Is(err, ErrEmpty) { // As a start that was cut short leaves it.
		t.Fatalf("a directory without IDENTITY: %v", err)
	}
}

package datadir

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func TestAFrozenDirectoryMayNotStartUntilItIsThawed(t *testing.T) {
	fsys := vfstest.NewMem()
	d, err := Open(fsys, "data")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	steps := []struct {
		name string
		do   func() error
		want string // Within the refusal; "" when the member may start.
	}{
		{"as it was made", func() error { return nil }, ""},
		{"thawed without need", d.Thaw, ""},
		{"frozen", func() error { return d.Freeze("plan 12ab") }, "frozen for a recovery: plan 12ab; finish with"},
		{"frozen again", func() error { return d.Freeze("plan 34cd") }, "plan 34cd"},
		{"thawed", d.Thaw, ""},
		{"with a marker nobody can read", func() error { return vfs.ReplaceFile(fsys, "data/FROZEN", []byte("?")) }, "file is damaged"},
		{"thawed from that", d.Thaw, ""},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		err := d.MayStart()
		if (err == nil) != (s.want == "") || err != nil && !strings.Contains(err.Error(), s.want) {
			t.Errorf("%s: %v, want %q", s.name, err, s.want)
		}
		if strings.HasPrefix(s.name, "frozen") && !errors.Is(err, ErrFrozen) {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

package datadir

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func TestWhatIsDeletedIsPlanned(t *testing.T) {
	for _, c := range []struct {
		names   string
		current int
		want    string
	}{
		{"CURRENT IDENTITY LOCK gen-000001 wal", 1, ""},
		{"gen-000002 old-gen-000001", 2, ""}, // The way back.
		{"gen-000004 old-gen-000001 old-gen-000002 old-gen-000003", 4, "old-gen-000002 old-gen-000001"},
		{"gen-000003 old-gen-000002 old-unused-gen-000004 old-unused-gen-000001", 3, "old-unused-gen-000004 old-unused-gen-000001"},
		{"gen-000012 old-gen-000009 old-gen-000010", 12, "old-gen-000009"},
		{"gen-000003 old-gen-000002 old-gen-000002-2", 3, "old-gen-000002"},
		{"gen-000002 old-wal old-CURRENT old-gen-000001 old-x", 2, ""},
		{"gen-000002 doomed-old-gen-000001", 2, "doomed-old-gen-000001"},
		{"gen-000002 gen-000001 gen-000003", 2, ""},           // Being made, or in force a moment ago.
		{"gen-000001 old-gen-000002 old-gen-000003", 1, ""},   // Newer than the one in force: somebody went back by hand.
		{"gen-000003 old-gen-000003 old-gen-000002-2", 3, ""}, // As above.
	} {
		got := strings.Join(PlanClean(strings.Fields(c.names), c.current), " ")
		if got != c.want {
			t.Errorf("of %q with %d in force: %q, want %q", c.names, c.current, got, c.want)
		}
	}
}

// A power cut after every operation: the generation in force stays whole, and
// nothing half deleted looks like a generation.
func TestACrashWhileCleaningTouchesNothingInUse(t *testing.T) {
	for stop := 0; ; stop++ {
		fsys := vfstest.NewMem()
		d := mustOpen(t, fsys)
		for n := 1; n <= 4; n++ {
			if err := errors.Join(makeGeneration(fsys, d, n), d.SetCurrent(n, Began{})); err != nil {
				t.Fatal(err)
			}
		}
		n, err := d.Next()
		if err := errors.Join(err, makeGeneration(fsys, d, n), d.Abandon(n)); err != nil {
			t.Fatal(err)
		}
		making, err := d.Next()
		if err := errors.Join(err, makeGeneration(fsys, d, making)); err != nil {
			t.Fatal(err)
		}
		ops, cut := 0, errors.New("power is off")
		fsys.Inject(func(vfstest.Op) error {
			if ops++; ops > stop {
				return cut
			}
			return nil
		})
		var done []string
		err = d.Clean(func(name string) { done = append(done, name) })
		if err == nil {
			if want := []string{"old-unused-gen-000005", "old-gen-000002", "old-gen-000001"}; !slices.Equal(done, want) {
				t.Fatalf("deleted %v, want %v", done, want)
			}
			return
		}
		if !errors.Is(err, cut) {
			t.Fatalf("after %d operations: %v", stop, err)
		}
		for _, image := range vfstest.Images {
			cleanAgain(t, fsys.Crash(vfstest.Crash{Image: image}), making)
		}
	}
}

func cleanAgain(t *testing.T, fsys *vfstest.Mem, making int) {
	t.Helper()
	d := mustOpen(t, fsys)
	for _, name := range []string{"gen-000004", "old-gen-000003"} {
		if got, err := vfs.ReadFile(fsys, filepath.Join("data", name, "base")); err != nil || !strings.HasSuffix(name, string(got)) {
			t.Fatalf("%s holds %q, %v", name, got, err)
		}
	}
	names, err := fsys.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, ok := number(strings.TrimPrefix(name, oldPrefix)); ok {
			if _, err := fsys.Stat(filepath.Join("data", name, "base")); err != nil && name != filepath.Base(d.Generation(making)) {
				t.Fatalf("%s looks like a generation: %v", name, err)
			}
		}
	}
	if err := errors.Join(d.Tidy(), d.Clean(func(string) {})); err != nil {
		t.Fatal(err)
	}
	if names, err = fsys.List("data"); err != nil {
		t.Fatal(err)
	}
	want := []string{"CURRENT", "LOCK", "gen-000004", "old-gen-000003"}
	if !slices.Equal(names, want) {
		t.Fatalf("left are %v, want %v", names, want)
	}
}

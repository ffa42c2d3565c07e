package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func mustOpen(t *testing.T, fsys vfs.FS) *Dir {
	t.Helper()
	d, err := Open(fsys, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// makeGeneration makes a generation with one synced file.
func makeGeneration(fsys vfs.FS, d *Dir, n int) error {
	if err := fsys.MkdirAll(d.Generation(n)); err != nil {
		return err
	}
	return vfs.ReplaceFile(fsys, filepath.Join(d.Generation(n), "base"), fmt.Append(nil, n))
}

func TestADirectoryTellsWhoLivesInIt(t *testing.T) {
	fsys := vfstest.NewMem()
	d := mustOpen(t, fsys)
	if _, err := d.Identity(); !errors.Is(err, ErrEmpty) {
		t.Fatalf("an empty directory: %v", err)
	}
	want := Identity{Cluster: 1, Member: 0xffffffffffffffff, Timeline: 3, Incarnation: 4}
	if err := d.SetIdentity(want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Identity(); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := Open(fsys, "data"); !errors.Is(err, ErrLocked) {
		t.Fatalf("a directory that is in use: %v", err)
	}
}

func TestAFlippedBitIsNoticedAndNeverReadAsAnotherIdentity(t *testing.T) {
	fsys := vfstest.NewMem()
	d := mustOpen(t, fsys)
	want := Identity{Cluster: 1, Member: 2, Timeline: 3, Incarnation: 4}
	if err := d.SetIdentity(want); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("data", "IDENTITY")
	data, err := vfs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for bit := range uint(8) {
			if err := fsys.Flip(name, int64(i), bit); err != nil {
				t.Fatal(err)
			}
			if err := d.read(identityName, &Identity{}); err == nil || !strings.Contains(err.Error(), "IDENTITY") {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
			if id, err := d.Identity(); id != want || err != nil { // Of the copy.
				t.Fatalf("bit %d of byte %d flipped: %+v, %v", bit, i, id, err)
			}
			if err := fsys.Flip(name, int64(i), bit); err != nil {
				t.Fatal(err)
			}
		}
	}
	for length := range data {
		if err := decode(name, data[:length], &Identity{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v", length, err)
		}
	}
}

func TestANewerFormatIsRefusedByName(t *testing.T) {
	line := fmt.Sprintf(`{"Format":%d,"Body":{}}`, FormatVersion+1)
	err := decode("IDENTITY", fmt.Appendf(nil, "%s\n%08x\n", line, checksum([]byte(line))), &Identity{})
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), fmt.Sprint(FormatVersion+1)) {
		t.Fatal(err)
	}
}

// TestACrashLeavesTheOldGenerationOrTheNew cuts the power after every operation
// of a change of generations.
func TestACrashLeavesTheOldGenerationOrTheNew(t *testing.T) {
	seen := map[int]int{}
	for stop := 0; ; stop++ {
		fsys := vfstest.NewMem()
		d := mustOpen(t, fsys)
		if err := errors.Join(makeGeneration(fsys, d, 1), d.SetCurrent(1, Began{Index: 10, Term: 1})); err != nil {
			t.Fatal(err)
		}
		ops, cut := 0, errors.New("power is off")
		fsys.Inject(func(vfstest.Op) error {
			if ops++; ops > stop {
				return cut
			}
			return nil
		})
		n, err := d.Next()
		if err == nil {
			err = makeGeneration(fsys, d, n)
		}
		if err == nil {
			err = d.SetCurrent(n, Began{Index: 20, Term: 1})
		}
		for _, image := range vfstest.Images {
			seen[checkImage(t, fsys.Crash(vfstest.Crash{Image: image}), stop)]++
		}
		if err == nil {
			break
		}
		if !errors.Is(err, cut) {
			t.Fatalf("after %d operations: %v", stop, err)
		}
	}
	if seen[1] == 0 || seen[2] == 0 {
		t.Fatalf("generations found: %v, want both", seen)
	}
}

func checkImage(t *testing.T, fsys vfs.FS, stop int) int {
	t.Helper()
	d, err := Open(fsys, "data")
	if err != nil {
		t.Fatalf("after %d operations: %v", stop, err)
	}
	defer d.Close()
	n, err := d.Current()
	if err != nil {
		t.Fatalf("after %d operations: %v", stop, err)
	}
	got, err := vfs.ReadFile(fsys, filepath.Join(d.Generation(n), "base"))
	if err != nil || string(got) != fmt.Sprint(n) {
		t.Fatalf("after %d operations generation %d holds %q, %v", stop, n, got, err)
	}
	if err := d.Tidy(); err != nil {
		t.Fatalf("after %d operations: %v", stop, err)
	}
	if began, err := d.Began(); err != nil || began == nil || *began != (Began{Index: ident.Index(10 * n), Term: 1}) {
		t.Fatalf("after %d operations generation %d began at %v, %v", stop, n, began, err)
	}
	names, err := fsys.List("data")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(names, func(s string) bool { return strings.HasPrefix(s, "gen-") && s != filepath.Base(d.Generation(n)) })
	if i >= 0 {
		t.Fatalf("after %d operations %s is still there beside generation %d", stop, names[i], n)
	}
	return n
}

func TestACurrentThatDoesNotSayWhereItBeganIsRead(t *testing.T) {
	fsys := vfstest.NewMem()
	d := mustOpen(t, fsys)
	if err := errors.Join(makeGeneration(fsys, d, 1), d.write(currentName, map[string]int{"Generation": 1}), d.Tidy()); err != nil {
		t.Fatal(err)
	}
	n, err := d.Current()
	if began, beganErr := d.Began(); n != 1 || began != nil || err != nil || beganErr != nil {
		t.Fatalf("generation %d began at %v: %v, %v", n, began, err, beganErr)
	}
}

func TestWhatAStartLeftHalfMadeIsRenamedAside(t *testing.T) {
	fsys := vfstest.NewMem()
	d := mustOpen(t, fsys)
	for round := range 3 {
		if err := errors.Join(makeGeneration(fsys, d, 1), fsys.MkdirAll(d.WAL()), d.SetAside()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if _, err := fsys.Stat(d.WAL()); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the log of round %d is still there: %v", round, err)
		}
	}
	names, err := fsys.List("data")
	if err != nil || len(names) != 1+2*3 {
		t.Fatalf("kept are %v, %v", names, err)
	}
}

// Two snapshots may be on their way at once: what becomes of one must not touch
// the other.
func TestAGenerationBeingMadeIsLeftAloneUntilItIsAbandoned(t *testing.T) {
	fsys := vfstest.NewMem()
	d := mustOpen(t, fsys)
	var made []int
	for range 3 {
		n, err := d.Next()
		if err == nil {
			err = makeGeneration(fsys, d, n)
		}
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, n)
	}
	exists := func(n int) bool {
		ok, err := vfs.Exists(fsys, d.Generation(n))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if err := d.SetCurrent(made[0], Began{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Abandon(made[1]); err != nil {
		t.Fatal(err)
	}
	if exists(made[1]) || !exists(made[2]) {
		t.Fatalf("the abandoned one is there: %v, the other: %v", exists(made[1]), exists(made[2]))
	}
	if err := d.SetCurrent(made[2], Began{}); err != nil {
		t.Fatal(err)
	}
	if exists(made[0]) || !exists(made[2]) {
		t.Fatalf("the replaced one is there: %v, the one in force: %v", exists(made[0]), exists(made[2]))
	}
}

// The rename of CURRENT shows at once, also when the sync after it fails. The
// next start goes on with what it shows, and so has to make it durable.
func TestACurrentWhoseSyncFailedIsDurableAfterTheNextStart(t *testing.T) {
	for _, full := range []bool{false, true} {
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		fsys := vfstest.NewMem()
		d := mustOpen(t, fsys)
		for n := 1; n <= 2; n++ {
			made, err := d.Next()
			check(err)
			check(makeGeneration(fsys, d, made))
			if made == 2 {
				renamed := false
				fsys.Inject(func(op vfstest.Op) error {
					renamed = renamed || op.Kind == vfstest.OpRename && op.To == filepath.Join(d.Path(), currentName)
					if renamed && op.Kind == vfstest.OpSyncDir {
						return syscall.EIO
					}
					return nil
				})
			}
			if err := d.SetCurrent(made, Began{}); (err != nil) != (made == 2) {
				t.Fatal(err)
			}
		}
		fsys.Inject(func(op vfstest.Op) error {
			if full && op.Kind == vfstest.OpWrite {
				return syscall.ENOSPC
			}
			return nil
		})
		check(d.Close())
		d = mustOpen(t, fsys)
		check(d.Tidy())
		after := fsys.Crash(vfstest.Crash{Image: vfstest.Nothing})
		d = mustOpen(t, after)
		n, err := d.Current()
		check(err)
		if there, err := vfs.Exists(after, d.Generation(n)); err != nil || !there || !full && n != 2 {
			t.Errorf("full %v: after a power cut generation %d is current, there %v, %v", full, n, there, err)
		}
	}
}

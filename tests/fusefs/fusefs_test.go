//go:build linux

package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// mountFor mounts a file system for one test. Without FUSE the test can not
// run, and says so.
func mountFor(t *testing.T) (*FS, string) {
	t.Helper()
	if err := Available(); err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	f, err := Mount(filepath.Join(dir, "mnt"), filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return f, filepath.Join(dir, "mnt")
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestItIsAFileSystem(t *testing.T) {
	_, dir := mountFor(t)
	n := 0
	vfstest.Conformance(t, func(t *testing.T) (vfs.FS, string) {
		n++
		sub := filepath.Join(dir, fmt.Sprint(n))
		check(t, os.Mkdir(sub, 0o700))
		return vfs.OS(), sub
	})
}

func TestAPowerCutTakesWhatNoSyncCovered(t *testing.T) {
	f, dir := mountFor(t)
	name := filepath.Join(dir, "a")
	check(t, vfs.ReplaceFile(vfs.OS(), name, []byte("synced")))
	file := must[vfs.File](t)(vfs.OS().OpenWrite(name))
	must[int](t)(file.WriteAt([]byte("SYN"), 0))
	must[int](t)(file.WriteAt(bytes.Repeat([]byte("x"), 3000), 6))
	check(t, os.WriteFile(filepath.Join(dir, "unnamed"), []byte("u"), 0o600))
	check(t, file.Close())
	if got := read(t, name); len(got) != 3006 {
		t.Fatalf("%d bytes before the cut", len(got))
	}
	check(t, f.DropUnsynced())
	if got := read(t, name); got != "synced" {
		t.Fatalf("%q after the cut", got)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("names after the cut: %v", got)
	}
	if f.Pending() != 0 {
		t.Fatalf("%d changes pending after the cut", f.Pending())
	}
}

func TestAPowerCutBringsBackNames(t *testing.T) {
	f, dir := mountFor(t)
	fsys := vfs.OS()
	for _, name := range []string{"kept", "replaced", "removed"} {
		check(t, vfs.ReplaceFile(fsys, filepath.Join(dir, name), []byte("old "+name)))
	}
	check(t, vfs.MakeFolder(fsys, filepath.Join(dir, "folder", "below")))
	check(t, vfs.ReplaceFile(fsys, filepath.Join(dir, "folder", "below", "deep"), []byte("deep")))
	check(t, vfs.ReplaceFile(fsys, filepath.Join(dir, "new"), []byte("new")))

	check(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "replaced")))
	check(t, os.Remove(filepath.Join(dir, "removed")))
	check(t, os.Rename(filepath.Join(dir, "folder"), filepath.Join(dir, "aside")))
	check(t, os.RemoveAll(filepath.Join(dir, "aside", "below")))
	if got := names(t, dir); !slices.Equal(got, []string{"aside", "kept", "replaced"}) {
		t.Fatalf("names before the cut: %v", got)
	}
	check(t, f.DropUnsynced())
	if got := names(t, dir); !slices.Equal(got, []string{"folder", "kept", "new", "removed", "replaced"}) {
		t.Fatalf("names after the cut: %v", got)
	}
	for _, name := range []string{"kept", "replaced", "removed"} {
		if got := read(t, filepath.Join(dir, name)); got != "old "+name {
			t.Fatalf("%s holds %q", name, got)
		}
	}
	if got := read(t, filepath.Join(dir, "folder", "below", "deep")); got != "deep" {
		t.Fatalf("the file in the folder that was removed holds %q", got)
	}
}

func TestSyncedNamesStay(t *testing.T) {
	f, dir := mountFor(t)
	fsys := vfs.OS()
	check(t, vfs.ReplaceFile(fsys, filepath.Join(dir, "a"), []byte("1")))
	check(t, vfs.ReplaceFile(fsys, filepath.Join(dir, "a"), []byte("2")))
	check(t, vfs.MakeFolder(fsys, filepath.Join(dir, "d")))
	check(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "d", "b")))
	check(t, fsys.SyncDir(filepath.Join(dir, "d")))
	check(t, fsys.SyncDir(dir))
	check(t, f.DropUnsynced())
	if got := read(t, filepath.Join(dir, "d", "b")); got != "2" {
		t.Fatalf("it holds %q", got)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"d"}) {
		t.Fatalf("names after the cut: %v", got)
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(f.stash)); len(left) != 0 {
		t.Fatalf("%v left in the stash", left)
	}
}

// The same changes, made to the file system in memory that the crash tests
// stand on, must leave the same after a cut.
func TestCutsLeaveWhatTheModelLeaves(t *testing.T) {
	for _, image := range []vfstest.Image{vfstest.Nothing, vfstest.Everything, vfstest.NoNames, vfstest.NoData} {
		t.Run(image.String(), func(t *testing.T) {
			f, dir := mountFor(t)
			for seed := range uint64(12) {
				mem := vfstest.NewMem()
				root := filepath.Join(dir, fmt.Sprint(seed))
				for _, fsys := range []vfs.FS{vfs.OS(), mem} {
					check(t, vfs.MakeFolder(fsys, root))
					scribble(t, fsys, root, rand.New(rand.NewPCG(seed, 7)))
				}
				check(t, f.PowerCut(image, seed))
				want, got := tree(t, mem.Crash(vfstest.Crash{Image: image}), root), tree(t, vfs.OS(), root)
				if got != want {
					t.Fatalf("seed %d\ngot:\n%swant:\n%s", seed, got, want)
				}
			}
		})
	}
}

// scribble changes files and names in one folder, syncing now and then.
func scribble(t *testing.T, fsys vfs.FS, dir string, rnd *rand.Rand) {
	t.Helper()
	for range 60 {
		name := filepath.Join(dir, string(rune('a'+rnd.IntN(4))))
		there := must[bool](t)(vfs.Exists(fsys, name))
		switch op := rnd.IntN(7); {
		case op == 0:
			check(t, fsys.SyncDir(dir))
		case op == 1 && there:
			check(t, fsys.Remove(name))
		case op == 2 && there:
			check(t, fsys.Rename(name, filepath.Join(dir, string(rune('a'+rnd.IntN(4))))))
		default:
			change(t, fsys, name, there, rnd)
		}
	}
}

func change(t *testing.T, fsys vfs.FS, name string, there bool, rnd *rand.Rand) {
	t.Helper()
	open := fsys.OpenWrite
	if !there {
		open = fsys.Create
	}
	file := must[vfs.File](t)(open(name))
	defer file.Close()
	switch rnd.IntN(4) {
	case 0:
		check(t, file.SyncData())
	case 1:
		check(t, file.Truncate(rnd.Int64N(5000)))
	default:
		b := bytes.Repeat([]byte{byte(1 + rnd.IntN(255))}, 1+rnd.IntN(2000))
		must[int](t)(file.WriteAt(b, rnd.Int64N(4000)))
	}
}

func tree(t *testing.T, fsys vfs.FS, dir string) string {
	t.Helper()
	there := must[bool](t)(vfs.Exists(fsys, dir))
	if !there {
		return "no folder\n"
	}
	var b strings.Builder
	for _, name := range must[[]string](t)(fsys.List(dir)) {
		fmt.Fprintf(&b, "%s %x\n", name, must[[]byte](t)(vfs.ReadFile(fsys, filepath.Join(dir, name))))
	}
	return b.String()
}

func TestPartialCutsLeaveOldOrNewSectors(t *testing.T) {
	f, dir := mountFor(t)
	name := filepath.Join(dir, "a")
	const sectors = 64
	mixed := 0
	for i, image := range []vfstest.Image{vfstest.Random, vfstest.Prefix, vfstest.Torn, vfstest.Random, vfstest.Prefix, vfstest.Torn} {
		check(t, vfs.ReplaceFile(vfs.OS(), name, bytes.Repeat([]byte("o"), sectors*sectorBytes)))
		file := must[vfs.File](t)(vfs.OS().OpenWrite(name))
		for at := range int64(8) {
			must[int](t)(file.WriteAt(bytes.Repeat([]byte("n"), 8*sectorBytes), at*8*sectorBytes))
		}
		check(t, file.Close())
		check(t, f.PowerCut(image, uint64(i)))
		got := read(t, name)
		if strings.Trim(got, "on") != "" || len(got) != sectors*sectorBytes {
			t.Fatalf("%s: neither old nor new", image)
		}
		if n := strings.Count(got, "n"); n > 0 && n < len(got) {
			mixed++
		}
		if image != vfstest.Random && strings.Contains(got, "on") {
			t.Fatalf("%s: something new behind something old", image)
		}
	}
	if mixed < 4 {
		t.Fatalf("only %d of 6 cuts left a part", mixed)
	}
}

func TestAFailedSyncIsFinal(t *testing.T) {
	f, dir := mountFor(t)
	name := filepath.Join(dir, "a")
	check(t, vfs.ReplaceFile(vfs.OS(), name, bytes.Repeat([]byte("o"), 2*sectorBytes)))
	file := must[vfs.File](t)(vfs.OS().OpenWrite(name))
	must[int](t)(file.WriteAt(bytes.Repeat([]byte("1"), sectorBytes), 0))
	f.Set(Rule{Match: "a", Op: Sync, Err: syscall.EIO, Times: 1})
	if err := file.SyncData(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	must[int](t)(file.WriteAt(bytes.Repeat([]byte("2"), sectorBytes), sectorBytes))
	check(t, file.SyncData())
	check(t, file.Close())
	if got := read(t, name); got[0] != '1' {
		t.Fatal("what was not synced is not visible any more")
	}
	check(t, f.PowerCut(vfstest.Everything, 1))
	if got := read(t, name); got[0] != 'o' || got[sectorBytes] != '2' {
		t.Fatalf("after the cut: %c %c", got[0], got[sectorBytes])
	}
	if f.Counters()["failed sync"] != 1 {
		t.Fatalf("counters: %v", f.Counters())
	}
}

func TestRulesHitWhatTheyName(t *testing.T) {
	f, dir := mountFor(t)
	name := filepath.Join(dir, "x.wal")
	file := must[vfs.File](t)(vfs.OS().Create(name))
	defer file.Close()
	f.Set(Rule{Match: "*.wal", Op: Write, Err: syscall.ENOSPC, After: 2})
	for i := range 4 {
		_, err := file.WriteAt([]byte("1234"), 0)
		if failed := errors.Is(err, syscall.ENOSPC); failed != (i >= 2) {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	f.Set(Rule{Op: Write, Err: syscall.EIO, Short: true})
	// The os package tries to write the rest, and tells only that this failed.
	if _, err := file.WriteAt([]byte("abcd"), 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("short write: %v", err)
	}
	f.Set(Rule{Match: "*.db", Err: syscall.EIO}, Rule{Op: Sync, Delay: 30 * time.Millisecond})
	start := time.Now()
	check(t, file.SyncData())
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Fatalf("a slow sync took %v", took)
	}
	f.Set()
	if got := read(t, name); got != "ab34" {
		t.Fatalf("the file holds %q", got)
	}
}

func TestAFlipIsSeenThroughTheCache(t *testing.T) {
	f, dir := mountFor(t)
	name := filepath.Join(dir, "a")
	check(t, vfs.ReplaceFile(vfs.OS(), name, []byte{1, 2, 3}))
	file := must[vfs.File](t)(vfs.OS().Open(name)) // Open all the time, so that its pages stay.
	defer file.Close()
	b := make([]byte, 3)
	must[int](t)(file.ReadAt(b, 0))
	check(t, f.Flip("a", 1, 7))
	must[int](t)(file.ReadAt(b, 0))
	if !bytes.Equal(b, []byte{1, 0x82, 3}) {
		t.Fatalf("read %x", b)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	return string(must[[]byte](t)(os.ReadFile(name)))
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	return must[[]string](t)(vfs.OS().List(dir))
}

var buildDir string // Of the programs under test.

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "holdfast-fusefs")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

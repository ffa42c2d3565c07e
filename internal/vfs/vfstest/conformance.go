package vfstest

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Conformance proves that a file system keeps the contract of vfs.FS, as far
// as it can be seen without losing power. dir is an empty folder in it.
func Conformance(t *testing.T, newFS func(t *testing.T) (fs vfs.FS, dir string)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, fs vfs.FS, dir string)
	}{
		{"create refuses a taken name and a missing folder", createRefuses},
		{"writes are read back, holes and ends as promised", writesReadBack},
		{"allocate grows with zeroes and never shrinks", allocateGrows},
		{"what truncate cut off does not come back", truncateForgets},
		{"a file opened for reading refuses changes", readersRefuse},
		{"an open file outlives its name", openFileOutlivesName},
		{"rename replaces and moves folders", renameReplaces},
		{"link gives a second name and never replaces", linkNeverReplaces},
		{"remove takes one file or an empty folder", removeTakesOne},
		{"list is sorted and stat tells kind and size", listIsSorted},
		{"a lock is exclusive until closed", lockIsExclusive},
		{"a replaced file is whole and leaves nothing beside it", replaceIsWhole},
		{"syncing folders and files works", syncs},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, dir := newFS(t)
			c.test(t, fs, dir)
		})
	}
}

func createRefuses(t *testing.T, fs vfs.FS, dir string) {
	f := create(t, fs, filepath.Join(dir, "a"))
	if f.Name() != filepath.Join(dir, "a") {
		t.Errorf("name is %q", f.Name())
	}
	_, err := fs.Create(filepath.Join(dir, "a"))
	wantIs(t, "create of a taken name", err, iofs.ErrExist)
	_, err = fs.Create(filepath.Join(dir, "none", "a"))
	wantIs(t, "create in a missing folder", err, iofs.ErrNotExist)
	_, err = fs.Open(filepath.Join(dir, "b"))
	wantIs(t, "open of a missing file", err, iofs.ErrNotExist)
	_, err = fs.OpenWrite(filepath.Join(dir, "b"))
	wantIs(t, "open of a missing file for writing", err, iofs.ErrNotExist)
}

func writesReadBack(t *testing.T, fs vfs.FS, dir string) {
	f := create(t, fs, filepath.Join(dir, "a"))
	write(t, f, []byte("world"), 5000)
	write(t, f, []byte("hello"), 0)
	want := make([]byte, 5005)
	copy(want, "hello")
	copy(want[5000:], "world")
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Errorf("contents differ: %d bytes", len(got))
	}
	p := make([]byte, 10)
	if n, err := f.ReadAt(p, 5000); n != 5 || !errors.Is(err, io.EOF) {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(p, 9000); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read beyond the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(p[:5], 5000); n != 5 || err != nil {
		t.Errorf("read up to the end: %d, %v", n, err)
	}
}

func allocateGrows(t *testing.T, fs vfs.FS, dir string) {
	f := create(t, fs, filepath.Join(dir, "a"))
	write(t, f, []byte("x"), 0)
	ok(t, f.Allocate(3<<20))
	ok(t, f.Allocate(10))
	want := make([]byte, 3<<20)
	want[0] = 'x'
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Errorf("contents differ: %d bytes", len(got))
	}
}

func truncateForgets(t *testing.T, fs vfs.FS, dir string) {
	f := create(t, fs, filepath.Join(dir, "a"))
	write(t, f, bytes.Repeat([]byte("x"), 10000), 0)
	ok(t, f.Truncate(3))
	ok(t, f.Truncate(10000))
	want := make([]byte, 10000)
	copy(want, "xxx")
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Error("cut bytes came back")
	}
}

func readersRefuse(t *testing.T, fs vfs.FS, dir string) {
	create(t, fs, filepath.Join(dir, "a"))
	f, err := fs.Open(filepath.Join(dir, "a"))
	ok(t, err)
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("write was taken")
	}
	if f.Truncate(1) == nil || f.Allocate(1) == nil {
		t.Error("resize was taken")
	}
	ok(t, f.Close())
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, iofs.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if f.SyncData() == nil {
		t.Error("sync after close was taken")
	}
}

func openFileOutlivesName(t *testing.T, fs vfs.FS, dir string) {
	f := create(t, fs, filepath.Join(dir, "a"))
	ok(t, fs.Remove(filepath.Join(dir, "a")))
	write(t, f, []byte("still"), 0)
	if got := contents(t, f); string(got) != "still" {
		t.Errorf("got %q", got)
	}
}

func renameReplaces(t *testing.T, fs vfs.FS, dir string) {
	write(t, create(t, fs, filepath.Join(dir, "a")), []byte("new"), 0)
	write(t, create(t, fs, filepath.Join(dir, "b")), []byte("old"), 0)
	ok(t, fs.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	wantRead(t, fs, filepath.Join(dir, "b"), "new")
	_, err := fs.Stat(filepath.Join(dir, "a"))
	wantIs(t, "stat of the old name", err, iofs.ErrNotExist)

	ok(t, fs.MkdirAll(filepath.Join(dir, "x", "y")))
	ok(t, fs.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "x", "y", "c")))
	ok(t, fs.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "z")))
	wantRead(t, fs, filepath.Join(dir, "z", "y", "c"), "new")
	err = fs.Rename(filepath.Join(dir, "none"), filepath.Join(dir, "z"))
	wantIs(t, "rename of a missing file", err, iofs.ErrNotExist)
	create(t, fs, filepath.Join(dir, "f"))
	if fs.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "z")) == nil {
		t.Error("a file replaced a folder")
	}
	if fs.Rename(filepath.Join(dir, "z"), filepath.Join(dir, "z", "y", "z")) == nil {
		t.Error("a folder went into itself")
	}
}

func linkNeverReplaces(t *testing.T, fs vfs.FS, dir string) {
	write(t, create(t, fs, filepath.Join(dir, "a")), []byte("one"), 0)
	write(t, create(t, fs, filepath.Join(dir, "b")), []byte("two"), 0)
	err := fs.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b"))
	wantIs(t, "link to a taken name", err, iofs.ErrExist)
	wantRead(t, fs, filepath.Join(dir, "b"), "two")
	err = fs.Link(filepath.Join(dir, "a"), filepath.Join(dir, "c"))
	if errors.Is(err, iofs.ErrPermission) { // A file system without second names says so, and changes nothing.
		_, err := fs.Stat(filepath.Join(dir, "c"))
		wantIs(t, "look at a link that was refused", err, iofs.ErrNotExist)
		return
	}
	ok(t, err)
	ok(t, fs.Remove(filepath.Join(dir, "a")))
	wantRead(t, fs, filepath.Join(dir, "c"), "one")
	err = fs.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d"))
	wantIs(t, "link of a missing file", err, iofs.ErrNotExist)
	err = fs.Link(filepath.Join(dir, "b"), filepath.Join(dir, "none", "b"))
	wantIs(t, "link into a missing folder", err, iofs.ErrNotExist)
	ok(t, fs.MkdirAll(filepath.Join(dir, "x")))
	wantIs(t, "link over a folder", fs.Link(filepath.Join(dir, "b"), filepath.Join(dir, "x")), iofs.ErrExist)
	if fs.Link(filepath.Join(dir, "x"), filepath.Join(dir, "y")) == nil {
		t.Error("a folder got a second name")
	}
}

func removeTakesOne(t *testing.T, fs vfs.FS, dir string) {
	ok(t, fs.MkdirAll(filepath.Join(dir, "x", "y")))
	create(t, fs, filepath.Join(dir, "x", "y", "a"))
	if fs.Remove(filepath.Join(dir, "x")) == nil {
		t.Error("a full folder was removed")
	}
	wantIs(t, "remove of a missing file", fs.Remove(filepath.Join(dir, "q")), iofs.ErrNotExist)
	ok(t, fs.Remove(filepath.Join(dir, "x", "y", "a")))
	ok(t, fs.Remove(filepath.Join(dir, "x", "y")))
	create(t, fs, filepath.Join(dir, "x", "b"))
	ok(t, fs.RemoveAll(filepath.Join(dir, "x")))
	ok(t, fs.RemoveAll(filepath.Join(dir, "x")))
	_, err := fs.Stat(filepath.Join(dir, "x"))
	wantIs(t, "stat of a removed tree", err, iofs.ErrNotExist)
}

func listIsSorted(t *testing.T, fs vfs.FS, dir string) {
	for _, name := range []string{"c", "a", "b"} {
		write(t, create(t, fs, filepath.Join(dir, name)), []byte("12345"), 0)
	}
	ok(t, fs.MkdirAll(filepath.Join(dir, "d")))
	ok(t, fs.MkdirAll(filepath.Join(dir, "d")))
	names, err := fs.List(dir)
	ok(t, err)
	if !slices.Equal(names, []string{"a", "b", "c", "d"}) {
		t.Errorf("got %q", names)
	}
	info, err := fs.Stat(filepath.Join(dir, "a"))
	ok(t, err)
	if info.Size != 5 || info.IsDir || info.Mode != 0o600 {
		t.Errorf("file is %+v", info)
	}
	info, err = fs.Stat(filepath.Join(dir, "d"))
	ok(t, err)
	if !info.IsDir || info.Mode != 0o700 {
		t.Errorf("folder is %+v", info)
	}
	_, err = fs.List(filepath.Join(dir, "none"))
	wantIs(t, "list of a missing folder", err, iofs.ErrNotExist)
	if free, err := fs.Free(dir); err != nil || free <= 0 {
		t.Errorf("free is %d, %v", free, err)
	}
}

func lockIsExclusive(t *testing.T, fs vfs.FS, dir string) {
	name := filepath.Join(dir, "LOCK")
	held, err := fs.Lock(name)
	ok(t, err)
	_, err = fs.Lock(name)
	wantIs(t, "second lock", err, vfs.ErrLocked)
	ok(t, held.Close())
	held, err = fs.Lock(name)
	ok(t, err)
	ok(t, held.Close())
}

func replaceIsWhole(t *testing.T, fs vfs.FS, dir string) {
	name := filepath.Join(dir, "CURRENT")
	ok(t, vfs.ReplaceFile(fs, name, []byte("one")))
	write(t, create(t, fs, name+".tmp"), []byte("left by a crash"), 0)
	ok(t, vfs.ReplaceFile(fs, name, []byte("two")))
	wantRead(t, fs, name, "two")
	names, err := fs.List(dir)
	ok(t, err)
	if !slices.Equal(names, []string{"CURRENT"}) {
		t.Errorf("folder holds %q", names)
	}
	if there, err := vfs.Exists(fs, name); err != nil || !there {
		t.Errorf("exists: %v, %v", there, err)
	}
}

func syncs(t *testing.T, fs vfs.FS, dir string) {
	f := create(t, fs, filepath.Join(dir, "a"))
	write(t, f, []byte("x"), 0)
	ok(t, f.SyncData())
	ok(t, fs.SyncDir(dir))
	if fs.SyncDir(filepath.Join(dir, "none")) == nil {
		t.Error("a missing folder was synced")
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func create(t *testing.T, fs vfs.FS, name string) vfs.File {
	t.Helper()
	f, err := fs.Create(name)
	ok(t, err)
	t.Cleanup(func() { ok(t, f.Close()) })
	return f
}

func write(t *testing.T, f vfs.File, data []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(data, off); n != len(data) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(data), err)
	}
}

func contents(t *testing.T, f vfs.File) []byte {
	t.Helper()
	size, err := f.Size()
	ok(t, err)
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); int64(n) != size || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read %d of %d bytes: %v", n, size, err)
	}
	return data
}

func wantRead(t *testing.T, fs vfs.FS, name, want string) {
	t.Helper()
	got, err := vfs.ReadFile(fs, name)
	ok(t, err)
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", name, got, want)
	}
}

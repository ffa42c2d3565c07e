package vfstest_test

import (
	"bytes"
	"errors"
	iofs "io/fs"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func TestBothFileSystemsKeepTheContract(t *testing.T) {
	t.Run("os", func(t *testing.T) {
		vfstest.Conformance(t, func(t *testing.T) (vfs.FS, string) { return vfs.OS(), t.TempDir() })
	})
	t.Run("mem", func(t *testing.T) {
		vfstest.Conformance(t, func(t *testing.T) (vfs.FS, string) {
			m := vfstest.NewMem()
			if err := m.MkdirAll("some/where"); err != nil {
				t.Fatal(err)
			}
			return m, "some/where"
		})
	})
}

// put writes without syncing.
func put(t *testing.T, fs vfs.FS, name, data string) vfs.File {
	t.Helper()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(data), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// look returns the contents, or "-" when there is no such file.
func look(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	data, err := vfs.ReadFile(fs, name)
	if errors.Is(err, iofs.ErrNotExist) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWhatEachCrashImageLeavesOfARename(t *testing.T) {
	m := vfstest.NewMem()
	f := put(t, m, "a", "old")
	must(t, f.SyncData(), m.SyncDir("."))
	put(t, m, "a.tmp", "new") // Forgets to sync: the bug that the images show.
	must(t, m.Rename("a.tmp", "a"))

	for image, want := range map[vfstest.Image]string{
		vfstest.Nothing:    "old",
		vfstest.Everything: "new",
		vfstest.NoNames:    "old",
		vfstest.NoData:     "",
	} {
		if got := look(t, m.Crash(vfstest.Crash{Image: image}), "a"); got != want {
			t.Errorf("%v: %q, want %q", image, got, want)
		}
	}
	if n := m.Pending(); n != 3 {
		t.Fatalf("%d changes pending, want create, write and rename", n)
	}
	for keep, want := range []string{"old -", "old ", "old new", "new -"} {
		c := m.Crash(vfstest.Crash{Image: vfstest.Prefix, Keep: keep})
		if got := look(t, c, "a") + " " + look(t, c, "a.tmp"); got != want {
			t.Errorf("prefix of %d: %q, want %q", keep, got, want)
		}
	}
}

func TestReplaceLeavesOldOrNewInEveryImage(t *testing.T) {
	for _, image := range vfstest.Images {
		rng := rand.New(rand.NewPCG(7, uint64(image)))
		m := vfstest.NewMem()
		must(t, vfs.ReplaceFile(m, "a", bytes.Repeat([]byte("o"), 2000)))
		durable := false
		m.Inject(func(op vfstest.Op) error {
			for range 5 {
				c := m.Crash(vfstest.Crash{Image: image, Keep: -1, Rand: rng})
				got := look(t, c, "a")
				if len(got) != 2000 || strings.Count(got, got[:1]) != 2000 || durable && got[0] != 'n' {
					t.Fatalf("%v, crash before %v: %d bytes", image, op, len(got))
				}
			}
			return nil
		})
		must(t, vfs.ReplaceFile(m, "a", bytes.Repeat([]byte("n"), 2000)))
		durable = true
		_, err := m.Stat("a")
		must(t, err)
	}
}

func TestASyncedFileInAnUnsyncedFolderIsLost(t *testing.T) {
	m := vfstest.NewMem()
	must(t, m.MkdirAll("wal"))
	f := put(t, m, "wal/1", "x")
	must(t, f.SyncData(), m.SyncDir("wal"))
	if got := look(t, m.Crash(vfstest.Crash{}), "wal/1"); got != "-" {
		t.Errorf("found %q", got)
	}
	must(t, m.SyncDir("."))
	if got := look(t, m.Crash(vfstest.Crash{}), "wal/1"); got != "x" {
		t.Errorf("found %q", got)
	}
}

func TestRandomImagesDifferBySectorAndRepeatBySeed(t *testing.T) {
	m := vfstest.NewMem()
	f := put(t, m, "a", strings.Repeat("o", 4096))
	must(t, f.SyncData(), m.SyncDir("."))
	if _, err := f.WriteAt(bytes.Repeat([]byte("n"), 4096), 0); err != nil {
		t.Fatal(err)
	}
	images := map[string]bool{}
	for seed := range uint64(20) {
		draw := func() string {
			return look(t, m.Crash(vfstest.Crash{Image: vfstest.Random, Rand: rand.New(rand.NewPCG(seed, 0))}), "a")
		}
		got := draw()
		if got != draw() {
			t.Fatalf("seed %d gives two images", seed)
		}
		for at := 0; at < len(got); at += 512 {
			if strings.Count(got[at:at+512], got[at:at+1]) != 512 {
				t.Fatalf("seed %d: the sector at %d is mixed", seed, at)
			}
		}
		images[got] = true
	}
	if len(images) < 15 {
		t.Errorf("only %d different images of 20", len(images))
	}
}

func TestTornKeepsAllButTheEndOfTheLastWrite(t *testing.T) {
	m := vfstest.NewMem()
	f := put(t, m, "a", "first")
	if _, err := f.WriteAt([]byte("second"), 5); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(10) {
		got := look(t, m.Crash(vfstest.Crash{Image: vfstest.Torn, Rand: rand.New(rand.NewPCG(seed, 0))}), "a")
		if !strings.HasPrefix("firstsecond", got) || len(got) < 5 || len(got) > 10 {
			t.Errorf("seed %d: %q", seed, got)
		}
	}
}

func TestAFailedSyncLosesItsPagesForEver(t *testing.T) {
	m := vfstest.NewMem()
	f := put(t, m, "a", "x")
	must(t, m.SyncDir("."))
	m.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpSync {
			return syscall.EIO
		}
		return nil
	})
	if err := f.SyncData(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	m.Inject(nil)
	must(t, f.SyncData()) // The second sync says that all is well; it lies.
	if got := look(t, m, "a"); got != "x" {
		t.Errorf("live: %q", got)
	}
	if got := look(t, m.Crash(vfstest.Crash{Image: vfstest.Everything}), "a"); got != "" {
		t.Errorf("after a crash: %q", got)
	}
}

func TestAShortWriteLeavesItsPart(t *testing.T) {
	m := vfstest.NewMem()
	m.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpWrite {
			return &vfstest.Short{Bytes: 2, Err: syscall.ENOSPC}
		}
		return nil
	})
	f, err := m.Create("a")
	must(t, err)
	if n, err := f.WriteAt([]byte("abcd"), 0); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d, %v", n, err)
	}
	if got := look(t, m, "a"); got != "ab" {
		t.Errorf("file holds %q", got)
	}
}

func TestAFlippedBitIsOnDiskAndInMemory(t *testing.T) {
	m := vfstest.NewMem()
	f := put(t, m, "a", "aaa")
	must(t, m.SyncDir("."), m.Flip("a", 1, 1))
	if got := look(t, m, "a"); got != "aca" {
		t.Errorf("live: %q", got)
	}
	must(t, f.SyncData())
	if got := look(t, m.Crash(vfstest.Crash{}), "a"); got != "aca" {
		t.Errorf("after a crash: %q", got)
	}
	if m.Flip("a", 3, 0) == nil {
		t.Error("a bit beyond the end was flipped")
	}
}

func TestTheTranscriptShowsTheOrderOfSyncs(t *testing.T) {
	m := vfstest.NewMem()
	must(t, m.MkdirAll("x"))
	m.Record()
	must(t, vfs.ReplaceFile(m, "x/a", []byte("new")))
	want := `remove x/a.tmp
create x/a.tmp
write  x/a.tmp 3
sync   x/a.tmp
rename x/a.tmp x/a
sync   x/
`
	if got := m.Transcript(); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestAFolderIsDurableThoughItsFirstMakerWasKilled(t *testing.T) {
	for stop := 0; ; stop++ {
		m, changes, hit := vfstest.NewMem(), 0, false
		m.Inject(func(op vfstest.Op) error {
			if op.Kind != vfstest.OpMkdir && op.Kind != vfstest.OpSyncDir {
				return nil
			}
			if changes++; changes-1 < stop {
				return nil
			}
			hit = true
			return &vfstest.Kept{Err: syscall.EIO} // Nothing happens any more.
		})
		err := vfs.MakeFolder(m, "a/b/c")
		if hit == (err == nil) {
			t.Fatalf("killed %v, %v", hit, err)
		}
		m.Inject(nil)
		if err := vfs.MakeFolder(m, "a/b/c"); err != nil {
			t.Fatal(err)
		}
		if there, err := vfs.Exists(m.Crash(vfstest.Crash{Image: vfstest.Nothing}), "a/b/c"); err != nil || !there {
			t.Fatalf("killed after %d calls, made again: there after a power cut %v, %v", stop, there, err)
		}
		if !hit {
			return
		}
	}
}

// A sync that fails leaves a folder whose name is not durable. The next call must
// not take it for done.
func TestAFolderIsDurableOnceMakeFolderReturns(t *testing.T) {
	for fail := range 4 {
		m := vfstest.NewMem()
		n := 0
		m.Inject(func(op vfstest.Op) error {
			if op.Kind != vfstest.OpSyncDir {
				return nil
			}
			if n++; n == fail+1 {
				return errors.New("no")
			}
			return nil
		})
		if err := vfs.MakeFolder(m, "a/b/c"); err == nil {
			t.Fatal("a failed sync goes unnoticed")
		}
		if err := vfs.MakeFolder(m, "a/b/c"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Crash(vfstest.Crash{Image: vfstest.Nothing}).Stat("a/b/c"); err != nil {
			t.Errorf("sync %d failed at first, and the folder is lost in a crash: %v", fail, err)
		}
	}
}

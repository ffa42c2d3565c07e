package blobstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
	"github.com/holdfast-db/holdfast/snapshot/blobstore/blobstoretest"
)

func TestMain(m *testing.M) { blobstoretest.Main(m) }

func TestAFolderKeepsThePromises(t *testing.T) {
	blobstoretest.Conformance(t, func(t *testing.T) blobstoretest.Place {
		url := "file://" + t.TempDir()
		return blobstoretest.Place{URL: url, Open: func() blobstore.Store { return openStore(t, url, blobstore.Config{}) }}
	})
}

func TestAFolderOnAFileSystemInMemoryKeepsThePromises(t *testing.T) {
	blobstoretest.Conformance(t, func(t *testing.T) blobstoretest.Place {
		cfg := blobstore.Config{FS: vfstest.NewMem(), Create: true}
		return blobstoretest.Place{Open: func() blobstore.Store { return openStore(t, "file:///store", cfg) }}
	})
}

func TestMemoryKeepsThePromises(t *testing.T) {
	blobstoretest.Conformance(t, func(t *testing.T) blobstoretest.Place {
		m := blobstoretest.NewMemory(clock.Real())
		return blobstoretest.Place{Open: func() blobstore.Store { return m }}
	})
}

func openStore(t *testing.T, url string, cfg blobstore.Config) blobstore.Store {
	t.Helper()
	s, err := blobstore.Open(t.Context(), url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, s blobstore.Store, name string) string {
	t.Helper()
	data, _, err := s.Get(t.Context(), name)
	if errors.Is(err, blobstore.ErrNotFound) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func list(t *testing.T, s blobstore.Store) []string {
	t.Helper()
	var names []string
	err := s.List(t.Context(), "", "", func(o blobstore.Object) error {
		names = append(names, o.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFilesOfAStoreAreSyncedInThisOrder(t *testing.T) {
	mem := vfstest.NewMem()
	s := openStore(t, "file:///store", blobstore.Config{FS: mem, Create: true})
	put := func(data string, c blobstore.Condition) blobstore.Tag {
		mem.Record()
		tag, err := s.Put(t.Context(), "a/b", []byte(data), c)
		if err != nil {
			t.Fatal(err)
		}
		return tag
	}
	put("first", blobstore.Condition{}) // Makes what is made once.
	for _, c := range []struct {
		name string
		run  func()
		want string
	}{
		{"match", func() {
			_, tag, err := s.Get(t.Context(), "a/b")
			if err != nil {
				t.Fatal(err)
			}
			put("second", blobstore.Condition{Match: tag})
		}, `
create /store/~tmp/1/2
write  /store/~tmp/1/2 6
sync   /store/~tmp/1/2
lock   /store/~lock
sync   /store/
rename /store/~tmp/1/2 /store/a/b
sync   /store/a/
remove /store/~tmp/1/2
`},
		{"delete", func() {
			mem.Record()
			if err := s.Delete(t.Context(), "a/b"); err != nil {
				t.Fatal(err)
			}
		}, `
lock   /store/~lock
remove /store/a/b
sync   /store/a/
remove /store/a
`},
		{"absent", func() { put("third", blobstore.Condition{Absent: true}) }, `
create /store/~tmp/1/3
write  /store/~tmp/1/3 5
sync   /store/~tmp/1/3
sync   //
mkdir  /store/a
sync   /store/
link   /store/~tmp/1/3 /store/a/b
sync   /store/a/
remove /store/~tmp/1/3
`},
	} {
		c.run()
		if got := mem.Transcript(); got != strings.TrimPrefix(c.want, "\n") {
			t.Errorf("%s:\n%s", c.name, got)
		}
	}
}

// TestACrashOfAFolderLeavesTheOldObjectOrTheNew takes images of a power cut
// before each call to the file system, and after the last.
func TestACrashOfAFolderLeavesTheOldObjectOrTheNew(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	for _, image := range vfstest.Images {
		rng := rand.New(rand.NewPCG(seed, uint64(image)))
		for _, verb := range []string{"absent", "match", "delete"} {
			crashDuring(t, image, rng, verb)
		}
	}
}

func crashDuring(t *testing.T, image vfstest.Image, rng *rand.Rand, verb string) {
	old, young := strings.Repeat("o", 2000), strings.Repeat("n", 3000)
	mem := vfstest.NewMem()
	s := openStore(t, "file:///store", blobstore.Config{FS: mem, Create: true})
	before, after := "-", young
	var tag blobstore.Tag
	if verb != "absent" {
		before = old
		var err error
		if tag, err = s.Put(t.Context(), "tl/1/x", []byte(old), blobstore.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	returned := false
	look := func(op vfstest.Op) error {
		for range 3 {
			crashed := mem.Crash(vfstest.Crash{Image: image, Keep: -1, Rand: rng})
			s := openStore(t, "file:///store", blobstore.Config{FS: crashed, Create: true})
			if got := get(t, s, "tl/1/x"); got != after && (returned || got != before) {
				t.Fatalf("%s, %v, crash before %v: object of %d bytes", verb, image, op, len(got))
			}
			if _, err := s.Put(t.Context(), "tl/1/y", []byte("y"), blobstore.Condition{Absent: true}); err != nil {
				t.Fatal(err)
			}
			if names := list(t, s); !slices.Contains(names, "tl/1/y") || len(names) > 2 {
				t.Fatalf("%s, %v, crash before %v: listed %q", verb, image, op, names)
			}
			wantScratch(t, crashed, 1)
		}
		return nil
	}
	mem.Inject(look)
	var err error
	switch verb {
	case "absent":
		_, err = s.Put(t.Context(), "tl/1/x", []byte(young), blobstore.Condition{Absent: true})
	case "match":
		_, err = s.Put(t.Context(), "tl/1/x", []byte(young), blobstore.Condition{Match: tag})
	case "delete":
		after = "-"
		err = s.Delete(t.Context(), "tl/1/x")
	}
	mem.Inject(nil)
	if err != nil {
		t.Fatal(err)
	}
	returned = true
	if err := look(vfstest.Op{Kind: "the end"}); err != nil {
		t.Fatal(err)
	}
}

// wantScratch counts the folders of open stores, and wants them to hold their
// lock and nothing else.
func wantScratch(t *testing.T, fs vfs.FS, want int) {
	t.Helper()
	names, err := fs.List("/store/~tmp")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != want {
		t.Fatalf("~tmp holds %q, want %d folders", names, want)
	}
	for _, name := range names {
		if files, err := fs.List("/store/~tmp/" + name); err != nil || len(files) != 1 {
			t.Fatalf("~tmp/%s holds %q, %v", name, files, err)
		}
	}
}

func TestFilesOfALivingProcessStayAndThoseOfADeadOneGo(t *testing.T) {
	mem := vfstest.NewMem()
	cfg := blobstore.Config{FS: mem, Create: true}
	put := func(s blobstore.Store, name string) {
		if _, err := s.Put(t.Context(), name, []byte("x"), blobstore.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	one, two := openStore(t, "file:///store", cfg), openStore(t, "file:///store", cfg)
	put(one, "a")
	var during []string
	mem.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpSync { // One is at work while two comes along.
			mem.Inject(nil)
			put(two, "c")
			during, _ = mem.List("/store/~tmp/1")
		}
		return nil
	})
	put(one, "b")
	if len(during) != 2 {
		t.Errorf("the file of the one that lives went: %q", during)
	}
	wantScratch(t, mem, 2)
	if err := errors.Join(one.Close(), two.Close()); err != nil {
		t.Fatal(err)
	}
	wantScratch(t, mem, 0)

	// What a killed process leaves: a folder whose lock nobody holds.
	if err := mem.MkdirAll("/store/~tmp/7"); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Create("/store/~tmp/7/3"); err != nil {
		t.Fatal(err)
	}
	three := openStore(t, "file:///store", cfg)
	put(three, "d")
	wantScratch(t, mem, 1)
	if got := list(t, three); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("listed %q", got)
	}
}

func TestErrorsOfTheFileSystemAreNamedWithTheMend(t *testing.T) {
	for _, c := range []struct {
		kind vfstest.Kind
		err  error
		want string
	}{
		{vfstest.OpWrite, syscall.ENOSPC, "make room"},
		{vfstest.OpSync, syscall.EDQUOT, "make room"},
		{vfstest.OpSync, syscall.EIO, "input/output error"},
		{vfstest.OpLink, syscall.EPERM, "hard links"},
		{vfstest.OpLink, syscall.EOPNOTSUPP, "hard links"},
		{vfstest.OpCreate, syscall.EACCES, "give the user of this process the right"},
		{vfstest.OpCreate, syscall.EROFS, "mount it for writing"},
		{vfstest.OpSyncDir, syscall.EIO, "input/output error"},
	} {
		mem := vfstest.NewMem()
		s := openStore(t, "file:///store", blobstore.Config{FS: mem, Create: true})
		if _, err := s.Put(t.Context(), "a/x", []byte("x"), blobstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		mem.Inject(func(op vfstest.Op) error {
			if op.Kind == c.kind {
				return c.err
			}
			return nil
		})
		_, err := s.Put(t.Context(), "a/b", []byte("data"), blobstore.Condition{Absent: true})
		mem.Inject(nil)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "a/b in file:///store") {
			t.Errorf("%s fails with %v: %v", c.kind, c.err, err)
		}
		if got := list(t, s); len(got) > 1 && c.kind != vfstest.OpSyncDir {
			t.Errorf("%s fails with %v: listed %q", c.kind, c.err, got)
		}
		wantScratch(t, mem, 1) // Nothing is left of the try.
	}
}

func TestAFolderThatIsNotMountedIsNoEmptyStore(t *testing.T) {
	mem := vfstest.NewMem()
	s := openStore(t, "file:///mnt/store", blobstore.Config{FS: mem, Create: true})
	if _, err := s.Put(t.Context(), "a", []byte("x"), blobstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	if err := mem.Rename("/mnt/store", "/mnt/elsewhere"); err != nil {
		t.Fatal(err)
	}
	_, _, getErr := s.Get(t.Context(), "a")
	_, putErr := s.Put(t.Context(), "b", nil, blobstore.Condition{})
	for verb, err := range map[string]error{
		"get": getErr, "put": putErr, "delete": s.Delete(t.Context(), "a"),
		"list": s.List(t.Context(), "", "", func(blobstore.Object) error { return nil }),
	} {
		if err == nil || errors.Is(err, blobstore.ErrNotFound) || !strings.Contains(err.Error(), "mount it") {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if ok, _ := vfs.Exists(mem, "/mnt/store"); ok {
		t.Error("the folder was made again")
	}
}

func TestAnObjectIsNoFolderOfAnother(t *testing.T) {
	s := openStore(t, "file://"+t.TempDir(), blobstore.Config{})
	if _, err := s.Put(t.Context(), "a/b", []byte("x"), blobstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a/b/c"} {
		for _, c := range []blobstore.Condition{{}, {Absent: true}} {
			_, err := s.Put(t.Context(), name, []byte("y"), c)
			if err == nil || errors.Is(err, blobstore.ErrCondition) || !strings.Contains(err.Error(), "folder") {
				t.Errorf("%s, %+v: %v", name, c, err)
			}
		}
	}
	if got := get(t, s, "a/b"); got != "x" {
		t.Errorf("a/b is %q", got)
	}
}

func TestFilesOfOthersInAFolderAreNeitherListedNorTouched(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"notes (old).txt": "mine", "lost+found/x": "mine", "a/~b": "mine"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, "file://"+dir, blobstore.Config{})
	if _, err := s.Put(t.Context(), "a/b", []byte("x"), blobstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("listed %q", got)
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a/~b")); err != nil || string(data) != "mine" {
		t.Errorf("found %q, %v", data, err)
	}
}

func TestAFileThatIsTooLargeForAnObjectIsNotRead(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(blobstore.MaxObject+1), f.Close()); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, "file://"+dir, blobstore.Config{})
	if _, _, err := s.Get(t.Context(), "huge"); err == nil || !strings.Contains(err.Error(), "nobody wrote it") {
		t.Errorf("got %v", err)
	}
}

func TestAReaderNeedsNoRightToWrite(t *testing.T) {
	mem := vfstest.NewMem()
	s := openStore(t, "file:///store", blobstore.Config{FS: mem, Create: true})
	if _, err := s.Put(t.Context(), "a", []byte("x"), blobstore.Condition{}); err != nil {
		t.Fatal(err)
	}
	mem.Inject(func(op vfstest.Op) error {
		if op.Changes() {
			return fmt.Errorf("%v: %w", op, syscall.EROFS)
		}
		return nil
	})
	defer mem.Inject(nil)
	reader := openStore(t, "file:///store", blobstore.Config{FS: mem})
	if got := get(t, reader, "a"); got != "x" {
		t.Errorf("got %q", got)
	}
	if got := list(t, reader); !slices.Equal(got, []string{"a"}) {
		t.Errorf("listed %q", got)
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
}

func TestAListThatMeetsAHugeFolderLooksAtWhatIsMeant(t *testing.T) {
	mem := vfstest.NewMem()
	s := openStore(t, "file:///store", blobstore.Config{FS: mem, Create: true})
	for i := range 500 {
		if _, err := s.Put(t.Context(), fmt.Sprintf("log/%04d", i), nil, blobstore.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	stats := 0
	mem.Inject(func(op vfstest.Op) error {
		if op.Kind == vfstest.OpStat {
			stats++
		}
		return nil
	})
	defer mem.Inject(nil)
	stop := errors.New("stop")
	err := s.List(t.Context(), "log/", "log/0200", func(o blobstore.Object) error {
		if o.Name == "log/0205" {
			return stop
		}
		return nil
	})
	if err != stop || stats > 6 {
		t.Errorf("looked at %d files for 5, %v", stats, err)
	}
}

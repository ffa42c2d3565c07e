package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

func TestAFreshBaseStaysUnder40KiB(t *testing.T) {
	db := create(t, testConfig(t))
	for i := range 20 { // Checkpoints of an idle member must not make it grow.
		meta := db.Meta()
		meta.Applied.Index = ident.Index(i)
		if _, err := db.Checkpoint(nil, meta); err != nil {
			t.Fatal(err)
		}
	}
	if file, inUse := db.Sizes(); file > 40<<10 || inUse <= 0 || inUse > file {
		t.Fatalf("%d bytes, %d in use", file, inUse)
	}
}

func TestACheckpointKeepsWhatMergesKeep(t *testing.T) {
	cfg := testConfig(t)
	db := create(t, cfg)
	point := Point{Position: ident.Position{Index: 5, Group: 2}, Revision: 4}
	if err := db.Merge([]KeyChange{{[]byte("a"), keyValue("a", 3, "x", 1)}}, &point); err != nil {
		t.Fatal(err)
	}
	merged := db.Meta()
	id, err := db.Checkpoint([]RowChange{
		{TableLease, []byte("1"), []byte("old")}, {TableUser, []byte("1"), []byte{}},
		{TableLease, []byte("1"), []byte("new")}, {TableAlarm, []byte("x"), nil},
	}, Meta{Revision: 9, Applied: ident.Position{Index: 8}, ConfState: []byte("conf"), HistoryMark: []byte("mark"), Rows: 77, Timeline: 3})
	if err != nil || id != db.TxID() || id != 3 {
		t.Fatalf("transaction %d: %v", id, err)
	}
	want := merged
	want.Revision, want.Applied.Index, want.Applied.Group = 9, 8, 0
	want.ConfState, want.HistoryMark, want.Timeline, want.Cluster = []byte("conf"), []byte("mark"), 3, 0
	if got := db.Meta(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("\n%v\n%v", got, want)
	}
	var got []string
	v := db.View()
	defer v.Release()
	for table := range Table(7) {
		err := v.TableRows(table, func(key, value []byte) error {
			got = append(got, fmt.Sprintf("%d/%s=%s", table, key, value))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []string{"1/1=new", "2/1="}) {
		t.Fatal(got)
	}
}

func TestOpenRefusesByName(t *testing.T) {
	cfg := testConfig(t)
	if _, err := Open(cfg); !errors.Is(err, ErrMissing) {
		t.Fatalf("missing: %v", err)
	}
	db := create(t, cfg)
	if _, err := Create(cfg, Meta{}, Rows{}); !errors.Is(err, ErrExists) {
		t.Fatalf("exists: %v", err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("locked: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	old := cfg
	old.MinTxID = 2
	if _, err := Open(old); !errors.Is(err, ErrTooOld) || !strings.Contains(err.Error(), cfg.Path) {
		t.Fatalf("too old: %v", err)
	}
	if _, err := Open(Config{PageSize: 5, InitialMmapBytes: 1, Timeout: -1}); err == nil || strings.Count(err.Error(), "\n") != 5 {
		t.Fatalf("six mistakes: %v", err)
	}
	s, err := openStore(&cfg, cfg.Path, mapBytesMin)
	if err != nil {
		t.Fatal(err)
	}
	newer := func(tx *bbolt.Tx) error { return putMeta(tx, &metaRow{Meta: Meta{Format: formatVersion + 1}}) }
	if err := errors.Join(s.write(newer), s.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format 2") || !strings.Contains(err.Error(), cfg.Path) {
		t.Fatalf("newer: %v", err)
	}
}

func TestBadRowsAreRefusedAndChangeNothing(t *testing.T) {
	db := create(t, testConfig(t))
	row := func(key string) KeyChange { return KeyChange{[]byte(key), keyValue(key, 1, "", 0)} }
	for what, c := range map[string]struct {
		changes []KeyChange
		want    error
	}{
		"unsorted":     {[]KeyChange{row("b"), row("a")}, ErrUnsorted},
		"twice":        {[]KeyChange{row("a"), row("a")}, ErrUnsorted},
		"empty key":    {[]KeyChange{row("")}, ErrBadRow},
		"no KeyValue":  {[]KeyChange{row("a"), {[]byte("b"), []byte{0xff}}}, ErrBadRow},
		"short varint": {[]KeyChange{{[]byte("b"), []byte{6 << 3, 0x80}}}, ErrBadRow},
	} {
		if err := db.Merge(c.changes, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if m := db.Meta(); m.Rows != 0 || db.TxID() != 1 {
		t.Fatalf("%d rows, transaction %d", m.Rows, db.TxID())
	}
	if err := db.Merge([]KeyChange{row("a")}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestAKeyOfAMegabyteLivesThroughMergeReopenAndDefragmentation(t *testing.T) {
	cfg := testConfig(t)
	db, err := Create(cfg, Meta{}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	long := strings.Repeat("k", 1<<20)
	kv := keyValue(long, 1, "value", 5)
	if err := db.Merge([]KeyChange{{[]byte("a"), keyValue("a", 1, "", 0)}, {[]byte(long), kv}, {[]byte("z"), keyValue("z", 1, "", 5)}}, nil); err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		v := db.View()
		defer v.Release()
		if got, err := v.Get([]byte(long)); err != nil || !bytes.Equal(got, kv) {
			t.Fatalf("%d bytes: %v", len(got), err)
		}
		c := v.Cursor()
		if key, _, err := c.Seek([]byte("b")); err != nil || string(key) != long {
			t.Fatalf("seek found %.10q: %v", key, err)
		}
		if key, _, err := c.Next(); err != nil || string(key) != "z" {
			t.Fatalf("next found %.10q: %v", key, err)
		}
		if key, _, err := c.Seek([]byte(long + "k")); err != nil || string(key) != "z" {
			t.Fatalf("seek behind found %.10q: %v", key, err)
		}
		keys, err := v.LeaseKeys(5, []byte(long), 9)
		if err != nil || len(keys) != 1 || string(keys[0]) != "z" {
			t.Fatalf("keys of the lease: %d, %v", len(keys), err)
		}
	}
	look()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	look()
	for range 3 { // Free pages, so that there is something to do.
		kv = keyValue(long, 2, "other", 5)
		if err := db.Merge([]KeyChange{{[]byte(long), kv}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := db.Sizes()
	if err := db.Defragment(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after, _ := db.Sizes(); after >= before {
		t.Fatalf("%d bytes, before %d", after, before)
	}
	look()
}

func TestAViewKeepsItsStateOverMergesAndDefragmentation(t *testing.T) {
	cfg := testConfig(t)
	db := create(t, cfg)
	put := func(value string) {
		t.Helper()
		var changes []KeyChange
		for i := range 500 {
			key := fmt.Sprintf("%04d", i)
			changes = append(changes, KeyChange{[]byte(key), keyValue(key, 1, value, 0)})
		}
		if err := db.Merge(changes, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	old := db.View()
	for range 5 {
		put(strings.Repeat("later", 50))
	}
	for i := range 500 { // Most rows go again.
		if err := db.Merge([]KeyChange{{Key: fmt.Appendf(nil, "%04d", i)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Defragment(context.Background()); err != nil {
		t.Fatal(err)
	}
	if file, inUse := db.Sizes(); file > 60<<10 || inUse > file {
		t.Fatalf("%d bytes, %d in use", file, inUse)
	}
	for i := range 500 {
		key := fmt.Sprintf("%04d", i)
		if got, err := old.Get([]byte(key)); err != nil || !bytes.Equal(got, keyValue(key, 1, "first", 0)) {
			t.Fatalf("%q: %v", got, err)
		}
	}
	old.Release()
	if db.retired[0].isClosed() != true {
		t.Fatal("the old file is still open")
	}
}

// Whoever asked for it may leave, and rows may turn out damaged while they are
// copied: the old file goes on.
func TestADefragmentationThatFailsChangesNothing(t *testing.T) {
	cfg := testConfig(t)
	db := create(t, cfg)
	for _, value := range []string{strings.Repeat("long", 200), "short"} {
		var changes []KeyChange
		for i := range 500 {
			key := fmt.Sprintf("%04d", i)
			changes = append(changes, KeyChange{[]byte(key), keyValue(key, 1, value, 0)})
		}
		if err := db.Merge(changes, nil); err != nil {
			t.Fatal(err)
		}
	}
	before, inUse := db.Sizes()
	if (before-inUse)*100 <= before*defragmentFreePercent {
		t.Fatalf("%d bytes, %d in use: nothing would be done", before, inUse)
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	if err := db.Defragment(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("a defragmentation whose caller left: %v", err)
	}
	if after, _ := db.Sizes(); after != before {
		t.Errorf("%d bytes, then %d", before, after)
	}
	if _, err := os.Stat(cfg.Path + suffixDefragment); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is still there: %v", err)
	}
	if err := db.Defragment(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after, _ := db.Sizes(); after >= before {
		t.Errorf("%d bytes, then %d", before, after)
	}
}

func TestWhatACrashLeftOfADefragmentationIsRemoved(t *testing.T) {
	cfg := testConfig(t)
	if err := create(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Path+suffixDefragment, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := os.Stat(cfg.Path + suffixDefragment); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// folder fails syncs of folders, and counts the others.
type folder struct {
	vfs.FS
	fails  error
	synced int
}

func (f *folder) SyncDir(dir string) error {
	if f.fails != nil {
		return f.fails
	}
	f.synced++
	return f.FS.SyncDir(dir)
}

func TestTheNameOfADefragmentedFileIsDurableOnceItIsOpen(t *testing.T) {
	cfg := testConfig(t)
	fsys := &folder{FS: cfg.FS}
	cfg.FS = fsys
	db := create(t, cfg)
	for round := range 2 {
		for i := range 500 { // Put, and removed again.
			key := fmt.Sprintf("%04d", i)
			change := KeyChange{Key: []byte(key)}
			if round == 0 {
				change.KV = keyValue(key, 1, strings.Repeat("v", 200), 0)
			}
			if err := db.Merge([]KeyChange{change}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	fsys.fails = syscall.EIO // Or the process is killed in between.
	if err := db.Defragment(context.Background()); !errors.Is(err, ErrFailed) {
		t.Fatalf("defragmented although the name could not be synced: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, syscall.EIO) {
		t.Fatalf("opened although the name is not durable: %v", err)
	}
	fsys.fails, fsys.synced = nil, 0
	db, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if fsys.synced == 0 {
		t.Error("the folder was not synced: a power cut may bring the old file back, with commits behind it that the log relies on")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Many goroutines share a view while it is replaced. Run with -race.
func TestReadersAndTheWriterDoNotMeet(t *testing.T) {
	db := create(t, testConfig(t))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for reader := range 6 {
		readers.Go(func() {
			for n := reader; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				v := db.View()
				round := v.Meta().Merged.Revision
				c := v.Cursor()
				for key, kv, err := c.Seek(nil); key != nil || err != nil; key, kv, err = c.Next() {
					if err != nil || !bytes.Equal(kv, keyValue(string(key), int64(round), "", ident.LeaseID(round))) {
						t.Errorf("round %d, %q: %v", round, key, err)
					}
					if got, err := v.Get(key); err != nil || !bytes.Equal(got, kv) {
						t.Errorf("get %q: %v", key, err)
					}
				}
				if keys, err := v.LeaseKeys(ident.LeaseID(round), nil, 1000); err != nil || round > 0 && len(keys) != 100 {
					t.Errorf("%d keys: %v", len(keys), err)
				}
				v.Release()
				db.Sizes()
			}
		})
	}
	for round := 1; round < 100; round++ {
		var changes []KeyChange
		for i := range 100 {
			key := fmt.Sprintf("%04d", i)
			changes = append(changes, KeyChange{[]byte(key), keyValue(key, int64(round), "", ident.LeaseID(round))})
		}
		if err := db.Merge(changes, &Point{Revision: ident.Revision(round)}); err != nil {
			t.Fatal(err)
		}
		if round%20 == 0 {
			if err := db.Defragment(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(done)
	readers.Wait()
}

func TestAFileThatWouldOutgrowItsMappingIsFullUntilThatIsLarger(t *testing.T) {
	cfg := testConfig(t)
	cfg.InitialMmapBytes = mapBytesMin
	db, err := Create(cfg, Meta{}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	value := strings.Repeat("v", 1<<20)
	n := 0
	for ; err == nil && n < 100; n++ {
		key := fmt.Sprintf("%04d", n)
		err = db.Merge([]KeyChange{{[]byte(key), keyValue(key, 1, value, 0)}}, nil)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d rows: %v", n, err)
	}
	if _, err := db.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(cfg); err != nil { // Four times the file, now that there is one.
		t.Fatal(err)
	}
	if err := errors.Join(db.Merge([]KeyChange{{Key: []byte("0000")}}, nil), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// A crash in a commit leaves any part of the changed pages, whole or torn, and
// the meta page last: the file opens as before or as after, never between.
func TestACrashInACommitLeavesTheStateBeforeOrAfter(t *testing.T) {
	r := seeded(t)
	cfg := testConfig(t)
	db := create(t, cfg)
	m := newModel()
	read := func() []byte {
		t.Helper()
		b, err := os.ReadFile(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	crashed := cfg
	crashed.Path += ".crashed"
	for round := range 12 {
		before, old := read(), db.TxID()
		if err := db.Merge(randomChanges(r, m, 300, int64(round)), nil); err != nil {
			t.Fatal(err)
		}
		after := read()
		before = append(before, make([]byte, max(0, len(after)-len(before)))...)
		for image := range 6 {
			mixed := bytes.Clone(before)
			want := old
			for page := 2; page < len(after)/4096; page++ {
				if image == 5 || r.IntN(3) > 0 {
					copy(mixed[page*4096:], after[page*4096:][:4096>>r.IntN(2)])
				}
				if image == 5 {
					copy(mixed[page*4096:], after[page*4096:][:4096])
				}
			}
			if image == 5 {
				copy(mixed, after[:2*4096])
				want++
			}
			if err := os.WriteFile(crashed.Path, mixed, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := Open(crashed)
			if err != nil {
				t.Fatalf("round %d image %d: %v", round, image, err)
			}
			if _, err := again.Verify(context.Background(), nil); err != nil || again.TxID() != want {
				t.Fatalf("round %d image %d: transaction %d, want %d: %v", round, image, again.TxID(), want, err)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Our own reading of pages and bbolt's agree.
func TestCursorsAgreeWithBbolt(t *testing.T) {
	r := seeded(t)
	db := create(t, testConfig(t))
	m := newModel()
	for round := range 30 {
		if err := db.Merge(randomChanges(r, m, 500, int64(round)), nil); err != nil {
			t.Fatal(err)
		}
		v := db.View()
		err := db.store.bolt.View(func(tx *bbolt.Tx) error {
			theirs := tx.Bucket(sectionKeys.name).Cursor()
			for range 300 {
				key := []byte(randomKey(r))
				ours := treeCursor{tree: v.keys}
				ok, err := ours.from(key)
				k, _ := theirs.Seek(key)
				for range 5 {
					if err != nil {
						return err
					}
					if ok != (k != nil) {
						return fmt.Errorf("from %.40q: %v, bbolt %.40q", key, ok, k)
					}
					if !ok {
						break
					}
					got, _, err := ours.row()
					if err != nil || !bytes.Equal(got, k) {
						return fmt.Errorf("%.40q, bbolt %.40q: %w", got, k, err)
					}
					if ok, err = ours.next(); err != nil {
						return err
					}
					k, _ = theirs.Next()
				}
			}
			return nil
		})
		v.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnlyAFullDiskAtAWriteMayBeTriedAgain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
	}{
		{&fs.PathError{Op: "write", Err: syscall.ENOSPC}, ErrNoSpace},
		{&fs.PathError{Op: "truncate", Err: syscall.EDQUOT}, ErrNoSpace},
		{&fs.PathError{Op: "write", Err: syscall.EIO}, ErrFailed},
		{&fs.PathError{Op: "sync", Err: syscall.ENOSPC}, ErrFailed},
		{syscall.ENOSPC, ErrFailed}, // Of fdatasync: what was written before may be lost.
		{syscall.EIO, ErrFailed},
		{berrors.ErrMaxSizeReached, ErrFull},
	} {
		if err := commitError("base.db", c.err); !errors.Is(err, c.want) || c.want != ErrFailed && errors.Is(err, ErrFailed) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

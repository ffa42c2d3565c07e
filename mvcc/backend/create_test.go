package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// rowsOf gives the rows of a model as Create wants them.
func rowsOf(m *model) Rows {
	sorted := slices.Sorted(maps.Keys(m.keys))
	var rows Rows
	rows.Next = func() (key, kv []byte, err error) {
		if len(sorted) == 0 {
			return nil, nil, nil
		}
		next := sorted[0]
		sorted = sorted[1:]
		return []byte(next), m.keys[next], nil
	}
	for _, key := range slices.Sorted(maps.Keys(m.small)) {
		rows.Small = append(rows.Small, RowChange{Table: TableUser, Key: []byte(key), Value: m.small[key]})
	}
	return rows
}

func (m *model) put(key string, valueBytes int, lease ident.LeaseID) {
	m.set(key, keyValue(key, 1, strings.Repeat("v", valueBytes), lease), lease)
}

// shapes are sets of rows at the limits of pages.
var shapes = map[string]func(r *rand.Rand, m *model){
	"nothing": func(*rand.Rand, *model) {},
	"one row": func(_ *rand.Rand, m *model) { m.put("a", 0, 0) },
	"one row that a bucket inside the directory just holds, or not": func(r *rand.Rand, m *model) {
		m.put("a", 950+r.IntN(100), 0)
	},
	"rows about as large as a page": func(r *rand.Rand, m *model) {
		for i := range 100 {
			m.put(fmt.Sprintf("%03d", i), 3700+r.IntN(500), 0)
		}
	},
	"rows of many pages among small ones": func(r *rand.Rand, m *model) {
		for i := range 200 {
			m.put(fmt.Sprintf("%03d", i), r.IntN(2)*r.IntN(200_000), ident.LeaseID(i%3))
		}
	},
	"one row larger than a block": func(_ *rand.Rand, m *model) {
		m.put("a", 10, 0)
		m.put("b", 3*writeBlockBytes, 0)
		m.put("c", 10, 0)
	},
	"keys as long as a short one may be, and so many levels": func(_ *rand.Rand, m *model) {
		for i := range 2000 {
			m.put(strings.Repeat("k", shortKeyBytesMax-5)+fmt.Sprintf("%05d", i), i%50, ident.LeaseID(i%7))
		}
	},
	"all kinds": func(r *rand.Rand, m *model) {
		for range 5 {
			randomChanges(r, m, 500, 1)
		}
	},
	"only long keys": func(_ *rand.Rand, m *model) {
		for i := range 50 {
			m.put(strings.Repeat("k", shortKeyBytesMax)+fmt.Sprintf("%05d", i), i*100, ident.LeaseID(i%3))
		}
	},
	"small rows with long names": func(_ *rand.Rand, m *model) {
		for i := range 300 {
			m.small[strings.Repeat("n", 4000)+fmt.Sprintf("%05d", i)] = []byte("role")
		}
		m.small["large"] = bytes.Repeat([]byte{'r'}, 1<<20)
	},
	"more leases than are sorted in memory": func(r *rand.Rand, m *model) {
		for i := range 5000 {
			m.put(fmt.Sprintf("/events/%024d", i), 0, ident.LeaseID(r.Uint64()>>1|1))
		}
	},
}

// agreesWithBbolt has bbolt check the file, and compares what its cursor gives
// with what ours does.
func agreesWithBbolt(t *testing.T, db *DB) {
	t.Helper()
	v := db.View()
	defer v.Release()
	err := db.store.bolt.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		for _, tree := range []*tree{v.keys, v.leaseKeys, v.longKeys, v.rows} {
			theirs := tx.Bucket(tree.section.name).Cursor()
			key, value := theirs.First()
			err := tree.scan(nil, func(k, payload []byte) (bool, error) {
				if !bytes.Equal(k, key) || !bytes.Equal(value, appendRow(nil, tree.section, k, payload)) {
					return false, fmt.Errorf("%.40q is %.40q to bbolt", k, key)
				}
				key, value = theirs.Next()
				return true, nil
			})
			if err != nil || key != nil {
				return fmt.Errorf("bucket %s, then bbolt has %.40q: %w", tree.section.name, key, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// intact compares everything with a model.
func intact(t *testing.T, db *DB, m *model) {
	t.Helper()
	v := db.View()
	defer v.Release()
	check(t, v, m)
	small := map[string][]byte{}
	err := v.TableRows(TableUser, func(key, value []byte) error {
		small[string(key)] = value
		return nil
	})
	if err != nil || !maps.EqualFunc(small, m.small, bytes.Equal) {
		t.Fatalf("%d small rows, want %d: %v", len(small), len(m.small), err)
	}
	if _, err := db.Verify(context.Background(), func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	agreesWithBbolt(t, db)
}

func TestACreatedBaseIsOneToBboltAndToUsAndMergesGoOnInIt(t *testing.T) {
	for name, shape := range shapes {
		for _, pageBytes := range []int{pageBytesMin, pageBytesMax} {
			t.Run(fmt.Sprintf("%s/%d", name, pageBytes), func(t *testing.T) {
				r := seeded(t)
				m := newModel()
				shape(r, m)
				cfg := testConfig(t)
				cfg.PageSize, cfg.sortBytes = pageBytes, 32<<10
				db, err := Create(cfg, everyField(), rowsOf(m))
				if err != nil {
					t.Fatal(err)
				}
				intact(t, db, m)
				if file, inUse := db.Sizes(); file != inUse {
					t.Errorf("a new file of %d bytes has %d free ones", file, file-inUse)
				}
				for round := range 4 {
					if err := db.Merge(randomChanges(r, m, 300, int64(round)), nil); err != nil {
						t.Fatal(err)
					}
					m.small["again"] = []byte(fmt.Sprint(round))
					if _, err := db.Checkpoint([]RowChange{{TableUser, []byte("again"), m.small["again"]}}, everyField()); err != nil {
						t.Fatal(err)
					}
					switch round {
					case 0:
						if err := db.Close(); err != nil {
							t.Fatal(err)
						}
						if db, err = Open(cfg); err != nil {
							t.Fatal(err)
						}
					case 1:
						if _, err := db.rewriteForTest(); err != nil {
							t.Fatal(err)
						}
					}
					intact(t, db, m)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				if names, err := os.ReadDir(strings.TrimSuffix(cfg.Path, "/base.db")); err != nil || len(names) != 1 {
					t.Errorf("%d names are left: %v", len(names), err)
				}
			})
		}
	}
}

// rewriteForTest defragments whatever share of the file is free.
func (db *DB) rewriteForTest() (*store, error) {
	db.writing.Lock()
	defer db.writing.Unlock()
	v := db.View()
	defer v.Release()
	s, err := db.rewrite(context.Background(), v)
	if err == nil {
		err = db.adopt(s)
	}
	return s, err
}

func TestACreatedBaseHasTheMetaOfItsRows(t *testing.T) {
	r := seeded(t)
	m := newModel()
	changes := slices.DeleteFunc(randomChanges(r, m, 3000, 1), func(c KeyChange) bool { return c.KV == nil })
	made, err := Create(testConfig(t), everyField(), rowsOf(m))
	if err != nil {
		t.Fatal(err)
	}
	merged, err := Create(testConfig(t), everyField(), Rows{})
	if err != nil {
		t.Fatal(err)
	}
	if err := merged.Merge(changes, nil); err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprintf("%+v", made.Meta()), fmt.Sprintf("%+v", merged.Meta()); a != b {
		t.Fatalf("created: %s\nmerged: %s", a, b)
	}
	if err := errors.Join(made.Close(), merged.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestRowsThatAreNoneMakeNoBase(t *testing.T) {
	row := func(key string) KeyChange { return KeyChange{[]byte(key), keyValue(key, 1, "", 3)} }
	gone := errors.New("the source is gone")
	for what, c := range map[string]struct {
		rows []KeyChange
		err  error
		want error
	}{
		"unsorted":    {[]KeyChange{row("b"), row("a")}, nil, ErrUnsorted},
		"twice":       {[]KeyChange{row("a"), row("a")}, nil, ErrUnsorted},
		"empty key":   {[]KeyChange{{[]byte{}, []byte{}}}, nil, ErrBadRow},
		"no value":    {[]KeyChange{{Key: []byte("a")}}, nil, ErrBadRow},
		"no KeyValue": {[]KeyChange{row("a"), {[]byte("b"), []byte{0xff}}}, nil, ErrBadRow},
		"no source":   {[]KeyChange{row("a"), row("b")}, gone, gone},
	} {
		cfg := testConfig(t)
		_, err := Create(cfg, Meta{}, Rows{Next: func() (key, kv []byte, err error) {
			if len(c.rows) == 0 {
				return nil, nil, c.err
			}
			next := c.rows[0]
			c.rows = c.rows[1:]
			return next.Key, next.KV, nil
		}})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), cfg.Path) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := Open(cfg); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: what is left opens: %v", what, err)
		}
	}
}

// cutFS lets the n-th change of a file fail, and tells what came before.
type cutFS struct {
	vfs.FS
	left int
	log  []string
}

var errCut = &os.PathError{Op: "write", Err: syscall.EIO}

func (c *cutFS) cut(what string) error {
	c.log = append(c.log, what)
	if c.left--; c.left < 0 {
		return errCut
	}
	return nil
}

func (c *cutFS) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	return &cutFile{f, c}, err
}

type cutFile struct {
	vfs.File
	fs *cutFS
}

func (f *cutFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.fs.cut(fmt.Sprintf("write %d", at)); err != nil {
		n, _ := f.File.WriteAt(b[:len(b)/2], at)
		return n, err
	}
	return f.File.WriteAt(b, at)
}

func (f *cutFile) SyncData() error {
	if err := f.fs.cut("sync"); err != nil {
		return err
	}
	return f.File.SyncData()
}

// A crash may lose what was not synced, so the order of the calls is all that
// counts: what the meta pages tell of is synced before they are written.
func TestACreatedBaseOpensOnlyWhenAllOfItIsSynced(t *testing.T) {
	m := newModel()
	for i := range 3000 {
		m.put(fmt.Sprintf("%05d", i), 1000, 0)
	}
	for left := 0; ; left++ {
		cfg := testConfig(t)
		fsys := &cutFS{FS: cfg.FS, left: left}
		cfg.FS, cfg.NoSync = fsys, false
		db, err := Create(cfg, Meta{}, rowsOf(m))
		if err == nil {
			intact(t, db, m)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(fsys.log, ", "); got != "write 8192, write 1056768, write 2105344, write 3153920, sync, write 0, sync" {
				t.Errorf("calls: %s", got)
			}
			break
		}
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("call %d: %v", left, err)
		}
		db, err = Open(cfg)
		if err == nil && slices.Contains(fsys.log, "write 0") { // One of the meta pages is there.
			_, err = db.Verify(context.Background(), nil)
			err = errors.Join(err, db.Close())
		} else if errors.Is(err, ErrDamaged) {
			err = nil
		}
		if err != nil {
			t.Fatalf("after a failure at %s: %v", fsys.log, err)
		}
	}
}

package etcd

import (
	"errors"
	"hash/fnv"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/spill"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// known reports whether an error is one of those that a damaged file may give.
func known(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotEtcd)
}

func memoryFile(t *testing.T, name string, b []byte) vfs.FS {
	t.Helper()
	fsys := vfstest.NewMem()
	err := fsys.MkdirAll(filepath.Dir(name))
	if err == nil {
		var f vfs.File
		if f, err = fsys.Create(name); err == nil {
			_, err = f.WriteAt(b, 0)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

// FuzzDatabase reads anything as etcd's database; with mend the checksums of its
// meta pages are made right first, so that what they lead to is reached.
func FuzzDatabase(f *testing.F) {
	for _, version := range []string{"3.4", "3.7"} {
		f.Add(readFile(f, filepath.Join("testdata", "v1", "etcd-"+version, "member", "snap", "db")), true)
		f.Add(readFile(f, filepath.Join("testdata", "v1", "etcd-"+version, "snapshot.db")), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		for at := pageHeaderBytes; mend && at+metaBytes <= len(b) && at < 3*pageBytes; at += pageBytes {
			sum := fnv.New64a()
			sum.Write(b[at : at+metaBytes-8])
			order.PutUint64(b[at+metaBytes-8:], sum.Sum64())
		}
		cfg := testConfig()
		cfg.FS = memoryFile(t, "/etcd/db", b)
		db, err := openDatabase(t.Context(), &cfg, "/etcd/db")
		if err == nil {
			defer db.close()
			err = db.load(t.Context(), spill.New(spill.Config{FS: cfg.FS, Dir: "/etcd"}).Add)
		}
		if err != nil && !known(err) {
			t.Fatal(err)
		}
		if err == nil && db.head < 1 {
			t.Fatalf("revision %d", db.head)
		}
	})
}

// FuzzLog reads anything as a file of etcd's log.
func FuzzLog(f *testing.F) {
	const name = "0000000000000000-0000000000000000.wal"
	for _, version := range []string{"3.4", "3.7"} {
		f.Add(readFile(f, filepath.Join("testdata", "v1", "etcd-"+version, "member", "wal", name)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := memoryFile(t, "/wal/"+name, b)
		l, err := openLog(fsys, "/wal", 1)
		if err != nil {
			if !known(err) {
				t.Fatal(err)
			}
			return
		}
		defer l.close()
		for i := range l.places {
			e, err := l.entryAt(l.first + uint64(i))
			if err != nil || e.GetTerm() != l.places[i].term {
				t.Fatalf("entry %d, read once, does not read again: %v", l.first+uint64(i), err)
			}
		}
	})
}

// FuzzRequest translates anything as a request of etcd's log.
func FuzzRequest(f *testing.F) {
	f.Add(putRequest("key", "value"))
	f.Add(nested(field(nil, 1, 9), 2, []byte("PUT")))
	f.Add(nested(nil, requestAlarm, field(field(nil, 1, 1), 3, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &replay{db: &database{}}
		cmd, err := r.command(b)
		if err == nil && cmd != nil {
			if _, err := cmd.MarshalVT(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzStateFile reads anything as a .snap file.
func FuzzStateFile(f *testing.F) {
	f.Add([]byte{})
	f.Add(nested(field(nil, 1, 0), 2, nested(nil, 2, nested(nil, 1, field(nil, 1, 7)))))
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := memoryFile(t, "/snap/0000000000000001-0000000000000002.snap", b)
		if _, err := newestState(fsys, "/snap"); err != nil && !known(err) {
			t.Fatal(err)
		}
	})
}

package etcd

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/snapshot"
)

func TestAnExportComesBackAsItWas(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		m := random(r, 50+r.IntN(300))
		dir := t.TempDir()
		db, snap, out, again := filepath.Join(dir, "db"), filepath.Join(dir, "a.snap"), filepath.Join(dir, "out.db"), filepath.Join(dir, "b.snap")
		m.write(t, db, 77, 5)
		if _, err := Import(t.Context(), testConfig(), db, snap); err != nil {
			t.Fatal(err)
		}
		report, err := Export(t.Context(), testConfig(), snap, out, Versions[seed%4])
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if report.Revision != m.head || int(report.Keys) != len(m.keys) || report.Leases != len(m.leases) {
			t.Fatalf("seed %d: %+v, model has revision %d", seed, report, m.head)
		}
		if err := checkBolt(out); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if _, err := Import(t.Context(), testConfig(), out, again); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got, k := keysOf(t, again); !slices.Equal(got, m.want()) || k.Header.Revision != m.head || k.Header.Applied.Index != 77 {
			t.Fatalf("seed %d: %v, keys\n%q\nwant\n%q", seed, k.Header, got, m.want())
		}
		if left, _ := filepath.Glob(out + ".*"); len(left) != 0 {
			t.Fatalf("seed %d: left behind: %q", seed, left)
		}
	}
}

// checkBolt lets bbolt look at each page of a file.
func checkBolt(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		var all error
		for e := range tx.Check() {
			all = errors.Join(all, e)
		}
		return all
	})
	return errors.Join(err, db.Close())
}

func TestAnExportOfWhatIsNotASnapshotWritesNothing(t *testing.T) {
	m := newModel()
	dir := t.TempDir()
	db, snap := filepath.Join(dir, "db"), filepath.Join(dir, "a.snap")
	m.write(t, db, 5, 1)
	if _, err := Import(t.Context(), testConfig(), db, snap); err != nil {
		t.Fatal(err)
	}
	damaged := readFile(t, snap)
	damaged[len(damaged)/2] ^= 1
	writeFile(t, filepath.Join(dir, "damaged.snap"), damaged)
	writeFile(t, filepath.Join(dir, "taken"), []byte("precious"))
	for _, c := range []struct {
		from, to, version string
		want              error
	}{
		{"damaged.snap", "out", "3.7", snapshot.ErrDamaged},
		{"db", "out", "3.7", snapshot.ErrNotSnapshot},
		{"a.snap", "out", "2.3", ErrVersion},
		{"a.snap", "taken", "3.7", ErrExists},
		{"none", "out", "3.7", os.ErrNotExist},
	} {
		_, err := Export(t.Context(), testConfig(), filepath.Join(dir, c.from), filepath.Join(dir, c.to), c.version)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "out*")); len(left) != 0 {
			t.Errorf("%+v: left behind: %q", c, left)
		}
	}
	if got := string(readFile(t, filepath.Join(dir, "taken"))); !strings.HasPrefix(got, "precious") {
		t.Errorf("the target is now %q", got)
	}
}

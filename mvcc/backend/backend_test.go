package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

func testConfig(t testing.TB) Config {
	return Config{
		FS:               vfs.OS(),
		Path:             filepath.Join(t.TempDir(), "base.db"),
		InitialMmapBytes: 1 << 30,
		Logger:           hclog.NewNullLogger(),
		NoSync:           true,
	}
}

func create(t testing.TB, cfg Config) *DB {
	t.Helper()
	db, err := Create(cfg, Meta{Cluster: 7, Revision: 1}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// keyValue makes a KeyValue in wire form.
func keyValue(key string, mod int64, value string, lease ident.LeaseID) []byte {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, key)
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(mod))
	b = protowire.AppendTag(b, 5, protowire.BytesType)
	b = protowire.AppendString(b, value)
	if lease != 0 {
		b = protowire.AppendTag(b, 6, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(lease))
	}
	return b
}

// model is what a base should hold.
type model struct {
	keys   map[string][]byte
	leases map[string]ident.LeaseID
	small  map[string][]byte
}

func newModel() *model {
	return &model{keys: map[string][]byte{}, leases: map[string]ident.LeaseID{}, small: map[string][]byte{}}
}

func (m *model) set(key string, kv []byte, lease ident.LeaseID) {
	if kv == nil {
		delete(m.keys, key)
		delete(m.leases, key)
		return
	}
	m.keys[key], m.leases[key] = kv, lease
}

func check(t *testing.T, v *View, m *model) {
	t.Helper()
	sorted := slices.Sorted(maps.Keys(m.keys))
	i := 0
	c := v.Cursor()
	for key, kv, err := c.Seek(nil); ; key, kv, err = c.Next() {
		if err != nil {
			t.Fatal(err)
		}
		if key == nil {
			break
		}
		if i >= len(sorted) || string(key) != sorted[i] || !bytes.Equal(kv, m.keys[sorted[i]]) {
			t.Fatalf("row %d is %.40q, want %.40q of %d", i, key, sorted[min(i, len(sorted)-1)], len(sorted))
		}
		i++
	}
	if i != len(sorted) {
		t.Fatalf("%d rows, want %d", i, len(sorted))
	}
	if got := v.Meta().Rows; got != int64(len(sorted)) {
		t.Fatalf("meta says %d rows, want %d", got, len(sorted))
	}
	byLease := map[ident.LeaseID][]string{}
	for _, key := range sorted {
		byLease[m.leases[key]] = append(byLease[m.leases[key]], key)
	}
	delete(byLease, 0)
	for id, want := range byLease {
		checkLease(t, v, id, want)
	}
}

func checkLease(t *testing.T, v *View, id ident.LeaseID, want []string) {
	t.Helper()
	var got []string
	var after []byte
	for {
		keys, err := v.LeaseKeys(id, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		for _, k := range keys {
			got = append(got, string(k))
		}
		after = keys[len(keys)-1]
	}
	if !slices.Equal(got, want) {
		t.Fatalf("lease %d has %d keys, want %d", id, len(got), len(want))
	}
}

func randomKey(r *rand.Rand) string {
	key := fmt.Sprintf("/registry/%c/%04d", 'a'+r.IntN(3), r.IntN(2000))
	switch r.IntN(20) {
	case 0: // Long, often with a short key as its beginning.
		key += string(bytes.Repeat([]byte{'x'}, 1020+r.IntN(40)))
	case 1:
		key += string(bytes.Repeat([]byte{0xff}, 900+r.IntN(200)))
	case 2:
		key = string([]byte{byte(r.IntN(256))})
	}
	return key
}

func randomChanges(r *rand.Rand, m *model, n int, mod int64) []KeyChange {
	changes := map[string][]byte{}
	for range n {
		key := randomKey(r)
		if r.IntN(3) == 0 {
			changes[key] = nil
			m.set(key, nil, 0)
			continue
		}
		lease := ident.LeaseID(r.IntN(4) - 1)
		size := r.IntN(300)
		if r.IntN(50) == 0 {
			size = r.IntN(20_000)
		}
		kv := keyValue(key, mod, string(bytes.Repeat([]byte{byte(r.IntN(256))}, size)), lease)
		changes[key] = kv
		m.set(key, kv, lease)
	}
	var sorted []KeyChange
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		sorted = append(sorted, KeyChange{Key: []byte(key), KV: changes[key]})
	}
	return sorted
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func TestMergesReopensAndDefragmentationsKeepExactlyTheRows(t *testing.T) {
	r := seeded(t)
	cfg := testConfig(t)
	db, err := Create(cfg, Meta{Cluster: 7}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	m := newModel()
	for round := range 30 {
		var changes []KeyChange
		if r.IntN(10) > 0 {
			changes = randomChanges(r, m, 1+r.IntN(400), int64(round))
		} else {
			for _, key := range slices.Sorted(maps.Keys(m.keys)) { // Everything goes.
				changes = append(changes, KeyChange{Key: []byte(key)})
				m.set(key, nil, 0)
			}
		}
		for range 2 { // Merging again changes nothing.
			if err := db.Merge(changes, &Point{Revision: ident.Revision(round)}); err != nil {
				t.Fatal(err)
			}
		}
		switch r.IntN(6) {
		case 0:
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if db, err = Open(cfg); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := db.Defragment(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		v := db.View()
		check(t, v, m)
		for range 200 {
			key := randomKey(r)
			kv, err := v.Get([]byte(key))
			if err != nil || !bytes.Equal(kv, m.keys[key]) {
				t.Fatalf("get %.40q: %v", key, err)
			}
		}
		if v.Meta().Merged.Revision != ident.Revision(round) {
			t.Fatalf("merged through %v, want %d", v.Meta().Merged, round)
		}
		v.Release()
		if _, err := db.Verify(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// One that takes its picture of the rows before it may write loses what is
// merged in between.
func TestDefragmentationsBesideMergesLoseNothing(t *testing.T) {
	r := seeded(t)
	db, err := Create(testConfig(t), Meta{}, Rows{})
	if err != nil {
		t.Fatal(err)
	}
	m := newModel()
	done := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := db.Defragment(context.Background()); err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	for round := range 60 {
		var changes []KeyChange
		if round%3 < 2 {
			changes = randomChanges(r, m, 100, int64(round))
		} else { // Pages become free.
			for _, key := range slices.Sorted(maps.Keys(m.keys)) {
				changes = append(changes, KeyChange{Key: []byte(key)})
				m.set(key, nil, 0)
			}
		}
		if err := db.Merge(changes, &Point{Revision: ident.Revision(round)}); err != nil {
			t.Fatal(err)
		}
		v := db.View()
		check(t, v, m)
		v.Release()
	}
	close(done)
	others.Wait()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

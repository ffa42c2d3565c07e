package backend

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// benchKey is 64 bytes long.
func benchKey(i int) []byte {
	return fmt.Appendf(nil, "/registry/pods/namespace-%04d/pod-%030d", i%1000, i)
}

var benchRowsFlag = flag.Int("rows", 200_000, "how many rows of 64 B keys and 200 B values benchmarks have")

// benchData returns keys in order and their KeyValues.
func benchData() (keys, kvs [][]byte) {
	value := strings.Repeat("v", 200)
	for i := range *benchRowsFlag {
		keys = append(keys, benchKey(i))
	}
	slices.SortFunc(keys, bytes.Compare)
	for i, key := range keys {
		kvs = append(kvs, keyValue(string(key), int64(i+1), value, 0))
	}
	return keys, kvs
}

func load(b *testing.B, keys, kvs [][]byte) *DB {
	b.Helper()
	cfg := testConfig(b)
	cfg.NoSync = false
	cfg.InitialMmapBytes = 4 << 30
	i := 0
	db, err := Create(cfg, Meta{}, Rows{Next: func() (key, kv []byte, err error) {
		if i == len(keys) {
			return nil, nil, nil
		}
		i++
		return keys[i-1], kvs[i-1], nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

func loaded(b *testing.B) (*DB, [][]byte) {
	b.Helper()
	keys, kvs := benchData()
	return load(b, keys, kvs), keys
}

// How long does a point read take, as apply does one for each put of an old
// key?
func BenchmarkGet(b *testing.B) {
	db, keys := loaded(b)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		v := db.View()
		kv, err := v.Get(keys[r.IntN(len(keys))])
		v.Release()
		if err != nil || kv == nil {
			b.Fatal(err)
		}
	}
}

// And for a key that does not exist, as for each put of a new one?
func BenchmarkGetAbsent(b *testing.B) {
	db, keys := loaded(b)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		v := db.View()
		kv, err := v.Get(append(keys[r.IntN(len(keys))], 'x'))
		v.Release()
		if err != nil || kv != nil {
			b.Fatal(err)
		}
	}
}

// What does a scan cost per key?
func BenchmarkCursor(b *testing.B) {
	db, keys := loaded(b)
	v := db.View()
	defer v.Release()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		c := v.Cursor()
		for key, _, err := c.Seek(nil); key != nil || err != nil; key, _, err = c.Next() {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != len(keys) {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(keys)), "ns/key")
}

// What does merging a tenth of all keys cost, drawn at random, in
// transactions of 2,000?
func BenchmarkMerge(b *testing.B) {
	db, keys := loaded(b)
	r := rand.New(rand.NewPCG(1, 1))
	value := strings.Repeat("w", 200)
	merged := 0
	b.ReportAllocs()
	for b.Loop() {
		picked := r.Perm(len(keys))[:len(keys)/10]
		slices.Sort(picked)
		var changes []KeyChange
		for _, i := range picked {
			changes = append(changes, KeyChange{Key: keys[i], KV: keyValue(string(keys[i]), int64(merged+1), value, 0)})
			merged++
		}
		for changes := range slices.Chunk(changes, 2000) {
			if err := db.Merge(changes, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(merged), "µs/key")
}

// What does filling a new base cost per row?
func BenchmarkCreate(b *testing.B) {
	keys, kvs := benchData()
	b.ReportAllocs()
	for b.Loop() {
		load(b, keys, kvs)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(keys)), "µs/row")
}

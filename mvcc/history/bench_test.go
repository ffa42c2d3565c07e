package history

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

func benchLog(b *testing.B) *Log {
	b.Helper()
	l, err := Create(Config{FS: vfs.OS(), Dir: b.TempDir() + "/history", Logger: hclog.NewNullLogger()}, Mark{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// What does the apply goroutine pay for a put of 256 bytes, flushes by the way
// included?
func BenchmarkAppendOnePut(b *testing.B) {
	l := benchLog(b)
	rec := &Record{Term: 1, Groups: []Group{{Mutations: []Mutation{put("/registry/pods/default/pod-0001", 1, 1<<20, 3, make([]byte, 256))}}}}
	b.SetBytes(int64(len(rec.Groups[0].Mutations[0].Value)))
	b.ReportAllocs()
	for b.Loop() {
		rec.Index++
		rec.Time++
		rec.Groups[0].Revision++
		if err := l.Append(rec); err != nil {
			b.Fatal(err)
		}
		if id := l.End().Segment; id > 4 {
			b.StopTimer()
			if _, err := l.Drop(id - 2); err != nil { // The disk of a test is small.
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
}

// And for one of a batch of 100, which shares the header?
func BenchmarkAppendBatchOf100Puts(b *testing.B) {
	l := benchLog(b)
	rec := &Record{Term: 1}
	for i := range 100 {
		key := fmt.Sprintf("/registry/pods/default/pod-%04d", i)
		rec.Groups = append(rec.Groups, Group{Ordinal: uint32(i), Mutations: []Mutation{put(key, 1, 1<<20, 3, make([]byte, 256))}})
	}
	b.ReportAllocs()
	revision := ident.Revision(0)
	for b.Loop() {
		rec.Index++
		for i := range rec.Groups {
			revision++
			rec.Groups[i].Revision = revision
		}
		if err := l.Append(rec); err != nil {
			b.Fatal(err)
		}
		if id := l.End().Segment; id > 4 {
			b.StopTimer()
			if _, err := l.Drop(id - 2); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/put")
}

func filledLog(b *testing.B, records int) (*Log, []Loc) {
	l := benchLog(b)
	locs := make([]Loc, records)
	for i := range records {
		rec := &Record{Index: ident.Index(i + 1), Term: 1, Groups: []Group{{
			Revision:  ident.Revision(i + 1),
			Mutations: []Mutation{put(fmt.Sprintf("/registry/pods/default/pod-%08d", i), 1, ident.Revision(i+1), 3, make([]byte, 256))},
		}}}
		if err := l.Append(rec); err != nil {
			b.Fatal(err)
		}
		locs[i] = rec.Groups[0].Mutations[0].Loc
	}
	if err := l.Flush(); err != nil {
		b.Fatal(err)
	}
	return l, locs
}

// How long does a value take out of the ring?
func BenchmarkValueFromTheRing(b *testing.B) {
	l, locs := filledLog(b, 50_000)
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Value(locs[rng.IntN(len(locs))]); err != nil {
			b.Fatal(err)
		}
	}
}

// And out of a file that the kernel has in memory?
func BenchmarkValueFromAFile(b *testing.B) {
	l, locs := filledLog(b, 300_000)
	locs = locs[:150_000]
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Value(locs[rng.IntN(len(locs))]); err != nil {
			b.Fatal(err)
		}
	}
}

// How fast is catching up from files?
func BenchmarkScanOfFiles(b *testing.B) {
	for _, digests := range []bool{false, true} {
		b.Run(fmt.Sprintf("digests=%v", digests), func(b *testing.B) {
			const records = 150_000
			l, _ := filledLog(b, 2*records)
			b.ReportAllocs()
			for b.Loop() {
				r, err := l.ScanSegment(1)
				if err != nil {
					b.Fatal(err)
				}
				r.only = false
				if digests {
					r.VerifyDigests()
				}
				for range records {
					if _, err := r.Next(); err != nil {
						b.Fatal(err)
					}
				}
				r.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*records), "ns/record")
		})
	}
}

// benchKey is 64 bytes, made without looking at memory that is not in a cache.
type benchKey []byte

func newBenchKey() benchKey {
	return benchKey("/registry/pods/namespace-0000/deployment-0000000000-000000000000")
}

func (k benchKey) set(i int) []byte {
	for _, part := range []struct{ end, n int }{{29, i / 1000}, {51, i / 10}, {64, i * 7919}} {
		for at, n := part.end-1, part.n; k[at] != '-'; at-- {
			k[at] = byte('0' + n%10)
			n /= 10
		}
	}
	return k
}

func benchTable(b *testing.B, keys int) *KeyTable {
	b.Helper()
	builder := NewKeyTableBuilder(7)
	key := newBenchKey()
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range keys {
		v := Version{
			Mod: ident.Revision(1e7 + rng.IntN(1e6)), Version: 1,
			Loc: Loc{Segment: 7, Offset: rng.Uint32(), Length: 350},
		}
		v.Create = v.Mod
		if err := builder.Add(key.set(i), []Version{v}); err != nil {
			b.Fatal(err)
		}
	}
	return builder.Finish()
}

// What does a point lookup cost in a table of 200,000 keys, and how large is
// such a table?
func BenchmarkKeyTableFind(b *testing.B) {
	t := benchTable(b, 200_000)
	rng := rand.New(rand.NewPCG(1, 1))
	key := newBenchKey()
	for _, there := range []bool{true, false} {
		b.Run(fmt.Sprintf("there=%v", there), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k := key.set(rng.IntN(t.Len()))
				if !there {
					k[15] = 'x'
				}
				if _, ok := t.Find(k, 1<<40); ok != there {
					b.Fatal(ok)
				}
				k[15] = 'n'
			}
		})
	}
	b.Run("key", func(b *testing.B) { // What the key itself costs, to be taken off.
		for b.Loop() {
			key.set(rng.IntN(t.Len()))
		}
	})
	b.Logf("%d bytes for %d keys", t.Bytes(), t.Len())
}

// What does a key cost in an iteration that looks at one version of each?
func BenchmarkKeyTableIterate(b *testing.B) {
	t := benchTable(b, 200_000)
	b.ReportAllocs()
	for b.Loop() {
		it := t.Iter()
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			if v, ok := it.Find(1 << 40); ok && v.Loc.Length > 0 {
				n++
			}
		}
		if n != t.Len() {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*t.Len()), "ns/key")
}

// What does a restart pay to check a table?
func BenchmarkKeyTableDecode(b *testing.B) {
	t := benchTable(b, 200_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeKeyTable(t.data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*t.Len()), "ns/key")
}

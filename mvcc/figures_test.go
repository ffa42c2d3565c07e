package mvcc

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

var figuresFlag = flag.Int("mvcc.figures", 100_000, "print figures of a store of so many keys of 64 B with 256 B values")

func figuresConfig(t testing.TB) Config {
	cfg := diskConfig(t)
	cfg.SegmentBytes, cfg.RingBytes, cfg.Manual, cfg.BaseNoSync, cfg.BaseMapBytes = 0, 0, false, false, 16<<30
	return cfg
}

func figuresKey(i int) []byte {
	return fmt.Appendf(make([]byte, 0, 64), "/registry/%08x/default/%016x-%020d", uint32(i)*2654435761, uint64(i)*0x9e3779b97f4a7c15, i)
}

// fill puts keys in batches, as a busy leader does, and returns the next index.
func fillKeys(t testing.TB, s *Store, index ident.Index, from, to int, value []byte) ident.Index {
	for i := from; i < to; {
		e := s.Begin(index, 1, 0)
		index++
		for range min(100, to-i) {
			tx := e.Tx()
			if _, err := tx.Put(PutArgs{Key: figuresKey(i), Value: value}); err != nil {
				t.Fatal(err)
			}
			tx.Commit()
			i++
		}
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return index
}

func compactAt(t testing.TB, s *Store, index ident.Index, rev ident.Revision) ident.Index {
	e := s.Begin(index, 1, 0)
	tx := e.Tx()
	if err := tx.Compact(rev); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	return index + 1
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// BenchmarkFigures answers what a store of many keys costs: memory, opening,
// reading, merging, and putting beside a merge.
func BenchmarkFigures(t *testing.B) {
	n, ctx, cfg := *figuresFlag, context.Background(), figuresConfig(t)
	report := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	report("heap before: %.0f MB", heap())
	value := make([]byte, 256)
	s := mustCreate(t, cfg)
	began := time.Now()
	index := fillKeys(t, s, 1, 0, n, value)
	report("%d new keys: %.2f us a put", n, float64(time.Since(began).Microseconds())/float64(n))
	for {
		st := s.state.Load()
		if len(st.layout.older) == 0 || st.layout.older[0].table != nil && st.layout.crowded() < 0 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	report("heap never compacted: %.0f MB, of which ring %d MB; generations %d", heap(), cfg.RingBytes>>20, len(s.state.Load().layout.older)+1)
	gets(t, s, n, "point get of young keys")
	mustClose(t, s)

	began = time.Now()
	s = mustOpen(t, cfg)
	report("open, never compacted: %v", time.Since(began))
	report("heap never compacted, after open: %.0f MB", heap())
	gets(t, s, n, "point get of young keys, after open")
	ranges(t, s, "range of 10000 young keys")

	began = time.Now()
	index = compactAt(t, s, index, s.Head())
	if err := s.WaitMerged(ctx); err != nil {
		t.Fatal(err)
	}
	report("merge of %d keys into an empty base, in a hurry: %v", n, time.Since(began))
	report("heap compacted: %.0f MB; %+v", heap(), s.Sizes())
	gets(t, s, n, "point get of base keys")
	ranges(t, s, "range of 10000 base keys")
	mustClose(t, s)
	began = time.Now()
	s = mustOpen(t, cfg)
	report("open, compacted: %v", time.Since(began))
	report("heap compacted, after open: %.0f MB", heap())

	// Overwrite all, then measure puts beside the merge of them.
	index = fillKeys(t, s, index, 0, n, value)
	before := putRate(t, s, &index, 5*time.Second, nil)
	began = time.Now()
	index = compactAt(t, s, index, s.Head())
	done := func() bool { return s.Applied().Merged == s.Applied().Compacted }
	during := putRate(t, s, &index, time.Minute, done)
	took := time.Since(began)
	report("puts: %.0f/s before, %.0f/s (%.0f%%) during a merge of %v", before, during, 100*during/before, took)
	mustClose(t, s)
}

// putRate puts existing keys with values of 256 B until the time is over or
// done says so.
func putRate(t testing.TB, s *Store, index *ident.Index, d time.Duration, done func() bool) float64 {
	began, n, value := time.Now(), 0, make([]byte, 256)
	for time.Since(began) < d && (done == nil || !done()) {
		from := n * 7919 % (*figuresFlag - 100)
		*index = fillKeys(t, s, *index, from, from+100, value)
		n += 100
		<-time.After(time.Millisecond) // A client's pace: some ten thousand a second.
	}
	return float64(n) / time.Since(began).Seconds()
}

func gets(t testing.TB, s *Store, n int, what string) {
	const reads = 200_000
	began := time.Now()
	for i := range reads {
		v := s.View()
		res, err := v.Range(context.Background(), RangeArgs{Key: figuresKey(i * 7919 % n)})
		if err != nil || res.Count != 1 {
			t.Fatal(err, res)
		}
		v.Release()
	}
	fmt.Printf("%s: %.2f us\n", what, float64(time.Since(began).Microseconds())/reads)
}

func ranges(t testing.TB, s *Store, what string) {
	const reads = 50
	began, bytes, rows := time.Now(), 0, 0
	for i := range reads {
		v := s.View()
		res, err := v.Range(context.Background(), RangeArgs{Key: fmt.Appendf(nil, "/registry/%02x", i*5), End: []byte("/registry0"), Limit: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range res.KVs {
			bytes += len(kv)
		}
		rows += int(res.Count)
		v.Release()
	}
	fmt.Printf("%s: %.0f us each, %.0f MB/s, %d keys counted\n", what, float64(time.Since(began).Microseconds())/reads, float64(bytes)/1e6/time.Since(began).Seconds(), rows/reads)
}

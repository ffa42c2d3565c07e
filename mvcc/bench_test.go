package mvcc

import (
	"context"
	"math/rand/v2"
	"testing"
)

// benchStore has 200,000 keys of 64 B, young or merged into base.
func benchStore(b *testing.B, merged bool) *Store {
	cfg := figuresConfig(b)
	cfg.BaseNoSync = true
	s := mustCreate(b, cfg)
	b.Cleanup(func() { mustClose(b, s) })
	index := fillKeys(b, s, 1, 0, benchKeys, make([]byte, 256))
	if merged {
		compactAt(b, s, index, s.Head())
		if err := s.WaitMerged(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

const benchKeys = 200_000

func BenchmarkGet(b *testing.B) {
	for _, c := range []struct {
		name   string
		merged bool
	}{{"young", false}, {"base", true}} {
		b.Run(c.name, func(b *testing.B) {
			s, r, ctx := benchStore(b, c.merged), rand.New(rand.NewPCG(1, 2)), context.Background()
			keys := make([][]byte, 4096)
			for i := range keys {
				keys[i] = figuresKey(r.IntN(benchKeys))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v := s.View()
				if res, err := v.Range(ctx, RangeArgs{Key: keys[i%len(keys)]}); err != nil || len(res.KVs) != 1 {
					b.Fatal(res, err)
				}
				v.Release()
			}
		})
	}
}

// Of how much does a page of 10,000 rows cost, and the count of the rest?
func BenchmarkRange(b *testing.B) {
	for _, c := range []struct {
		name   string
		merged bool
		args   RangeArgs
	}{
		{"young/10000", false, RangeArgs{Limit: 10_000}}, {"base/10000", true, RangeArgs{Limit: 10_000}},
		{"young/count", false, RangeArgs{CountOnly: true}}, {"base/count", true, RangeArgs{CountOnly: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := benchStore(b, c.merged)
			a := c.args
			a.Key, a.End = []byte("/registry/e"), []byte("/registry0") // An eighth of the keys.
			var n, rows int64
			b.ReportAllocs()
			for b.Loop() {
				v := s.View()
				res, err := v.Range(context.Background(), a)
				if err != nil {
					b.Fatal(err)
				}
				rows += res.Count
				for _, kv := range res.KVs {
					n += int64(len(kv))
				}
				v.Release()
			}
			b.SetBytes(n / int64(b.N))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/key")
		})
	}
}

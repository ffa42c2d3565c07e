package mvcc

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

var (
	runsFlag = flag.Int("mvcc.runs", 60, "how many random runs each model test makes")
	seedFlag = flag.Uint64("mvcc.seed", 0, "run only this seed")
)

// testConfig keeps history in memory: a disk would make the tests wait.
func testConfig(t testing.TB) Config {
	cfg := diskConfig(t)
	cfg.BaseFS, cfg.BaseDir = cfg.FS, cfg.Dir
	cfg.FS, cfg.Dir = vfstest.NewMem(), "/gen"
	return cfg
}

func diskConfig(t testing.TB) Config {
	return Config{
		FS: vfs.OS(), Dir: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(),
		SegmentBytes: 4 << 10, RingBytes: 16 << 10, Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}
}

func mustCreate(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Create(cfg, Identity{Cluster: 7, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// forSeeds runs a test for many seeds, or for the one of the flag.
func forSeeds(t *testing.T, run func(t *testing.T, r *rand.Rand)) { forEvery(t, 1, run) }

// forEvery runs with every n-th seed, for runs that are long.
func forEvery(t *testing.T, n uint64, run func(t *testing.T, r *rand.Rand)) {
	if *seedFlag != 0 {
		run(t, rand.New(rand.NewPCG(*seedFlag, 1)))
		return
	}
	n *= uint64(quick.Stride())
	for seed := n; seed <= max(n, uint64(*runsFlag)); seed += n {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { run(t, rand.New(rand.NewPCG(seed, 1))) })
		if !ok {
			t.Fatalf("replay: go test ./mvcc -run '%s' -mvcc.seed=%d", t.Name(), seed)
		}
	}
}

func stepAll(t testing.TB, s *Store) {
	t.Helper()
	for {
		more, err := s.Step()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

func TestStateIsBaseUnderHistoryWhateverWasCompactedMergedAndReopened(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		cfg := testConfig(t)
		cfg.mergeKeys = 1 + r.IntN(10)
		store, m, sc := mustCreate(t, cfg), newModel(), newScript(r)
		for range 60 + r.IntN(120) {
			switch r.IntN(12) {
			case 0, 1, 2:
				if _, err := store.Step(); err != nil {
					t.Fatal(err)
				}
			case 3:
				stepAll(t, store)
			case 4:
				store.mu.asked++
			case 5:
				if r.IntN(3) == 0 {
					mustClose(t, store)
					store = mustOpen(t, cfg)
				}
			default:
				sc.head = m.head
				e := sc.entry()
				if err := e.apply(store); err != nil {
					t.Fatal(err)
				}
				m.apply(&e)
			}
			checkRead(t, sc, store, m)
		}
		checkAll(t, store, m)
		stepAll(t, store)
		checkAll(t, store, m)
		if st := store.Applied(); st.Merged != st.Compacted {
			t.Fatalf("merged through %d, compacted at %d, and nothing left to do", st.Merged, st.Compacted)
		}
		mustClose(t, store)
		store = mustOpen(t, cfg)
		checkAll(t, store, m)
		mustClose(t, store)
	})
}

func BenchmarkPut(b *testing.B) {
	for _, c := range []struct {
		name     string
		existing bool
		batch    int
	}{{"new", false, 1}, {"existing", true, 1}, {"new-batch100", false, 100}, {"existing-batch100", true, 100}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := diskConfig(b)
			cfg.SegmentBytes, cfg.RingBytes, cfg.BaseNoSync = 64<<20, 32<<20, false
			cfg.Manual, cfg.BaseMapBytes = false, 8<<30
			s := mustCreate(b, cfg)
			defer mustClose(b, s)
			value := make([]byte, 256)
			r := rand.New(rand.NewPCG(1, 2))
			key := func() []byte {
				n := r.Uint64()
				if c.existing {
					n %= 100_000
				}
				return fmt.Appendf(make([]byte, 0, 64), "/registry/pods/default/%016x-%024d", n, 0)
			}
			b.ReportAllocs()
			index := ident.Index(0)
			n := 0
			for b.Loop() {
				if n%c.batch == 0 {
					index++
					s.Begin(index, 1, 0)
				}
				tx := s.entry.Tx()
				if _, err := tx.Put(PutArgs{Key: key(), Value: value}); err != nil {
					b.Fatal(err)
				}
				tx.Commit()
				if n++; n%c.batch == 0 {
					if err := s.entry.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if n%c.batch != 0 {
				_ = s.entry.Commit()
			}
		})
	}
}

func TestManySegmentsShareFewTablesOfWhichACompactionTakesAPart(t *testing.T) {
	forEvery(t, 10, func(t *testing.T, r *rand.Rand) {
		cfg := testConfig(t)
		store, m, sc := mustCreate(t, cfg), newModel(), newScript(r)
		for range 3 {
			for store.state.Load().layout.active.list.segment%24 != 23 {
				sc.head = m.head
				e := sc.entry()
				for i := range e.requests {
					if len(e.requests[i].steps) > 0 && e.requests[i].steps[0].kind == "compact" {
						e.requests[i].abort = true
					}
				}
				if err := e.apply(store); err != nil {
					t.Fatal(err)
				}
				m.apply(&e)
			}
			stepAll(t, store)
			if n := len(store.state.Load().layout.older); n >= generationsMax {
				t.Fatalf("%d generations left", n)
			}
			for range 3 {
				checkRead(t, sc, store, m)
				sc.index++
				oldest := max(m.compacted, 1)
				e := logEntry{index: sc.index, requests: []request{{steps: []step{{kind: "compact", rev: oldest + (m.head-oldest)/3}}}}}
				if err := e.apply(store); err != nil {
					t.Fatal(err)
				}
				m.apply(&e)
				stepAll(t, store)
				checkAll(t, store, m)
			}
		}
		mustClose(t, store)
		store = mustOpen(t, cfg)
		checkAll(t, store, m)
		mustClose(t, store)
	})
}

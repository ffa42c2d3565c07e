package watch

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
)

func benchStore(b *testing.B) *mvcc.Store {
	b.Helper()
	store, err := mvcc.Create(mvcc.Config{
		FS: vfs.OS(), Dir: b.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), BaseNoSync: true, BaseMapBytes: 1 << 30,
	}, mvcc.Identity{Cluster: 7})
	if err != nil {
		b.Fatal(err)
	}
	return store
}

// write makes entries of one put each.
func write(b *testing.B, store *mvcc.Store, from, n int, key func(int) string) {
	b.Helper()
	value := make([]byte, 256)
	for i := from; i < from+n; i++ {
		e := store.Begin(ident.Index(i+1), 1, 0)
		tx := e.Tx()
		if _, err := tx.Put(mvcc.PutArgs{Key: []byte(key(i)), Value: value}); err != nil {
			b.Fatal(err)
		}
		tx.Commit()
		if err := e.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// What does the hub cost per event delivered to one of 1,000 streams, each in
// a goroutine of its own, until it is out of Next? The writer waits for all
// after each burst, so burst=1 wakes every goroutine for every event.
func BenchmarkFanOut(b *testing.B) {
	for _, burst := range []int{1, 10, 100} {
		for _, prev := range []bool{false, true} {
			b.Run(fmt.Sprintf("burst=%d/prev=%v", burst, prev), func(b *testing.B) { fanOut(b, burst, prev) })
		}
	}
}

func fanOut(b *testing.B, burst int, prev bool) {
	const watchers = 1000
	store := benchStore(b)
	hub := NewHub(Config{Clock: clock.Real(), Logger: hclog.NewNullLogger()}, store)
	ctx, cancel := context.WithCancel(context.Background())
	var readers, round sync.WaitGroup
	for range watchers {
		s := hub.NewStream()
		if _, err := s.Watch(Request{Key: []byte("/registry/"), End: []byte("/registry0"), PrevKV: prev}); err != nil {
			b.Fatal(err)
		}
		readers.Go(func() {
			got := 0
			for {
				batch, err := s.Next(ctx)
				if err != nil {
					return
				}
				for got += len(batch.Events); got >= burst; got -= burst {
					round.Done()
				}
			}
		})
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		round.Add(watchers)
		write(b, store, n, burst, func(i int) string { return fmt.Sprintf("/registry/pods/%d", i%100) })
		round.Wait()
		n += burst
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/watchers, "ns/delivered")
	cancel()
	readers.Wait()
	if err := hub.Close(); err != nil {
		b.Fatal(err)
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
}

// What does an event cost that one of 10,000 watchers of single keys and
// prefixes wants?
func BenchmarkMatch(b *testing.B) {
	store := benchStore(b)
	hub := NewHub(Config{Clock: clock.Real(), Logger: hclog.NewNullLogger()}, store)
	s := hub.NewStream()
	for i := range 5000 {
		for _, r := range []Request{
			{Key: fmt.Appendf(nil, "/single/%04d", i)},
			{Key: fmt.Appendf(nil, "/prefix/%04d/", i), End: fmt.Appendf(nil, "/prefix/%04d0", i)},
		} {
			if _, err := s.Watch(r); err != nil {
				b.Fatal(err)
			}
		}
	}
	const burst = 100
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		write(b, store, n, burst, func(i int) string {
			if i%2 == 0 {
				return fmt.Sprintf("/single/%04d", i%5000)
			}
			return fmt.Sprintf("/prefix/%04d/x", i%5000)
		})
		n += burst
		for got := 0; got < burst; {
			batch, err := s.Next(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			got += len(batch.Events)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
	if err := hub.Close(); err != nil {
		b.Fatal(err)
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
}

// What does catching up cost per revision of history, for a wide watcher that
// wants all and a narrow one that wants none?
func BenchmarkCatchUp(b *testing.B) {
	const revisions = 100_000
	store := benchStore(b)
	write(b, store, 0, revisions, func(i int) string { return fmt.Sprintf("/registry/pods/%d", i%1000) })
	hub := NewHub(Config{Clock: clock.Real(), Logger: hclog.NewNullLogger()}, store)
	for _, c := range []struct {
		name string
		Request
		want int
	}{
		{"wide", Request{Key: []byte{0}, End: []byte{0}, Start: 2}, revisions},
		{"narrow", Request{Key: []byte("/registry/pods/7"), Start: 2}, revisions / 1000},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := hub.NewStream()
				if _, err := s.Watch(c.Request); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < c.want; {
					batch, err := s.Next(context.Background())
					if err != nil {
						b.Fatal(err)
					}
					got += len(batch.Events)
				}
				s.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/revisions, "ns/revision")
		})
	}
	if err := hub.Close(); err != nil {
		b.Fatal(err)
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
}

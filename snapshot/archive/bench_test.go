package archive

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// newBusyCluster is a cluster whose store is set up as a member's is.
func newBusyCluster(b testing.TB) *cluster {
	b.Helper()
	s, err := mvcc.Create(mvcc.Config{FS: vfs.OS(), Dir: b.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger()}, testIdentity)
	if err != nil {
		b.Fatal(err)
	}
	return beginBusy(b, s)
}

func beginBusy(b testing.TB, s *mvcc.Store) *cluster {
	c := &cluster{t: b, store: s}
	b.Cleanup(func() {
		if c.store != nil {
			c.store.Close()
		}
	})
	c.begin()
	c.past = nil // It holds all keys.
	return c
}

// put puts n keys, a hundred in an entry, as they come under load.
func (c *cluster) put(n, valueBytes int) {
	c.t.Helper()
	value := make([]byte, valueBytes)
	x := uint64(1)
	for i := 0; i < n; {
		c.index++
		e := c.store.Begin(c.index, c.term, int64(c.index)*1_000_000)
		for range 100 {
			for j := range value {
				x = x*6364136223846793005 + 1442695040888963407
				value[j] = byte(x >> 56)
			}
			tx := e.Tx()
			if _, err := tx.Put(mvcc.PutArgs{Key: fmt.Appendf(nil, "/registry/pods/%016d", i), Value: value}); err != nil {
				c.t.Fatal(err)
			}
			tx.Commit()
			i++
		}
		c.commit(e)
	}
}

// shipped archives what there is and then what more does.
func (c *cluster) shipped(b testing.TB, more func()) *Archive {
	b.Helper()
	store := newMemStore()
	based := store.on("put", manifestName)
	w, stop := start(b, c.config(store, &alarms{}))
	<-based
	more()
	c.wait(w)
	for !strings.Contains(strings.Join(store.names(), " "), manifestName) {
		runtime.Gosched()
	}
	stop()
	// Closed, and on a disk: what memory a restore takes shall be its own.
	if err := c.store.Close(); err != nil {
		b.Fatal(err)
	}
	c.store = nil
	folder, err := blobstore.Open(b.Context(), "file://"+b.TempDir(), blobstore.Config{})
	for _, name := range store.names() {
		if err == nil {
			_, err = folder.Put(b.Context(), name, store.objects[name], blobstore.Condition{})
		}
		delete(store.objects, name)
	}
	var a *Archive
	if err == nil {
		b.Cleanup(func() { folder.Close() })
		a, err = Open(b.Context(), folder, UUID{}, nil)
	}
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// restoreLatest makes a store of the newest point, as a drill does, and returns
// by how much the heap grew at most, with garbage collected as in holdfastctl.
func restoreLatest(b testing.TB, a *Archive) (heapBytes uint64) {
	b.Helper()
	p, err := a.Plan(b.Context(), 0, Target{kind: toLatest, text: "latest"})
	if err != nil {
		b.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(snapshot.FillGCPercent))
	dir := filepath.Join(b.TempDir(), "state")
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.HeapInuse
	var most atomic.Uint64
	watch := task.New(b.Context())
	watch.Go("heap", func(ctx context.Context) error {
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	err = a.restoreInto(b.Context(), mvcc.Config{FS: vfs.OS(), Dir: dir, Clock: clock.Real(), Logger: hclog.NewNullLogger()},
		mvcc.Identity{Cluster: p.Base.ClusterID, Timeline: p.Timeline}, p)
	watch.Stop()
	if err := watch.Wait(); err != nil {
		b.Fatal(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return max(most.Load(), before) - before
}

// How many records a second does a restore take in from the archived log?
func BenchmarkReplay(b *testing.B) {
	for _, size := range []struct{ bytes, records int }{{128, 400_000}, {1024, 100_000}} {
		b.Run(fmt.Sprintf("value=%d", size.bytes), func(b *testing.B) {
			c := newBusyCluster(b)
			a := c.shipped(b, func() { c.put(size.records, size.bytes) })
			var heap uint64
			n := 0
			for b.Loop() {
				heap = max(heap, restoreLatest(b, a))
				n += size.records
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(heap)/(1<<20), "MiB-heap")
		})
	}
}

var baseFlag = flag.Int("archive.base-mib", 256, "how large the base is that a benchmark restores")

// How fast is a base restored, against writing as many bytes to the same disk?
// The two take turns, so that a busy disk is busy for both.
func BenchmarkRestoreOfABase(b *testing.B) {
	for _, valueBytes := range []int{512, 4000} {
		b.Run(fmt.Sprintf("value=%d", valueBytes), func(b *testing.B) {
			keys := *baseFlag << 20 / (valueBytes + 31)
			a := newFullCluster(b, keys, valueBytes).shipped(b, func() {})
			content := int64(keys * (valueBytes + 31))
			b.SetBytes(content)
			var heap uint64
			var raw, cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				began := time.Now()
				writeRaw(b, content)
				raw += time.Since(began)
				before := cpuTime(b)
				b.StartTimer()
				heap = max(heap, restoreLatest(b, a))
				cpu += cpuTime(b) - before
			}
			b.ReportMetric(float64(heap)/(1<<20), "MiB-heap")
			b.ReportMetric(float64(content)*float64(b.N)/1e6/raw.Seconds(), "MB/s-raw")
			b.ReportMetric(raw.Seconds()/b.Elapsed().Seconds(), "of-raw")
			b.ReportMetric(cpu.Seconds()/float64(b.N)/float64(content)*1e9, "cpu-s/GB")
		})
	}
}

// What do the data directories of three members cost, against those of one? Also
// in turns. The revision is raised, as it is where an archive has a ceiling.
func BenchmarkRestoreOfMembers(b *testing.B) {
	const valueBytes = 4000
	keys := *baseFlag << 20 / (valueBytes + 31)
	a := newFullCluster(b, keys, valueBytes).shipped(b, func() {})
	p, err := a.Plan(b.Context(), 0, Target{kind: toLatest, text: "latest"})
	if err != nil {
		b.Fatal(err)
	}
	restore := func(members int) time.Duration {
		dir := b.TempDir()
		o := threeIn(dir, 1000)
		o.Members = o.Members[:members]
		to, err := snapshot.PlanRestore(p.Header(), o)
		if err != nil {
			b.Fatal(err)
		}
		cfg := restoreConfig()
		cfg.Tune = nil
		began := time.Now()
		err = a.RestoreTo(b.Context(), cfg, p, to)
		took := time.Since(began)
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			b.Fatal(err)
		}
		return took
	}
	var one, three time.Duration
	for b.Loop() {
		one += restore(1)
		three += restore(3)
	}
	content := float64(keys*(valueBytes+31)) * float64(b.N) / 1e6
	b.ReportMetric(content/one.Seconds(), "MB/s-one")
	b.ReportMetric(content/three.Seconds(), "MB/s-three")
	b.ReportMetric(three.Seconds()/one.Seconds(), "three/one")
}

// writeRaw writes so many bytes to a file, and syncs it.
func writeRaw(b *testing.B, content int64) {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for left := content; err == nil && left > 0; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		b.Fatal(err)
	}
}

// cpuTime is what this process has used of all processors.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

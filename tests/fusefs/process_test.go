//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

var binaries struct {
	sync.Once
	cluster.Binaries
	err error
}

// memberOn starts one member whose data lies on a file system of its own.
func memberOn(t *testing.T, flags ...string) (*FS, *cluster.Cluster) {
	t.Helper()
	f, dir := mountFor(t)
	binaries.Do(func() {
		binaries.Binaries, binaries.err = cluster.Build(context.Background(), filepath.Join("..", ".."), buildDir)
	})
	check(t, binaries.err)
	c := must[*cluster.Cluster](t)(cluster.New(t.TempDir(), binaries.Binaries, 1, flags...))
	c.Members[0].DataDir = filepath.Join(dir, "data")
	t.Cleanup(c.KillAll)
	check(t, c.StartAll(t.Context()))
	return f, c
}

// writers put keys until they are told to stop or the member refuses. They
// return what was acknowledged.
type writers struct {
	round  int
	client *client.Client
	stop   context.CancelFunc
	wait   sync.WaitGroup

	mu    sync.Mutex
	acked map[string]int64 // Revisions.
}

func startWriters(t *testing.T, c *cluster.Cluster, round int) *writers {
	t.Helper()
	w := &writers{round: round, client: must[*client.Client](t)(c.Client()), acked: make(map[string]int64)}
	ctx, cancel := context.WithCancel(t.Context())
	w.stop = cancel
	t.Cleanup(func() { cancel(); w.wait.Wait(); w.client.Close() })
	for i := range 4 {
		w.wait.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%d/%d/%06d", round, i, n)
				put, cancel := context.WithTimeout(ctx, 2*time.Second)
				r, err := w.client.Put(put, client.Put{Key: key, Value: []byte(key)})
				cancel()
				if err != nil {
					continue
				}
				w.mu.Lock()
				w.acked[key] = r.Header.Revision
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *writers) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func (w *writers) until(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d acknowledged puts", n), func() bool { return w.count() >= n })
}

func (w *writers) end() {
	w.stop()
	w.wait.Wait()
}

// verify reads everything that was acknowledged.
func (w *writers) verify(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	cl := must[*client.Client](t)(c.Client())
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := cl.Get(ctx, client.Get{Range: client.Prefix(fmt.Sprintf("%d/", w.round))})
	check(t, err)
	found := make(map[string]int64, len(r.Kvs))
	for _, kv := range r.Kvs {
		if string(kv.Value) != string(kv.Key) {
			t.Fatalf("%s holds %q", kv.Key, kv.Value)
		}
		found[string(kv.Key)] = kv.ModRevision
	}
	for key, revision := range w.acked {
		if found[key] != revision {
			t.Fatalf("%s was acknowledged at revision %d, now %d (0: it is gone)", key, revision, found[key])
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s in 30 s", what)
		}
	}
}

func restart(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	check(t, c.StartAll(t.Context()))
}

func TestPowerCutsLoseNoAcknowledgedPut(t *testing.T) {
	f, c := memberOn(t)
	images := []vfstest.Image{vfstest.Nothing, vfstest.Random, vfstest.Torn, vfstest.Prefix, vfstest.NoNames, vfstest.NoData}
	if testing.Short() {
		images = images[:3]
	}
	seed := uint64(time.Now().UnixNano())
	var all []*writers
	for round, image := range images {
		w := startWriters(t, c, round)
		w.until(t, 60)
		// A slow sync at the end, so that something is pending.
		f.Set(Rule{Match: "*.wal", Op: Sync, Delay: 100 * time.Millisecond})
		eventually(t, "write that waits for its sync", func() bool { return f.PowerOff(1) })
		c.KillAll()
		w.end()
		t.Logf("image %s, seed %d: %d puts acknowledged, %d changes pending", image, seed+uint64(round), w.count(), f.Pending())
		check(t, f.PowerCut(image, seed+uint64(round)))
		f.Set()
		restart(t, c)
		w.verify(t, c)
		all = append(all, w)
	}
	for _, each := range all {
		each.verify(t, c)
	}
}

func TestAFailedSyncOfTheLogEndsTheMember(t *testing.T) {
	f, c := memberOn(t)
	w := startWriters(t, c, 0)
	w.until(t, 50)
	f.Set(Rule{Match: "*.wal", Op: Sync, Err: syscall.EIO, Times: 1})
	eventually(t, "end of the member", func() bool { return !c.Members[0].Running() })
	w.end()
	if f.Counters()["failed sync"] != 1 {
		t.Fatalf("counters: %v", f.Counters())
	}
	check(t, f.DropUnsynced())
	restart(t, c)
	w.verify(t, c)
	after := startWriters(t, c, 1)
	after.until(t, 20)
	after.end()
}

func TestASlowDiskDelaysAndLosesNothing(t *testing.T) {
	f, c := memberOn(t)
	f.Set(Rule{Match: "*.wal", Op: Sync, Delay: 150 * time.Millisecond})
	w := startWriters(t, c, 0)
	w.until(t, 12)
	if f.Counters()["slow sync"] < 3 {
		t.Fatalf("12 puts of 4 writers were acknowledged after %d slow syncs", f.Counters()["slow sync"])
	}
	c.KillAll()
	w.end()
	check(t, f.DropUnsynced())
	f.Set()
	restart(t, c)
	w.verify(t, c)
}

// bbolt writes base by itself, so its failures are met here, not in memory.
func TestABaseWhoseSyncFailedIsNotUsedAgain(t *testing.T) {
	f, c := memberOn(t)
	w := startWriters(t, c, 0)
	w.until(t, 50)
	f.Set(Rule{Match: "base.db", Op: Sync, Err: syscall.EIO, Times: 1})
	checkpointSoon(t, f, "failed sync") // Of the next checkpoint, which comes by time.
	// A member that had run for a while starts again by itself, on a copy.
	first := filepath.Join(c.Members[0].DataDir, "gen-000001")
	eventually(t, "end of the member, or another base", func() bool {
		_, err := os.Stat(first)
		return !c.Members[0].Running() || errors.Is(err, fs.ErrNotExist)
	})
	c.KillAll()
	w.end()
	f.Set()
	check(t, f.DropUnsynced())
	restart(t, c)
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the base whose sync failed is in use again: %v", err)
	}
	w.verify(t, c)
}

func TestAFullDiskUnderBaseIsWaitedOut(t *testing.T) {
	f, c := memberOn(t)
	w := startWriters(t, c, 0)
	w.until(t, 50)
	f.Set(Rule{Match: "base.db", Op: Write, Err: syscall.ENOSPC}, Rule{Match: "base.db", Op: Size, Err: syscall.ENOSPC})
	checkpointSoon(t, f, "failed write", "failed size")
	before := w.count()
	w.until(t, before+50) // Puts go on.
	f.Set()
	synced := f.Counters()["sync base.db"]
	eventually(t, "checkpoint once there is room", func() bool { return f.Counters()["sync base.db"] > synced })
	c.KillAll()
	w.end()
	check(t, f.DropUnsynced())
	restart(t, c)
	w.verify(t, c)
}

// checkpointSoon waits until a fault was met.
func checkpointSoon(t *testing.T, f *FS, faults ...string) {
	t.Helper()
	eventually(t, "checkpoint", func() bool {
		n := int64(0)
		for _, fault := range faults {
			n += f.Counters()[fault]
		}
		return n > 0
	})
}

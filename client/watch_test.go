package client_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/leak"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of random faults; 0 draws one")
	roundsFlag = flag.Int("rounds", 12, "rounds of random faults")
)

func newRand(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay with -seed=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// next returns the next report that has events, and fails when there is none.
func next(t *testing.T, w *client.Watcher) *pb.WatchResponse {
	t.Helper()
	m, open := <-w.Reports()
	if !open {
		t.Fatalf("the watch ended: %v", w.Err())
	}
	return m
}

// begin returns a watcher that is in force.
func begin(t *testing.T, c *client.Client, w client.Watch) *client.Watcher {
	t.Helper()
	w.Created = true
	watcher := c.Watch(within(t), w)
	if m := next(t, watcher); !m.Created {
		t.Fatalf("first report is %v", m)
	}
	return watcher
}

// until collects "key@revision" of events up to a revision.
func until(t *testing.T, w *client.Watcher, revision int64) []string {
	t.Helper()
	var seen []string
	for last := int64(0); last < revision; {
		for _, e := range next(t, w).Events {
			last = e.Kv.ModRevision
			seen = append(seen, fmt.Sprintf("%s@%d", e.Kv.Key, last))
		}
	}
	return seen
}

func TestAWatchSeesEveryEventOnceWhateverMembersDo(t *testing.T) {
	leak.Check(t)
	r := newRand(t)
	const members = 3
	cluster := clienttest.New(t, members)
	cluster.FragmentAt(2)
	w := begin(t, newClient(t, cluster), client.Watch{Range: client.Prefix("")})
	var running [members]bool
	for i := range running {
		running[i] = true
	}
	var want, got []string
	for range *roundsFlag {
		if i := r.IntN(members); running[i] {
			cluster.Stop(i)
			running[i] = false
		} else {
			cluster.Start(i)
			running[i] = true
		}
		if r.IntN(3) == 0 { // A stream is also cut after some messages.
			var left atomic.Int64
			left.Store(r.Int64N(4))
			cluster.SetFaults(clienttest.Faults{Watching: func(int, *pb.WatchResponse) error {
				if left.Add(-1) == 0 {
					return status.Error(codes.Unavailable, "cut")
				}
				return nil
			}})
		}
		var revision int64
		for range 1 + r.IntN(4) {
			keys := []string{"a", "b", "c", "d", "e"}[:1+r.IntN(5)]
			revision = cluster.PutAll("v", keys...)
			for _, key := range keys {
				want = append(want, fmt.Sprintf("%s@%d", key, revision))
			}
		}
		if running == [members]bool{} {
			cluster.Start(0)
			running[0] = true
		}
		got = append(got, until(t, w, revision)...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("saw  %q\nwant %q", got, want)
	}
}

func TestAWatchOfTheFutureMissesNothingOfAnOutageBeforeItsFirstEvent(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	cluster.Put("k", "before")
	w := begin(t, newClient(t, cluster), client.Watch{Range: client.One("k")})
	cluster.Stop(0)
	revision := cluster.Put("k", "meanwhile")
	cluster.Start(0)
	if got := until(t, w, revision); len(got) != 1 {
		t.Errorf("saw %q", got)
	}
}

func TestAWatchEndsWhenItsNextEventWasCompactedMeanwhile(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 2)
	w := begin(t, newClient(t, cluster), client.Watch{Range: client.One("k")})
	until(t, w, cluster.Put("k", "1"))
	cluster.Stop(0)
	cluster.Stop(1)
	cluster.Put("k", "2")
	cluster.Compact(cluster.Put("k", "3"))
	cluster.Start(1)
	for range w.Reports() {
		t.Error("an event was reported after a gap")
	}
	var compacted *client.CompactedError
	if !errors.As(w.Err(), &compacted) || !errors.Is(w.Err(), client.ErrCompacted) {
		t.Fatalf("the watch ended with %v", w.Err())
	}
	if compacted.Revision != 3 || compacted.Compacted != 4 {
		t.Errorf("wanted revision %d, compacted at %d", compacted.Revision, compacted.Compacted)
	}
}

func TestAPieceOfARevisionIsNeverReportedTwice(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 2)
	cluster.FragmentAt(2)
	w := begin(t, newClient(t, cluster), client.Watch{Range: client.Prefix("")})
	var cut atomic.Bool
	cluster.SetFaults(clienttest.Faults{Watching: func(_ int, m *pb.WatchResponse) error {
		if len(m.Events) > 0 && !m.Fragment && cut.CompareAndSwap(false, true) {
			return status.Error(codes.Unavailable, "cut before the last piece")
		}
		return nil
	}})
	cluster.PutAll("v", "a", "b", "c", "d", "e")
	m := next(t, w)
	if len(m.Events) != 5 || m.Fragment || !cut.Load() {
		t.Errorf("got %d events, cut: %v", len(m.Events), cut.Load())
	}
}

func TestProgressMovesWhereAWatchResumes(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	w := begin(t, newClient(t, cluster), client.Watch{Range: client.One("k")})
	last := cluster.Put("other", "1")
	if err := w.RequestProgress(); err != nil {
		t.Fatal(err)
	}
	if m := next(t, w); len(m.Events) != 0 || m.Header.Revision != last {
		t.Fatalf("progress is %v", m)
	}
	cluster.Stop(0)
	cluster.Compact(last + 1)
	revision := cluster.Put("k", "1")
	cluster.Start(0)
	if got := until(t, w, revision); len(got) != 1 {
		t.Errorf("saw %q", got)
	}
}

func TestAWatchLeavesAMemberWithoutLeader(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 3)
	var alone atomic.Int64 // The member that is cut off, from 1.
	cluster.SetFaults(clienttest.Faults{
		Before: func(_ context.Context, member int, _ string) error {
			if int64(member+1) == alone.Load() {
				return status.Error(codes.Unavailable, "etcdserver: no leader")
			}
			return nil
		},
		Watching: func(member int, m *pb.WatchResponse) error {
			if len(m.Events) > 0 && alone.CompareAndSwap(0, int64(member+1)) {
				return status.Error(codes.Unavailable, "etcdserver: no leader")
			}
			return nil
		},
	})
	w := begin(t, newClient(t, cluster), client.Watch{Range: client.One("k")})
	if v := cluster.Metadata().Get("hasleader"); !slices.Equal(v, []string{"true"}) {
		t.Errorf("a watch carries hasleader %q", v)
	}
	until(t, w, cluster.Put("k", "1"))
}

func TestAWatchReportsWhatItWasAskedFor(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c, ctx := newClient(t, cluster), within(t)
	cluster.Put("k", "1")
	last := cluster.Put("k", "2")
	if _, err := c.Delete(ctx, client.Delete{Range: client.One("k")}); err != nil {
		t.Fatal(err)
	}
	puts := c.Watch(ctx, client.Watch{Range: client.One("k"), Revision: last, NoDelete: true, PrevKV: true})
	if m := next(t, puts); len(m.Events) != 1 || string(m.Events[0].PrevKv.GetValue()) != "1" {
		t.Errorf("puts: %v", m)
	}
	deletes := c.Watch(ctx, client.Watch{Range: client.One("k"), Revision: 1, NoPut: true})
	if m := next(t, deletes); len(m.Events) != 1 || m.Events[0].PrevKv != nil || m.Events[0].Kv.ModRevision != last+1 {
		t.Errorf("deletes: %v", m)
	}
}

func TestAWatchEndsWithItsContextAndWithWhatTheServerSays(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c := newClient(t, cluster)
	w := begin(t, c, client.Watch{Range: client.One("k")})
	w.Cancel()
	for range w.Reports() {
	}
	if w.Err() != nil {
		t.Errorf("canceled watch: %v", w.Err())
	}
	if err := w.RequestProgress(); !errors.Is(err, client.ErrNotWatching) {
		t.Errorf("progress of a canceled watch: %v", err)
	}
	for reason, want := range map[string]error{
		"rpc error: code = PermissionDenied desc = etcdserver: permission denied": client.ErrPermissionDenied,
		"mvcc: watcher range is empty":                                            client.ErrWatchCanceled,
		"":                                                                        client.ErrWatchCanceled,
		"etcdserver: mvcc: required revision has been compacted": client.ErrCompacted,
	} {
		cluster.SetFaults(clienttest.Faults{Watching: func(_ int, m *pb.WatchResponse) error {
			m.Canceled, m.CancelReason = true, reason
			return nil
		}})
		w := c.Watch(within(t), client.Watch{Range: client.One("k")})
		for range w.Reports() {
			t.Errorf("%q: reported something", reason)
		}
		if !errors.Is(w.Err(), want) {
			t.Errorf("%q: ended with %v, want %v", reason, w.Err(), want)
		}
	}
	cluster.SetFaults(clienttest.Faults{Before: func(context.Context, int, string) error {
		return status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
	}})
	refused := c.Watch(within(t), client.Watch{Range: client.One("k")})
	for range refused.Reports() {
	}
	if !errors.Is(refused.Err(), client.ErrInvalidAuthToken) {
		t.Errorf("refused stream: %v", refused.Err())
	}
}

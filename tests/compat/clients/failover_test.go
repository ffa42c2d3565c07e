package clients

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

const (
	writers       = 4
	writesAfter   = 30 // Acknowledged writes of each writer after the last member was killed and came back.
	attemptLimit  = 5 * time.Second
	reelectedSoon = 20 * time.Second
)

// Each member is killed once and started again, while clients write and watch.
func TestKilledMembersCostNoAcknowledgedWriteAndNoEvent(t *testing.T) {
	t.Parallel()
	cluster := member.StartCluster(t, 3)
	f := &fixture{T: t, Client: dial(t, cluster), cluster: cluster, prefix: "f/"}
	start := f.put("start", "").Header.Revision
	watch := func(after int64) clientv3.WatchChan {
		return f.Client.Watch(clientv3.WithRequireLeader(t.Context()), f.prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1))
	}
	watched := watch(start)

	var acknowledged sync.Map // Revision to value.
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() { write(f, w, done, &acknowledged) })
	}
	for _, m := range cluster.Members {
		waitWrites(f, &acknowledged, 20)
		m.Kill()
		waitWrites(f, &acknowledged, 20) // The others go on without it.
		m.Start()
	}
	waitWrites(f, &acknowledged, writesAfter)
	close(done)
	wg.Wait()

	end := f.put("end", "").Header.Revision
	seen := map[int64]string{}
	for last := start; last < end; {
		r := f.next(watched)
		if errors.Is(r.Err(), rpctypes.ErrNoLeader) { // For long, on a busy machine: what was missed comes.
			watched = watch(last)
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision <= last && e.Kv.ModRevision != end {
				t.Fatalf("event of revision %d after one of %d", e.Kv.ModRevision, last)
			}
			last = e.Kv.ModRevision
			seen[last] = string(e.Kv.Value)
		}
	}
	n := 0
	acknowledged.Range(func(revision, value any) bool {
		n++
		if seen[revision.(int64)] != value {
			t.Errorf("revision %d was acknowledged as %q and seen as %q", revision, value, seen[revision.(int64)])
		}
		return true
	})
	t.Logf("%d writes acknowledged, %d events", n, len(seen))
	stored := f.get("", clientv3.WithPrefix(), clientv3.WithLimit(0))
	f.want("keys", stored.Count, len(seen)+1) // The first put was not watched.
}

// write puts new keys until it is told to stop. A write without an answer is
// not repeated: it may have happened.
func write(f *fixture, writer int, done chan struct{}, acknowledged *sync.Map) {
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		key := fmt.Sprintf("%d-%d", writer, i)
		ctx, cancel := context.WithTimeout(f.T.Context(), attemptLimit)
		r, err := f.Client.Put(ctx, f.key(key), key)
		cancel()
		if err == nil {
			acknowledged.Store(r.Header.Revision, key)
		} else if !outage(err) {
			f.T.Errorf("put: %v", err)
			return
		}
	}
}

// outage tells whether an error is what a client sees of a member that is gone.
func outage(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code() == codes.Unavailable || known.Code() == codes.DeadlineExceeded
	}
	return status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded
}

// waitWrites waits until so many more writes are acknowledged.
func waitWrites(f *fixture, acknowledged *sync.Map, more int) {
	f.T.Helper()
	count := func() (n int) {
		acknowledged.Range(func(any, any) bool { n++; return true })
		return n
	}
	want := count() + more
	start := time.Now()
	f.eventually("writes go on", func() bool { return count() >= want })
	if took := time.Since(start); took > reelectedSoon {
		f.T.Errorf("%d writes took %v", more, took)
	}
}

package clients

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// next is the next response of a watch.
func (f *fixture) next(ch clientv3.WatchChan) clientv3.WatchResponse {
	f.T.Helper()
	select {
	case r, open := <-ch:
		if !open {
			f.T.Fatal("the watch has ended")
		}
		return r
	case <-time.After(patience):
		f.T.Fatalf("nothing on a watch for %v", patience)
	}
	return clientv3.WatchResponse{}
}

// take gathers n events as text.
func (f *fixture) take(ch clientv3.WatchChan, n int) string {
	f.T.Helper()
	var all []string
	for len(all) < n {
		r := f.next(ch)
		if err := r.Err(); err != nil {
			f.T.Fatal(err)
		}
		for _, e := range r.Events {
			all = append(all, f.event(e))
		}
	}
	return strings.Join(all, " ")
}

func (f *fixture) event(e *clientv3.Event) string {
	what := "put"
	switch {
	case e.Type == clientv3.EventTypeDelete:
		what = "delete"
	case e.IsCreate():
		what = "create"
	}
	s := fmt.Sprintf("%s %s=%s", what, strings.TrimPrefix(string(e.Kv.Key), f.prefix), e.Kv.Value)
	if e.PrevKv != nil {
		s += fmt.Sprintf("(%s)", e.PrevKv.Value)
	}
	return s
}

func (f *fixture) watch(name string, opts ...clientv3.OpOption) (clientv3.WatchChan, context.CancelFunc) {
	ctx, cancel := context.WithCancel(f.ctx())
	return f.Client.Watch(clientv3.WithRequireLeader(ctx), f.key(name), opts...), cancel
}

func watchNow(f *fixture) {
	now := f.put("a", "0").Header.Revision // Which the member of the watch may yet have to learn.
	ch, cancel := f.watch("", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(now+1), clientv3.WithCreatedNotify())
	if r := f.next(ch); !r.Created {
		f.T.Fatalf("the first answer is %+v", r)
	}
	f.put("a", "1")
	f.put("b", "2")
	f.del("", clientv3.WithPrefix())
	f.put("b", "3")
	f.want("events", f.take(ch, 5), "put a=1(0) create b=2 delete a=(1) delete b=(2) create b=3")
	cancel()
	for range ch {
	}

	// Many watches share a stream.
	var chans []clientv3.WatchChan
	for i := range 50 {
		ch, cancel := f.watch(fmt.Sprint("many", i), clientv3.WithCreatedNotify())
		defer cancel()
		f.next(ch)
		chans = append(chans, ch)
	}
	for i := range chans {
		f.put(fmt.Sprint("many", i), "x")
	}
	for i, ch := range chans {
		f.want("of its own key", f.take(ch, 1), fmt.Sprintf("create many%d=x", i))
	}
}

func watchPast(f *fixture) {
	first := f.put("a", "1").Header.Revision
	f.put("b", "1")
	f.put("a", "2")
	f.del("a")
	ch, cancel := f.watch("", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV())
	defer cancel()
	f.want("events", f.take(ch, 4), "create a=1 create b=1 put a=2(1) delete a=(2)")
	f.put("c", "1")
	f.want("then new ones", f.take(ch, 1), "create c=1")

	r := must[*clientv3.TxnResponse](f)(f.Client.Txn(f.ctx()).Then(clientv3.OpPut(f.key("t1"), ""), clientv3.OpPut(f.key("t2"), "")).Commit())
	got := f.next(ch)
	f.want("a revision is not divided", len(got.Events), 2)
	f.want("at its revision", got.Header.Revision >= r.Header.Revision, true)
}

func watchCompacted(f *fixture) {
	first := f.put("a", "1").Header.Revision
	at := f.put("a", "2").Header.Revision
	f.del("a")
	must[*clientv3.CompactResponse](f)(f.Client.Compact(f.ctx(), at+1))
	var r clientv3.WatchResponse
	f.eventually("the member of the watch has compacted", func() bool {
		ch, cancel := f.watch("a", clientv3.WithRev(first))
		defer cancel()
		r = f.next(ch)
		return r.Canceled
	})
	f.want("compacted at", r.CompactRevision, at+1)
	f.wantError("its end", r.Err(), "required revision has been compacted")
	again, cancelAgain := f.watch("a", clientv3.WithRev(r.CompactRevision))
	defer cancelAgain()
	f.want("from there on", f.take(again, 1), "delete a=")
}

func watchFuture(f *fixture) {
	at := f.put("a", "1").Header.Revision + 3
	ch, cancel := f.watch("a", clientv3.WithRev(at), clientv3.WithCreatedNotify())
	defer cancel()
	f.next(ch)
	for i := range 4 {
		f.put("a", fmt.Sprint("then ", i))
	}
	f.want("not before", f.take(ch, 2), "put a=then 2 put a=then 3")
}

func watchFilters(f *fixture) {
	first := f.put("a", "1").Header.Revision
	noPut, c1 := f.watch("a", clientv3.WithFilterPut(), clientv3.WithRev(first))
	defer c1()
	noDelete, c2 := f.watch("a", clientv3.WithFilterDelete(), clientv3.WithRev(first))
	defer c2()
	f.put("a", "2")
	f.del("a")
	f.put("a", "3")
	f.want("no puts", f.take(noPut, 1), "delete a=")
	f.want("no deletes", f.take(noDelete, 3), "create a=1 put a=2 create a=3")
}

func watchProgress(f *fixture) {
	at := f.put("a", "1").Header.Revision
	ch, cancel := f.watch("a", clientv3.WithProgressNotify())
	defer cancel()
	for r := f.next(ch); r.Header.Revision < at || !r.IsProgressNotify(); { // The member may yet have to learn of the put.
		r = f.next(ch)
	}

	ctx, cancelAsked := context.WithCancel(f.ctx())
	defer cancelAsked()
	asked := f.Client.Watch(ctx, f.key("a"), clientv3.WithCreatedNotify())
	f.next(asked)
	last := f.put("b", "1").Header.Revision
	f.eventually("a notice that was asked for", func() bool {
		if err := f.Client.RequestProgress(ctx); err != nil {
			f.T.Fatal(err)
		}
		select {
		case r := <-asked:
			return r.IsProgressNotify() && r.Header.Revision >= last
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
}

func watchFragments(f *fixture) {
	ch, cancel := f.watch("", clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	defer cancel()
	f.next(ch)
	value := strings.Repeat("v", 1<<20)
	for i := range 4 {
		f.put(fmt.Sprint(i), value)
	}
	f.del("", clientv3.WithPrefix())
	puts, deletes := 0, 0
	for puts+deletes < 8 {
		for _, e := range f.next(ch).Events {
			if e.Type == clientv3.EventTypePut {
				puts++
			} else if deletes++; len(e.PrevKv.Value) != len(value) {
				f.T.Errorf("previous value of %d bytes", len(e.PrevKv.Value))
			}
		}
	}
	f.want("puts", puts, 4)
}

// inTime is how soon clients expect an event.
const inTime = 250 * time.Millisecond

// Large answers over the same connection, with TLS, hold up no watch. A busy
// machine may need more than one try.
func TestEventsComeInTimeBesideLargeReads(t *testing.T) {
	t.Parallel()
	cluster := member.StartCluster(t, 1)
	f := &fixture{T: t, Client: dial(t, cluster), cluster: cluster, prefix: "w/"}
	for i := range 128 {
		f.put(fmt.Sprintf("large/%03d", i), strings.Repeat("v", 32<<10))
	}
	ch, cancel := f.watch("event", clientv3.WithCreatedNotify())
	defer cancel()
	f.next(ch)
	ctx, stop := context.WithCancel(f.ctx())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := f.Client.Get(ctx, f.key("large/"), clientv3.WithPrefix()); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	f.eventually("twenty events in a row are in time", func() bool {
		for range 20 {
			f.put("event", "x")
			answered := time.Now()
			f.next(ch)
			if time.Since(answered) > inTime {
				return false
			}
		}
		return true
	})
}

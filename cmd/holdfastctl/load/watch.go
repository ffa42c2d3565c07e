package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

const watchPath = "/etcdserverpb.Watch/Watch"

// stampBytes of a value say when it was written.
const stampBytes = 8

// WatchResult is what a run with watchers has measured. The embedded part is
// about the puts; the latency of events counts from when their put was sent.
type WatchResult struct {
	*Result
	Watchers int
	Events   int64 // Delivered, over all watchers.
	Missing  int64 // Of the events that should have come.
	Delivery Histogram
}

// RunWatch puts keys and measures how long the events take to cfg.Clients
// watchers on cfg.Conns connections. Each watches one key in turn, or all of
// them with whole. Puts come from writers clients on one connection.
func RunWatch(ctx context.Context, cfg Config, w Workload, writers int, whole bool) (*WatchResult, error) {
	w.Kind = Put
	if err := errors.Join(cfg.Validate(), w.Validate()); err != nil {
		return nil, err
	}
	if writers < 1 || w.ValueBytes < stampBytes {
		return nil, fmt.Errorf("--writers %d is below 1, or --val-size %d below the %d bytes of a time", writers, w.ValueBytes, stampBytes)
	}
	a := &audience{cfg: &cfg, workload: &w, whole: whole, base: time.Now(), keys: make([]int64, w.KeySpace), ready: make(chan struct{})}
	defer a.close()
	if err := a.gather(ctx); err != nil {
		return nil, err
	}
	g := task.New(ctx)
	for _, c := range a.watchers {
		g.Go("watch", func(context.Context) error { return c.run() })
	}
	var result *WatchResult
	g.Go("write", func(ctx context.Context) (err error) {
		defer g.Stop()
		defer a.close()
		result, err = a.measure(ctx, writers)
		return err
	})
	return result, g.Wait()
}

// audience is all watchers of a run.
type audience struct {
	cfg      *Config
	workload *Workload
	whole    bool
	base     time.Time
	keys     []int64 // Watchers by number of key.
	watchers []*watcher
	ready    chan struct{} // Closed when all watches are in force.
	created  atomic.Int64
	events   atomic.Int64
	ended    atomic.Bool
}

func (a *audience) close() {
	a.ended.Store(true)
	for _, c := range a.watchers {
		c.conn.net.Close()
	}
}

// gather connects and asks for all watches.
func (a *audience) gather(ctx context.Context) error {
	for i := range a.cfg.Conns {
		c, err := dial(ctx, a.cfg, a.cfg.Endpoints[i%len(a.cfg.Endpoints)])
		if err != nil {
			return err
		}
		k := &watcher{audience: a, conn: c}
		c.user = k
		a.watchers = append(a.watchers, k)
	}
	for i := range a.cfg.Clients {
		create := &pb.WatchCreateRequest{}
		if n := int64(i) % a.workload.KeySpace; a.whole {
			create.Key, create.RangeEnd = a.workload.AppendKey(nil, 0), append(a.workload.AppendKey(nil, a.workload.KeySpace-1), 0)
			for k := range a.keys {
				a.keys[k]++
			}
		} else {
			create.Key = a.workload.AppendKey(nil, n)
			a.keys[n]++
		}
		k, s := a.watchers[i%len(a.watchers)], &stream{}
		err := s.append(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
		if err == nil {
			err = k.conn.open(s, watchPath, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measure writes, and waits for the events.
func (a *audience) measure(ctx context.Context, writers int) (*WatchResult, error) {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(stallMax):
		return nil, fmt.Errorf("only %d of %d watches are in force after %v", a.created.Load(), a.cfg.Clients, stallMax)
	}
	cfg := *a.cfg
	cfg.Clients, cfg.Conns = writers, 1
	r := &run{cfg: &cfg, workload: a.workload, base: a.base, watchers: a.keys}
	puts, expected, err := r.put(ctx)
	result := &WatchResult{Result: puts, Watchers: a.cfg.Clients}
	for last, since := int64(-1), time.Now(); a.events.Load() < expected && time.Since(since) < deliveryMax && ctx.Err() == nil; {
		if n := a.events.Load(); n != last {
			last, since = n, time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(paceInterval):
		}
	}
	for _, c := range a.watchers {
		c.conn.mu.Lock()
		result.Delivery.Add(&c.latency)
		c.conn.mu.Unlock()
	}
	result.Events = a.events.Load()
	result.Missing = max(expected-result.Events, 0)
	return result, err
}

// put makes the puts, and tells how many events they should give.
func (r *run) put(ctx context.Context) (*Result, int64, error) {
	carriers, result, err := r.all(ctx)
	if len(carriers) == 0 {
		return result, 0, err
	}
	return result, carriers[0].source.audience, err
}

// watcher is a connection with watches on it.
type watcher struct {
	audience *audience
	conn     *conn
	latency  Histogram // Guarded by the connection's lock.
	failure  error
}

func (k *watcher) run() error {
	err := k.conn.read()
	switch {
	case k.failure != nil:
		return k.failure
	case k.audience.ended.Load():
		return nil
	}
	return err
}

// message implements user.
func (k *watcher) message(_ *stream, m []byte) {
	now := time.Now()
	each(m, func(field protowire.Number, v uint64, b []byte) {
		switch field {
		case watchCreatedField:
			if k.audience.created.Add(1) == int64(k.audience.cfg.Clients) {
				close(k.audience.ready)
			}
		case watchCancelField:
			k.fail(errors.New("the server has canceled a watch"))
		case watchEventField:
			k.event(now, b)
		}
	})
}

func (k *watcher) event(now time.Time, event []byte) {
	each(event, func(field protowire.Number, _ uint64, kv []byte) {
		if field != eventKVField {
			return
		}
		each(kv, func(field protowire.Number, _ uint64, value []byte) {
			if field == kvValueField && len(value) >= stampBytes {
				k.latency.Record(now.Sub(k.audience.base) - time.Duration(binary.BigEndian.Uint64(value)))
				k.audience.events.Add(1)
			}
		})
	})
}

// closed implements user.
func (k *watcher) closed(_ *stream, cause error) {
	if cause == nil {
		cause = errors.New("the server has ended a watch")
	}
	k.fail(cause)
}

func (k *watcher) fail(cause error) {
	if k.failure == nil {
		k.failure = cause
	}
	k.conn.net.Close()
}

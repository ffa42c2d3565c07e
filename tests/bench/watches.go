package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

const (
	watchers      = 1000 // A stream each.
	watchPrefix   = "watch/"
	watchPutEvery = 20 * time.Millisecond
	arriveLimit   = 30 * time.Second
)

// audience are watches of one prefix.
type audience struct {
	conns  []*wire.Conn
	ready  atomic.Int64
	events atomic.Int64
	failed atomic.Pointer[error]
	ended  sync.WaitGroup
}

func (a *audience) open(addr string, conns int) error {
	request := wire.AppendWatch(nil, []byte(watchPrefix), []byte("watch0"))
	for i := range conns {
		c, err := wire.Dial(addr)
		if err != nil {
			return err
		}
		a.conns = append(a.conns, c)
		for range watchers / conns {
			call := &wire.Call{Message: a.message, End: func(status int, text string) error { return fmt.Errorf("watch %d ended: %d %s", i, status, text) }}
			if err := c.Start(wire.Watch, request, call, true); err != nil {
				return err
			}
		}
	}
	for _, c := range a.conns {
		a.ended.Go(func() {
			err := c.Run()
			a.failed.CompareAndSwap(nil, &err)
		})
	}
	return a.wait(&a.ready, watchers)
}

func (a *audience) message(b []byte) error {
	created, events, err := wire.Watched(b)
	if created {
		a.ready.Add(1)
	}
	a.events.Add(int64(events))
	return err
}

// wait until a count is reached, and not passed.
func (a *audience) wait(count *atomic.Int64, want int64) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		switch n := count.Load(); {
		case a.failed.Load() != nil:
			return *a.failed.Load()
		case n == want:
			return nil
		case n > want || time.Since(start) > arriveLimit:
			return fmt.Errorf("%d events or watches where %d were expected", n, want)
		}
	}
}

func (a *audience) close() {
	for _, c := range a.conns {
		c.Close()
	}
	a.ended.Wait()
}

// watches lets many watch what one client puts, at a pace that both servers
// can follow, and counts what a second of their CPU delivers.
func watches(ctx context.Context, t *trial) ([]figure, error) {
	if _, err := t.Start(); err != nil {
		return nil, err
	}
	a := &audience{}
	defer a.close()
	if err := a.open(t.Addrs()[0], t.conns(watchers)); err != nil {
		return nil, err
	}
	conn, err := wire.Dial(t.Addrs()[0])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	p := &load.Puts{Prefix: watchPrefix, KeyBytes: putKeyBytes, ValueBytes: putValueBytes, Keys: 1000}
	p.Prepare(1, t.seed)
	done := t.profile(ctx)
	cpu, err := t.CPU()
	if err != nil {
		return nil, err
	}
	count, start := int64(0), time.Now()
	for pace := time.NewTicker(watchPutEvery); time.Since(start) < t.bench.window; <-pace.C {
		path, request := p.Next(0, nil)
		if _, err := conn.Ask(path, request); err != nil {
			return nil, err
		}
		count++
	}
	if err := a.wait(&a.events, count*watchers); err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := t.CPU()
	if err != nil {
		return nil, err
	}
	events := float64(count * watchers)
	return []figure{
		{"events per CPU second", "1/s", events / (after - cpu).Seconds()},
		{"server CPU", "µs/event", float64((after - cpu).Microseconds()) / events},
		{"delivered", "1/s", events / took.Seconds()},
	}, errors.Join(<-done)
}

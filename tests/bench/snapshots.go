package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/tests/bench/load"
	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

// reader takes snapshots one after the other and throws them away: what they cost
// the servers is asked, not the disk of who saves them.
type reader struct {
	conn  *wire.Conn
	bytes atomic.Int64
	whole atomic.Int64
	done  atomic.Bool
	ended sync.WaitGroup
	err   error
}

func (r *reader) begin(addr string) (err error) {
	if r.conn, err = wire.Dial(addr); err != nil {
		return err
	}
	r.ended.Go(func() {
		for !r.done.Load() && r.err == nil {
			r.err = r.conn.Stream(wire.Snapshot, nil, func(b []byte) error {
				r.bytes.Add(int64(len(b)))
				return nil
			})
			r.whole.Add(1)
		}
	})
	return nil
}

// stop ends a snapshot that is under way.
func (r *reader) stop() error {
	r.done.Store(true)
	r.conn.Close()
	r.ended.Wait()
	if r.whole.Load() == 1 && r.bytes.Load() == 0 {
		return fmt.Errorf("no snapshot began: %w", r.err)
	}
	return nil
}

func snapshots(ctx context.Context, t *trial) ([]figure, error) {
	if _, err := t.Start(); err != nil {
		return nil, err
	}
	limit := t.keys / fillClients
	if err := t.fill(&load.Puts{Prefix: "old/", KeyBytes: manyKeyBytes, ValueBytes: putValueBytes, Keys: limit, Limit: limit}, fillClients); err != nil {
		return nil, err
	}
	var r reader
	d, err := t.disturb(ctx, func() (func() error, error) { return r.stop, r.begin(t.Addrs()[0]) })
	if err != nil {
		return nil, err
	}
	return append(d.figures(), figure{"snapshot", "MB/s", float64(r.bytes.Load()) / 1e6 / d.during.Seconds}), t.killAndReadBack(d.run, d.puts)
}

package main

import (
	"context"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
)

// measure is a question to both servers.
type measure struct {
	name    string
	about   string
	members int
	take    func(context.Context, *trial) ([]figure, error)
}

// Sizes of the questions.
const (
	putKeyBytes   = 32
	putValueBytes = 256
	putKeys       = 100_000 // Of all clients; written again and again.
	manyKeyBytes  = 64
	getKeys       = 10_000
	rangeKeys     = 10_000
	rangeBytes    = 1024
	fillClients   = 100
	revisionsEach = 10 // Of a key, where keys are written often.
)

var measures = []measure{
	{"put-1", "puts of 256 B, 1 client", 1, puts(1)},
	{"put-100", "puts of 256 B, 100 clients", 1, puts(100)},
	{"put-1000", "puts of 256 B, 1,000 clients", 1, puts(1000)},
	{"get-100", "linearizable gets of 256 B, 100 clients", 1, gets(false)},
	{"sget-100", "serializable gets of 256 B, 100 clients", 1, gets(true)},
	{"put3-100", "3 members, puts of 256 B, 100 clients spread over all", 3, puts(100)},
	{"put3-1000", "3 members, puts of 256 B, 1,000 clients spread over all", 3, puts(1000)},
	{"range", "ranges of 10,000 keys of 1 KiB, 1 client", 1, ranges},
	{"watch", "1,000 watches of a prefix, 50 puts a second", 1, watches},
	{"compact-often", "puts by 100 clients while 1 M revisions of 100,000 keys are compacted", 1, compacting(revisionsEach)},
	{"compact-once", "puts by 100 clients while 1 M revisions of 1 M keys are compacted", 1, compacting(1)},
	{"lost-quorum", "3 members, all killed under 64 writers, one started again with --force-new-cluster; each trial another survivor", 3, lostQuorum},
	{"keys", "1 M keys of 64 B with values of 256 B: restart and memory", 1, manyKeys},
}

func puts(clients int) func(context.Context, *trial) ([]figure, error) {
	return func(ctx context.Context, t *trial) ([]figure, error) {
		if _, err := t.Start(); err != nil {
			return nil, err
		}
		p := &load.Puts{Prefix: "put/", KeyBytes: putKeyBytes, ValueBytes: putValueBytes, Keys: putKeys / clients}
		p.Prepare(clients, t.seed)
		run, err := t.begin(clients, p)
		if err != nil {
			return nil, err
		}
		time.Sleep(warmUp)
		c, err := t.window(ctx, run, load.For(t.bench.window))
		if err != nil {
			return nil, err
		}
		return c.putFigures(), t.killAndReadBack(run, p)
	}
}

func gets(serializable bool) func(context.Context, *trial) ([]figure, error) {
	return func(ctx context.Context, t *trial) ([]figure, error) {
		if _, err := t.Start(); err != nil {
			return nil, err
		}
		p := &load.Puts{Prefix: "get/", KeyBytes: putKeyBytes, ValueBytes: putValueBytes, Keys: getKeys / fillClients, Limit: getKeys / fillClients}
		if err := t.fill(p, fillClients); err != nil {
			return nil, err
		}
		c, err := t.steady(ctx, fillClients, &load.Gets{Of: p, Serializable: serializable})
		if err != nil {
			return nil, err
		}
		return c.figures(), nil
	}
}

// preparing is work that wants to know how many clients there will be.
type preparing interface {
	load.Work
	Prepare(clients int, seed uint64)
}

// steady runs work, warms up, measures and stops.
func (t *trial) steady(ctx context.Context, clients int, work load.Work) (*cost, error) {
	if p, ok := work.(preparing); ok {
		p.Prepare(clients, t.seed)
	}
	run, err := t.begin(clients, work)
	if err != nil {
		return nil, err
	}
	time.Sleep(warmUp)
	c, err := t.window(ctx, run, load.For(t.bench.window))
	if err != nil {
		return nil, err
	}
	return c, run.Stop()
}

func ranges(ctx context.Context, t *trial) ([]figure, error) {
	if _, err := t.Start(); err != nil {
		return nil, err
	}
	p := &load.Puts{Prefix: "range/", KeyBytes: putKeyBytes, ValueBytes: rangeBytes, Keys: rangeKeys / fillClients, Limit: rangeKeys / fillClients}
	if err := t.fill(p, fillClients); err != nil {
		return nil, err
	}
	c, err := t.steady(ctx, 1, &load.Scans{Prefix: p.Prefix, Count: rangeKeys, ValueBytes: rangeBytes})
	if err != nil {
		return nil, err
	}
	megabytes := float64(c.Bytes) / 1e6
	return []figure{
		{"throughput", "MB/s", megabytes / c.Seconds},
		{"server CPU", "ms/MB", millis(c.cpu) / megabytes},
		{"p50", "ms", millis(c.P50)},
	}, nil
}

// compacting fills a store with revisions, each key written a number of times,
// and compacts them while clients put. The answer comes at once; the work goes
// on in background, in both servers longer than the window.
func compacting(each int) func(context.Context, *trial) ([]figure, error) {
	return func(ctx context.Context, t *trial) ([]figure, error) {
		if _, err := t.Start(); err != nil {
			return nil, err
		}
		limit := t.keys / fillClients
		if err := t.fill(&load.Puts{Prefix: "old/", KeyBytes: manyKeyBytes, ValueBytes: putValueBytes, Keys: limit / each, Limit: limit}, fillClients); err != nil {
			return nil, err
		}
		head, err := t.head()
		if err != nil {
			return nil, err
		}
		p := &load.Puts{Prefix: "put/", KeyBytes: putKeyBytes, ValueBytes: putValueBytes, Keys: putKeys / fillClients}
		p.Prepare(fillClients, t.seed)
		run, err := t.begin(fillClients, p)
		if err != nil {
			return nil, err
		}
		time.Sleep(warmUp)
		before, err := t.window(ctx, run, load.For(t.bench.window))
		if err != nil {
			return nil, err
		}
		if err := t.compact(head, false); err != nil {
			return nil, err
		}
		during, err := t.window(ctx, run, load.For(t.bench.window))
		if err != nil {
			return nil, err
		}
		return []figure{
			{"before", "1/s", before.PerSecond()},
			{"during", "1/s", during.PerSecond()},
			{"kept", "%", 100 * during.PerSecond() / before.PerSecond()},
			{"p99 before", "ms", millis(before.P99)},
			{"p99 during", "ms", millis(during.P99)},
			{"server CPU before", "µs/put", float64(before.cpu.Microseconds()) / float64(before.Answers)},
			{"server CPU during", "µs/put", float64(during.cpu.Microseconds()) / float64(during.Answers)},
			{"WAL fdatasync before", "ms", 1000 * before.SyncTime / before.Syncs},
			{"WAL fdatasync during", "ms", 1000 * during.SyncTime / during.Syncs},
		}, t.killAndReadBack(run, p)
	}
}

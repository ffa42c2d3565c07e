package main

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
)

// measure is a question to both servers.
type measure struct {
	name    string
	about   string
	members int
	by      string // How users say who they are; the columns are then holdfast without users and with. Empty: no users.
	take    func(context.Context, *trial) ([]figure, error)
	with    []string // Flags. Then holdfast is measured beside itself without them.
}

// Sizes of the questions.
const (
	dirWord       = "DIR" // In flags: the folder of the cluster.
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
	{name: "put-1", about: "puts of 256 B, 1 client", members: 1, take: puts(1)},
	{name: "put-100", about: "puts of 256 B, 100 clients", members: 1, take: puts(100)},
	{name: "put-1000", about: "puts of 256 B, 1,000 clients", members: 1, take: puts(1000)},
	{name: "get-100", about: "linearizable gets of 256 B, 100 clients", members: 1, take: gets(false)},
	{name: "sget-100", about: "serializable gets of 256 B, 100 clients", members: 1, take: gets(true)},
	{name: "put3-100", about: "3 members, puts of 256 B, 100 clients spread over all", members: 3, take: puts(100)},
	{name: "put3-1000", about: "3 members, puts of 256 B, 1,000 clients spread over all", members: 3, take: puts(1000)},
	{name: "range", about: "ranges of 10,000 keys of 1 KiB, 1 client", members: 1, take: ranges},
	{name: "watch", about: "1,000 watches of a prefix, 50 puts a second", members: 1, take: watches},
	{name: "compact-often", about: "puts by 100 clients while 1 M revisions of 100,000 keys are compacted", members: 1, take: compacting(revisionsEach)},
	{name: "compact-once", about: "puts by 100 clients while 1 M revisions of 1 M keys are compacted", members: 1, take: compacting(1)},
	{name: "lost-quorum", about: "3 members, all killed under 64 writers, one started again with --force-new-cluster; each trial another survivor", members: 3, take: lostQuorum},
	{name: "keys", about: "1 M keys of 64 B with values of 256 B: restart and memory", members: 1, take: manyKeys},
	{name: "snapshot", about: "puts by 100 clients while snapshots of 1 M keys (-keys) are taken, one after the other", members: 1, take: snapshots},
	{name: "stream", about: "RangeStream of 1 M keys (-keys) with values of 1 KiB, 1 client, after a restart", members: 1, take: streams},
	{name: "put-100-jwt", about: "puts by 100 clients, holdfast without users beside users with signed tokens", members: 1, by: byToken, take: puts(100)},
	{name: "put-100-cn", about: "puts by 100 clients over TLS, without users beside users by certificate", members: 1, by: byCertificate, take: puts(100)},
	{name: "get-100-jwt", about: "linearizable gets by 100 clients, without users beside signed tokens", members: 1, by: byToken, take: gets(false)},
	{name: "get-100-cn", about: "linearizable gets by 100 clients over TLS, without users beside certificates", members: 1, by: byCertificate, take: gets(false)},
	{name: "archive", about: "puts of 256 B, 100 clients; holdfast without an archive and with one in a folder", members: 1, take: puts(100), with: []string{"--archive-url", "file://" + dirWord + "/archive"}},
	{name: "archive3", about: "the same with three members", members: 3, take: puts(100), with: []string{"--archive-url", "file://" + dirWord + "/archive"}},
}

func puts(clients int) func(context.Context, *trial) ([]figure, error) {
	return func(ctx context.Context, t *trial) ([]figure, error) {
		if err := t.open(ctx); err != nil {
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
		if err := t.open(ctx); err != nil {
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
		d, err := t.disturb(ctx, func() (func() error, error) {
			return func() error { return nil }, t.compact(head, false)
		})
		if err != nil {
			return nil, err
		}
		return append(d.figures(),
			figure{"server CPU before", "µs/put", float64(d.before.cpu.Microseconds()) / float64(d.before.Answers)},
			figure{"server CPU during", "µs/put", float64(d.during.cpu.Microseconds()) / float64(d.during.Answers)},
			figure{"WAL fdatasync before", "ms", 1000 * d.before.SyncTime / d.before.Syncs},
			figure{"WAL fdatasync during", "ms", 1000 * d.during.SyncTime / d.during.Syncs},
		), t.killAndReadBack(d.run, d.puts)
	}
}

// disturbance is puts before, and while, something else goes on.
type disturbance struct {
	before, during *cost
	run            *load.Run
	puts           *load.Puts
}

// disturb measures puts, and once more after begin until the function that it
// returns. The puts go on.
func (t *trial) disturb(ctx context.Context, begin func() (end func() error, err error)) (d *disturbance, err error) {
	d = &disturbance{puts: &load.Puts{Prefix: "put/", KeyBytes: putKeyBytes, ValueBytes: putValueBytes, Keys: putKeys / fillClients}}
	d.puts.Prepare(fillClients, t.seed)
	if d.run, err = t.begin(fillClients, d.puts); err != nil {
		return nil, err
	}
	time.Sleep(warmUp)
	if d.before, err = t.window(ctx, d.run, load.For(t.bench.window)); err != nil {
		return nil, err
	}
	end, err := begin()
	if err != nil {
		return nil, err
	}
	d.during, err = t.window(ctx, d.run, load.For(t.bench.window))
	return d, errors.Join(err, end())
}

func (d *disturbance) figures() []figure {
	return []figure{
		{"before", "1/s", d.before.PerSecond()},
		{"during", "1/s", d.during.PerSecond()},
		{"kept", "%", 100 * d.during.PerSecond() / d.before.PerSecond()},
		{"p99 before", "ms", millis(d.before.P99)},
		{"p99 during", "ms", millis(d.during.P99)},
	}
}

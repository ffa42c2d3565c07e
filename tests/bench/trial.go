package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
	"github.com/holdfast-db/holdfast/tests/bench/process"
	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

const (
	warmUp        = 2 * time.Second
	readBackLimit = 5 * time.Minute
	callLimit     = 10 * time.Minute
)

// figure is one number of a measure.
type figure struct {
	Name  string
	Unit  string
	Value float64
}

// trial is one measure of one kind of server.
type trial struct {
	*bench
	*process.Cluster
	name string
	seed uint64
}

func (t *trial) conns(clients int) int { return max(1, clients/t.perConn) }

// begin starts clients.
func (t *trial) begin(clients int, work load.Work) (*load.Run, error) {
	return load.Start(load.Config{Addrs: t.Addrs(), Conns: t.conns(clients), Clients: clients, Work: work, Dialer: t.Kind.Dialer})
}

// fill puts a number of keys, as fast as it goes.
func (t *trial) fill(p *load.Puts, clients int) error {
	p.Prepare(clients, t.seed)
	run, err := t.begin(clients, p)
	if err != nil {
		return err
	}
	return run.Wait()
}

// cost is what the servers spent in a window.
type cost struct {
	*load.Figures
	process.Counts
	cpu time.Duration
}

// window measures a run that goes on, and its servers.
func (t *trial) window(ctx context.Context, run *load.Run, wait func() error) (*cost, error) {
	before, err := t.Counts(ctx)
	if err != nil {
		return nil, err
	}
	profiled := t.profile(ctx)
	c := &cost{}
	cpu, err := t.CPU()
	if err != nil {
		return nil, err
	}
	if c.Figures, err = run.Measure(wait); err != nil {
		return nil, err
	}
	if c.cpu, err = t.CPU(); err != nil {
		return nil, err
	}
	c.cpu -= cpu
	after, err := t.Counts(ctx)
	c.Counts = process.Counts{Syncs: after.Syncs - before.Syncs, SyncTime: after.SyncTime - before.SyncTime, Commits: after.Commits - before.Commits}
	return c, errors.Join(err, <-profiled)
}

// profile watches the first member for a window, if that was asked for.
func (t *trial) profile(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	if t.profiles == "" {
		done <- nil
		return done
	}
	go func() {
		path := fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(t.bench.window.Seconds())))
		file := filepath.Join(t.profiles, t.Kind.Name+"-"+t.name)
		done <- errors.Join(t.Profile(ctx, path, file+".cpu"), t.Profile(ctx, "/debug/pprof/allocs", file+".allocs"))
	}()
	return done
}

// figures of a window whose requests are alike.
func (c *cost) figures() []figure {
	requests := float64(c.Answers)
	return []figure{
		{"throughput", "1/s", c.PerSecond()},
		{"server CPU", "µs/request", float64(c.cpu.Microseconds()) / requests},
		{"p50", "ms", millis(c.P50)},
		{"p99", "ms", millis(c.P99)},
	}
}

// putFigures tell of the disk too.
func (c *cost) putFigures() []figure {
	return append(c.figures(),
		figure{"WAL fdatasync", "1/s", c.Syncs / c.Seconds},
		figure{"puts per fdatasync", "", float64(c.Answers) / c.Syncs})
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// killAndReadBack kills the servers under load, starts them again and reads
// every acknowledged put.
func (t *trial) killAndReadBack(run *load.Run, p *load.Puts) error {
	t.Kill()
	run.Wait() // Its error is the lost connections.
	if _, err := t.Start(); err != nil {
		return fmt.Errorf("after a kill: %w", err)
	}
	for _, addr := range t.Addrs() {
		if _, err := p.ReadBack(t.Kind.Dialer, addr, readBackLimit); err != nil {
			return fmt.Errorf("reading back after a kill: %w", err)
		}
	}
	return nil
}

// head is the present revision.
func (t *trial) head() (int64, error) {
	body, err := wire.Ask(t.Addrs()[0], wire.Range, wire.AppendRange(nil, &wire.RangeRequest{Key: []byte("head")}), callLimit)
	if err != nil {
		return 0, err
	}
	return wire.Revision(body)
}

// compact moves the oldest revision, and waits until all that is done if told to.
func (t *trial) compact(revision int64, wait bool) error {
	_, err := wire.Ask(t.Addrs()[0], wire.Compact, wire.AppendCompaction(nil, revision, wait), callLimit)
	return err
}

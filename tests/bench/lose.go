package main

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
	"github.com/holdfast-db/holdfast/tests/bench/process"
)

const (
	lossTrials  = 12 // Of a round, so that each member survives as often.
	lossWriters = 64
)

// lostQuorum destroys clusters: two members of three are lost and the third is
// started as a cluster of its own. Keys that no survivor's log held are missing
// in either kind; what its log held and what is missing all the same is the
// difference.
func lostQuorum(ctx context.Context, t *trial) ([]figure, error) {
	random := rand.New(rand.NewPCG(t.seed, 2))
	var damaged, missing, keys int
	var slowest time.Duration
	for trial := range lossTrials {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := process.New(t.Kind, filepath.Join(t.bench.dir, t.Kind.Name+"-lost"), 3)
		if err != nil {
			return nil, err
		}
		lost, of, took, err := lose(c, trial%3, t, time.Second+time.Duration(random.Int64N(int64(time.Second))))
		if err != nil {
			return nil, err
		}
		missing, keys = missing+lost, keys+of
		if lost > 0 {
			damaged++
		}
		slowest = max(slowest, took)
		if err := c.Remove(); err != nil {
			return nil, err
		}
	}
	return []figure{
		{"clusters with a lost write", "%", 100 * float64(damaged) / lossTrials},
		{"acknowledged writes lost, of a million", "", 1e6 * float64(missing) / float64(keys)},
		{"slowest until it serves", "s", slowest.Seconds()},
	}, nil
}

func lose(c *process.Cluster, survivor int, t *trial, after time.Duration) (lost, of int, took time.Duration, err error) {
	if _, err := c.Start(); err != nil {
		return 0, 0, 0, err
	}
	p := &load.Puts{Prefix: "put/", KeyBytes: putKeyBytes, ValueBytes: putValueBytes, Keys: putKeys} // Each put another key.
	p.Prepare(lossWriters, t.seed)
	run, err := load.Start(load.Config{Addrs: c.Addrs(), Conns: t.conns(lossWriters), Clients: lossWriters, Work: p})
	if err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(after)
	c.Kill()
	run.Wait() // Its error is the lost connections.
	if took, err = c.Alone(survivor); err != nil {
		return 0, 0, 0, err
	}
	lost, of, err = p.Missing(c.Members[survivor].Client, readBackLimit)
	return lost, of, took, err
}

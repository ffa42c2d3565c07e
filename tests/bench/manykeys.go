package main

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
)

const (
	restarts = 3
	settle   = 2 * time.Second // For what a server does after it began to serve.
)

// manyKeys fills a store with keys that are written once, and looks at what
// they cost a server that has just started: never compacted, then compacted.
func manyKeys(ctx context.Context, t *trial) ([]figure, error) {
	if _, err := t.Start(); err != nil {
		return nil, err
	}
	limit := t.keys / fillClients
	p := &load.Puts{Prefix: "many/", KeyBytes: manyKeyBytes, ValueBytes: putValueBytes, Keys: limit, Limit: limit}
	if err := t.fill(p, fillClients); err != nil {
		return nil, err
	}
	t.Kill()
	crashed, err := t.Start()
	if err != nil {
		return nil, err
	}
	if _, err := p.ReadBack(t.Kind.Dialer, t.Addrs()[0], readBackLimit); err != nil {
		return nil, err
	}
	never, err := t.restarted(ctx, "never compacted")
	if err != nil {
		return nil, err
	}
	head, err := t.head()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := t.compact(head, true); err != nil {
		return nil, err
	}
	took := time.Since(start)
	compacted, err := t.restarted(ctx, "compacted")
	if err != nil {
		return nil, err
	}
	if _, err := p.ReadBack(t.Kind.Dialer, t.Addrs()[0], readBackLimit); err != nil {
		return nil, err
	}
	figures := []figure{{"restart after kill", "s", crashed.Seconds()}, {"compaction, idle", "s", took.Seconds()}}
	return append(figures, append(never, compacted...)...), nil
}

// restarted stops and starts the server some times.
func (t *trial) restarted(ctx context.Context, state string) ([]figure, error) {
	var times []float64
	for range restarts {
		if err := t.Stop(); err != nil {
			return nil, err
		}
		took, err := t.Start()
		if err != nil {
			return nil, err
		}
		times = append(times, took.Seconds())
	}
	time.Sleep(settle)
	m, err := t.Memory(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(times)
	return []figure{
		{"restart, " + state, "s", times[len(times)/2]},
		{"heap, " + state, "MB", m.HeapBytes / 1e6},
		{"RSS, " + state, "MB", m.ResidentBytes / 1e6},
		{"RSS without files, " + state, "MB", (m.ResidentBytes - m.FileBytes) / 1e6},
	}, nil
}

package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// A profile says of which steps a workload is drawn, and how many.
type profile struct {
	steps string // Names from the table below; one named twice is drawn twice as often.
	count int
	rows  int // In base before it begins, so that it has many pages.
}

var profiles = map[string]profile{
	"puts":        {"put many work", 16, 0},
	"pipeline":    {"pipeline put work", 10, 0},
	"long":        {"long put prepare", 10, 0},
	"segments":    {"long prepare checkpoint", 10, 0},
	"deletes":     {"put delete many work", 16, 0},
	"txns":        {"txn put txn work", 14, 0},
	"leases":      {"lease put work checkpoint", 10, 0},
	"members":     {"learner put checkpoint", 8, 0},
	"compaction":  {"many compact work settle", 14, 150},
	"merge":       {"many long compact settle checkpoint", 12, 250},
	"checkpoints": {"put many checkpoint", 10, 150},
	"votes":       {"vote put work", 12, 0},
	"conflicts":   {"conflict put checkpoint", 9, 0},
	"restarts":    {"put many work restart", 9, 0},
	"snapshots":   {"many install put checkpoint", 8, 0},
	"replaced":    {"long install compact settle restart", 8, 150},
	"defragment":  {"many delete compact defragment checkpoint", 14, 250},
	"saves":       {"many compact save checkpoint", 7, 120},
	"restores":    {"many lease compact", 6, 120},
	"everything":  {"put many long delete txn lease compact settle checkpoint vote conflict restart install prepare", 14, 150},
}

const seedsOfProfile = 3

func (l *life) steps() map[string]func() error {
	return map[string]func() error{
		"put": l.putOne, "many": l.putMany, "long": l.putLong, "pipeline": l.pipeline, "delete": l.deleteSome, "txn": l.txn,
		"lease": l.leases, "learner": l.learner, "compact": l.compact, "work": l.work, "settle": l.settle,
		"checkpoint": l.checkpoint, "prepare": l.prepare, "vote": l.vote, "conflict": l.conflict, "restart": l.restart,
		"install": l.install, "defragment": l.defragment, "save": l.save,
	}
}

// workload is a profile with a seed.
type workload struct {
	name    string
	profile profile
	seed    uint64
}

func workloads(seed uint64) []workload {
	var all []workload
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		for i := range uint64(seedsOfProfile) {
			all = append(all, workload{fmt.Sprintf("%s-%d", name, i+1), profiles[name], seed*1000 + i})
		}
	}
	return all
}

// find is the workload of a name.
func find(name string, seed uint64) (workload, error) {
	all := workloads(seed)
	var names []string
	for _, w := range all {
		if w.name == name {
			return w, nil
		}
		names = append(names, w.name)
	}
	return workload{}, fmt.Errorf("no workload %q, there are %s", name, strings.Join(names, " "))
}

// whole goes through a life and closes it in order.
func (w workload) whole(d, twin *disk, watch func(*life)) (*life, error) {
	l, err := w.live(d, twin, watch)
	if err != nil {
		return l, err
	}
	if err := l.close(); err != nil {
		return l, fmt.Errorf("close: %w", err)
	}
	return l, nil
}

// live makes the directory and goes through the steps that are drawn.
func (w workload) live(d, twin *disk, watch func(*life)) (*life, error) {
	rnd := rand.New(rand.NewPCG(w.seed, 1))
	l, err := newLife(d, twin, rnd)
	if err != nil {
		return nil, err
	}
	watch(l)
	if err := l.begin(d); err != nil {
		return l, fmt.Errorf("begin: %w", err)
	}
	if err := l.fill(w.profile.rows); err != nil {
		return l, fmt.Errorf("fill: %w", err)
	}
	names := strings.Fields(w.profile.steps)
	for i := range w.profile.count {
		name := names[rnd.IntN(len(names))]
		if i < len(names) {
			name = names[i] // Each at least once.
		}
		if err := l.steps()[name](); err != nil {
			return l, fmt.Errorf("step %d, %s: %w", i, name, err)
		}
	}
	if strings.HasPrefix(w.name, "restores") {
		if err := l.restore(); err != nil {
			return l, fmt.Errorf("restore: %w", err)
		}
	}
	return l, nil
}

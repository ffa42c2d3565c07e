package linear

import (
	"context"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"syscall"
	"time"
)

// nemesis is a kind of fault. A round does harm, lets it last, and takes it
// back, also when the context has ended; it tells whether the harm was done.
// Rounds of several nemeses run at the same time.
type nemesis struct {
	about string
	needs need
	round func(ctx context.Context, a *attack) bool
}

// attack is a nemesis at work in a run.
type attack struct {
	*run
	name string
	rng  *rand.Rand
	text string // What the round did, for the report.
}

// nemeses by name.
var nemeses = map[string]nemesis{
	"kill-one":      {"SIGKILL to a member", 0, killSome(func(a *attack) []int { return a.rng.Perm(len(a.places))[:1] })},
	"kill-leader":   {"SIGKILL to the leader", 0, killSome(func(a *attack) []int { return []int{a.leader(a.rng)} })},
	"kill-minority": {"SIGKILL to as many as may fail", 0, killSome(func(a *attack) []int { return a.rng.Perm(len(a.places))[:(len(a.places)-1)/2] })},
	"kill-majority": {"SIGKILL to more than may fail", 0, killSome(func(a *attack) []int { return a.rng.Perm(len(a.places))[:len(a.places)/2+1] })},
	"kill-all":      {"SIGKILL to everybody at once", 0, killSome(func(a *attack) []int { return a.rng.Perm(len(a.places)) })},
	"crash-loop":    {"SIGKILL again and again while a member starts", 0, crashLoop},
	"pause-one":     {"SIGSTOP to a member, shorter than an election", 0, pauseSome(100, 500, func(a *attack) int { return a.rng.Intn(len(a.places)) })},
	"pause-leader":  {"SIGSTOP to the leader, until another is elected", 0, pauseSome(800, 2000, func(a *attack) int { return a.leader(a.rng) })},
	"pause-long":    {"SIGSTOP, longer than election and lease together", 0, pauseSome(3500, 4500, func(a *attack) int { return a.leader(a.rng) })},

	"rolling-restart": {"SIGTERM and start of one after the other", 0, rollingRestart},
	"clock-skew":      {"wall clocks that are wrong by up to an hour and jump", needsSkew, clockSkew},

	"partition-minority": {"a minority without the leader is cut off", 0, partition(minority)},
	"partition-majority": {"the leader is cut off with a minority", 0, partition(withLeader)},
	"partition-ring":     {"each sees only two neighbours, all see a majority", needsFive, partition(ring)},
	"partition-bridge":   {"two halves that only one member sees both of", 0, partition(bridge)},
	"one-way":            {"a member hears nobody, or nobody hears it", 0, partition(oneWay)},
	"leader-isolated":    {"nobody hears the leader and it hears nobody but clients", 0, partition(leaderAlone)},
	"flapping":           {"a link that is cut and whole by turns", 0, flapping},
	"loss":               {"5 to 50 percent of packets between members are lost", needsSpaces, loss},
	"slow-links":         {"packets are late by up to 300 ms, or links are narrow", needsProxies, slowLinks},
	"resets":             {"connections between members are reset", needsProxies, resets},
	"client-cut":         {"clients and a member do not hear each other", needsSpaces, clientCut},

	"disk-full":    {"a disk without a byte left", needsSmallDisk, diskFull},
	"disk-errors":  {"a sync or a write fails once", needsLyingDisk, diskErrors},
	"disk-forgets": {"a power cut: what was not synced is gone, or part of it", needsLyingDisk, diskForgets},
	"slow-fsync":   {"syncs take up to a second", needsLyingDisk, slowSync},

	"member-replace":   {"a member is destroyed, removed, and another takes its place", 0, replaceMember(false)},
	"learner-promote":  {"the same by way of a learner", 0, replaceMember(true)},
	"leader-transfer":  {"leadership is handed over", 0, leaderTransfer},
	"compaction-storm": {"history is compacted close to the head all the time", 0, compactionStorm},
	"defragment-storm": {"members are defragmented all the time", 0, defragmentStorm},
	"snapshot-restore": {"a snapshot is saved and restored elsewhere, and compared", 0, snapshotRestore},
	"certificates":     {"all certificates are replaced", 0, rotateCertificates},
}

func nemesisNames() []string { return slices.Sorted(maps.Keys(nemeses)) }

// wait lets harm last for some milliseconds between two bounds.
func (a *attack) wait(ctx context.Context, least, most int) {
	sleep(ctx, time.Duration(least+a.rng.Intn(most-least+1))*time.Millisecond)
}

func (a *attack) names(places []int) string {
	var names []string
	for _, i := range places {
		names = append(names, a.places[i].Name)
	}
	return strings.Join(names, " ")
}

// killSome kills the members that pick chooses, at once, and starts them again.
// Those that somebody else has stopped are left alone.
func killSome(pick func(*attack) []int) func(context.Context, *attack) bool {
	return func(ctx context.Context, a *attack) bool {
		victims := slices.DeleteFunc(pick(a), func(i int) bool { return !a.claim(i) })
		for _, i := range victims {
			defer a.release(i)
			a.places[i].Signal(syscall.SIGKILL)
		}
		for _, i := range victims {
			a.places[i].Kill()
		}
		a.text = "killed " + a.names(victims)
		a.wait(ctx, 0, 1500)
		for _, i := range victims {
			a.start(i)
		}
		return len(victims) > 0
	}
}

func (a *attack) start(i int) {
	if err := a.places[i].Start(); err != nil {
		a.rec.violate("member %s does not start: %v", a.places[i].Name, err)
	}
}

func crashLoop(ctx context.Context, a *attack) bool {
	i := a.rng.Intn(len(a.places))
	if !a.claim(i) {
		return false
	}
	defer a.release(i)
	n := 0
	for ; n < 5 && ctx.Err() == nil; n++ {
		a.places[i].Kill()
		a.start(i)
		a.wait(ctx, 20, 500)
	}
	a.text = fmt.Sprintf("killed %s %d times", a.places[i].Name, n)
	return true
}

func pauseSome(least, most int, pick func(*attack) int) func(context.Context, *attack) bool {
	return func(ctx context.Context, a *attack) bool {
		i := pick(a)
		if !a.claim(i) {
			return false
		}
		defer a.release(i)
		p := a.places[i]
		if !p.Running() {
			return false
		}
		p.Signal(syscall.SIGSTOP)
		a.text = "stopped " + p.Name
		a.wait(ctx, least, most)
		p.Signal(syscall.SIGCONT)
		return true
	}
}

func rollingRestart(ctx context.Context, a *attack) bool {
	done := 0
	for _, i := range a.rng.Perm(len(a.places)) {
		if ctx.Err() != nil || !a.claim(i) {
			continue
		}
		p := a.places[i]
		asked := time.Now()
		p.Terminate()
		if took := time.Since(asked); took > stopLimit {
			a.rec.violate("member %s took %v to end", p.Name, took)
		}
		a.start(i)
		ready, cancel := context.WithTimeout(ctx, 3*time.Second)
		p.WaitReady(ready) // Under other faults it may not be for long.
		cancel()
		a.release(i)
		done++
	}
	a.text = fmt.Sprintf("restarted %d members", done)
	return done > 0
}

// stopLimit is generous: the machine is shared.
const stopLimit = 30 * time.Second

func clockSkew(ctx context.Context, a *attack) bool {
	i := a.rng.Intn(len(a.places))
	p := a.places[i]
	jumps := 1
	if a.rng.Intn(2) == 0 {
		jumps = 8 // A strobe.
	}
	for range jumps {
		by := time.Duration(a.rng.Int63n(int64(2*time.Hour))) - time.Hour
		if err := p.Skew(by); err != nil {
			a.rec.violate("skew: %v", err)
			return false
		}
		a.text = fmt.Sprintf("%s ahead by %v", p.Name, by.Round(time.Second))
		a.wait(ctx, 100, 1500/jumps+200)
	}
	if a.rng.Intn(2) == 0 {
		if err := p.Skew(0); err != nil {
			a.rec.violate("skew: %v", err)
		}
	}
	return true
}

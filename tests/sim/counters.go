package sim

import (
	"fmt"
	"strings"
)

// Counters say what happened in a run: what fired, what was reached, where the
// power went. They add up over seeds.
type Counters struct {
	Faults  map[string]int // By ID: how often a fault did something.
	Kinds   map[string]int // In how many seeds.
	Crashes map[string]int // Power cuts by class of file and operation.
	Checks  map[string]int // Invariants looked at.
	Reached map[string]int // What a good run comes by.
	Ops     map[string]int // What became of clients' requests.
}

// NewCounters returns empty ones.
func NewCounters() Counters {
	return Counters{
		Faults: map[string]int{}, Kinds: map[string]int{}, Crashes: map[string]int{}, Checks: map[string]int{},
		Reached: map[string]int{}, Ops: map[string]int{},
	}
}

// Add takes in another run.
func (c *Counters) Add(o *Counters) {
	for _, pair := range []struct{ to, from map[string]int }{
		{c.Faults, o.Faults}, {c.Kinds, o.Kinds}, {c.Crashes, o.Crashes}, {c.Checks, o.Checks}, {c.Reached, o.Reached}, {c.Ops, o.Ops},
	} {
		for name, n := range pair.from { //tidy:ordered sums
			pair.to[name] += n
		}
	}
}

// fired counts that a fault did something.
func (w *World) fired(id string) {
	w.count.Faults[id]++
	w.note(hashText(id))
	if id == w.cfg.plant {
		w.fail("planted: %s fired", id)
	}
}

// faultNames are all kinds of faults, in the order of the table.
var faultNames = []struct{ id, name string }{
	{"N1", "message lost"},
	{"N2", "message twice"},
	{"N3", "messages out of order"},
	{"N4", "long delays"},
	{"N5", "link clogged, then a burst"},
	{"N6", "link cut both ways"},
	{"N7", "link cut one way"},
	{"N8", "majorities in a ring"},
	{"N9", "leader cut off from the others"},
	{"N10", "links flap"},
	{"N11", "snapshot stream breaks"},
	{"N12", "links cut one by one, healed at random"},
	{"P1", "power cut of a member"},
	{"P2", "power cut of all at once"},
	{"P3", "crash loop"},
	{"P4", "pause"},
	{"P5", "pause longer than an election and a lease"},
	{"P6", "slow processor"},
	{"P8", "disk lost, member replaced"},
	{"D1", "unsynced writes lost"},
	{"D2", "last write torn"},
	{"D3", "writes reach the disk in another order"},
	{"D4", "names lost"},
	{"D5", "write fails"},
	{"D6", "sync fails, page looks clean"},
	{"D7", "read fails"},
	{"D8", "disk full"},
	{"D9", "slow sync"},
	{"D10", "bit flips at rest"},
	{"D11", "page zeroed or garbage"},
	{"D12", "sector written elsewhere"},
	{"D13", "base replaced by an older copy"},
	{"D14", "disk read-only"},
	{"D15", "file cut short"},
	{"C1", "wall clock off"},
	{"C2", "wall clock jumps ahead"},
	{"C3", "wall clock jumps back"},
	{"C4", "clock rate off"},
	{"C5", "clock stands still, then leaps"},
	{"A1", "compaction"},
	{"A2", "defragmentation"},
	{"A3", "member added, removed, replaced"},
	{"A4", "learner promoted"},
	{"A5", "leadership handed over"},
	{"A6", "checkpoint forced"},
	{"A7", "backup during faults"},
	{"A8", "backup restored into a new cluster"},
	{"A9", "users, roles or permissions changed"},
}

// Table is for people.
func (c *Counters) Table() string {
	var b strings.Builder
	b.WriteString("fault  fired       seeds   what\n")
	for _, f := range faultNames {
		fmt.Fprintf(&b, "%-5s %7d %10d   %s\n", f.id, c.Faults[f.id], c.Kinds[f.id], f.name)
	}
	for _, part := range []struct {
		name string
		of   map[string]int
	}{{"power cut at", c.Crashes}, {"checked", c.Checks}, {"reached", c.Reached}, {"requests", c.Ops}} {
		fmt.Fprintf(&b, "\n%s\n", part.name)
		for _, name := range SortedKeys(part.of) {
			fmt.Fprintf(&b, "%9d   %s\n", part.of[name], name)
		}
	}
	return b.String()
}

// checksWanted are the invariants that a run of many seeds must have looked at.
var checksWanted = []string{
	"A1", "A1 hash", "A3", "A3 revision", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "I-1", "I-6", "K1", "K2", "K5", "K6", "K7", "K8",
	"L1", "L3", "V1", "V2", "W11", "W4", "W5", "W6", "W8", "rule 10", "rule 21", "rule 22",
	"U1", "U2", "U3", "U4",
}

// reachedWanted is what a run of many seeds must have come by.
var reachedWanted = []string{
	"checkpoint", "log compacted", "snapshot sent", "snapshot received", "snapshot refused", "state frozen", "lease expired",
	"member replaced", "watch resumed elsewhere", "watch canceled because of a compaction", "boot with a cut log", "cut made good",
	"damage found at start", "orderly stop", "killed", "read denied", "write denied", "token of another revision refused",
	"leadership offered because of a disk",
}

// Missing names the faults, crash points, checks and stations that a run of
// many seeds has to have, and these had not.
func (c *Counters) Missing(beyond bool) (names []string) {
	for _, f := range faultNames {
		if c.Faults[f.id] == 0 && !(beyond && f.id == "A8") {
			names = append(names, "fault "+f.id)
		}
	}
	for _, class := range []string{"wal", "history", "meta", "base"} {
		if c.Crashes[class+" sync"]+c.Crashes[class+" syncdir"] == 0 {
			names = append(names, "power cut at a sync of "+class)
		}
	}
	for _, name := range checksWanted {
		if c.Checks[name] == 0 && !beyond {
			names = append(names, "check "+name)
		}
	}
	for _, name := range reachedWanted {
		if c.Reached[name] == 0 && !beyond {
			names = append(names, name)
		}
	}
	return names
}

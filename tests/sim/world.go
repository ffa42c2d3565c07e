// Package sim runs whole clusters on one goroutine, by seed.
//
// The code is the product's own: raftnode.Core with its Executor and PlanBoot,
// the Raft log on a file system that forgets, server/replica with the state
// machine and its store, snapshots, the keeper of leases and the hub of watches.
// Time, network and disks are virtual, and all chance comes from the seed: the
// same seed gives the same run, to the last file operation, in any process.
//
// A seed becomes a Scenario: a configuration and a schedule of faults. World
// carries it: first anything goes within the fault budget, then a majority is
// healed and has to serve, then all are healed and have to agree. While it runs,
// the checker of raftnodetest watches over Raft, and Shadow holds each answer
// against tests/model, which executes the same log. A violation ends the run with
// a Failure, whose schedule Shrink makes as short as it can.
//
// The fault budget: every committed entry keeps an intact copy, and a quorum of
// the voters remembers its votes. Power may fail everywhere at once; damage and
// loss hit a minority. Beyond the budget (Config.Beyond) a cluster may come to a
// halt, but never answer wrong.
//
// base.db of each store is a real file, since bbolt maps it, in a folder of
// memory. Its durability is modelled: see disk.go.
package sim

import (
	"container/heap"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/tests/check"
)

// All virtual times are in microseconds.
const (
	millisecond   = 1000
	second        = 1_000_000
	tickTime      = 100 * millisecond
	electionTicks = 10
	electionTime  = electionTicks * tickTime
)

// start is where all members of a new cluster begin.
var start = wal.Mark{Index: 1, Term: 1}

// World is a simulated cluster, its clients, and those who harm it.
//
// It has more fields than most because everything meets here.
type World struct {
	cfg   Config
	root  string // A real folder, for base files.
	log   func(string)
	tape  io.Writer
	quiet hclog.Logger

	now    int64
	queue  events
	serial uint64
	trace  uint64

	chance  *raftnodetest.Random // Of times: delays, syncs, applies.
	members map[ident.MemberID]*Member
	ids     []ident.MemberID // Sorted.
	net     network
	check   *raftnodetest.Checker
	shadow  *Shadow
	clients []*client
	admin   operator
	ops     map[ident.RequestID]*op
	count   Counters

	running *Member // Whose code runs.
	phase   phase
	boots   int   // Starts of members.
	dirs    int   // Real folders made so far.
	confs   int   // Changes of the configuration under way.
	confEnd int64 // When the last one ended.
	backups []*backup
	history check.History

	acknowledged, ackedUnderFaults, ackedHealed int
}

// phase is what the world is in.
type phase uint8

const (
	safety   phase = iota // Anything goes.
	majority              // A majority was healed and must serve.
	healed                // All was healed: all must agree.
)

// Failure is a violated invariant.
type Failure struct {
	At   int64
	Text string
}

func (f *Failure) Error() string { return fmt.Sprintf("at %s: %s", clockText(f.At), f.Text) }

func clockText(t int64) string { return fmt.Sprintf("%.6f", float64(t)/second) }

// newBareWorld makes a world without members.
func newBareWorld(cfg Config, root string, o Options) *World {
	w := &World{
		cfg: cfg, root: root, log: o.Log, tape: o.Tape, quiet: hclog.NewNullLogger(),
		chance: stream(cfg.Seed, "chance"), members: map[ident.MemberID]*Member{}, ops: map[ident.RequestID]*op{},
		count: NewCounters(),
	}
	w.shadow = newShadow(w)
	w.check = raftnodetest.NewChecker(checked{w}, start)
	w.net.init(w)
	w.admin.init(w)
	return w
}

// stream is chance for one purpose, so that a change of one thing leaves the
// others as they were.
func stream(seed uint64, purpose string) *raftnodetest.Random {
	h := fnvBasis
	for _, b := range []byte(purpose) {
		h = (h ^ uint64(b)) * fnvPrime
	}
	return raftnodetest.NewRandom(raftnodetest.NewRandom(seed ^ h).Next())
}

func (w *World) addMember(id ident.MemberID, at wal.Mark) *Member {
	m := newMember(w, id)
	w.members[id] = m
	w.ids = append(w.ids, id)
	slices.Sort(w.ids)
	w.check.NewMember(id, at)
	return m
}

// each calls fn for all members that ever were, by ID.
func (w *World) each(fn func(*Member)) {
	for _, id := range w.ids {
		fn(w.members[id])
	}
}

// alive are the members that run.
func (w *World) alive() (list []*Member) {
	w.each(func(m *Member) {
		if m.alive {
			list = append(list, m)
		}
	})
	return list
}

// leader is the member that leads the highest term, or nil.
func (w *World) leader() *Member {
	var leader *Member
	w.each(func(m *Member) {
		if m.alive && m.shown.Role == raftnode.Leader && (leader == nil || m.shown.Term > leader.shown.Term) {
			leader = m
		}
	})
	return leader
}

// voters of the newest configuration that anybody knows.
func (w *World) voters() []ident.MemberID {
	var newest *Member
	w.each(func(m *Member) {
		if m.shown.Voters != nil && !m.removed && (newest == nil || m.confIndex > newest.confIndex) {
			newest = m
		}
	})
	if newest == nil {
		return nil
	}
	return newest.shown.Voters
}

// fail ends the run.
func (w *World) fail(format string, args ...any) {
	panic(&Failure{At: w.now, Text: strings.ReplaceAll(fmt.Sprintf(format, args...), w.root, "")})
}

// plain is the text of an error, the same in each run.
func (w *World) plain(err error) string { return strings.ReplaceAll(err.Error(), w.root, "") }

func (w *World) logf(who fmt.Stringer, format string, args ...any) {
	if w.log == nil {
		return
	}
	name := "-"
	if who != nil {
		name = who.String()
	}
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), w.root, "")
	w.log(fmt.Sprintf("%10s  %-3s %s", clockText(w.now)[:len(clockText(w.now))-3], name, text))
}

const (
	fnvBasis uint64 = 14695981039346656037
	fnvPrime uint64 = 1099511628211
)

// note adds what happened to the trace.
func (w *World) note(values ...uint64) {
	if w.tape != nil {
		fmt.Fprintln(w.tape, w.now, values)
	}
	t := w.trace
	for _, v := range values {
		t = (t ^ v) * fnvPrime
		t ^= t >> 29
	}
	w.trace = t
}

func hashBytes(b []byte) uint64 {
	h := fnvBasis
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}

func hashText(s string) uint64 {
	h := fnvBasis
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// event is something due.
type event struct {
	due    int64
	serial uint64
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].due < e[j].due || e[i].due == e[j].due && e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

func (w *World) after(d int64, do func()) { w.at(w.now+d, do) }

func (w *World) at(due int64, do func()) {
	w.serial++
	heap.Push(&w.queue, event{due: max(due, w.now), serial: w.serial, do: do})
}

func (w *World) between(from, to int64) int64 {
	if to <= from {
		return from
	}
	return from + int64(w.chance.Next()%uint64(to-from))
}

// runUntil lets time pass until cond holds, at most until end. It reports
// whether cond holds.
func (w *World) runUntil(end int64, cond func() bool) bool {
	for !cond() {
		if len(w.queue) == 0 || w.queue[0].due > end {
			w.now = end
			return false
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.due
		e.do()
	}
	return true
}

func (w *World) run(d int64) { w.runUntil(w.now+d, func() bool { return false }) }

// describe says where everybody stands.
func (w *World) describe() string {
	var b strings.Builder
	w.each(func(m *Member) {
		s := m.shown
		fmt.Fprintf(&b, "\n  %s alive %v gone %q %s term %d leader %s commit %d published %d last %d voters %v learners %v cut %v paused %v",
			m.id, m.alive, m.gone, s.Role, s.Term, s.Leader, s.Commit, m.published, s.Last, s.Voters, s.Learners, s.Cut, m.pausedUntil > w.now)
	})
	return b.String()
}

// checked shows the checker what it needs.
type checked struct{ *World }

func (c checked) Fail(format string, args ...any) { c.fail(format, args...) }

func (c checked) Subject(id ident.MemberID) raftnodetest.Subject {
	if m := c.members[id]; m != nil {
		return m
	}
	return nil
}

func (c checked) Told(id ident.RequestID) error {
	if o := c.ops[id]; o != nil && o.done {
		return o.err
	}
	return nil
}

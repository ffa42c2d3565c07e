// Package raftnodetest runs raftnode without goroutines, files and clocks.
//
// Cluster carries the events and effects of many cores on one goroutine. Time,
// network and disks are virtual, and everything that is left to chance comes
// from a seed: the same seed gives the same run. After each step it checks what
// must always hold, and panics with the violation and the seed otherwise.
// MemLog and Machine are the log and the state machine of such members; they
// serve a real Node as well.
//
// Raft draws election timeouts from crypto/rand.Reader: who wants repeatable
// runs puts a Random there, as the tests of this package do.
package raftnodetest

import (
	"container/heap"
	"fmt"
	"slices"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// All virtual times are in microseconds.
const (
	tickTime      = 100_000
	electionTicks = 10
)

// Config says how unfriendly the world is.
type Config struct {
	Seed    uint64
	Members int

	DelayMin, DelayMax int // Of a frame on its way.
	LossPercent        int
	DuplicatePercent   int // Of Raft's messages; other frames never come twice.
	SyncMin, SyncMax   int // Of one sync.
	ApplyMin, ApplyMax int // Of one apply.
	CatchUpEntries     uint64
	CheckpointTicks    int // How often the state machine makes its state durable; 0 means never.
	ClockTicks         int // How often members compare their wall clocks, and how far they are; 0 means never.

	Log func(line string) // Hears what happens, for transcripts; may be nil.
}

// Cluster is a simulated cluster.
type Cluster struct {
	cfg     Config
	random  *Random
	now     int64
	queue   events
	serial  uint64
	members map[ident.MemberID]*Member
	cut     map[[2]ident.MemberID]bool
	narrow  map[[2]ident.MemberID]bool // Loses what is large.
	refuses map[ident.MemberID]bool    // Takes no state.
	check   *Checker
	trace   uint64
	ops     []*Op
	byID    map[ident.RequestID]*Op
}

// Op is what a client wanted, and what became of it.
type Op struct {
	ID     ident.RequestID
	Data   string
	Member ident.MemberID
	Done   bool
	Err    error
	Value  any

	change  *raftpb.ConfChangeV2
	claimed ident.Term // In which Raft may have got it; 0 while it has not.
}

// start is where all members of a new cluster begin.
var start = wal.Mark{Index: 1, Term: 1}

// NewCluster starts members 1 to n.
func NewCluster(cfg Config) *Cluster {
	c := &Cluster{
		cfg: cfg, random: NewRandom(cfg.Seed),
		members: map[ident.MemberID]*Member{}, cut: map[[2]ident.MemberID]bool{}, narrow: map[[2]ident.MemberID]bool{}, refuses: map[ident.MemberID]bool{}, byID: map[ident.RequestID]*Op{},
	}
	c.check = NewChecker(checked{c}, start)
	conf := &raftpb.ConfState{}
	for i := range cfg.Members {
		conf.Voters = append(conf.Voters, uint64(i+1))
	}
	for i := range cfg.Members {
		c.addMember(ident.MemberID(i+1), NewMemLog(start), NewMachine(start, raftpb.EnsureConfState(conf)))
	}
	for _, id := range c.IDs() {
		c.Restart(id)
	}
	return c
}

func (c *Cluster) addMember(id ident.MemberID, log *MemLog, machine *Machine) *Member {
	m := &Member{cluster: c, id: id, log: log, machine: machine, logger: hclog.NewNullLogger()}
	machine.OnApply = m.onApply
	c.members[id] = m
	c.check.NewMember(m.id, start)
	return m
}

// Join adds a member that knows nothing; the cluster must add it by a
// configuration change.
func (c *Cluster) Join(id ident.MemberID) {
	c.addMember(id, NewMemLog(wal.Mark{}), NewMachine(wal.Mark{}, &raftpb.ConfState{}))
	c.Restart(id)
}

// IDs of all members that ever were, sorted.
func (c *Cluster) IDs() []ident.MemberID {
	ids := make([]ident.MemberID, 0, len(c.members))
	for id := range c.members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Member returns one.
func (c *Cluster) Member(id ident.MemberID) *Member { return c.members[id] }

// Alive are the members that run.
func (c *Cluster) Alive() []*Member {
	var alive []*Member
	for _, id := range c.IDs() {
		if m := c.members[id]; m.alive {
			alive = append(alive, m)
		}
	}
	return alive
}

// Leader is the member that leads the highest term, or nil.
func (c *Cluster) Leader() *Member {
	var leader *Member
	for _, m := range c.Alive() {
		if s := m.core.Status(); s.Role == leaderRole && (leader == nil || s.Term > leader.core.Status().Term) {
			leader = m
		}
	}
	return leader
}

// Now is the virtual time in microseconds.
func (c *Cluster) Now() int64 { return c.now }

// Trace is a hash over everything that happened.
func (c *Cluster) Trace() uint64 { return c.trace }

// Ops are all that clients asked for.
func (c *Cluster) Ops() []*Op { return c.ops }

func (c *Cluster) logf(m *Member, format string, args ...any) {
	if c.cfg.Log != nil {
		who := " "
		if m != nil {
			who = m.id.String()
		}
		c.cfg.Log(fmt.Sprintf("%8.3f %s %s", float64(c.now)/1e6, who, fmt.Sprintf(format, args...)))
	}
}

func (c *Cluster) fail(format string, args ...any) {
	panic(fmt.Sprintf("seed %d, time %d: %s", c.cfg.Seed, c.now, fmt.Sprintf(format, args...)))
}

// checked shows the checker what it needs.
type checked struct{ *Cluster }

func (c checked) Fail(format string, args ...any) { c.fail(format, args...) }

func (c checked) Subject(id ident.MemberID) Subject {
	if m := c.members[id]; m != nil {
		return m
	}
	return nil
}

func (c checked) Told(id ident.RequestID) error {
	if op := c.byID[id]; op.Done {
		return op.Err
	}
	return nil
}

func (c *Cluster) note(values ...uint64) { c.trace = mix(c.trace, values...) }

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
	*e = (*e)[:last]
	return x
}

func (c *Cluster) after(d int64, do func()) {
	c.serial++
	heap.Push(&c.queue, event{due: c.now + d, serial: c.serial, do: do})
}

func (c *Cluster) between(from, to int) int64 {
	if to <= from {
		return int64(from)
	}
	return int64(from + c.random.Below(to-from))
}

// Run lets virtual time pass.
func (c *Cluster) Run(d int64) {
	end := c.now + d
	c.RunUntil(end, func() bool { return false })
	c.now = end
}

// RunUntil lets time pass until cond holds, at most until end. It reports
// whether cond holds.
func (c *Cluster) RunUntil(end int64, cond func() bool) bool {
	for !cond() {
		if len(c.queue) == 0 || c.queue[0].due > end {
			return false
		}
		e := heap.Pop(&c.queue).(event)
		c.now = e.due
		e.do()
	}
	return true
}

// Connect joins or cuts the link between two members, both ways.
func (c *Cluster) Connect(a, b ident.MemberID, joined bool) {
	c.ConnectOneWay(a, b, joined)
	c.ConnectOneWay(b, a, joined)
}

// ConnectOneWay joins or cuts one direction.
func (c *Cluster) ConnectOneWay(from, to ident.MemberID, joined bool) {
	c.cut[[2]ident.MemberID{from, to}] = !joined
}

// Isolate cuts or joins a member from all others.
func (c *Cluster) Isolate(id ident.MemberID, isolated bool) {
	for _, other := range c.IDs() {
		if other != id {
			c.Connect(id, other, !isolated)
		}
	}
}

// Narrow has one direction lose all entries and let everything else pass, or
// brings them again.
func (c *Cluster) Narrow(from, to ident.MemberID, narrow bool) {
	c.narrow[[2]ident.MemberID{from, to}] = narrow
}

// Hang has a member begin no apply any more, or go on.
func (c *Cluster) Hang(id ident.MemberID, hang bool) {
	m := c.members[id]
	if m.hangs = hang; !hang {
		m.startApply()
	}
}

// Refuse has a member refuse the states that it is sent, or take them again.
func (c *Cluster) Refuse(id ident.MemberID, refuse bool) { c.refuses[id] = refuse }

// Heal joins all links and ends loss, duplicates and long delays.
func (c *Cluster) Heal() {
	clear(c.cut)
	clear(c.narrow)
	c.cfg.LossPercent, c.cfg.DuplicatePercent = 0, 0
	c.cfg.DelayMax = min(c.cfg.DelayMax, 5_000)
}

// Put proposes data at a member.
func (c *Cluster) Put(id ident.MemberID, data string) *Op {
	return c.members[id].propose(data, nil)
}

// Change proposes a configuration change at a member. The data "refuse" makes
// the state machine refuse it.
func (c *Cluster) Change(id ident.MemberID, change *raftpb.ConfChangeV2, data string) *Op {
	c.check.Changing = true
	return c.members[id].propose(data, change)
}

// Converge heals everything, starts who is down, and waits until all that are
// part of the cluster have applied the same and a put goes through.
func (c *Cluster) Converge() {
	c.Heal()
	for _, id := range c.IDs() {
		if m := c.members[id]; !m.alive && !m.gone {
			c.Restart(id)
		}
	}
	end := c.now + 60*10*tickTime
	if !c.RunUntil(end, func() bool { return c.Leader() != nil }) {
		c.fail("no leader in a healed cluster")
	}
	var op *Op
	again := int64(0)
	if !c.RunUntil(end, func() bool {
		if l := c.Leader(); l != nil && c.now >= again { // A leader that is deposed next leaves the outcome unknown.
			op = c.Put(l.id, "last")
			again = c.now + 3*electionTicks*tickTime
		}
		return op != nil && op.Done && op.Err == nil
	}) {
		c.fail("no put goes through in a healed cluster")
	}
	if !c.RunUntil(end, c.agree) {
		c.fail("members do not agree in a healed cluster: %s", c.describe())
	}
}

func (c *Cluster) agree() bool {
	leader := c.Leader()
	if leader == nil {
		return false
	}
	s := leader.core.Status()
	for _, m := range c.Alive() {
		part := slices.Contains(s.Voters, m.id) || slices.Contains(s.Learners, m.id)
		if part && (m.machine.Sum() != leader.machine.Sum() || m.machine.Applied().Index != s.Last) {
			return false
		}
	}
	return true
}

func (c *Cluster) describe() string {
	var text string
	for _, m := range c.Alive() {
		s := m.core.Status()
		text += fmt.Sprintf("\n%s %s term %d leader %s commit %d applied %d last %d voters %v cut %v",
			m.id, s.Role, s.Term, s.Leader, s.Commit, m.machine.Applied().Index, s.Last, s.Voters, s.Cut)
	}
	return text
}

package raftnodetest

import (
	"errors"
	"math"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

const leaderRole = raftnode.Leader

// Member is one simulated member. It does with one loop what Node does with
// three goroutines: appends complete in order after a while, applies too.
type Member struct {
	cluster *Cluster
	id      ident.MemberID
	logger  hclog.Logger
	log     *MemLog
	machine *Machine
	core    *raftnode.Core
	execute raftnode.Executor

	ahead    int64 // Of its wall clock.
	alive    bool
	gone     bool // Removed, or damaged beyond a restart.
	boot     uint64
	nonce    ident.Nonce
	sequence uint64
	shown    raftnode.Status
	leaving  bool // Was removed, and goes on for an election timeout.

	appends   []*raftnode.Append // Queued.
	chores    []func() error     // Done with the next sync: compaction, the cut.
	syncing   bool
	dirty     bool // The log holds what wants a sync.
	applies   []applyTask
	applying  bool
	hangs     bool // Begins no apply.
	published ident.Index
	confIndex ident.Index // Of the newest applied change of the configuration.
	frozen    raftnode.Frozen

	round     uint64 // Of reads asked for.
	readers   []reader
	confirmed []reader
	ready     bool
}

type applyTask struct {
	apply   *raftnode.Apply
	freeze  bool
	install *raftnode.Append
}

type reader struct {
	round uint64
	index ident.Index // Once confirmed.
	floor ident.Index // What was acknowledged to anybody when the read began.
	done  func()
}

// ID of the member.
func (m *Member) ID() ident.MemberID { return m.id }

// Status of its core; zero when it does not run.
func (m *Member) Status() raftnode.Status {
	if !m.alive {
		return raftnode.Status{}
	}
	return m.core.Status()
}

// Published is the index of the last entry whose effects can be seen.
func (m *Member) Published() ident.Index { return m.published }

// ConfIndex implements Subject.
func (m *Member) ConfIndex() ident.Index { return m.confIndex }

func (m *Member) resolve(index ident.Index, change *raftpb.ConfChangeV2, accept bool) *raftpb.ConfState {
	m.confIndex = index
	return m.core.ResolveConf(index, change, accept)
}

// DurableTerm implements Subject.
func (m *Member) DurableTerm(i ident.Index) (ident.Term, bool) { return m.log.DurableTerm(i) }

// DurableHard implements Subject.
func (m *Member) DurableHard() wal.HardState { return m.log.DurableHard() }

// DurableLast implements Subject.
func (m *Member) DurableLast() wal.Mark { return m.log.DurableLast() }

// Machine is its state machine.
func (m *Member) Machine() *Machine { return m.machine }

// Crash stops a member as a power cut does. torn says that the write after the
// last one that survived was half on disk.
func (c *Cluster) Crash(id ident.MemberID, torn bool) {
	m := c.members[id]
	if !m.alive {
		return
	}
	kept := 0
	if n := m.log.Pending(); n > 0 {
		kept = c.random.Below(n + 1)
		torn = torn && kept < n
	} else {
		torn = false
	}
	m.log = m.log.Crash(kept, torn)
	m.machine = m.machine.Crash()
	m.halt()
	c.logf(m, "crashed")
	c.note(1, uint64(id), uint64(kept))
}

func (m *Member) halt() {
	m.alive = false
	m.boot++
	m.appends, m.chores, m.applies = nil, nil, nil
	m.readers, m.confirmed = nil, nil
	m.syncing, m.dirty, m.applying, m.leaving, m.ready = false, false, false, false, false
	m.frozen = nil
}

// Restart boots a member from what its disk holds.
func (c *Cluster) Restart(id ident.MemberID) {
	m := c.members[id]
	if m.alive || m.gone {
		return
	}
	boot, err := raftnode.PlanBoot(m.log.Recovered(), m.machine.Applied(), m.log)
	if err == nil && boot.Reset {
		err = m.log.Reset(boot.Start)
	}
	m.nonce = ident.Nonce(c.random.Next())
	if err == nil {
		m.core, err = raftnode.NewCore(raftnode.CoreConfig{
			ID: id, Nonce: m.nonce, ElectionTicks: electionTicks, Boot: boot, Log: m.log,
			CatchUpEntries: c.cfg.CatchUpEntries, Logger: m.logger,
		})
	}
	if err != nil {
		m.gone = true
		c.logf(m, "refuses to start: %v", err)
		if !errors.Is(err, raftnode.ErrRemoved) {
			c.fail("member %s does not start: %v", id, err)
		}
		return
	}
	m.alive = true
	m.published = m.machine.Applied().Index
	m.execute = raftnode.Executor{
		Machine: m.machine, Resolve: m.resolve,
		Publish: m.publish, Answer: m.answered, Settled: m.settled,
	}
	m.shown = m.core.Status()
	c.logf(m, "boots at %d, log %d to %d", boot.Applied.Index, boot.Start.Index, boot.Last.Index)
	m.Read(func() {
		m.ready = true
		c.logf(m, "ready at %d", m.published)
	})
	m.live(c.between(0, tickTime), m.tick)
	if c.cfg.CheckpointTicks > 0 {
		m.live(c.between(0, c.cfg.CheckpointTicks*tickTime), m.checkpoint)
	}
	if c.cfg.ClockTicks > 0 {
		m.live(c.between(0, c.cfg.ClockTicks*tickTime), m.compareClocks)
	}
}

// live does something later unless the member stops before.
func (m *Member) live(d int64, do func()) {
	boot := m.boot
	m.cluster.after(d, func() {
		if m.alive && m.boot == boot {
			do()
		}
	})
}

func (m *Member) tick() {
	m.step(&raftnode.Event{Kind: raftnode.EventTick})
	m.live(tickTime, m.tick)
}

func (m *Member) checkpoint() {
	index := m.machine.Checkpoint()
	m.cluster.check.Checkpointed(m, index)
	m.step(&raftnode.Event{Kind: raftnode.EventCheckpoint, Index: index})
	m.live(int64(m.cluster.cfg.CheckpointTicks)*tickTime, m.checkpoint)
}

// Skew sets the wall clock of a member ahead, in microseconds; below 0: behind.
func (c *Cluster) Skew(id ident.MemberID, ahead int64) { c.members[id].ahead = ahead }

// compareClocks measures the clock of each member that can be reached, and asks how
// far it has applied. A measurement is wrong by what one way took longer than the other.
func (m *Member) compareClocks() {
	c := m.cluster
	for _, other := range c.Alive() {
		if other == m || c.cut[[2]ident.MemberID{m.id, other.id}] || c.cut[[2]ident.MemberID{other.id, m.id}] {
			continue
		}
		there, back := c.between(c.cfg.DelayMin, c.cfg.DelayMax), c.between(c.cfg.DelayMin, c.cfg.DelayMax)
		offset := time.Duration(other.ahead-m.ahead+(there-back)/2) * time.Microsecond
		m.step(&raftnode.Event{Kind: raftnode.EventClock, Peer: other.id, Offset: offset})
		m.step(&raftnode.Event{Kind: raftnode.EventPeerApplied, Peer: other.id, Index: other.published})
	}
	m.live(int64(c.cfg.ClockTicks)*tickTime, m.compareClocks)
}

// step is one turn of the loop.
func (m *Member) step(e *raftnode.Event) {
	c := m.cluster
	c.note(2, uint64(c.now), uint64(m.id), uint64(e.Kind))
	m.core.Step(e)
	effects := append([]raftnode.Effect(nil), m.core.Take((c.now+m.ahead)*1000)...)
	m.show()
	c.check.After(m, &m.shown)
	for i := range effects {
		m.carry(&effects[i])
	}
	if !m.alive {
		return
	}
	switch {
	case m.core.Removed() && !m.leaving:
		m.leaving = true
		m.live(electionTicks*tickTime, func() { m.stop(raftnode.ErrRemoved) })
	case m.core.Err() != nil:
		m.stop(m.core.Err())
	}
}

func (m *Member) stop(err error) {
	m.cluster.logf(m, "stops: %v", err)
	if errors.Is(err, raftnode.ErrRemoved) {
		m.gone = true
	} else {
		m.cluster.fail("member %s stops: %v", m.id, err)
	}
	m.halt()
}

// show logs what others see changing.
func (m *Member) show() {
	s := m.core.Status()
	if s.Role != m.shown.Role || s.Term != m.shown.Term || s.Leader != m.shown.Leader {
		m.cluster.logf(m, "is %s in term %d, leader %s", s.Role, s.Term, s.Leader)
	}
	m.cluster.note(uint64(s.Role), uint64(s.Term), uint64(s.Leader), uint64(s.Commit), uint64(s.Last))
	m.shown = s
}

func (m *Member) carry(e *raftnode.Effect) {
	c := m.cluster
	c.note(3, uint64(e.Kind), uint64(e.Peer), uint64(e.Index), e.Round)
	switch e.Kind {
	case raftnode.EffectSend:
		c.send(m, e.Peer, e.Frame)
	case raftnode.EffectAppend:
		c.check.Appended(m, e.Append)
		m.appends = append(m.appends, e.Append)
		m.startSync()
	case raftnode.EffectApply:
		m.queueApply(applyTask{apply: e.Apply})
	case raftnode.EffectFreeze:
		m.queueApply(applyTask{freeze: true})
	case raftnode.EffectRead:
		m.readConfirmed(e.Round, e.Index)
	case raftnode.EffectDrop:
		m.end(e.Proposal.Request.ID, nil, e.Err)
	case raftnode.EffectSnapshot:
		m.sendSnapshot(e.Peer, e.Message)
	case raftnode.EffectThaw:
		m.frozen = nil
	case raftnode.EffectDiscard:
		c.logf(m, "drops the snapshot at %d", e.Staged.Meta().Index)
	case raftnode.EffectCompact:
		c.check.Compacted(m, e.Index)
		m.chores = append(m.chores, func() error { return m.log.Compact(e.Index) })
		m.startSync()
	case raftnode.EffectClearCut:
		c.logf(m, "has back what it lost")
		m.chores = append(m.chores, m.log.ClearCut)
		m.startSync()
	}
}

// startSync stores all that is queued with one sync, up to an installation.
func (m *Member) startSync() {
	if m.syncing || len(m.appends) == 0 && len(m.chores) == 0 {
		return
	}
	m.syncing = true
	if len(m.appends) > 0 && m.appends[0].Start.Index != 0 {
		install := m.appends[0]
		m.appends = m.appends[1:]
		m.queueApply(applyTask{install: install})
		return
	}
	n := 0
	for n < len(m.appends) && m.appends[n].Start.Index == 0 {
		n++
	}
	batch := m.appends[:n:n]
	m.appends = m.appends[n:]
	for _, a := range batch {
		m.must(m.log.Append(a.Entries, a.Hard))
		m.dirty = m.dirty || a.Sync
	}
	chores := m.chores
	m.chores = nil
	m.live(m.cluster.between(m.cluster.cfg.SyncMin, m.cluster.cfg.SyncMax), func() { m.synced(batch, chores) })
}

func (m *Member) synced(batch []*raftnode.Append, chores []func() error) {
	if m.dirty || len(chores) > 0 {
		m.must(m.log.Sync())
		m.dirty = false
	}
	for _, chore := range chores {
		m.must(chore())
	}
	m.cluster.check.Synced(m)
	for _, a := range batch {
		for _, r := range a.Responses {
			if to := ident.MemberID(r.GetTo()); to != m.id {
				m.cluster.send(m, to, transport.Frame{Kind: transport.KindRaft, Message: r})
			}
		}
	}
	for _, a := range batch {
		if !m.alive {
			return
		}
		m.step(&raftnode.Event{Kind: raftnode.EventAppended, Append: a})
	}
	m.syncing = false
	m.startSync()
}

func (m *Member) must(err error) {
	if err != nil {
		m.cluster.fail("member %s: %v", m.id, err)
	}
}

func (m *Member) queueApply(t applyTask) {
	m.applies = append(m.applies, t)
	m.startApply()
}

func (m *Member) startApply() {
	if m.applying || m.hangs || len(m.applies) == 0 {
		return
	}
	m.applying = true
	t := m.applies[0]
	m.applies = m.applies[1:]
	m.live(m.cluster.between(m.cluster.cfg.ApplyMin, m.cluster.cfg.ApplyMax), func() {
		m.apply(t)
		if m.alive {
			m.applying = false
			m.startApply()
		}
	})
}

func (m *Member) apply(t applyTask) {
	switch {
	case t.apply != nil:
		m.must(m.execute.Apply(t.apply.Entries))
		m.step(&raftnode.Event{Kind: raftnode.EventApplied, Apply: t.apply})
	case t.freeze:
		f, err := m.machine.Freeze()
		m.must(err)
		m.frozen = f
		m.step(&raftnode.Event{Kind: raftnode.EventFrozen, Frozen: f})
	case t.install != nil:
		a := t.install
		m.must(m.machine.Install(a.Staged))
		m.cluster.logf(m, "installed the snapshot at %d", a.Start.Index)
		m.publish(a.Start.Index)
		for _, op := range m.cluster.ops {
			if op.ID.Nonce == m.nonce && op.claimed != 0 {
				op.claimed = math.MaxUint64 // The snapshot hides what became of it.
			}
		}
		m.cluster.check.Installed(m, a.Start, m.machine.Sum())
		if m.cluster.random.Chance(10) && m.cluster.cfg.LossPercent > 0 {
			m.cluster.Crash(m.id, false) // Between the switch of the state and the reset of the log.
			return
		}
		m.must(m.log.Reset(a.Start))
		m.must(m.log.Append(a.Entries, a.Hard))
		m.synced([]*raftnode.Append{a}, nil)
	}
}

// settled ends requests that Raft got in an earlier term: they are gone.
func (m *Member) settled(term ident.Term) {
	for _, op := range m.cluster.ops {
		if op.ID.Nonce == m.nonce && !op.Done && op.claimed != 0 && op.claimed < term {
			m.end(op.ID, nil, raftnode.ErrLeaderChanged)
		}
	}
}

// Gone implements raftnode.Ticket.
func (o *Op) Gone() bool { return o.Done }

// Claim implements raftnode.Ticket.
func (o *Op) Claim(term ident.Term) bool {
	o.claimed = term
	return !o.Done
}

// Release implements raftnode.Ticket.
func (o *Op) Release() { o.claimed = 0 }

func (m *Member) propose(data string, change *raftpb.ConfChangeV2) *Op {
	m.sequence++
	op := &Op{ID: ident.RequestID{Member: m.id, Nonce: m.nonce, Sequence: m.sequence}, Data: data, Member: m.id, change: change}
	c := m.cluster
	c.ops = append(c.ops, op)
	c.byID[op.ID] = op
	m.step(&raftnode.Event{Kind: raftnode.EventPropose, Proposals: []raftnode.Proposal{{
		Request: entry.Request{ID: op.ID, Data: []byte(data)}, Conf: change, Ticket: op,
	}}})
	return op
}

// Read calls done when the state includes all that was acknowledged before.
func (m *Member) Read(done func()) {
	m.round++
	m.readers = append(m.readers, reader{round: m.round, floor: m.cluster.check.Acknowledged, done: done})
	m.step(&raftnode.Event{Kind: raftnode.EventRead, Round: m.round})
}

func (m *Member) readConfirmed(round uint64, index ident.Index) {
	n := 0
	for n < len(m.readers) && m.readers[n].round <= round {
		r := m.readers[n]
		r.index = index
		m.confirmed = append(m.confirmed, r)
		n++
	}
	m.readers = m.readers[n:]
	m.wakeReaders()
}

func (m *Member) publish(index ident.Index) {
	m.published = max(m.published, index)
	m.wakeReaders()
}

func (m *Member) wakeReaders() {
	var kept, ripe []reader
	for _, r := range m.confirmed {
		if r.index <= m.published {
			ripe = append(ripe, r)
		} else {
			kept = append(kept, r)
		}
	}
	m.confirmed = kept
	for _, r := range ripe {
		if m.published < r.floor {
			m.cluster.fail("member %s reads at %d what was acknowledged up to %d (rule 22)", m.id, m.published, r.floor)
		}
		r.done()
	}
}

// onApply runs inside the state machine.
func (m *Member) onApply(e *entry.Entry, sum uint64) {
	m.cluster.check.Applied(m, e)
	m.cluster.check.State(m, e.Index, sum)
}

func (m *Member) answered(a *entry.Answer) {
	if a.ID.Member != m.id || a.ID.Nonce != m.nonce {
		return
	}
	m.cluster.check.Answered(m, a)
	m.end(a.ID, a.Value, a.Err)
}

func (m *Member) end(id ident.RequestID, value any, err error) {
	op := m.cluster.byID[id]
	if op == nil || op.Done {
		m.cluster.fail("rule 21: request %v (%q) ends with %v after it ended with %v", id, op.Data, err, op.Err)
	}
	op.Done, op.Value, op.Err = true, value, err
	if err != nil {
		m.cluster.logf(m, "answers %q: %v", op.Data, err)
	} else {
		m.cluster.logf(m, "answers %q: %v", op.Data, value)
	}
}

// send puts a frame on its way.
func (c *Cluster) send(m *Member, to ident.MemberID, f transport.Frame) {
	if f.Kind == transport.KindRaft {
		c.check.Sent(m, f.Message)
		c.note(4, uint64(f.Message.GetType()), f.Message.GetTerm(), f.Message.GetIndex(), f.Message.GetCommit(), uint64(len(f.Message.GetEntries())))
	}
	from := m.id
	copies := 1
	if c.random.Chance(c.cfg.LossPercent) {
		copies = 0
	} else if f.Kind == transport.KindRaft && c.random.Chance(c.cfg.DuplicatePercent) {
		copies = 2
	}
	for range copies {
		c.after(c.between(c.cfg.DelayMin, c.cfg.DelayMax), func() { c.deliver(from, to, f) })
	}
}

func (c *Cluster) deliver(from, to ident.MemberID, f transport.Frame) {
	m := c.members[to]
	link := [2]ident.MemberID{from, to}
	if m == nil || !m.alive || c.cut[link] || c.narrow[link] && len(f.Message.GetEntries()) > 0 {
		return
	}
	switch f.Kind {
	case transport.KindRaft:
		m.step(&raftnode.Event{Kind: raftnode.EventMessage, Peer: from, Message: f.Message})
	case transport.KindForward:
		list, err := raftnode.DecodeForward(from, f.Data)
		m.must(err)
		m.step(&raftnode.Event{Kind: raftnode.EventPropose, Proposals: list})
	case transport.KindAnswer:
		m.refused(f.Data)
	case transport.KindNotice:
		notice, err := raftnode.DecodeNotice(f.Data)
		m.must(err)
		m.step(&raftnode.Event{Kind: raftnode.EventNotice, Peer: from, Notice: notice})
	}
}

func (m *Member) refused(data []byte) {
	reason, ids, err := raftnode.DecodeRefusal(data)
	m.must(err)
	for _, id := range ids {
		op := m.cluster.byID[id]
		if id.Nonce != m.nonce || op == nil || op.Done {
			continue
		}
		if errors.Is(reason, raftnode.ErrNotLeader) {
			op.Release()
			m.step(&raftnode.Event{Kind: raftnode.EventPropose, Proposals: []raftnode.Proposal{{
				Request: entry.Request{ID: id, Data: []byte(op.Data)}, Conf: op.change, Ticket: op, Refused: true,
			}}})
		} else {
			m.end(id, nil, reason)
		}
	}
}

// Transfer asks a member to hand leadership to another.
func (m *Member) Transfer(to ident.MemberID) {
	m.step(&raftnode.Event{Kind: raftnode.EventTransfer, Peer: to})
}

// Campaign starts an election.
func (m *Member) Campaign() { m.step(&raftnode.Event{Kind: raftnode.EventCampaign}) }

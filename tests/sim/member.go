package sim

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/watch"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server/keeper"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Member is one simulated member. It does with one loop what raftnode.Node and
// package server do with goroutines: appends complete in order after a while,
// applies too, and the background of the store gets its turns in between.
type Member struct {
	w        *World
	id       ident.MemberID
	founding bool // Begins with the cluster.
	clock    memberClock
	disk     *disk
	promised *raftnodetest.MemLog // What its log has promised to keep.

	// Of one boot.
	alive    bool
	boot     uint64
	nonce    ident.Nonce
	sequence uint64
	dir      *datadir.Dir
	log      *wal.Log
	replica  *replica.Replica
	keeper   *keeper.Keeper
	hub      *watch.Hub
	core     *raftnode.Core
	execute  raftnode.Executor
	shown    raftnode.Status
	leaving  bool // Was removed, and goes on for an election timeout.
	started  int64

	logTasks  []logTask
	writing   bool
	dirty     bool // The log holds what wants a sync.
	applies   []applyTask
	applying  bool
	frozen    raftnode.Frozen
	receiving bool
	published ident.Index
	confIndex ident.Index // Of the newest applied change of the configuration.
	steps     bool        // A turn of the background is due.

	round     uint64 // Of reads asked for.
	readers   []reader
	confirmed []reader
	ready     bool
	waiting   map[ident.RequestID]*op

	// For longer than a boot.
	gone        string // Why it will never start again.
	removed     bool
	replaced    int64 // When another had taken its place.
	excused     bool  // Its disk was damaged or lost: it may have forgotten what it promised.
	pausedUntil int64 // Does nothing until then.
	asleep      []func()
	slow        int64 // Factor on the time of everything.
	down        int64 // When it stopped; for the supervisor.
	keptDown    bool  // By a fault, which will start it again.
	orderly     bool  // Ends in order: what is in memory is made durable.
	crashLoop   int   // So many boots to come lose power soon.
}

type reader struct {
	round uint64
	index ident.Index // Once confirmed.
	floor ident.Index // What was acknowledged to anybody when the read began.
	done  func()
}

func newMember(w *World, id ident.MemberID) *Member {
	m := &Member{w: w, id: id, slow: 1}
	m.clock = memberClock{w: w, base: int64(id) * 777 * millisecond, rate: w.cfg.ratePPM(id)}
	m.disk = newDisk(m)
	return m
}

// ID implements raftnodetest.Subject.
func (m *Member) ID() ident.MemberID { return m.id }

// Status implements raftnodetest.Subject.
func (m *Member) Status() raftnode.Status { return m.shown }

// Published implements raftnodetest.Subject.
func (m *Member) Published() ident.Index { return m.published }

// ConfIndex implements raftnodetest.Subject.
func (m *Member) ConfIndex() ident.Index { return m.confIndex }

// DurableTerm implements raftnodetest.Subject. Whoever was damaged once had it.
func (m *Member) DurableTerm(i ident.Index) (ident.Term, bool) {
	if m.excused || m.promised == nil {
		return 0, m.excused
	}
	return m.promised.DurableTerm(i)
}

// DurableHard implements raftnodetest.Subject.
func (m *Member) DurableHard() wal.HardState { return m.promised.DurableHard() }

// DurableLast implements raftnodetest.Subject.
func (m *Member) DurableLast() wal.Mark { return m.promised.DurableLast() }

func (m *Member) config() replica.Config {
	c := m.w.cfg
	return replica.Config{
		FS: m.disk.mem, Dir: m.dir, Clock: &m.clock, Logger: m.w.quiet, WALBytes: c.WALBytes,
		OnCheckpoint: m.checkpointed,
		Tune: func(generation int, s *mvcc.Config) {
			m.w.tune(s)
			s.BaseFS = &baseFS{FS: vfs.OS(), d: m.disk}
			s.BaseDir = fmt.Sprintf("%s/gen-%06d", m.disk.root, generation)
			if err := vfs.OS().MkdirAll(s.BaseDir); err != nil {
				m.w.fail("make a folder for base: %v", err)
			}
		},
	}
}

// tune has a store do nothing by itself, and small things often.
func (w *World) tune(s *mvcc.Config) {
	c := &w.cfg
	s.Manual, s.BaseNoSync, s.BaseInOrder = true, true, true
	s.BaseMapBytes = 32 << 20
	s.SegmentBytes, s.RingBytes = c.SegmentBytes, c.RingBytes
	s.CheckpointBytes, s.CheckpointInterval = c.CheckpointBytes, c.checkpointInterval()
}

// identity is what the first boot writes.
func (m *Member) identity() (datadir.Identity, []*holdfastpb.Member) {
	var ids []ident.MemberID
	var members []*holdfastpb.Member
	for i := range m.w.cfg.Voters {
		id := ident.MemberID(i + 1)
		ids = append(ids, id)
		members = append(members, &holdfastpb.Member{Id: uint64(id), PeerUrls: []string{peerURL(id)}})
	}
	if !m.founding {
		members = nil
	}
	return datadir.Identity{Cluster: member.ClusterID(ids), Member: m.id, Timeline: 1, Incarnation: uint64(m.id) * 1000}, members
}

func peerURL(id ident.MemberID) string { return fmt.Sprintf("http://m%s:2380", id) }

// restart boots a member from what its disk holds.
func (m *Member) restart() {
	if m.alive || m.gone != "" {
		return
	}
	w := m.w
	w.boots++
	w.running = m
	if err := m.disk.boot(); err != nil {
		w.fail("member %s: %v", m.id, err)
	}
	if m.crashLoop > 0 {
		m.crashLoop--
		m.disk.crashIn = 1 + m.disk.chance.Below(40)
		w.fired("P3")
	}
	m.nonce = ident.Nonce(stream(w.cfg.Seed^uint64(w.boots), "nonce").Next())
	m.waiting = map[ident.RequestID]*op{}
	err := m.open()
	if err == nil {
		err = m.startCore()
	}
	if err != nil {
		m.refuse(err)
		return
	}
	m.alive, m.started = true, w.now
	m.shown = m.core.Status()
	s := m.replica.Store()
	w.note(uint64(m.id), uint64(m.shown.Last), uint64(s.Applied().Position.Index))
	w.logf(m.id, "boots at %d, log %d to %d, term %d", m.shown.Applied, m.shown.First, m.shown.Last, m.shown.Term)
	m.read(func() {
		m.ready = true
		w.logf(m.id, "ready at %d", m.published)
		m.publishSelf()
	})
	m.live(w.between(0, tickTime), m.tick)
	m.live(w.between(0, tickTime), m.background)
	m.live(w.between(0, expiryTime), m.expireLeases)
}

// open brings up everything below Raft.
func (m *Member) open() (err error) {
	if m.dir, err = datadir.Open(m.disk.mem, dataDir); err != nil {
		return err
	}
	cfg := m.config()
	id, members := m.identity()
	if _, err := m.dir.Identity(); errors.Is(err, datadir.ErrEmpty) {
		if m.promised != nil && !m.excused && m.promised.DurableLast().Index > start.Index {
			m.w.fail("S1: the data directory of member %s is empty, its log had promised %s", m.id, m.promised.DurableLast())
		}
		err = replica.Create(cfg, id, members)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	var recovered *wal.Recovered
	if m.log, recovered, err = wal.Open(cfg.WAL()); err != nil {
		return err
	}
	if err := m.checkRecovered(recovered); err != nil {
		return err
	}
	if m.replica, err = replica.Open(cfg, recovered.Notes); err != nil {
		return err
	}
	m.keeper = keeper.New(&m.clock, durationOf(electionTime))
	m.replica.Machine.Leases.Watch(m.keeper)
	m.hub = watch.NewHub(watch.Config{Logger: m.w.quiet, StreamBytes: m.w.cfg.StreamBytes, Manual: true}, m.replica.Store())
	m.replica.OnStore = m.hub.Swap
	return m.plan(recovered)
}

// plan joins log and state.
func (m *Member) plan(recovered *wal.Recovered) error {
	applied, err := m.replica.Applied()
	if err != nil {
		return err
	}
	m.published = applied.Index
	boot, err := raftnode.PlanBoot(recovered, applied, m.log)
	if err != nil {
		return err
	}
	m.w.check.State(m, applied.Index, m.w.stateOf(m.replica.Store()))
	if boot.Reset {
		if err := m.log.Reset(boot.Start); err != nil {
			return err
		}
		if err := m.promised.Reset(boot.Start); err != nil {
			return err
		}
		m.w.check.Restarted(m.id, []wal.Mark{boot.Start})
		m.w.count.Reached["log begun anew behind an installed state"]++
	}
	// What state and log say of the term together is as durable as they are.
	if err := m.promised.Append(nil, &boot.Hard); err != nil {
		return err
	}
	if err := m.promised.Sync(); err != nil {
		return err
	}
	if boot.Cut {
		m.w.count.Reached["boot with a cut log"]++
	}
	m.core, err = raftnode.NewCore(raftnode.CoreConfig{
		ID: m.id, Nonce: m.nonce, ElectionTicks: electionTicks, Boot: boot, Log: m.log,
		CatchUpEntries: m.w.cfg.CatchUp, Logger: m.w.quiet,
		StallTicks: electionTicks, // The slowest syncs here take two seconds.
	})
	return err
}

func (m *Member) startCore() error {
	m.execute = raftnode.Executor{
		Machine: machine{m}, Resolve: m.core.ResolveConf,
		Publish: m.publish, Answer: m.answered, Settled: m.settled,
	}
	if s := m.core.Status(); len(s.Voters) == 1 && s.Voters[0] == m.id {
		m.core.Step(&raftnode.Event{Kind: raftnode.EventCampaign})
		return m.core.Err()
	}
	for range electionTicks - 2 { // As a Node does, to save most of the first timeout.
		m.core.Step(&raftnode.Event{Kind: raftnode.EventTick})
	}
	return m.core.Err()
}

// checkRecovered holds what the log found against what it had promised.
func (m *Member) checkRecovered(r *wal.Recovered) error {
	w := m.w
	if old := m.promised; old != nil && !m.excused {
		w.check.Fired["C6"]++
		hard, last := old.DurableHard(), old.DurableLast()
		if r.Last.Term < last.Term || r.Last.Term == last.Term && r.Last.Index < last.Index {
			w.fail("C6: the log of member %s ends at %s, it had promised %s (cut %+v)", m.id, r.Last, last, r.Cut)
		}
		if now := r.HardState; now.Term < hard.Term || now.Term == hard.Term && hard.Vote != 0 && now.Vote != hard.Vote {
			w.fail("C6: member %s comes back with %+v, it had promised %+v", m.id, now, hard)
		}
	}
	w.check.Forget(m.id) // What it comes back with was looked at here; its commit index may be older.
	promised := raftnodetest.NewMemLog(r.Start)
	marks := []wal.Mark{r.Start}
	var entries []*raftpb.Entry
	for next := r.Start.Index + 1; next <= r.Last.Index; {
		some, err := m.log.Entries(next, r.Last.Index+1, 1<<30)
		if err != nil {
			return err
		}
		entries = append(entries, some...)
		for _, e := range some {
			marks = append(marks, wal.Mark{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())})
		}
		next += ident.Index(len(some))
	}
	w.check.Restarted(m.id, marks)
	hard := r.HardState
	if err := promised.Append(entries, &hard); err != nil {
		return err
	}
	m.promised = promised
	return promised.Sync()
}

// refuse ends a start that failed.
func (m *Member) refuse(err error) {
	w := m.w
	w.logf(m.id, "does not start: %v", err)
	w.note(uint64(m.id), hashText("refuse"))
	cause := m.blame(err)
	m.halt()
	switch {
	case errors.Is(err, raftnode.ErrRemoved):
		m.leave()
	case cause == "damage":
		m.gone = w.plain(err)
		w.count.Reached["damage found at start"]++
		w.note(hashText(m.gone))
	case cause == "":
		w.fail("member %s does not start: %v", m.id, err)
	}
}

// blame tells what excuses an error of a member; nothing: a bug.
func (m *Member) blame(err error) string {
	switch {
	case m.disk.dead:
		return "power"
	case m.disk.injected > 0:
		return "fault"
	case m.disk.damaged || m.excused:
		return "damage"
	case errors.Is(err, raftnode.ErrRemoved):
		return "removed"
	}
	return ""
}

func (m *Member) leave() {
	m.gone, m.removed = "removed", true
	m.w.count.Reached["removed member stopped"]++
}

// stop ends a member that cannot go on.
func (m *Member) stop(err error) {
	if !m.alive {
		return
	}
	m.w.logf(m.id, "stops: %v", err)
	m.w.note(uint64(m.id), hashText("stop"))
	cause := m.blame(err)
	m.halt()
	switch {
	case errors.Is(err, raftnode.ErrRemoved):
		m.leave()
	case cause == "damage" && errors.Is(err, raftnode.ErrLogLost):
		m.gone = m.w.plain(err)
	case cause == "":
		m.w.fail("member %s stops: %v", m.id, err)
	}
}

// crash takes the power away.
func (m *Member) crash(why string) {
	m.disk.powerOff(why)
	if m.alive {
		m.halt()
	}
}

// halt forgets what was in memory. Files are closed without being heard: the
// image of a power cut was taken before, and a member that stops by itself has
// nothing to say any more.
func (m *Member) halt() {
	m.alive = false
	m.boot++
	m.down = m.w.now
	if !m.orderly {
		m.disk.kill()
	}
	m.logTasks, m.applies, m.readers, m.confirmed = nil, nil, nil, nil
	m.writing, m.dirty, m.applying, m.leaving, m.ready, m.receiving, m.steps = false, false, false, false, false, false, false
	if m.frozen != nil {
		_ = m.frozen.Close()
	}
	m.frozen, m.core = nil, nil
	m.shown.Role = raftnode.Follower
	m.dropClients()
	if m.hub != nil {
		_ = m.hub.Close()
	}
	if m.replica != nil {
		_ = m.replica.Close()
	}
	if m.log != nil {
		_ = m.log.Close()
	}
	if m.dir != nil {
		_ = m.dir.Close()
	}
	m.hub, m.replica, m.log, m.dir = nil, nil, nil, nil
	m.disk.kill()
	m.orderly = false
}

// live does something later unless the member stops before. One that is paused
// does it once it goes on.
func (m *Member) live(d int64, do func()) {
	boot := m.boot
	var try func()
	try = func() {
		if !m.alive || m.boot != boot {
			return
		}
		if m.paused(try) {
			return
		}
		m.w.running = m
		do()
		m.settle()
	}
	m.w.after(d*m.slow, try)
}

// pause has a member do nothing for a while.
func (m *Member) pause(d int64) {
	m.pausedUntil = max(m.pausedUntil, m.w.now+d)
	m.w.after(d, m.wake)
}

// paused reports whether the member is paused, and if so, has something done
// when it goes on.
func (m *Member) paused(later func()) bool {
	if m.pausedUntil <= m.w.now {
		return false
	}
	m.asleep = append(m.asleep, later)
	return true
}

func (m *Member) wake() {
	if m.pausedUntil > m.w.now {
		return
	}
	list := m.asleep
	m.asleep = nil
	for _, do := range list {
		m.w.after(0, do)
	}
}

// settle notices that the power went while something was done.
func (m *Member) settle() {
	m.w.running = nil
	if m.alive && m.disk.dead {
		m.halt()
	}
}

func (m *Member) tick() {
	m.step(&raftnode.Event{Kind: raftnode.EventTick})
	if !m.alive {
		return
	}
	m.lead()
	if m.shown.Leader == 0 {
		m.dial()
	}
	m.disk.torn = m.disk.torn && (m.shown.Cut || !m.ready)
	m.live(m.clock.stretch(tickTime), m.tick)
}

// background gives the store and the hub their turns.
func (m *Member) background() {
	m.steps = false
	store := m.replica.Store()
	more, err := store.Step()
	if store.Err() != nil {
		m.stop(store.Err())
		return
	}
	if err != nil {
		m.w.logf(m.id, "background waits: %v", err)
		more = false
	}
	m.stepHub()
	if !m.alive {
		return
	}
	d := m.w.between(50*millisecond, 150*millisecond)
	if more {
		d = m.w.between(millisecond, 10*millisecond)
	}
	m.live(d, m.background)
}

func (m *Member) stepHub() {
	for range 50 {
		more, err := m.hub.Step(context.Background())
		if err != nil {
			m.stop(fmt.Errorf("watch: %w", err))
			return
		}
		if !more {
			return
		}
	}
}

// checkpointed tells the log what no longer needs it, as package server does.
func (m *Member) checkpointed(generation int, c mvcc.Checkpoint) {
	if m.core == nil {
		return
	}
	note, inForce := m.replica.Note(generation, c)
	if !inForce {
		return
	}
	m.w.count.Reached["checkpoint"]++
	m.w.note(uint64(m.id), uint64(c.Index), c.TxID)
	m.w.check.Checkpointed(m, c.Index)
	m.live(0, func() {
		m.queueLog(logTask{note: &wal.Note{Kind: raftnode.NoteCheckpoint, Data: note}})
		m.step(&raftnode.Event{Kind: raftnode.EventCheckpoint, Index: c.Index})
	})
}

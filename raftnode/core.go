package raftnode

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// CoreConfig is what a Core starts from.
type CoreConfig struct {
	ID             ident.MemberID
	Nonce          ident.Nonce // Of this boot.
	ElectionTicks  int         // A follower that hears nothing for so long starts an election.
	StallTicks     int         // A disk that ends no write for so long takes none; stallElections by default. The same for apply.
	Boot           BootState
	Log            LogReader
	CatchUpEntries uint64 // Kept behind the checkpoint for followers.
	Logger         hclog.Logger
}

// Core decides everything that concerns Raft. It has no goroutines, locks,
// channels, files or clock: the same events give the same effects.
//
// Step takes events, Take returns what is to be done about all of them.
type Core struct {
	id      ident.MemberID
	logger  hclog.Logger
	raft    *raft.RawNode
	log     *recentLog
	conf    *raftpb.ConfState // That Raft works by.
	hard    wal.HardState     // As last handed to append, or held back.
	failed  error
	removed bool
	effects []Effect          // Since the last Take.
	taken   []Effect          // What the last Take returned.
	own     []*raftpb.Message // Responses to ourselves that need no disk.
	asks    []*raftpb.Message // Requests for votes, until our own vote is on its way to the disk.

	resolved   *raftpb.ConfState // Behind the last applied entry; another than conf while a snapshot waits to be installed.
	resolvedAt ident.Index       // Of the newest change that conf has.
	restored   ident.Index       // Of the newest snapshot that Raft accepted.

	role    raft.StateType
	leader  ident.MemberID
	applied ident.Index

	shared ident.Index // Entries up to here went to members that the configuration had before: they may have answered them.

	confIndex ident.Index // Of the newest entry that may be a configuration change, on a leader.

	electionTicks  int
	catchUpEntries ident.Index

	appends int  // Handed out and not reported yet.
	batches int  // Of those, with entries.
	held    bool // A commit index that is stored along with the next append.

	proposals proposals
	reads     readRounds
	snapshots snapshots
	cut       bool // See BootState.Cut.
	survey    survey
	clocks    clocks
	stall     stall // Of the raft log.
	applying  applying
	followers followers
	yield     yield
}

// NewCore starts Raft from what Boot found.
func NewCore(cfg CoreConfig) (*Core, error) {
	c := &Core{
		id:             cfg.ID,
		logger:         cfg.Logger,
		conf:           raftpb.EnsureConfState(cfg.Boot.Conf),
		hard:           cfg.Boot.Hard,
		applied:        cfg.Boot.Applied.Index,
		electionTicks:  cfg.ElectionTicks,
		catchUpEntries: ident.Index(cfg.CatchUpEntries),
		cut:            cfg.Boot.Cut,
		stall:          stall{limit: cmp.Or(cfg.StallTicks, stallElections*cfg.ElectionTicks)},
	}
	if cfg.Boot.Applied.Index > 0 { // A member that joins knows nobody yet.
		if err := checkConfState(c.conf); err != nil {
			return nil, fmt.Errorf("configuration of the stored state: %w", err)
		}
		if !hasMember(c.conf, c.id) {
			return nil, fmt.Errorf("member %s: %w", c.id, ErrRemoved)
		}
	}
	c.applying.limit = c.stall.limit
	c.resolved = c.conf
	c.log = newRecentLog(cfg.Log, cfg.Boot.Hard, c.conf, cfg.Boot.Start, cfg.Boot.Last)
	c.log.total = uint64(cfg.Boot.Bytes)
	c.snapshots.marks = []sizeMark{{cfg.Boot.Start.Index, 0}, {cfg.Boot.Last.Index, c.log.total}}
	c.reads.nonce = cfg.Nonce
	if c.isSingle() {
		c.cut = false // There is nobody else who could bring it back.
	}
	c.guard(func() error {
		var err error
		c.raft, err = raft.NewRawNode(&raft.Config{
			ID:                        uint64(cfg.ID),
			ElectionTick:              cfg.ElectionTicks,
			HeartbeatTick:             1,
			Storage:                   c.log,
			Applied:                   uint64(cfg.Boot.Applied.Index),
			AsyncStorageWrites:        true,
			MaxSizePerMsg:             MessageBytesMax,
			MaxCommittedSizePerReady:  ApplyingBytesMax,
			MaxUncommittedEntriesSize: UncommittedBytesMax,
			MaxInflightMsgs:           InflightMessagesMax,
			MaxInflightBytes:          InflightBytesMax,
			CheckQuorum:               true,
			PreVote:                   true,
			Logger:                    raftLogger{cfg.Logger},
			DisableProposalForwarding: true,
			StepDownOnRemoval:         true,
		})
		return err
	})
	return c, c.failed
}

// Err tells why the member must stop, or nil.
func (c *Core) Err() error { return c.failed }

// fail stops the core. The first reason stays.
func (c *Core) fail(err error) {
	if c.failed == nil {
		c.failed = err
	}
}

// guard runs something inside Raft. Raft panics where its rules are broken or
// its storage fails; here that stops the member, in order and with a reason.
func (c *Core) guard(f func() error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error:
			c.fail(fmt.Errorf("%w: %w\n%s", ErrRaft, v, debug.Stack()))
		case error:
			c.fail(fmt.Errorf("%w: %w", ErrRaft, v))
		default:
			c.fail(fmt.Errorf("%w: %v", ErrRaft, v))
		}
	}()
	if err := f(); err != nil {
		c.fail(err)
	}
}

// Step takes one event. What to do about it comes out of Take.
func (c *Core) Step(e *Event) {
	if c.failed != nil {
		return
	}
	c.guard(func() error { return c.step(e) })
}

func (c *Core) step(e *Event) error {
	switch e.Kind {
	case EventTick:
		c.tick()
	case EventCampaign:
		return c.campaign()
	case EventPropose:
		c.proposals.add(e.Proposals)
	case EventMessage:
		return c.message(e)
	case EventAppended:
		c.appended(e.Append)
	case EventApplied:
		c.stepOwn(e.Apply.responses)
		c.applied = max(c.applied, e.Apply.end())
		c.applying.through()
	case EventRead:
		c.reads.wanted = max(c.reads.wanted, e.Round)
	case EventTransfer:
		c.raft.TransferLeader(uint64(e.Peer))
	case EventUnreachable:
		c.raft.ReportUnreachable(uint64(e.Peer))
	case EventFrozen:
		c.frozen(e)
	case EventSent:
		c.sent(e)
	case EventCheckpoint:
		return c.checkpoint(e.Index)
	case EventNotice:
		c.notice(e.Peer, e.Notice)
	case EventClock, EventPeerApplied:
		c.learnt(e)
	}
	return nil
}

// learnt takes in what was found out about a peer beside Raft.
func (c *Core) learnt(e *Event) {
	if e.Kind == EventClock {
		c.clock(e.Peer, e.Offset)
		return
	}
	c.peerApplied(e.Peer, e.Index)
}

func (c *Core) campaign() error {
	if c.withhold() {
		return nil
	}
	if c.cut && !c.maySucceed(c.log.last) {
		return nil
	}
	return ignoreDropped(c.raft.Campaign())
}

// ignoreDropped passes errors by which Raft says that it did nothing.
func ignoreDropped(err error) error {
	if errors.Is(err, raft.ErrProposalDropped) || errors.Is(err, raft.ErrStepPeerNotFound) || errors.Is(err, raft.ErrStepLocalMsg) {
		return nil
	}
	return err
}

func (c *Core) tick() {
	c.reads.tick(c.electionTicks)
	c.proposals.tick()
	c.tickSnapshots()
	c.tickSurvey()
	c.tickClocks()
	c.tickStall()
	c.tickApplying()
	c.tickFollowers()
	c.tickYield()
	switch {
	case !c.mayTick(): // Who may have forgotten a vote or an entry does not campaign (rule 16).
	case c.role == raft.StateFollower && c.isSingle():
		_ = c.raft.Campaign() // There is nobody to wait for. Raft tells its logger why it does not.
	default:
		c.raft.Tick()
	}
}

// stepOwn hands Raft the responses that are for this member.
func (c *Core) stepOwn(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() != uint64(c.id) {
			continue
		}
		if err := ignoreDropped(c.raft.Step(m)); err != nil {
			c.fail(fmt.Errorf("own response %s: %w", m.GetType(), err))
			return
		}
	}
}

func (c *Core) appended(a *Append) {
	c.appends--
	c.stall.ticks = 0
	if len(a.Entries) > 0 {
		c.batches--
		last := a.Entries[len(a.Entries)-1]
		c.log.synced(ident.Index(last.GetIndex()), ident.Term(last.GetTerm()))
		c.log.trim()
	}
	if a.Staged != nil {
		c.applied = max(c.applied, a.Start.Index)
		c.resolved = a.conf
	}
	c.stepOwn(a.Responses)
	c.proposals.blocked = false // Raft may have room again.
}

// Take returns what is to be done about all events since the last Take. now is
// the wall clock, the stamp of new entries. The slice is valid until the next Take.
func (c *Core) Take(now int64) []Effect {
	if c.failed == nil {
		c.guard(func() error { return c.turn(now) })
	}
	clear(c.taken)
	c.taken, c.effects = c.effects, c.taken[:0]
	return c.taken
}

func (c *Core) turn(now int64) error {
	c.drain() // First, so that proposals and reads meet the role that is in force.
	if err := c.propose(now); err != nil {
		return err
	}
	c.startRead()
	c.drain()
	for c.startRead() { // A single member's round ends in the turn that began it.
		c.drain()
	}
	if c.log.wanted {
		c.freeze()
	}
	return c.failed
}

// drain takes everything out of Raft.
func (c *Core) drain() {
	for c.failed == nil && c.raft.HasReady() {
		rd := c.raft.Ready()
		if rd.SoftState != nil {
			c.roleChanged(rd.SoftState)
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				c.append(m)
			case raft.LocalApplyThread:
				a := &Apply{Entries: m.Entries, responses: m.Responses}
				c.applying.ends = append(c.applying.ends, a.end())
				c.effects = append(c.effects, Effect{Kind: EffectApply, Apply: a})
			default:
				c.send(m)
			}
		}
		if rd.SoftState != nil {
			c.confIndex = c.log.last.Index // A new leader does not know what is in its tail.
		}
		for i := range rd.ReadStates {
			c.readConfirmed(&rd.ReadStates[i])
		}
		if len(c.own) > 0 {
			own := c.own
			c.own = nil
			c.stepOwn(own)
		}
	}
}

func (c *Core) roleChanged(s *raft.SoftState) {
	if ident.MemberID(s.Lead) != c.leader || s.RaftState != c.role {
		c.reads.abandon()
		c.proposals.retry()
	}
	c.leader, c.role = ident.MemberID(s.Lead), s.RaftState
}

func (c *Core) send(m *raftpb.Message) {
	peer := ident.MemberID(m.GetTo())
	if m.GetType() == raftpb.MsgSnap {
		c.sendSnapshot(peer, m)
		return
	}
	if withheld(m) && c.withhold() {
		return
	}
	if m.GetType() == raftpb.MsgVote {
		c.asks = append(c.asks, m)
		return
	}
	c.effects = append(c.effects, Effect{
		Kind: EffectSend, Peer: peer,
		Frame: transport.Frame{Kind: transport.KindRaft, Message: m},
	})
}

// append turns Raft's storage message into an effect, or does without the disk
// where nothing needs it: a commit index alone waits for the next append, and
// responses that depend on nothing under way leave at once.
func (c *Core) append(m *raftpb.Message) {
	a := &Append{Entries: m.Entries, Responses: m.Responses}
	vital := false // Term or vote change.
	if m.Term != nil {
		hard := wal.HardState{Term: ident.Term(m.GetTerm()), Vote: ident.MemberID(m.GetVote()), Commit: ident.Index(m.GetCommit())}
		vital = hard.Term != c.hard.Term || hard.Vote != c.hard.Vote
		c.hard = hard
		c.held = true
	}
	if vital && len(c.asks) > 0 {
		// Raft asks for votes at once, and could win by those of the others alone
		// before its own term is durable. After a crash the member would know nothing
		// of it, and with its old log could win the same term again: two contents for
		// one index and term.
		a.Responses = append(slices.Clip(a.Responses), c.asks...)
		c.asks = nil
	}
	if s := m.GetSnapshot(); s.GetMetadata().GetIndex() != 0 {
		c.installStaged(a, s)
	}
	if len(a.Entries) == 0 && a.Staged == nil && !vital {
		if c.appends == 0 {
			c.respond(a.Responses)
			return
		}
		if onlyStable(a.Responses) {
			return // The append before it, of the same term, says the same.
		}
	}
	if c.held {
		hard := c.hard
		a.Hard = &hard
		c.held = false
	}
	a.Sync = len(a.Entries) > 0 || a.Staged != nil || vital
	c.log.append(a.Entries)
	c.appends++
	if len(a.Entries) > 0 {
		c.batches++
	}
	c.effects = append(c.effects, Effect{Kind: EffectAppend, Append: a})
}

// respond delivers responses that depend on nothing that is not durable.
func (c *Core) respond(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() == uint64(c.id) {
			c.own = append(c.own, m)
		} else {
			c.send(m)
		}
	}
}

// onlyStable reports whether all responses are Raft's note to itself that its
// entries are stable.
func onlyStable(responses []*raftpb.Message) bool {
	for _, m := range responses {
		if m.GetType() != raftpb.MsgStorageAppendResp {
			return false
		}
	}
	return true
}

// isSingle reports whether this member is the only one.
func (c *Core) isSingle() bool {
	return len(c.conf.Voters) == 1 && c.conf.Voters[0] == uint64(c.id) &&
		len(c.conf.VotersOutgoing) == 0 && len(c.conf.Learners) == 0
}

// isAlone reports whether this member leads a cluster of one, knows all that was
// committed, and has applied what others may have answered while there were some.
func (c *Core) isAlone() bool {
	return c.role == raft.StateLeader && c.isSingle() && c.committedInTerm() && c.applied >= c.shared
}

// committedInTerm reports whether an entry of the present term is committed.
// Before that a leader may not know all that is.
func (c *Core) committedInTerm() bool {
	term, err := c.log.Term(uint64(c.hard.Commit))
	return err == nil && ident.Term(term) == c.hard.Term
}

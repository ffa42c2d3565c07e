package raftnode

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// snapshots is what the core knows of states on their way: frozen ones to
// followers that are too far behind, staged ones from a leader.
type snapshots struct {
	freezing   bool        // Asked for and not answered yet.
	sending    int         // Transfers under way.
	idle       int         // Ticks since the frozen state was last wanted.
	total      uint64      // Of the log, when it was frozen.
	checkpoint ident.Index // The newest; the log is kept back to the one before.
	marks      []sizeMark  // Of earlier ones, the oldest first: how much the log had then.
	staged     Staged      // Offered to Raft just now.
	failed     []failedTransfer
}

// sizeMark is an entry, and the bytes of all that was appended until it was noted.
type sizeMark struct {
	index ident.Index
	total uint64
}

// failedTransfer is a follower that did not take a state. Raft would send the
// next one at once, again and again, however large; so it learns of the failure
// after a pause that grows.
type failedTransfer struct {
	peer      ident.MemberID
	elections int // Of the pause, in timeouts.
	pause     int // Ticks until Raft is told; 0 when it was.
}

func (c *Core) freeze() {
	c.log.wanted = false
	s := &c.snapshots
	if s.freezing || s.sending > 0 {
		return // One state serves all; the next follower waits for the end of the others.
	}
	if c.log.snapshot != nil {
		c.thaw() // Too old: of another configuration, or the log does not reach back to it.
	}
	s.freezing = true
	c.effects = append(c.effects, Effect{Kind: EffectFreeze})
}

func (c *Core) frozen(e *Event) {
	c.snapshots.freezing = false
	if e.Frozen == nil {
		return // Raft asks again.
	}
	meta := e.Frozen.Meta()
	c.log.snapshot = &meta
	c.log.stale = meta.Conf == nil || c.conf.Equivalent(meta.Conf) != nil
	c.snapshots.idle, c.snapshots.total = 0, c.log.total
}

func (c *Core) thaw() {
	c.log.snapshot = nil
	c.effects = append(c.effects, Effect{Kind: EffectThaw})
}

func (c *Core) tickSnapshots() {
	s := &c.snapshots
	if c.role != raft.StateLeader {
		s.failed = nil // Raft has forgotten too.
	}
	for i := range s.failed {
		f := &s.failed[i]
		if f.pause == 1 {
			c.raft.ReportSnapshot(uint64(f.peer), raft.SnapshotFailure)
		}
		f.pause = max(f.pause-1, 0)
	}
	if c.log.snapshot == nil || s.sending > 0 {
		return
	}
	if s.idle++; s.idle > snapshotIdleElections*c.electionTicks {
		c.thaw()
	}
}

func (c *Core) sendSnapshot(peer ident.MemberID, m *raftpb.Message) {
	c.snapshots.sending++
	c.effects = append(c.effects, Effect{Kind: EffectSnapshot, Peer: peer, Message: m})
}

// sent reports the end of a transfer to Raft, always: until then it sends that
// follower nothing.
func (c *Core) sent(e *Event) {
	s := &c.snapshots
	s.sending--
	s.idle = 0
	i := slices.IndexFunc(s.failed, func(f failedTransfer) bool { return f.peer == e.Peer })
	if !e.Failed {
		if i >= 0 {
			s.failed = slices.Delete(s.failed, i, i+1)
		}
		c.raft.ReportSnapshot(uint64(e.Peer), raft.SnapshotFinish)
		return
	}
	if i < 0 {
		i = len(s.failed)
		s.failed = append(s.failed, failedTransfer{peer: e.Peer})
	}
	f := &s.failed[i]
	f.elections = min(max(2*f.elections, 1), snapshotPauseElectionsMax)
	f.pause = f.elections * c.electionTicks
}

// checkpoint lets the log go behind the previous checkpoint, but for what
// followers may still need.
func (c *Core) checkpoint(index ident.Index) error {
	s := &c.snapshots
	previous := s.checkpoint
	if index < previous {
		return nil
	}
	s.checkpoint = index
	target := min(previous, c.catchUpFrom(index))
	held := c.log.snapshot
	if held != nil && c.log.last.Index-held.Index < SnapshotHoldEntriesMax && c.log.total-s.total < SnapshotHoldBytesMax {
		target = min(target, held.Index)
	}
	moved, err := c.log.compact(target)
	if err != nil || !moved {
		return err
	}
	c.effects = append(c.effects, Effect{Kind: EffectCompact, Index: target})
	return nil
}

// catchUpFrom is the entry behind which the log is kept for followers that were
// away: so many entries, if they are not too many bytes.
func (c *Core) catchUpFrom(checkpoint ident.Index) ident.Index {
	s, total := &c.snapshots, c.log.total
	if total-s.marks[len(s.marks)-1].total >= catchUpMarkBytes {
		s.marks = append(s.marks, sizeMark{checkpoint, total})
	}
	for total-s.marks[0].total > CatchUpBytesMax { // It ends before the last, which is nearer than that.
		s.marks = s.marks[1:]
	}
	from := s.marks[0].index
	if last := c.log.durable; last > c.catchUpEntries {
		from = max(from, last-c.catchUpEntries)
	}
	return from
}

// offerSnapshot shows Raft a received snapshot. Raft takes it, which shows as
// an append that installs it, or ignores it.
func (c *Core) offerSnapshot(e *Event) error {
	c.drain() // So that what follows can only stem from this message.
	c.snapshots.staged = e.Staged
	err := c.raft.Step(e.Message)
	c.drain()
	if c.snapshots.staged != nil {
		c.snapshots.staged = nil
		c.effects = append(c.effects, Effect{Kind: EffectDiscard, Staged: e.Staged})
	}
	return ignoreDropped(err)
}

// installStaged makes the installation part of an append, which is a barrier
// for the log and for apply.
func (c *Core) installStaged(a *Append, s *raftpb.Snapshot) {
	if c.snapshots.staged == nil {
		c.fail(fmt.Errorf("snapshot at %d without a staged state: %w", s.GetMetadata().GetIndex(), ErrRaft))
		return
	}
	a.Staged, c.snapshots.staged = c.snapshots.staged, nil
	a.Start = wal.Mark{Index: ident.Index(s.GetMetadata().GetIndex()), Term: ident.Term(s.GetMetadata().GetTerm())}
	c.log.reset(a.Start)
	a.conf = raftpb.EnsureConfState(s.GetMetadata().GetConfState())
	c.conf, c.restored = a.conf, a.Start.Index
}

package raftnode

import (
	"cmp"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// yield is how a leader gives leadership away that serves its cluster badly,
// for one of two reasons.
//
// Its clock is wrong: see clocks.
//
// Its disk takes nothing, because it hangs or is full. Such a leader still sends
// heartbeats, so nobody stands against it, and since it proposes nothing while
// appends wait for its disk, all writing stops for one disk out of three. It
// yields only while everything that it did send is committed: that takes a
// quorum without it, whose disks work. Where the others are no quorum without it
// nothing is won, and the reads that it can still serve would be lost.
type yield struct {
	pause   int // Ticks until leadership is offered again.
	backoff int // The pause after that.
}

// stall is an append that does not end.
type stall struct {
	limit  int // Ticks that an append may take.
	ticks  int // For which appends have been under way and none has ended.
	warned bool
}

func (c *Core) tickStall() {
	s := &c.stall
	if s.ticks++; c.appends == 0 || c.restored > c.applied { // A state that is put into force takes its time.
		s.ticks = 0
	}
	switch {
	case s.warned && s.ticks <= s.limit:
		s.warned = false
		c.logger.Info("the disk of this member works again")
	case !s.warned && s.ticks > s.limit:
		s.warned = true
		c.logger.Error("a write to the raft log of this member does not end: its disk hangs, or has no space", "appends", c.appends, "last", uint64(c.log.last.Index))
	}
}

// stalled reports whether the disk takes nothing.
func (c *Core) stalled() bool { return c.stall.ticks > c.stall.limit }

// goesOnWithout reports whether the others have stored and committed all that
// this leader sent them.
func (c *Core) goesOnWithout() bool { return c.hard.Commit == c.log.last.Index }

// tickYield hands leadership over when there is a reason. An attempt holds
// proposals back for an election timeout at most, so there is a growing pause
// between two.
func (c *Core) tickYield() {
	y := &c.yield
	if c.role != raft.StateLeader {
		*y = yield{}
		return
	}
	if y.pause > 0 {
		y.pause--
		return
	}
	stalled := c.stalled() && c.goesOnWithout()
	if !stalled && !c.clockFar() {
		y.backoff = 0
		return
	}
	y.backoff = min(max(2*y.backoff, yieldElectionsMin*c.electionTicks), yieldElectionsMax*c.electionTicks)
	y.pause = y.backoff
	to := c.heir(stalled)
	switch {
	case stalled && to != 0:
		c.logger.Error("the disk of this leader takes no writes, handing leadership over", "to", to)
	case to != 0:
		c.logger.Error("the clock of this leader is wrong, handing leadership over: set it right", "ahead", c.clocks.deviation, "lead-max", ClockLeadMax, "to", to)
	case !stalled:
		c.logger.Error("the clock of this leader is wrong and no other voter can take over: set it right", "ahead", c.clocks.deviation, "lead-max", ClockLeadMax)
	}
	if to != 0 {
		c.raft.TransferLeader(uint64(to))
	}
}

// heir is the voter that has most of the log, of those whose clocks are right;
// anyClock takes one of the others when there is none.
func (c *Core) heir(anyClock bool) ident.MemberID {
	type candidate struct {
		id    ident.MemberID
		match uint64
	}
	var all, near []candidate
	c.raft.WithProgress(func(peer uint64, kind raft.ProgressType, p tracker.Progress) {
		id := ident.MemberID(peer)
		if !p.RecentActive || kind == raft.ProgressTypeLearner || id == c.id {
			return
		}
		all = append(all, candidate{id, p.Match})
		if c.clockNear(id) {
			near = append(near, candidate{id, p.Match})
		}
	})
	if len(near) > 0 || !anyClock {
		all = near
	}
	if len(all) == 0 {
		return 0
	}
	return slices.MaxFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.match, b.match), cmp.Compare(b.id, a.id))
	}).id
}

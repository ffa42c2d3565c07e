package raftnode

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// yield is how a leader gives leadership away that serves its cluster badly,
// for one of three reasons.
//
// Its clock is wrong: see clocks.
//
// It applies nothing, and others do: see applying. What it proposes is stored and
// committed, but nobody who asks it is answered.
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
	stalled, behind := c.stall.over() && c.goesOnWithout(), c.applying.over()
	if !stalled && !behind && !c.clockFar() {
		y.backoff = 0
		return
	}
	y.backoff = min(max(2*y.backoff, yieldElectionsMin*c.electionTicks), yieldElectionsMax*c.electionTicks)
	y.pause = y.backoff
	var to ident.MemberID
	switch {
	case stalled:
		if to = c.heir(anyVoter, c.clockNear); to != 0 {
			c.logger.Error("the disk of this leader takes no writes, handing leadership over", "to", to)
		}
	case behind:
		if to = c.heir(c.applying.overtook, c.clockNear); to != 0 {
			c.logger.Error("this leader applies nothing, handing leadership over", "to", to)
		}
	default:
		if to = c.heir(c.clockNear, anyVoter); to == 0 {
			c.logger.Error("the clock of this leader is wrong and no other voter can take over: set it right", "ahead", c.clocks.deviation, "lead-max", ClockLeadMax)
			break
		}
		c.logger.Error("the clock of this leader is wrong, handing leadership over: set it right", "ahead", c.clocks.deviation, "lead-max", ClockLeadMax, "to", to)
	}
	if to != 0 {
		c.raft.TransferLeader(uint64(to))
	}
}

// heir is the voter that should lead next, 0 if there is none: of those that were
// heard of lately and may, one that better holds for before the others, and of
// these the one that has most of the log.
func (c *Core) heir(may, better func(ident.MemberID) bool) (best ident.MemberID) {
	var match uint64
	var good bool
	c.raft.WithProgress(func(peer uint64, kind raft.ProgressType, p tracker.Progress) {
		id := ident.MemberID(peer)
		if !p.RecentActive || kind == raft.ProgressTypeLearner || id == c.id || !may(id) {
			return
		}
		g := better(id)
		if best == 0 || g && !good || g == good && (p.Match > match || p.Match == match && id < best) {
			best, match, good = id, p.Match, g
		}
	})
	return best
}

// anyVoter is fine where it matters more that somebody leads.
func anyVoter(ident.MemberID) bool { return true }

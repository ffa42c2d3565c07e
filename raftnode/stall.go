package raftnode

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// stall is something that should go on and has not for too long. Of such things a
// heartbeat says nothing: a leader that hangs in one of them leads on.
type stall struct {
	limit  int // Ticks that it may take.
	ticks  int // For which it has stood still.
	warned bool
}

// tick counts one more tick in which it stood still, or begins anew. It tells when
// there is something to say.
func (s *stall) tick(still bool) (begins, ends bool) {
	if s.ticks++; !still {
		s.ticks = 0
	}
	begins, ends = s.over() && !s.warned, !s.over() && s.warned
	s.warned = s.over()
	return begins, ends
}

// over reports whether it has stood still for too long.
func (s *stall) over() bool { return s.ticks > s.limit }

// tickStall looks at appends that do not end: the disk takes nothing.
func (c *Core) tickStall() {
	begins, ends := c.stall.tick(c.appends > 0 && c.restored <= c.applied) // A state that is put into force takes its time.
	if begins {
		c.logger.Error("a write to the raft log of this member does not end: its disk hangs or takes no more", "appends", c.appends, "last", uint64(c.log.last.Index))
	}
	if ends {
		c.logger.Info("the disk of this member works again")
	}
}

// applying is what is under way in the state machine, and how far others are.
//
// How long an entry may take nobody can say: it may delete all keys there are. It
// takes the others as long, though. So apply stands still when another voter has
// long done all that is under way here: the state is on a disk that hangs, or this
// machine is far too slow to lead that one.
type applying struct {
	stall
	ends  []ident.Index                  // Of what was handed to apply and is not through, in order.
	peers map[ident.MemberID]ident.Index // What others have applied, as they last said.
}

// through says that the first of what was handed out has been applied.
func (a *applying) through() {
	a.ends = slices.Delete(a.ends, 0, 1)
	a.ticks = 0
}

// overtook reports whether a peer has applied all of what is under way here first.
func (a *applying) overtook(peer ident.MemberID) bool {
	return len(a.ends) > 0 && a.peers[peer] >= a.ends[0]
}

// peerApplied takes in how far a peer is.
func (c *Core) peerApplied(peer ident.MemberID, index ident.Index) {
	if c.applying.peers == nil {
		c.applying.peers = make(map[ident.MemberID]ident.Index)
	}
	c.applying.peers[peer] = index
}

func (c *Core) tickApplying() {
	a, voters := &c.applying, c.voters()
	maps.DeleteFunc(a.peers, func(id ident.MemberID, _ ident.Index) bool { return !slices.Contains(voters, id) })
	begins, ends := a.tick(slices.ContainsFunc(voters, a.overtook))
	if begins {
		c.logger.Error("this member applies nothing, and others have applied the same: the disk of its state hangs", "applied", uint64(c.applied), "committed", uint64(c.hard.Commit))
	}
	if ends {
		c.logger.Info("this member applies again")
	}
}

// followers are the progress of the others, as their leader sees it.
type followers map[ident.MemberID]*follower

// stuck reports whether a follower has answered for long and stored nothing.
func (f followers) stuck(id ident.MemberID) bool { return f[id] != nil && f[id].over() }

// follower is one that answers heartbeats. That it stores nothing has one of two
// reasons, which cannot be told apart from here: its disk takes nothing, or what is
// large is lost on the way to it and what is small is not. Neither is a reason to
// give leadership away. In the first case nothing is won, and a quorum without
// disks could elect nobody; in the second nobody can take over who lacks what
// cannot be sent.
type follower struct {
	stall
	match  ident.Index
	silent int // Ticks without a sign of life.
}

func (c *Core) tickFollowers() {
	if c.role != raft.StateLeader {
		c.followers = nil
		return
	}
	next := make(followers, len(c.followers))
	c.raft.WithProgress(func(peer uint64, _ raft.ProgressType, p tracker.Progress) {
		id := ident.MemberID(peer)
		if id == c.id {
			return
		}
		f := c.followers[id]
		if f == nil {
			f = &follower{stall: stall{limit: followerStalls * c.stall.limit}}
		}
		next[id] = f
		c.tickFollower(id, f, p)
	})
	c.followers = next
}

func (c *Core) tickFollower(id ident.MemberID, f *follower, p tracker.Progress) {
	if f.silent++; p.RecentActive { // Raft forgets it once in an election timeout.
		f.silent = 0
	}
	match := ident.Index(p.Match)
	waits := p.State == tracker.StateSnapshot || match < c.log.start.Index // For a state, which takes its time.
	begins, ends := f.tick(match == f.match && match < c.log.last.Index && !waits && f.silent <= c.electionTicks)
	f.match = match
	if begins {
		c.logger.Error("a member answers and stores nothing of what it is sent: its disk takes nothing, or large packets to it are lost", "member", id, "match", uint64(match), "last", uint64(c.log.last.Index))
	}
	if ends {
		c.logger.Info("a member stores what it is sent again, or is gone", "member", id, "match", uint64(match))
	}
}

package raftnode

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Role is what a member is in its term.
type Role uint8

const (
	Follower Role = iota
	Candidate
	Leader
)

func (r Role) String() string { return [...]string{"follower", "candidate", "leader"}[r] }

// Status is what a member knows about itself and its cluster.
type Status struct {
	ID      ident.MemberID
	Leader  ident.MemberID // 0 when none is known.
	Term    ident.Term
	Role    Role
	Learner bool

	Commit  ident.Index
	Applied ident.Index
	First   ident.Index // Of the log that is kept.
	Last    ident.Index

	Voters   []ident.MemberID // Of both halves while a joint configuration is in force.
	Learners []ident.MemberID
	Joint    bool

	// Settled says that a leader has committed an entry of its term. Only then
	// does it know all that was committed before.
	Settled bool
	// Cut says that the log lost its tail in a crash and no quorum made up for it yet.
	Cut bool

	// ClockAhead is how far the wall clock of this member is from the middle of
	// all voters' that are known; below 0: behind.
	ClockAhead time.Duration

	// Stalled says that the disk has ended no write to the log for too long,
	// ApplyStalled that nothing is applied, while another voter has applied the same.
	Stalled, ApplyStalled bool

	Transferee ident.MemberID // Whom leadership is being handed to, or 0.
	Heir       ident.MemberID // Of a leader that stops, or 0; as of the last tick.
	Progress   []Progress     // Of the others; on the leader only, sorted by ID, as of the last tick.
}

// Progress is how far a follower is, as its leader knows.
type Progress struct {
	ID       ident.MemberID
	Match    ident.Index // Durable there.
	Learner  bool
	Active   bool // Heard from since the last quorum check, less than two election timeouts ago.
	Snapshot bool // Is being sent a snapshot.
	Stuck    bool // Answers, and has stored nothing of what it was sent for too long.
}

// Status tells where the core stands.
func (c *Core) Status() Status {
	s := Status{
		ID: c.id, Leader: c.leader, Term: c.hard.Term,
		Commit: c.hard.Commit, Applied: c.applied,
		First: c.log.start.Index + 1, Last: c.log.last.Index,
		Voters: members(c.conf.Voters), Learners: members(c.conf.Learners),
		Joint: len(c.conf.VotersOutgoing) > 0, Cut: c.cut, ClockAhead: c.clocks.deviation,
		Stalled: c.stall.over(), ApplyStalled: c.applying.over(),
	}
	for _, id := range members(c.conf.VotersOutgoing) {
		if !slices.Contains(s.Voters, id) {
			s.Voters = append(s.Voters, id)
		}
	}
	slices.Sort(s.Voters)
	slices.Sort(s.Learners)
	s.Learner = slices.Contains(s.Learners, c.id)
	s.Role = c.roleName()
	s.Settled = s.Role == Leader && c.committedInTerm()
	if s.Role == Leader && c.failed == nil {
		s.Transferee = ident.MemberID(c.raft.BasicStatus().LeadTransferee)
		s.Heir = c.heir(anyVoter, c.clockNear)
		c.raft.WithProgress(func(id uint64, kind raft.ProgressType, p tracker.Progress) {
			if ident.MemberID(id) == c.id {
				return
			}
			s.Progress = append(s.Progress, Progress{
				ID: ident.MemberID(id), Match: ident.Index(p.Match), Learner: kind == raft.ProgressTypeLearner,
				Active: p.RecentActive, Snapshot: p.State == tracker.StateSnapshot, Stuck: c.followers.stuck(ident.MemberID(id)),
			})
		})
		slices.SortFunc(s.Progress, func(a, b Progress) int {
			if a.ID < b.ID {
				return -1
			}
			return 1
		})
	}
	return s
}

func (c *Core) roleName() Role {
	switch c.role {
	case raft.StateLeader:
		return Leader
	case raft.StateCandidate, raft.StatePreCandidate:
		return Candidate
	}
	return Follower
}

func members(ids []uint64) []ident.MemberID {
	out := make([]ident.MemberID, len(ids))
	for i, id := range ids {
		out[i] = ident.MemberID(id)
	}
	return out
}

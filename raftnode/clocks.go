package raftnode

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// clocks is what a member knows of the wall clocks of the other voters, so that
// one whose own is wrong does not stamp the log (rule 5). No stamp decides who
// leads, what a lease is worth or what a read sees: a wrong clock spoils the
// times in the log, which are for people and for a recovery to a time of day.
//
// What is right is the middle of all clocks that are known, the own one among
// them. With an odd number of clocks one of them is the middle, with an even
// number all between the two in the middle are: so there is always a member
// that finds nothing wrong with itself, also when all differ, and one of two
// members never does, since nobody can say whose clock it is that is wrong.
//
// A member that is past the bound hands leadership over to a voter that is not,
// and asks for no votes while there is one. That is a preference, never a veto:
// after clockPatienceElections without a leader it stands like everybody else,
// because the others may lack entries that only it can bring. Elected, it hands
// over as soon as another has them.
type clocks struct {
	samples map[ident.MemberID]clockSample

	deviation  time.Duration // Of our own clock from the middle, as of the last tick; below 0: ours is behind.
	far        int           // Ticks for which it has been past the bound.
	leaderless int           // Ticks without a leader.
	warned     bool
}

type clockSample struct {
	offset time.Duration // That clock minus ours.
	age    int           // Ticks.
}

// clock takes a measurement.
func (c *Core) clock(from ident.MemberID, offset time.Duration) {
	if c.clocks.samples == nil {
		c.clocks.samples = make(map[ident.MemberID]clockSample)
	}
	c.clocks.samples[from] = clockSample{offset: offset}
}

func (c *Core) tickClocks() {
	k := &c.clocks
	for id, s := range k.samples { //tidy:ordered each by itself
		if s.age++; s.age > clockFreshElections*c.electionTicks || !slices.Contains(c.voters(), id) {
			delete(k.samples, id)
		} else {
			k.samples[id] = s
		}
	}
	k.deviation = -c.clockDistance(0)
	if k.deviation.Abs() > ClockLeadMax {
		k.far++
	} else {
		k.far = 0
	}
	if k.leaderless++; c.leader != 0 {
		k.leaderless = 0
	}
	c.warnOfClock()
}

// clockDistance is how far the middle of all known clocks is from one of them:
// 0 for one that lies between the two in the middle.
func (c *Core) clockDistance(offset time.Duration) time.Duration {
	all := []time.Duration{0}
	for _, s := range c.clocks.samples { //tidy:ordered sorted below
		all = append(all, s.offset)
	}
	slices.Sort(all)
	low, high := all[(len(all)-1)/2], all[len(all)/2]
	switch {
	case offset < low:
		return low - offset
	case offset > high:
		return high - offset
	}
	return 0
}

// clockFar reports whether this member's clock has been wrong for long enough
// to act on it: a clock that is being set may look wrong for a moment.
func (c *Core) clockFar() bool { return c.clocks.far > clockFarElections*c.electionTicks }

// clockNear reports whether a voter's clock is known to be right.
func (c *Core) clockNear(id ident.MemberID) bool {
	s, known := c.clocks.samples[id]
	return known && c.clockDistance(s.offset).Abs() <= ClockLeadMax
}

// withhold reports whether this member leaves an election to the others.
func (c *Core) withhold() bool {
	if !c.clockFar() || c.clocks.leaderless > clockPatienceElections*c.electionTicks {
		return false
	}
	return slices.ContainsFunc(c.voters(), func(id ident.MemberID) bool { return id != c.id && c.clockNear(id) })
}

// withheld are messages by which a member would become the leader.
func withheld(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgPreVote, raftpb.MsgVote:
		return true
	}
	return false
}

func (c *Core) warnOfClock() {
	k := &c.clocks
	off := k.deviation.Abs()
	switch {
	case !k.warned && off > ClockWarnMin:
		k.warned = true
		c.logger.Warn("the clock of this member is far from those of the others, set it right", "ahead", k.deviation, "lead-max", ClockLeadMax)
	case k.warned && off < ClockWarnMin/2:
		k.warned = false
		c.logger.Info("the clock of this member agrees with the others again")
	}
}

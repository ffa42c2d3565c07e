package raftnodetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
)

const hour = int64(time.Hour / time.Microsecond)

func newClocked(t *testing.T, members int, seed uint64) *Cluster {
	t.Helper()
	seedElections(t, seed)
	c := NewCluster(Config{
		Seed: seed, Members: members, DelayMin: 500, DelayMax: 5000, LossPercent: 2,
		SyncMin: 1000, SyncMax: 5000, ApplyMin: 100, ApplyMax: 1000, CatchUpEntries: 1000, ClockTicks: 10,
	})
	put(t, c, "first")
	return c
}

// leads waits until a member leads for which ok holds.
func (c *Cluster) leads(ok func(ident.MemberID) bool) bool {
	return c.RunUntil(c.now+60e6, func() bool { l := c.Leader(); return l != nil && ok(l.id) })
}

func TestALeaderWhoseClockIsWrongHandsOverAndStaysAway(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newClocked(t, 3, seed)
		wrong := c.Leader().id
		ahead := hour
		if seed%2 == 0 {
			ahead = -hour
		}
		c.Skew(wrong, ahead)
		if !c.leads(func(id ident.MemberID) bool { return id != wrong }) {
			t.Fatalf("seed %d: member %s leads on with a clock that is wrong by an hour", seed, wrong)
		}
		for round := range 5 { // Each time the leader goes, one of the two may follow.
			l := c.Leader()
			if l == nil || l.id == wrong {
				t.Fatalf("seed %d, round %d: leader is %v", seed, round, l)
			}
			term := l.Status().Term
			c.Crash(l.id, false)
			wrongLeads := func() bool {
				l := c.Leader()
				return l != nil && l.id == wrong && l.Status().Term > term // It may not know yet that it was deposed.
			}
			back := c.RunUntil(c.now+2e6, wrongLeads)
			c.Restart(l.id)
			if back || c.RunUntil(c.now+20e6, wrongLeads) {
				t.Fatalf("seed %d, round %d: member %s leads although others can: %s", seed, round, wrong, c.describe())
			}
		}
		if ahead := c.Member(wrong).Status().ClockAhead.Abs(); ahead < 59*time.Minute {
			t.Fatalf("seed %d: member %s finds its clock wrong by %s", seed, wrong, ahead)
		}
		c.Skew(wrong, 0)
		c.Run(5e6)
		c.Converge()
	}
}

func TestAClockWithinTheBoundDecidesNothing(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		c := newClocked(t, 3, seed)
		l := c.Leader()
		term := l.Status().Term
		c.Heal()
		c.Skew(l.id, int64((raftnode.ClockLeadMax-time.Second)/time.Microsecond))
		c.Run(60e6)
		if now := c.Leader(); now != l || now.Status().Term != term {
			t.Fatalf("seed %d: leadership moved from %s to %v", seed, l.id, now)
		}
	}
}

func TestAClusterIsNeverWithoutALeaderBecauseOfClocks(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		for _, members := range []int{1, 2, 3, 4, 5} {
			c := newClocked(t, members, seed)
			for i, id := range c.IDs() { // All differ.
				c.Skew(id, int64(i)*hour)
			}
			c.Run(10e6)
			for i := range 4 {
				if l := c.Leader(); l != nil && members > 2 {
					c.Crash(l.id, false)
					put(t, c, fmt.Sprint("without ", l.id, i))
					c.Restart(l.id)
				}
				put(t, c, fmt.Sprint("all", i))
				c.Run(10e6)
			}
			middle := func(id ident.MemberID) bool {
				return id >= ident.MemberID((members+1)/2) && id <= ident.MemberID(members/2+1)
			}
			if !c.leads(middle) {
				t.Fatalf("seed %d, %d members: none in the middle leads: %s", seed, members, c.describe())
			}
			c.Run(60e6)
			if l := c.Leader(); l == nil || !middle(l.id) {
				t.Fatalf("seed %d, %d members: leadership does not stay in the middle: %s", seed, members, c.describe())
			}
		}
	}
}

// The one with a right clock lacks entries that only the other has: that one
// has to lead until it has brought them.
func TestAWrongClockLeadsWhereNobodyElseCan(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newClocked(t, 3, seed)
		c.Heal()
		full := c.Leader().id
		var behind, lost ident.MemberID
		for _, id := range c.IDs() {
			if id != full {
				behind, lost = lost, id
			}
		}
		c.Skew(full, hour)
		c.Run(1500_000) // Everybody has measured; nobody has acted yet.
		c.Crash(behind, false)
		put(t, c, "only two have this")
		c.Crash(lost, false)
		c.Crash(full, false)
		c.Restart(full)
		c.Restart(behind)
		if c.Member(behind).Status().Last >= c.Member(full).Status().Last {
			t.Fatalf("seed %d: the test does not show what it is about", seed)
		}
		put(t, c, "again")
		c.Restart(lost)
		if !c.leads(func(id ident.MemberID) bool { return id != full }) {
			t.Fatalf("seed %d: member %s leads on: %s", seed, full, c.describe())
		}
		c.Converge()
	}
}

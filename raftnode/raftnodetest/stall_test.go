package raftnodetest

import (
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
)

// stallTime is after what a stall counts here.
const stallTime = 3 * electionTicks * tickTime

func others(c *Cluster, id ident.MemberID) []ident.MemberID {
	return slices.DeleteFunc(c.IDs(), func(other ident.MemberID) bool { return other == id })
}

// What is proposed at a leader whose state hangs is committed, and nobody is answered.
func TestALeaderThatAppliesNothingHandsOverToOneThatDoes(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newClocked(t, 5, seed)
		old := c.Leader().id
		also := others(c, old)[seed%4] // Another one on the same storage.
		c.Hang(old, true)
		c.Hang(also, true)
		c.Put(old, "never answered")
		c.Run(stallTime / 2)
		if l := c.Leader(); l.id != old || l.Status().ApplyStalled {
			t.Fatalf("seed %d: half of the time was enough: %s", seed, c.describe())
		}
		c.Run(stallTime)
		put(t, c, "after")
		if l := c.Leader(); l.id == old || l.id == also {
			t.Fatalf("seed %d: member %s leads: %s", seed, l.id, c.describe())
		}
		for _, id := range c.IDs() {
			if got, want := c.Member(id).Status().ApplyStalled, id == old || id == also; got != want {
				t.Errorf("seed %d: member %s says that it applies nothing: %t", seed, id, got)
			}
		}
		c.Hang(old, false)
		c.Hang(also, false)
		c.Converge()
		c.Run(2 * tickTime)
		if c.Member(old).Status().ApplyStalled {
			t.Errorf("seed %d: still said of member %s", seed, old)
		}
	}
}

// An entry may delete all keys there are: what takes all members long is no hang,
// and a leader that is a little slower than the others is as good as they are.
func TestAnApplyThatTakesAllMembersLongDeposesNobody(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newClocked(t, 3, seed)
		leader := c.Leader()
		term := leader.Status().Term
		for _, id := range c.IDs() {
			c.Hang(id, true)
		}
		for range 3 { // In one apply there, perhaps, and in several elsewhere.
			c.Put(leader.id, "long")
			c.Run(tickTime)
		}
		c.Run(10 * stallTime)
		for _, id := range others(c, leader.id) {
			c.Hang(id, false)
		}
		c.Run(stallTime * 2 / 3)
		c.Hang(leader.id, false)
		c.Run(2 * stallTime)
		if s := leader.Status(); s.Role != raftnode.Leader || s.Term != term || s.ApplyStalled {
			t.Fatalf("seed %d: %+v", seed, s)
		}
		c.Converge()
	}
}

// Where nobody has applied more, a leader that hangs is no worse than the others.
func TestALeaderOfMembersThatAllApplyNothingStays(t *testing.T) {
	c := newClocked(t, 3, 1)
	leader := c.Leader()
	term := leader.Status().Term
	for _, id := range c.IDs() {
		c.Hang(id, true)
	}
	c.Put(leader.id, "for all of them")
	c.Run(20 * stallTime)
	if s := leader.Status(); s.Role != raftnode.Leader || s.Term != term {
		t.Errorf("%+v", s)
	}
}

// stuck are the followers that the leader names.
func stuck(c *Cluster) (ids []ident.MemberID) {
	for _, p := range c.Leader().Status().Progress {
		if p.Stuck {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// Heartbeats pass where large packets are lost, so nobody stands against a leader
// that can bring the others nothing.
func TestAFollowerThatAnswersAndStoresNothingIsNamed(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		c := newClocked(t, 3, seed)
		c.Converge()
		leader := c.Leader().id
		all := others(c, leader)
		c.Isolate(all[1], true) // It answers nothing: that is another matter.
		c.Narrow(leader, all[0], true)
		c.Run(10 * stallTime)
		if c.Leader() == nil {
			t.Fatalf("seed %d: no leader although one answers: %s", seed, c.describe())
		}
		if got := stuck(c); got != nil {
			t.Fatalf("seed %d: named %v, and there is nothing to be stored", seed, got)
		}
		c.Put(leader, "large")
		c.Run(followerTime / 2)
		if got := stuck(c); got != nil {
			t.Fatalf("seed %d: named %v after half of the time", seed, got)
		}
		c.Run(followerTime)
		if got := stuck(c); !slices.Equal(got, all[:1]) {
			t.Fatalf("seed %d: named %v, not %v: %s", seed, got, all[:1], c.describe())
		}
		c.Converge()
		c.Run(2 * tickTime)
		if got := stuck(c); got != nil {
			t.Fatalf("seed %d: still named: %v", seed, got)
		}
	}
}

const followerTime = 3 * stallTime

// A follower that waits for a state, which it may refuse for long, is not stuck.
func TestAFollowerThatWaitsForAStateIsNotNamed(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		seedElections(t, seed)
		c := NewCluster(Config{
			Seed: seed, Members: 3, DelayMin: 500, DelayMax: 5000, SyncMin: 1000, SyncMax: 5000, ApplyMin: 100, ApplyMax: 1000,
			CatchUpEntries: 5, CheckpointTicks: 2,
		})
		put(t, c, "first")
		behind := others(c, c.Leader().id)[0]
		c.Isolate(behind, true)
		for range 50 {
			put(t, c, "more")
			c.Run(tickTime)
		}
		c.Refuse(behind, true)
		c.Isolate(behind, false)
		sent := false
		c.RunUntil(c.now+2*followerTime, func() bool {
			for _, p := range c.Leader().Status().Progress {
				sent = sent || p.Snapshot
			}
			return stuck(c) != nil
		})
		if got := stuck(c); got != nil || !sent {
			t.Fatalf("seed %d: named %v; was sent a state: %t", seed, got, sent)
		}
		c.Refuse(behind, false)
		c.Converge()
	}
}

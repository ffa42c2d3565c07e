package raftnodetest

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// tear stops a member and leaves its log with a torn tail.
func tear(c *Cluster, id ident.MemberID) {
	c.Crash(id, false)
	c.members[id].log.mu.durable.cut = true
}

// loseTail takes the newest entries out of a log that is down: a disk that did
// not keep what it had promised.
func loseTail(c *Cluster, id ident.MemberID, entries int) {
	d := &c.members[id].log.mu.durable
	d.entries = d.entries[:len(d.entries)-entries]
	d.hard.Commit = min(d.hard.Commit, d.last().Index)
	c.members[id].log.mu.last = d.last()
}

func newSurveyed(t *testing.T, members int, seed uint64) *Cluster {
	t.Helper()
	seedElections(t, seed)
	c := NewCluster(Config{
		Seed: seed, Members: members, DelayMin: 500, DelayMax: 5000, LossPercent: 5,
		SyncMin: 1000, SyncMax: 5000, ApplyMin: 100, ApplyMax: 1000, CatchUpEntries: 1000,
	})
	if !c.RunUntil(c.now+30e6, func() bool { return c.Leader() != nil }) {
		t.Fatal("nobody leads a fresh cluster")
	}
	for i := range 5 {
		put(t, c, fmt.Sprint("p", i))
	}
	c.Run(1e6)
	return c
}

func put(t *testing.T, c *Cluster, data string) {
	t.Helper()
	var op *Op
	if !c.RunUntil(c.now+60e6, func() bool {
		if l := c.Leader(); (op == nil || op.Done && op.Err != nil) && l != nil {
			op = c.Put(l.id, data)
		}
		return op != nil && op.Done && op.Err == nil
	}) {
		t.Fatalf("put %q gets no answer: %s", data, c.describe())
	}
}

func TestAClusterWhoseLogsWereAllCutGoesOn(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		for _, members := range []int{2, 3, 5} {
			c := newSurveyed(t, members, seed)
			for _, id := range c.IDs() {
				tear(c, id)
			}
			for _, id := range c.IDs() {
				c.Run(int64(c.random.Below(5 * tickTime)))
				c.Restart(id)
			}
			put(t, c, "after")
			c.Converge()
			end := c.now + 60e6
			if !c.RunUntil(end, func() bool {
				for _, m := range c.Alive() {
					if m.Status().Cut {
						return false
					}
				}
				return true
			}) {
				t.Fatalf("seed %d: some still wait for what they lost: %s", seed, c.describe())
			}
		}
	}
}

func TestAfterCutsEverywhereTheLongestLogLeads(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newSurveyed(t, 3, seed)
		for _, id := range c.IDs() {
			tear(c, id)
		}
		keeper := ident.MemberID(1 + seed%3)
		for _, id := range c.IDs() {
			if id != keeper { // Two of three lost what was acknowledged.
				loseTail(c, id, 2)
				c.members[id].machine = NewMachine(start, c.members[id].machine.Applied().Conf)
				c.members[id].machine.OnApply = c.members[id].onApply
			}
		}
		clear(c.check.hards) // Their commit index went back, which is the point.
		for _, id := range c.IDs() {
			if id != keeper {
				c.Restart(id)
			}
		}
		c.Run(20e6)
		if l := c.Leader(); l != nil {
			t.Fatalf("seed %d: member %s leads before all were asked", seed, l.id)
		}
		c.Restart(keeper)
		if !c.RunUntil(c.now+60e6, func() bool { return c.Leader() != nil }) {
			t.Fatalf("seed %d: nobody leads: %s", seed, c.describe())
		}
		if l := c.Leader(); l.id != keeper {
			t.Fatalf("seed %d: member %s leads, member %s has the longest log", seed, l.id, keeper)
		}
		c.Converge()
	}
}

func TestAMinorityThatWasCutWaitsForALeaderOfTheOthers(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newSurveyed(t, 3, seed)
		torn := ident.MemberID(1 + seed%3)
		var others []ident.MemberID
		for _, id := range c.IDs() {
			if id != torn {
				others = append(others, id)
			}
		}
		for _, id := range c.IDs() {
			c.Crash(id, false)
		}
		c.members[torn].log.mu.durable.cut = true
		c.Restart(torn)
		c.Restart(others[0])
		c.Run(20e6)
		if l := c.Leader(); l != nil {
			t.Fatalf("seed %d: member %s leads with the vote of one whose log was cut", seed, l.id)
		}
		if !c.members[torn].Status().Cut {
			t.Fatalf("seed %d: the cut is forgotten without a leader", seed)
		}
		c.Restart(others[1])
		if !c.RunUntil(c.now+60e6, func() bool { return c.Leader() != nil && !c.members[torn].Status().Cut }) {
			t.Fatalf("seed %d: the one that was cut is not brought back: %s", seed, c.describe())
		}
		if l := c.Leader(); l.id == torn {
			t.Fatalf("seed %d: the one that was cut leads", seed)
		}
		c.Converge()
	}
}

// Of four members one is removed while another does not look. Then all logs
// are cut: the one that did not see it still counts the removed one as a voter,
// and that one will never answer.
func TestAfterCutsEverywhereARemovedMemberIsNotWaitedFor(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		c := newSurveyed(t, 4, seed)
		leader := c.Leader().id
		removed, late := 1+leader%4, 1+(leader+1)%4
		c.Crash(late, false)
		change := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{
			{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(removed))},
		}}
		op := c.Change(leader, change, "change")
		if !c.RunUntil(c.now+60e6, func() bool {
			if l := c.Leader(); op.Done && op.Err != nil && l != nil {
				op = c.Change(l.id, change, "change")
			}
			return op.Done && op.Err == nil
		}) {
			t.Fatalf("seed %d: the removal gets no answer: %s", seed, c.describe())
		}
		if !c.RunUntil(c.now+60e6, func() bool { return len(c.members[leader].Status().Voters) == 3 }) {
			t.Fatalf("seed %d: member %s does not hear of the removal: %s", seed, leader, c.describe())
		}
		c.members[leader].machine.Checkpoint() // One knows durably.
		for _, id := range c.IDs() {
			tear(c, id)
		}
		for _, id := range c.IDs() {
			if id != removed {
				c.Restart(id)
			}
		}
		put(t, c, "after")
		c.Converge()
	}
}

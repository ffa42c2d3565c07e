package raftnode_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// trio is a cluster of real nodes on a net in memory.
type trio struct {
	t       *testing.T
	net     *raftnodetest.Net
	members map[ident.MemberID]*member
}

// patience with what takes milliseconds, on a machine that others keep busy.
const patience = time.Minute

func newTrio(t *testing.T) *trio { return newTrioOf(t, 0) }

// newCalmTrio is one whose leader does not lose its place to a machine that has no time
// for it, nor soon to anybody when it is gone.
func newCalmTrio(t *testing.T) *trio { return newTrioOf(t, time.Second) }

func newTrioOf(t *testing.T, calm time.Duration) *trio {
	t.Helper()
	leak.Check(t)
	c := &trio{t: t, net: raftnodetest.NewNet(), members: map[ident.MemberID]*member{}}
	for id := ident.MemberID(1); id <= 3; id++ {
		c.members[id] = newMember(id, voters(1, 2, 3))
		c.members[id].calm = calm
		c.start(id)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			if err := m.node.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := c.net.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *trio) start(id ident.MemberID) {
	m := c.members[id]
	m.start(c.t, c.net.At(id))
	c.net.Attach(id, m.node)
}

func (c *trio) stop(id ident.MemberID) {
	c.t.Helper()
	if err := c.members[id].node.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.net.Attach(id, nil)
	c.members[id].crash()
}

// leader waits for a member that leads and whom the others follow.
func (c *trio) leader(of ...ident.MemberID) ident.MemberID {
	c.t.Helper()
	if len(of) == 0 {
		of = []ident.MemberID{1, 2, 3}
	}
	var last ident.MemberID
	c.eventually("a leader", func() bool {
		last = 0
		for _, id := range of {
			s := c.members[id].node.Status()
			if s.Leader == 0 || last != 0 && s.Leader != last {
				return false
			}
			last = s.Leader
		}
		return slices.Contains(of, last) && c.members[last].node.Status().Settled
	})
	return last
}

func (c *trio) eventually(what string, cond func() bool) {
	c.t.Helper()
	ctx := within(c.t, patience)
	for !cond() {
		select {
		case <-ctx.Done():
			for id, m := range c.members {
				c.t.Logf("%s: %+v", id, m.node.Status())
			}
			c.t.Fatalf("waited in vain for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// put keeps trying until a put succeeds; it counts as one even when the
// outcome of a try was unknown.
func (c *trio) put(id ident.MemberID, data string) {
	c.t.Helper()
	for ctx := within(c.t, patience); ; {
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.members[id].node.Propose(short, []byte(data))
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatalf("put at %s: %v", id, err)
		}
	}
}

// compact has all members but one give up most of their log, so that this one is sent a
// state, whoever leads.
func (c *trio) compact(late ident.MemberID) {
	c.t.Helper()
	c.eventually("compaction", func() bool {
		done := true
		for id, m := range c.members {
			if id != late {
				m.node.Checkpointed(m.machine.Checkpoint(), []byte("base transaction"))
				done = done && m.node.Status().First > 50
			}
		}
		return done
	})
}

func (c *trio) other(ids ...ident.MemberID) ident.MemberID {
	for id := ident.MemberID(1); ; id++ {
		if !slices.Contains(ids, id) {
			return id
		}
	}
}

func (c *trio) sameEverywhere() {
	c.t.Helper()
	c.eventually("equal states", func() bool {
		return c.members[1].machine.Sum() == c.members[2].machine.Sum() && c.members[2].machine.Sum() == c.members[3].machine.Sum()
	})
}

func TestEveryMemberTakesPutsAndReadsItsOwnWrites(t *testing.T) {
	c := newCalmTrio(t)
	c.leader()
	var wg sync.WaitGroup
	for id := ident.MemberID(1); id <= 3; id++ {
		for client := range 8 {
			wg.Go(func() {
				for i := range 50 {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					data := fmt.Sprintf("%s.%d.%d", id, client, i)
					_, err := c.members[id].node.Propose(ctx, []byte(data))
					if err == nil {
						err = c.members[id%3+1].node.ReadIndex(ctx)
					}
					cancel()
					if err != nil {
						t.Errorf("%s: %v", data, err)
						return
					}
					if !slices.Contains(c.members[id%3+1].machine.Requests(), data) {
						t.Errorf("%s was acknowledged and not read", data)
					}
				}
			})
		}
	}
	wg.Wait()
	c.sameEverywhere()
	got := c.members[1].machine.Requests()
	slices.Sort(got)
	if n := len(slices.Compact(got)); n != 3*8*50 || len(got) != n {
		t.Errorf("%d requests, %d different, want %d", len(got), n, 3*8*50)
	}
}

func TestAStoppingLeaderHandsOver(t *testing.T) {
	c := newCalmTrio(t)
	c.put(c.leader(), "before")
	old, handed := ident.MemberID(0), false
	for try := 0; !handed && try < 5; try++ { // Who stops waits for its successor, but not for long.
		if old != 0 {
			c.start(old)
		}
		old = c.leader()
		term := c.members[old].node.Status().Term
		c.stop(old)
		s := c.members[old].node.Status() // The last that it knew.
		handed = s.Leader != 0 && s.Leader != old && s.Term == term+1
	}
	if !handed {
		t.Errorf("it ended without a successor: %+v", c.members[old].node.Status())
	}
	rest := slices.DeleteFunc([]ident.MemberID{1, 2, 3}, func(id ident.MemberID) bool { return id == old })
	c.leader(rest...)
	c.put(rest[0], "between")
	c.start(old)
	<-c.members[old].node.Ready()
	if got := slices.Compact(c.members[old].machine.Requests()); !slices.Equal(got, []string{"before", "between"}) {
		t.Errorf("ready with %v", got)
	}
}

func TestAMemberTooFarBehindGetsASnapshot(t *testing.T) {
	c := newCalmTrio(t)
	late := c.other(c.leader())
	c.net.Isolate(late, true)
	at := c.other(late)
	for i := range 100 {
		c.put(at, fmt.Sprint(i))
	}
	c.compact(late)
	c.members[late].machine.FullDisk.Store(1) // Waited out, like one of the log.
	c.net.Isolate(late, false)
	c.put(late, "last")
	c.sameEverywhere()
	if left := c.members[late].machine.FullDisk.Load(); left >= 0 {
		t.Error("the disk was not full")
	}
	if err := c.members[late].node.ReadIndex(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if first := c.members[late].node.Status().First; first < 50 {
		t.Errorf("log begins at %d: no snapshot was installed", first)
	}
	c.stop(late) // What was installed survives.
	c.start(late)
	<-c.members[late].node.Ready()
	c.sameEverywhere()
}

// A member whose answers are lost has everything, and its leader does not know.
// When the leader needs it for a quorum, and its log begins behind what it knows
// of, a state is sent that the member has: it must say so.
func TestAMemberWhoseAnswersWereLostIsCountedAgain(t *testing.T) {
	c := newTrio(t)
	leader := c.leader()
	mute := c.other(leader)
	third := c.other(leader, mute)
	c.put(leader, "before")
	c.net.Cut(mute, leader, true)
	for i := range 100 {
		c.put(leader, fmt.Sprint(i))
	}
	c.sameEverywhere()
	for range 2 {
		m := c.members[leader]
		m.node.Checkpointed(m.machine.Checkpoint(), []byte("base transaction"))
	}
	c.eventually("compaction", func() bool { return c.members[leader].node.Status().First > 50 })
	c.stop(third)
	c.members[leader].node.Unreachable(mute) // From here on it goes by what was answered.
	c.net.Cut(mute, leader, false)
	c.put(leader, "after")
	c.start(third)
	c.sameEverywhere()
}

func TestASnapshotThatASecondMemberContradictsIsNotInstalled(t *testing.T) {
	c := newCalmTrio(t)
	late := c.other(c.leader())
	c.stop(late)
	at := c.other(late)
	for i := range 100 {
		c.put(at, fmt.Sprint(i))
	}
	c.compact(late)
	var refuse atomic.Bool
	refuse.Store(true)
	asked := make(chan ident.MemberID, 1)
	c.members[late].confirm = func(_ context.Context, sender ident.MemberID, s raftnode.Staged) error {
		if s.Meta().Index < 50 {
			t.Errorf("asked about a snapshot at %d", s.Meta().Index)
		}
		if refuse.Load() {
			select {
			case asked <- sender:
			default:
			}
			return errors.New("contradicted")
		}
		return nil
	}
	c.start(late)
	sender, again := <-asked, <-asked
	if s := c.members[late].node.Status(); s.First > 50 || s.Applied > 50 || sender == late || again == late {
		t.Fatalf("installed what was refused: %+v", s)
	}
	refuse.Store(false)
	c.sameEverywhere()
}

func change(kind raftpb.ConfChangeType, id uint64) *raftpb.ConfChangeV2 {
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(id)}}}
}

func TestMembersJoinArePromotedAndRemoved(t *testing.T) {
	c := newCalmTrio(t)
	leader := c.leader()
	follower := c.other(leader)
	ctx := within(t, patience)
	fourth := newMember(4, nil)
	fourth.calm = time.Second
	fourth.log, fourth.machine = raftnodetest.NewMemLog(wal.Mark{}), raftnodetest.NewMachine(wal.Mark{}, &raftpb.ConfState{})
	c.members[4] = fourth
	c.start(4)
	for _, step := range []struct {
		change *raftpb.ConfChangeV2
		data   string
		err    error
	}{
		{change(raftpb.ConfChangeAddLearnerNode, 4), "refuse", raftnodetest.ErrRefused},
		{change(raftpb.ConfChangeAddLearnerNode, 4), "add 4", nil},
		{change(raftpb.ConfChangeAddNode, 4), "promote 4", nil},
		{&raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{}}, "leave what was not entered", raftnode.ErrConfInvalid},
	} {
		if _, err := c.members[follower].node.ProposeConf(ctx, step.change, []byte(step.data)); !errors.Is(err, step.err) {
			t.Fatalf("%s: %v", step.data, err)
		}
	}
	c.eventually("the new member to know that it votes", func() bool {
		s := fourth.node.Status()
		return !s.Learner && slices.Contains(s.Voters, 4)
	})
	if _, err := c.members[4].node.ProposeConf(ctx, change(raftpb.ConfChangeRemoveNode, uint64(leader)), []byte("remove")); err != nil {
		t.Fatal(err)
	}
	<-c.members[leader].node.Done()
	if err := c.members[leader].node.Err(); !errors.Is(err, raftnode.ErrRemoved) {
		t.Errorf("removed leader ends with %v", err)
	}
	c.leader(slices.DeleteFunc([]ident.MemberID{1, 2, 3, 4}, func(id ident.MemberID) bool { return id == leader })...)
	c.put(4, "without the old leader")
}

func TestWithoutAQuorumNothingIsAnswered(t *testing.T) {
	c := newTrio(t)
	leader := c.leader()
	c.put(leader, "one")
	c.net.Isolate(leader, true)
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	if err := c.members[leader].node.ReadIndex(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	c.eventually("check quorum", func() bool { return c.members[leader].node.Status().Leader == 0 })
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.members[leader].node.Propose(ctx, []byte("never")); !errors.Is(err, raftnode.ErrNoLeader) {
		t.Errorf("put: %v", err)
	}
	c.net.Isolate(leader, false)
	c.leader()
	c.put(leader, "two")
	if got := slices.Compact(c.members[leader].machine.Requests()); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("requests %v: what ended with ErrNoLeader took effect", got)
	}
}

func TestOnlyTheLeaderTransfersAndOnlyToVoters(t *testing.T) {
	c := newCalmTrio(t)
	leader := c.leader()
	follower := c.other(leader)
	ctx := within(t, patience)
	if err := c.members[follower].node.TransferLeader(ctx, leader); !errors.Is(err, raftnode.ErrNotLeader) {
		t.Errorf("by a follower: %v", err)
	}
	if err := c.members[leader].node.TransferLeader(ctx, 9); !errors.Is(err, raftnode.ErrTransferee) {
		t.Errorf("to a stranger: %v", err)
	}
	if err := c.members[leader].node.TransferLeader(ctx, follower); err != nil {
		t.Errorf("to a follower: %v", err)
	}
	if got := c.leader(); got != follower {
		t.Errorf("leader is %s", got)
	}
}

func TestRequestsOfALostLeaderEndWithTheNextOne(t *testing.T) {
	c := newTrio(t)
	leader := c.leader()
	c.put(leader, "before")
	c.net.Isolate(leader, true)
	lost := make(chan error, 2)
	var wg sync.WaitGroup
	for _, at := range []ident.MemberID{leader, c.other(leader)} { // One of the leader's own, one forwarded to it.
		wg.Go(func() {
			_, err := c.members[at].node.Propose(within(t, patience), []byte("lost"))
			lost <- err
		})
	}
	rest := slices.DeleteFunc([]ident.MemberID{1, 2, 3}, func(id ident.MemberID) bool { return id == leader })
	next := c.leader(rest...)
	c.net.Isolate(leader, false)
	wg.Wait()
	for range 2 {
		if err := <-lost; !errors.Is(err, raftnode.ErrLeaderChanged) && err != nil {
			t.Errorf("got %v", err) // nil: it was not proposed before the new leader was known.
		}
	}
	c.put(next, "after")
	c.sameEverywhere()
}

func TestAFullDiskIsWaitedOut(t *testing.T) {
	leak.Check(t)
	m := newMember(1, voters(1))
	m.start(t, nowhere{})
	<-m.node.Ready()
	m.log.Fail(wal.ErrNoSegment)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := m.node.Propose(within(t, patience), []byte("x"))
		done <- err
	})
	if err := m.node.ReadIndex(within(t, patience)); err != nil {
		t.Errorf("reads go on: %v", err)
	}
	m.log.Fail(nil)
	if err := <-done; err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := m.node.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFailingDiskStopsTheMember(t *testing.T) {
	c := newTrio(t)
	leader := c.leader()
	broken := errors.New("no more blocks")
	c.members[leader].log.Fail(broken)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.members[leader].node.Propose(ctx, []byte("x")); err == nil {
		t.Log("the others made a quorum")
	}
	<-c.members[leader].node.Done()
	if err := c.members[leader].node.Err(); !errors.Is(err, broken) {
		t.Errorf("ends with %v", err)
	}
}

// A leader still sends heartbeats when its disk takes nothing: without a word of
// its own it would lead for ever, and nothing would be written anywhere.
func TestALeaderWhoseDiskTakesNothingHandsOver(t *testing.T) {
	c := newTrio(t)
	old := c.leader()
	c.put(old, "before")
	c.members[old].log.Fail(wal.ErrNoSegment)
	at := c.other(old)
	for i := range 20 {
		c.put(at, fmt.Sprint(i))
	}
	if s := c.members[at].node.Status(); s.Leader == old {
		t.Errorf("still led by %s: %+v", old, s)
	}
	if s := c.members[old].node.Status(); !s.Stalled {
		t.Errorf("does not say that its disk takes nothing: %+v", s)
	}
	c.members[old].log.Fail(nil)
	c.sameEverywhere()
	c.eventually("a disk that works again", func() bool { return !c.members[old].node.Status().Stalled })
}

func TestALeaderThatTheOthersAreNoQuorumWithoutStaysAndServesReads(t *testing.T) {
	c := newCalmTrio(t)
	leader := c.leader()
	c.put(leader, "before")
	c.sameEverywhere()
	term := c.members[leader].node.Status().Term
	for _, id := range []ident.MemberID{leader, c.other(leader)} {
		c.members[id].log.Fail(wal.ErrNoSegment)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := c.members[leader].node.Propose(ctx, []byte("x")); !errors.Is(err, raftnode.ErrUnknownOutcome) {
		t.Errorf("put without a quorum of disks: %v", err)
	}
	c.eventually("a disk that takes nothing", func() bool { return c.members[leader].node.Status().Stalled })
	if s := c.members[leader].node.Status(); s.Role != raftnode.Leader || s.Term != term {
		t.Errorf("after a second without a disk: %+v", s)
	}
	if err := c.members[c.other(leader)].node.ReadIndex(within(t, patience)); err != nil {
		t.Errorf("read: %v", err)
	}
	for _, m := range c.members {
		m.log.Fail(nil)
	}
	c.put(leader, "after")
	c.sameEverywhere()
}

// A leader that stays alone may be behind the one that left: what both had a part
// in was perhaps answered there already.
func TestALeaderThatStaysAloneServesNoReadBeforeItHasWhatOthersAnswered(t *testing.T) {
	leak.Check(t)
	c := &trio{t: t, net: raftnodetest.NewNet(), members: map[ident.MemberID]*member{}}
	both := func() map[ident.MemberID]chan struct{} {
		return map[ident.MemberID]chan struct{}{1: make(chan struct{}), 2: make(chan struct{})}
	}
	changed, applied := both(), both()
	for id := ident.MemberID(1); id <= 2; id++ {
		m := newMember(id, voters(1, 2))
		m.before = func(entries []entry.Entry) {
			if e := entries[len(entries)-1]; e.Conf != nil {
				<-changed[id]
			} else if len(e.Requests) > 0 && string(e.Requests[0].Data) == "last" {
				<-applied[id]
			}
		}
		c.members[id] = m
	}
	for id := range c.members {
		c.start(id)
	}
	defer c.net.Close()
	leader := c.leader(1, 2)
	other := 3 - leader
	close(applied[other])
	here, there, ctx := c.members[leader].node, c.members[other].node, within(t, patience)
	c.eventually("an election to be applied", func() bool {
		s := there.Status()
		return s.Applied == s.Commit && s.Commit == here.Status().Last
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := here.ProposeConf(ctx, change(raftpb.ConfChangeRemoveNode, uint64(other)), []byte("remove")); err != nil {
			t.Error(err)
		}
	})
	c.eventually("the change to be committed", func() bool { return there.Status().Commit > there.Status().Applied })
	removal := there.Status().Commit
	wg.Go(func() {
		_, err := there.Propose(ctx, []byte("last")) // It may end before it answers, and is there all the same.
		t.Logf("the other answers: %v", err)
	})
	c.eventually("the last to be committed", func() bool { return there.Status().Commit > removal })
	close(changed[other])
	close(changed[leader])
	c.eventually("the leader to be alone", func() bool { return len(here.Status().Voters) == 1 })
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := here.ReadIndex(soon); err == nil {
		t.Error("a read is served without what the other has answered")
	}
	close(applied[leader])
	if err := here.ReadIndex(ctx); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for _, m := range c.members {
		if err := m.node.Close(); err != nil && !errors.Is(err, raftnode.ErrRemoved) {
			t.Error(err)
		}
	}
}

package raftnode

import (
	"errors"
	"io"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
)

// stuck leads, and its disk takes no more.
func stuck(t *testing.T) *driver {
	d := drive(t, bootOf(1, 2, 3))
	d.lead()
	d.pause = true
	for n := range AppendsInFlightMax {
		d.step(Event{Kind: EventPropose, Proposals: []Proposal{{Request: entry.Request{ID: ident.RequestID{Member: 1, Nonce: 77, Sequence: uint64(n)}}}}})
	}
	return d
}

func TestALeaderThatStandsStillForgetsWhatNobodyWaitsFor(t *testing.T) {
	d, s := stuck(t), newWaiters()
	gone, waits := add(t, s, []byte("gone")), add(t, s, []byte("waits"))
	d.step(Event{Kind: EventPropose, Proposals: []Proposal{{Request: gone.request, Ticket: gone}, {Request: waits.request, Ticket: waits}}})
	if !gone.abandon() {
		t.Fatal("Raft got a request for which there was no room")
	}
	d.step(Event{Kind: EventTick})
	if left := d.core.proposals.waiting; len(left) != 1 || left[0].Ticket != waits {
		t.Errorf("%d requests wait, of which one was given up", len(left))
	}
}

// Who forwards gives up after a while and forwards the next: nothing but the
// leader bounds what waits there.
func TestALeaderThatStandsStillRefusesWhatItCannotKeep(t *testing.T) {
	d := stuck(t)
	const more = 20
	large := make([]byte, 1<<20)
	for n := range WaitingBytesMax/len(large) + 1 + more {
		d.step(Event{Kind: EventPropose, Proposals: []Proposal{{
			Request: entry.Request{ID: ident.RequestID{Member: 3, Nonce: 1, Sequence: uint64(n)}, Data: large}, From: 3, Term: d.core.hard.Term,
		}}})
	}
	if len(d.frames) != more {
		t.Fatalf("%d frames sent, %d requests are more than may wait", len(d.frames), more)
	}
	for _, f := range d.frames {
		if reason, ids, err := DecodeRefusal(f.Data); f.Kind != transport.KindAnswer || !errors.Is(reason, ErrNotLeader) || len(ids) != 1 || err != nil {
			t.Fatalf("refused %v because of %v, %v", ids, reason, err)
		}
	}
	if bytes := len(d.core.proposals.waiting) * len(large); bytes > WaitingBytesMax+len(large) {
		t.Errorf("%d bytes wait", bytes)
	}
}

// A single member writes its log in the loop, which stands still while its disk is full.
func TestRequestsAreBoundedWhileTheLoopStandsStill(t *testing.T) {
	n := &Node{cfg: Config{RequestBytesMax: 1 << 30, Clock: clock.Real()}}
	n.waiters.init(1, 77)
	n.inbox.init()
	large := make([]byte, WaitingBytesMax/4+1)
	for range 4 {
		if w := add(t, &n.waiters, large); !n.inbox.propose(Proposal{Request: w.request, Ticket: w}) {
			t.Fatal("refused below the bound")
		}
		n.waiters.expire(1 << 62) // It is in the inbox still.
	}
	if _, err := n.Propose(t.Context(), []byte("x")); !errors.Is(err, ErrBusy) {
		t.Errorf("a request more: %v", err)
	}
	if count := n.waiters.count.Load(); count != 0 {
		t.Errorf("%d waiters are left", count)
	}
	if n.inbox.proposeForwarded([]Proposal{{From: 2}}) {
		t.Error("a forwarded request more is taken")
	}
	n.inbox.take(letters{})
	if !n.inbox.proposeForwarded([]Proposal{{From: 2}}) {
		t.Error("refused although nothing waits")
	}
}

func TestReadsThatGaveUpDoNotPileUp(t *testing.T) {
	r := &readers{}
	patient, _ := r.join()
	r.seal()
	for range 10_000 {
		g, first := r.join()
		if !first {
			t.Fatal("the loop is not told of a read")
		}
		r.seal()
		r.leave(g)
	}
	g, _ := r.join()
	r.leave(g)
	sealed := r.seal() // Of a group that nobody waits for.
	if len(r.mu.issued) > 4 {
		t.Fatalf("%d groups are left of reads that gave up", len(r.mu.issued))
	}
	r.confirm(sealed, 5)
	select {
	case <-patient.done:
		t.Fatal("read before its index was applied")
	default:
	}
	r.appliedTo(5)
	select {
	case <-patient.done:
	default:
		t.Error("who did not give up was not answered")
	}
}

// fakeFrozen is a state that nobody sends.
type fakeFrozen struct{ meta SnapMeta }

func (f fakeFrozen) Meta() SnapMeta                { return f.meta }
func (fakeFrozen) WriteTo(io.Writer, []byte) error { return nil }
func (fakeFrozen) Close() error                    { return nil }

// A follower that takes a state slowly, while large entries come.
func TestTheLogIsHeldForASnapshotUpToABoundInBytes(t *testing.T) {
	d := drive(t, bootOf(1))
	d.step(Event{Kind: EventCampaign})
	for n := range 40 {
		d.step(Event{Kind: EventPropose, Proposals: []Proposal{{Request: entry.Request{ID: ident.RequestID{Member: 1, Nonce: 77, Sequence: uint64(n)}}}}})
	}
	const frozen = 5
	d.step(Event{Kind: EventFrozen, Frozen: fakeFrozen{SnapMeta{Index: frozen, Term: d.core.hard.Term, Conf: d.core.conf}}})
	d.step(Event{Kind: EventCheckpoint, Index: 20}, Event{Kind: EventCheckpoint, Index: 21})
	if start := d.core.log.start.Index; start != frozen {
		t.Fatalf("the log begins after entry %d, a state of %d is on its way", start, frozen)
	}
	d.core.log.total += SnapshotHoldBytesMax
	d.step(Event{Kind: EventCheckpoint, Index: 22})
	if start := d.core.log.start.Index; start != 21 {
		t.Errorf("the log begins after entry %d, and is beyond its bound", start)
	}
}

// Few large entries may take as much room as a state many times over.
func TestTheLogIsKeptForSlowFollowersUpToABoundInBytes(t *testing.T) {
	boot := bootOf(1)
	boot.Bytes = CatchUpBytesMax / 2
	d := drive(t, boot)
	d.core.catchUpEntries = 1000
	d.step(Event{Kind: EventCampaign})
	put := func() { // Of an eighth of the bound.
		d.step(Event{Kind: EventPropose, Proposals: []Proposal{{Request: entry.Request{ID: ident.RequestID{Member: 1, Nonce: 77}}}}})
		d.core.log.total += CatchUpBytesMax / 8
		d.step(Event{Kind: EventCheckpoint, Index: d.core.log.last.Index})
	}
	for range 3 {
		put()
	}
	if start := d.core.log.start.Index; start != 1 {
		t.Fatalf("the log begins after entry %d, and all of it is below the bound", start)
	}
	for range 20 {
		put()
		if kept := d.core.log.last.Index - d.core.log.start.Index; kept > 8 {
			t.Fatalf("%d entries are kept, eight are more than is allowed", kept)
		}
	}
	if kept := d.core.log.last.Index - d.core.log.start.Index; kept < 7 {
		t.Errorf("%d entries are kept, seven are below the bound", kept)
	}
	if marks := len(d.core.snapshots.marks); marks > 10 {
		t.Errorf("%d marks", marks)
	}
}

package raftnode

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// noDisk is a log on disk that has nothing.
type noDisk struct{}

func (noDisk) Entries(ident.Index, ident.Index, uint64) ([]*raftpb.Entry, error) {
	return nil, wal.ErrUnavailable
}
func (noDisk) Term(ident.Index) (ident.Term, error) { return 0, wal.ErrUnavailable }

// driver carries out a core's effects at once.
type driver struct {
	t       testing.TB
	core    *Core
	sent    []*raftpb.Message
	frames  []transport.Frame
	applied []*raftpb.Entry
	reads   []Effect
	drops   []Effect
	cleared bool
	pause   bool // Leave appends lie.
	lying   []*Append
}

func bootOf(voters ...uint64) BootState {
	at := wal.Mark{Index: 1, Term: 1}
	return BootState{
		Hard: wal.HardState{Term: 1, Commit: 1}, Start: at, Last: at, Applied: at,
		Conf: raftpb.EnsureConfState(&raftpb.ConfState{Voters: voters}),
	}
}

func drive(t testing.TB, boot BootState) *driver {
	t.Helper()
	core, err := NewCore(CoreConfig{ID: 1, Nonce: 77, ElectionTicks: 10, Boot: boot, Log: noDisk{}, CatchUpEntries: 10, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	return &driver{t: t, core: core}
}

func (d *driver) step(events ...Event) {
	for i := range events {
		d.core.Step(&events[i])
	}
	for again := true; again; {
		again = false
		for _, e := range append([]Effect(nil), d.core.Take(1)...) {
			again = d.carry(&e) || again
		}
	}
}

func (d *driver) carry(e *Effect) bool {
	switch e.Kind {
	case EffectSend:
		if e.Frame.Kind == transport.KindRaft {
			d.sent = append(d.sent, e.Frame.Message)
		} else {
			d.frames = append(d.frames, e.Frame)
		}
	case EffectAppend:
		if d.pause {
			d.lying = append(d.lying, e.Append)
			return false
		}
		d.finish(e.Append)
		return true
	case EffectApply:
		d.applied = append(d.applied, e.Apply.Entries...)
		d.core.Step(&Event{Kind: EventApplied, Apply: e.Apply})
		return true
	case EffectRead:
		d.reads = append(d.reads, *e)
	case EffectDrop:
		d.drops = append(d.drops, *e)
	case EffectClearCut:
		d.cleared = true
	}
	return false
}

func (d *driver) finish(a *Append) {
	for _, r := range a.Responses {
		if r.GetTo() != 1 {
			d.sent = append(d.sent, r)
		}
	}
	d.core.Step(&Event{Kind: EventAppended, Append: a})
}

func (d *driver) receive(m *raftpb.Message) {
	m.To = new(uint64(1))
	d.step(Event{Kind: EventMessage, Peer: ident.MemberID(m.GetFrom()), Message: m})
}

// lead makes the driven member leader of itself, 2 and 3.
func (d *driver) lead() {
	d.t.Helper()
	d.step(Event{Kind: EventCampaign})
	term := uint64(d.core.hard.Term) + 1
	d.receive(&raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), From: new(uint64(2)), Term: new(term)})
	d.receive(&raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), From: new(uint64(2)), Term: new(term)})
	if s := d.core.Status(); s.Role != Leader {
		d.t.Fatalf("not elected: %+v", s)
	}
}

func (d *driver) acknowledge(from uint64) {
	d.receive(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(from), Term: new(uint64(d.core.hard.Term)), Index: new(uint64(d.core.log.last.Index))})
}

func normal(index, term uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Index: new(index), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: []byte(data)}
}

func TestWhatNoPeerMaySayIsDropped(t *testing.T) {
	from := new(uint64(2))
	term := new(uint64(2))
	good := normal(2, 2, "x")
	cases := map[string]*raftpb.Message{
		"no message":                    nil,
		"of nobody":                     {Type: raftpb.MsgHeartbeat.Enum(), Term: term},
		"a local message":               {Type: raftpb.MsgHup.Enum(), From: from, Term: term},
		"a storage response":            {Type: raftpb.MsgStorageAppendResp.Enum(), From: from, Term: term},
		"a proposal":                    {Type: raftpb.MsgProp.Enum(), From: from, Term: term, Entries: []*raftpb.Entry{good}},
		"a transfer":                    {Type: raftpb.MsgTransferLeader.Enum(), From: from, Term: term},
		"without a term":                {Type: raftpb.MsgApp.Enum(), From: from},
		"entries with a gap":            {Type: raftpb.MsgApp.Enum(), From: from, Term: term, Index: new(uint64(1)), LogTerm: new(uint64(1)), Entries: []*raftpb.Entry{normal(3, 2, "")}},
		"a nil entry":                   {Type: raftpb.MsgApp.Enum(), From: from, Term: term, Entries: []*raftpb.Entry{nil}},
		"an entry of the future":        {Type: raftpb.MsgApp.Enum(), From: from, Term: term, Index: new(uint64(1)), LogTerm: new(uint64(1)), Entries: []*raftpb.Entry{normal(2, 9, "")}},
		"falling terms":                 {Type: raftpb.MsgApp.Enum(), From: from, Term: term, Index: new(uint64(1)), LogTerm: new(uint64(2)), Entries: []*raftpb.Entry{normal(2, 1, "")}},
		"a short context":               {Type: raftpb.MsgHeartbeatResp.Enum(), From: from, Term: term, Context: []byte("abc")},
		"a read without a context":      {Type: raftpb.MsgReadIndex.Enum(), From: from},
		"a snapshot without metadata":   {Type: raftpb.MsgSnap.Enum(), From: from, Term: term},
		"a snapshot without voters":     {Type: raftpb.MsgSnap.Enum(), From: from, Term: term, Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: term}}},
		"a snapshot with a voter twice": {Type: raftpb.MsgSnap.Enum(), From: from, Term: term, Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: term, ConfState: &raftpb.ConfState{Voters: []uint64{1, 1}}}}},
	}
	for name, m := range cases {
		t.Run(name, func(t *testing.T) {
			d := drive(t, bootOf(1, 2, 3))
			if m != nil {
				m.To = new(uint64(1))
			}
			d.step(Event{Kind: EventMessage, Peer: 2, Message: m})
			if d.core.Err() != nil || len(d.sent) != 0 || d.core.hard.Term != 1 {
				t.Errorf("error %v, sent %v, term %d", d.core.Err(), d.sent, d.core.hard.Term)
			}
		})
	}
}

// Rule 25: a named error, not a panic.
func TestACommitBeyondTheLogStopsTheMemberByName(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	d.receive(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(2)), Commit: new(uint64(9))})
	if err := d.core.Err(); !errors.Is(err, ErrLogLost) {
		t.Errorf("got %v", err)
	}
}

// A candidate that won before its own vote is durable could win the same term a
// second time after a crash, with another log (postmortem 20).
func TestACandidateAsksForVotesOnceItsOwnIsDurable(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	d.step(Event{Kind: EventCampaign})
	d.pause, d.sent = true, nil
	d.receive(&raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), From: new(uint64(2)), Term: new(uint64(2))})
	asks := func() (n int) {
		for _, m := range d.sent {
			if m.GetType() == raftpb.MsgVote {
				n++
			}
		}
		return n
	}
	if len(d.lying) != 1 || d.lying[0].Hard.Term != 2 || d.lying[0].Hard.Vote != 1 || !d.lying[0].Sync || asks() != 0 {
		t.Fatalf("%d appends under way, %d votes asked for", len(d.lying), asks())
	}
	d.finish(d.lying[0])
	d.step()
	if asks() != 2 {
		t.Errorf("%d votes asked for", asks())
	}
}

func TestASnapshotWithoutItsStateStopsTheMember(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	d.receive(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), Term: new(uint64(2)), Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(9)), Term: new(uint64(2)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
	}}})
	if err := d.core.Err(); !errors.Is(err, ErrRaft) {
		t.Errorf("got %v", err)
	}
}

// fakeStaged is a received state of which only the place counts.
type fakeStaged struct{ meta SnapMeta }

func (f fakeStaged) Meta() SnapMeta { return f.meta }
func (fakeStaged) Discard() error   { return nil }

// A snapshot overtakes apply: a change below it, which it holds already, or its
// undoing, must not reach Raft a second time.
func TestConfChangesBelowASnapshotAreRaftsNoMore(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	d.pause = true // Apply and the log are not there yet.
	conf := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	meta := SnapMeta{Index: 9, Term: 2, Conf: raftpb.EnsureConfState(conf)}
	d.step(Event{Kind: EventMessage, Peer: 2, Staged: fakeStaged{meta}, Message: &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(2)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(2)), ConfState: conf}},
	}})
	add := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(4))}}}
	if behind := d.core.ResolveConf(5, add, true); len(behind.Voters) != 4 {
		t.Errorf("behind the change there are %v", behind.Voters)
	}
	if s := d.core.Status(); d.core.Err() != nil || len(s.Voters) != 3 {
		t.Errorf("Raft works with %v: %v", s.Voters, d.core.Err())
	}
}

// Raft panics where its storage fails it. The member stops in order instead.
func TestADamagedLogStopsTheMember(t *testing.T) {
	boot := bootOf(1, 2, 3)
	boot.Last, boot.Hard.Commit, boot.Hard.Term = wal.Mark{Index: 9, Term: 1}, 9, 1
	d := drive(t, boot)
	d.step(Event{Kind: EventTick})
	if err := d.core.Err(); !errors.Is(err, ErrRaft) || !errors.Is(err, wal.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func FuzzMessages(f *testing.F) {
	seed := func(m *raftpb.Message) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	two, one := new(uint64(2)), new(uint64(1))
	seed(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: two, To: one, Term: two, Index: one, LogTerm: one, Entries: []*raftpb.Entry{normal(2, 2, "x")}})
	seed(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: two, To: one, Term: two, Commit: one})
	seed(&raftpb.Message{Type: raftpb.MsgVote.Enum(), From: two, To: one, Term: two, Index: one, LogTerm: one})
	seed(&raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), From: two, To: one, Entries: []*raftpb.Entry{{Data: []byte("ctx")}}})
	seed(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: two, To: one, Term: two, Index: one})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &raftpb.Message{}
		if proto.Unmarshal(data, m) != nil {
			return
		}
		for _, leads := range []bool{false, true} {
			d := drive(t, bootOf(1, 2, 3))
			if leads {
				d.lead()
			}
			d.step(Event{Kind: EventMessage, Peer: 2, Message: m})
			if err := d.core.Err(); err != nil && !errors.Is(err, ErrLogLost) {
				t.Error(err)
			}
		}
	})
}

// Rule 16: who may have forgotten a vote or an entry does neither.
func TestAMemberWithACutNeitherVotesNorCampaignsUntilALeaderBroughtItPast(t *testing.T) {
	boot := bootOf(1, 2, 3)
	boot.Cut = true
	d := drive(t, boot)
	for range 50 {
		d.step(Event{Kind: EventTick})
	}
	vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: new(uint64(9)), LogTerm: new(uint64(4))}
	d.receive(vote)
	d.receive(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(uint64(2)), Term: new(uint64(5))})
	if len(d.sent) != 0 {
		t.Fatalf("said %v", d.sent)
	}
	d.receive(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(uint64(1))})
	d.step(Event{Kind: EventTick})
	var ask *raftpb.Message
	for _, m := range d.sent {
		if m.GetType() == raftpb.MsgReadIndex {
			ask = m
		}
	}
	if ask == nil {
		t.Fatalf("does not ask how far the log is committed: %v", d.sent)
	}
	answer := func(commit uint64) {
		d.receive(&raftpb.Message{Type: raftpb.MsgReadIndexResp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: new(commit), Entries: []*raftpb.Entry{{Data: ask.Entries[0].Data}}})
	}
	answer(2)
	if d.cleared {
		t.Fatal("voting again without an entry that is committed")
	}
	d.receive(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: new(uint64(1)), LogTerm: new(uint64(1)), Commit: new(uint64(2)), Entries: []*raftpb.Entry{normal(2, 5, "")}})
	d.step(Event{Kind: EventTick})
	for _, m := range d.sent {
		if m.GetType() == raftpb.MsgReadIndex {
			ask = m
		}
	}
	answer(2)
	if !d.cleared || d.core.Status().Cut {
		t.Error("does not vote again")
	}
}

func TestASingleMemberWithACutGoesOn(t *testing.T) {
	boot := bootOf(1)
	boot.Cut = true
	d := drive(t, boot)
	d.step(Event{Kind: EventCampaign})
	if s := d.core.Status(); s.Role != Leader {
		t.Errorf("%+v", s)
	}
}

// Rule 21: a forward is proposed in the term it was sent in, or not at all.
func TestAForwardOfAnotherTermIsRefused(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	d.lead()
	term := d.core.hard.Term
	forward := func(at ident.Term, sequence uint64) Event {
		return Event{Kind: EventPropose, Proposals: []Proposal{{
			Request: entry.Request{ID: ident.RequestID{Member: 3, Nonce: 1, Sequence: sequence}, Data: []byte("x")}, From: 3, Term: at,
		}}}
	}
	d.step(forward(term-1, 1), forward(term, 2))
	if len(d.frames) != 1 || d.frames[0].Kind != transport.KindAnswer {
		t.Fatalf("frames %v", d.frames)
	}
	reason, ids, err := DecodeRefusal(d.frames[0].Data)
	if err != nil || !errors.Is(reason, ErrNotLeader) || len(ids) != 1 || ids[0].Sequence != 1 {
		t.Errorf("refused %v because of %v, %v", ids, reason, err)
	}
	if last := d.core.log.last.Index; last != 3 {
		t.Errorf("log ends at %d, want the empty entry and the one of this term", last)
	}
}

func TestAFollowerForwardsOnceAndRefusesWhatIsForwardedToIt(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	own := Proposal{Request: entry.Request{ID: ident.RequestID{Member: 1, Nonce: 77, Sequence: 1}, Data: []byte("x")}}
	d.step(Event{Kind: EventPropose, Proposals: []Proposal{own}})
	if len(d.frames) != 0 {
		t.Fatal("forwarded without a leader")
	}
	d.receive(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(uint64(1))})
	if len(d.frames) != 1 || d.frames[0].Kind != transport.KindForward {
		t.Fatalf("frames %v", d.frames)
	}
	list, err := DecodeForward(1, d.frames[0].Data)
	if err != nil || len(list) != 1 || list[0].Term != 5 {
		t.Errorf("%+v %v", list, err)
	}
	theirs := own
	theirs.From, theirs.Term, theirs.Request.ID.Member = 3, 5, 3
	for range 3 {
		d.step(Event{Kind: EventTick})
	}
	d.step(Event{Kind: EventPropose, Proposals: []Proposal{theirs}})
	if len(d.frames) != 2 || d.frames[1].Kind != transport.KindAnswer {
		t.Errorf("frames %v", d.frames)
	}
}

// Rule 22.
func TestAReadRoundServesOnlyReadsThatCameBeforeIt(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	d.lead()
	d.acknowledge(2)
	d.step(Event{Kind: EventRead, Round: 1})
	first := d.lastHeartbeat()
	d.step(Event{Kind: EventRead, Round: 2}) // Arrives while the round of the first is under way.
	if d.lastHeartbeat() != first {
		t.Fatal("two rounds at once")
	}
	d.receive(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(2)), Term: new(uint64(d.core.hard.Term)), Context: first.Context})
	if len(d.reads) != 1 || d.reads[0].Round != 1 {
		t.Fatalf("served %+v", d.reads)
	}
	second := d.lastHeartbeat()
	if second == first {
		t.Fatal("no round for the second read")
	}
	d.receive(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(3)), Term: new(uint64(d.core.hard.Term)), Context: second.Context})
	if len(d.reads) != 2 || d.reads[1].Round != 2 {
		t.Errorf("served %+v", d.reads)
	}
}

func (d *driver) lastHeartbeat() *raftpb.Message {
	var last *raftpb.Message
	for _, m := range d.sent {
		if m.GetType() == raftpb.MsgHeartbeat && len(m.GetContext()) > 0 {
			last = m
		}
	}
	return last
}

func TestALostReadRoundIsTriedAgainWithAFreshContext(t *testing.T) {
	d := drive(t, bootOf(1, 2, 3))
	heartbeat := func(from, term uint64) {
		d.receive(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(from), Term: new(term), Commit: new(uint64(1))})
	}
	asked := func() (contexts []string, to uint64) {
		for _, m := range d.sent {
			if m.GetType() == raftpb.MsgReadIndex {
				contexts, to = append(contexts, string(m.Entries[0].Data)), m.GetTo()
			}
		}
		return contexts, to
	}
	heartbeat(2, 5)
	d.step(Event{Kind: EventRead, Round: 1})
	for range 5 {
		heartbeat(2, 5)
		d.step(Event{Kind: EventTick})
	}
	contexts, _ := asked()
	if len(contexts) != 2 || contexts[0] == contexts[1] {
		t.Fatalf("asked %q", contexts)
	}
	// The answer to the round that was given up counts for nothing.
	d.receive(&raftpb.Message{Type: raftpb.MsgReadIndexResp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: new(uint64(1)), Entries: []*raftpb.Entry{{Data: []byte(contexts[0])}}})
	if len(d.reads) != 0 {
		t.Fatalf("served by an old round: %+v", d.reads)
	}
	heartbeat(3, 6)
	contexts, to := asked()
	if len(contexts) != 3 || to != 3 {
		t.Errorf("the new leader was asked %d times", len(contexts)-2)
	}
}

// Rule 20: what a single member acknowledged before a crash may lie above its
// stored commit index.
func TestALeaderOfOneServesNoReadBeforeAnEntryOfItsTermIsCommitted(t *testing.T) {
	boot := bootOf(1)
	d := drive(t, boot)
	d.pause = true
	d.step(Event{Kind: EventRead, Round: 1}, Event{Kind: EventCampaign})
	for len(d.lying) > 0 {
		if len(d.reads) > 0 {
			t.Fatal("served while nothing of the term was committed")
		}
		a := d.lying[0]
		d.lying = d.lying[1:]
		d.finish(a)
		d.step()
	}
	if len(d.reads) != 1 || d.reads[0].Index != 2 {
		t.Errorf("served %+v", d.reads)
	}
}

// Proposals that wait while the disk works become one entry.
func TestProposalsAreGatheredWhileAppendsAreUnderWay(t *testing.T) {
	d := drive(t, bootOf(1))
	d.step(Event{Kind: EventCampaign})
	d.pause = true
	propose := func(n int) {
		d.step(Event{Kind: EventPropose, Proposals: []Proposal{{Request: entry.Request{
			ID: ident.RequestID{Member: 1, Nonce: 77, Sequence: uint64(n)}, Data: []byte(fmt.Sprint(n)),
		}}}})
	}
	for n := range 10 {
		propose(n)
	}
	if len(d.lying) != AppendsInFlightMax {
		t.Fatalf("%d appends under way", len(d.lying))
	}
	d.finish(d.lying[0])
	d.step()
	last := d.lying[len(d.lying)-1].Entries
	batch, err := entry.DecodeBatch(last[len(last)-1].GetData(), nil)
	if err != nil || len(last) != 1 || len(batch.Requests) != 10-AppendsInFlightMax {
		t.Errorf("%d entries, %d requests, %v", len(last), len(batch.Requests), err)
	}
}

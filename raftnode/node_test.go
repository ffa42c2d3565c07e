package raftnode_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

var _ raftnode.Log = (*wal.Log)(nil)

var first = wal.Mark{Index: 1, Term: 1}

func voters(ids ...uint64) *raftpb.ConfState {
	return raftpb.EnsureConfState(&raftpb.ConfState{Voters: ids})
}

// member is what survives a Close.
type member struct {
	id      ident.MemberID
	boots   uint64
	log     *raftnodetest.MemLog
	machine *raftnodetest.Machine
	node    *raftnode.Node
	confirm func(context.Context, ident.MemberID, raftnode.Staged) error // Of the next start; may be nil.
	before  func([]entry.Entry)                                          // Of the next start: called before entries are applied; may be nil.
	calm    time.Duration                                                // Of the next start: its election timeout, when not the shortest.
}

// slow is a machine that somebody may keep from applying.
type slow struct {
	*raftnodetest.Machine
	before func([]entry.Entry)
}

func (s *slow) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	if s.before != nil {
		s.before(entries)
	}
	return s.Machine.Apply(entries)
}

func newMember(id ident.MemberID, conf *raftpb.ConfState) *member {
	return &member{id: id, log: raftnodetest.NewMemLog(first), machine: raftnodetest.NewMachine(first, conf)}
}

func (m *member) start(t testing.TB, network raftnode.Network) {
	t.Helper()
	m.boots++
	node, err := raftnode.Start(raftnode.Config{
		ID: m.id, StateMachine: &slow{m.machine, m.before}, Applied: m.machine.Applied(), Log: m.log, Recovered: m.log.Recovered(),
		Network: network, Clock: clock.Real(), Random: raftnodetest.NewRandom(uint64(m.id)<<8 + m.boots),
		Logger: hclog.NewNullLogger(), HeartbeatInterval: 10 * time.Millisecond, ElectionTimeout: max(100*time.Millisecond, m.calm),
		StallTimeout: 300 * time.Millisecond, CatchUpEntries: 20, Confirm: m.confirm,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.node = node
}

// crash forgets what was not synced. The node must be closed.
func (m *member) crash() { m.log, m.machine = m.log.Crash(0, false), m.machine.Crash() }

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

type nowhere struct{}

func (nowhere) Send(ident.MemberID, transport.Frame) {}
func (nowhere) SendSnapshot(_ ident.MemberID, _ *raftpb.Message, _ transport.SnapshotSource, done func(error)) {
	done(transport.ErrUnreachable)
}

func TestASingleMemberAnswersAndRestarts(t *testing.T) {
	leak.Check(t)
	m := newMember(1, voters(1))
	term := ident.Term(1)
	for boot := range 3 {
		m.start(t, nowhere{})
		ctx := within(t, time.Minute)
		select {
		case <-m.node.Ready():
		case <-ctx.Done():
			t.Fatal("not ready")
		}
		if got := len(m.machine.Requests()); got != boot*10 {
			t.Fatalf("boot %d: ready with %d requests", boot, got)
		}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if _, err := m.node.Propose(ctx, []byte(fmt.Sprintf("%d.%d", boot, i))); err != nil {
					t.Error(err)
				}
				if err := m.node.ReadIndex(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s := m.node.Status() // More than a term later where its disk was slow to take its vote.
		if s.Role != raftnode.Leader || s.Term <= term || !s.Settled {
			t.Errorf("status %+v after term %d", s, term)
		}
		term = s.Term
		if err := m.node.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.node.Propose(ctx, []byte("late")); err == nil {
			t.Error("proposed to a closed node")
		}
		m.crash()
	}
}

// snapshotOf is a state of the leader's and the message that announces it.
func snapshotOf(t *testing.T, at wal.Mark, conf *raftpb.ConfState) (*raftpb.Message, io.Reader) {
	t.Helper()
	f, err := raftnodetest.NewMachine(at, conf).Freeze()
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if err := f.WriteTo(&data, nil); err != nil {
		t.Fatal(err)
	}
	return &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: proto.Uint64(1), To: proto.Uint64(2), Term: proto.Uint64(uint64(at.Term)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(uint64(at.Index)), Term: proto.Uint64(uint64(at.Term)), ConfState: conf,
		}},
	}, &data
}

// On a full disk a received state waits to be put into force. More of them would
// take the room that it waits for.
func TestNoFurtherStateIsReceivedWhileOneWaitsForRoom(t *testing.T) {
	leak.Check(t)
	conf := voters(1, 2)
	m := newMember(2, conf)
	m.machine.FullDisk.Store(1 << 30)
	m.start(t, nowhere{})
	receive := func(index ident.Index) error {
		msg, data := snapshotOf(t, wal.Mark{Index: index, Term: 1000}, conf)
		return m.node.ReceiveSnapshot(1, msg, data)
	}
	if err := receive(50); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := receive(60); !errors.Is(err, raftnode.ErrSnapshot) {
			t.Fatalf("a second state, while the first waits for room: %v", err)
		}
	}
	m.machine.FullDisk.Store(0)
	ctx := within(t, time.Minute)
	for receive(60) != nil { // Until the first is in force.
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("there is room, and still no further state is received")
		}
	}
	for m.machine.Applied().Index != 60 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the state is at %d", m.machine.Applied().Index)
		}
	}
	if err := m.node.Close(); err != nil {
		t.Fatal(err)
	}
}

package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/test/bufconn"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/leak"
)

// network is memory pipes between names. Connections to a cut name break and
// are refused.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	cut       map[string]bool
	conns     map[string][]net.Conn
}

func newNetwork() *network {
	return &network{listeners: map[string]*bufconn.Listener{}, cut: map[string]bool{}, conns: map[string][]net.Conn{}}
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	if l == nil || n.cut[address] {
		n.mu.Unlock()
		return nil, fmt.Errorf("nobody listens at %s", address)
	}
	n.mu.Unlock()
	conn, err := l.DialContext(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		n.conns[address] = append(n.conns[address], conn)
	}
	return conn, err
}

func (n *network) setCut(address string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[address] = cut
	if cut {
		for _, c := range n.conns[address] {
			c.Close()
		}
		n.conns[address] = nil
	}
}

// node is a member that remembers what it heard.
type node struct {
	t           testing.TB
	id          ident.MemberID
	transport   *Transport
	frames      chan Frame
	unreachable chan ident.MemberID
	refused     chan error
	trips       chan time.Duration
	have        []byte
	block       func(f Frame)           // Called in Deliver.
	take        func(r io.Reader) error // Called in ReceiveSnapshot.
}

func (n *node) Deliver(_ ident.MemberID, frames []Frame) {
	for _, f := range frames {
		if n.block != nil {
			n.block(f)
		}
		n.frames <- f
	}
}

func (n *node) Unreachable(to ident.MemberID) {
	select {
	case n.unreachable <- to:
	default:
	}
}

func (n *node) Have() []byte { return n.have }

func (n *node) ReceiveSnapshot(_ ident.MemberID, _ *raftpb.Message, r io.Reader) error {
	return n.take(r)
}

func address(id ident.MemberID) string { return fmt.Sprintf("m%d:2380", uint64(id)) }

func idOf(member ident.MemberID) Identity {
	return Identity{Cluster: 0xc1, Timeline: 1, Member: member, Incarnation: 1000 + uint64(member)}
}

type option func(*Config)

// newNode listens, but is not started.
func newNode(t *testing.T, net *network, id ident.MemberID, scheme string, serverTLS *tls.Config, options ...option) *node {
	t.Helper()
	n := &node{
		t: t, id: id,
		frames:      make(chan Frame, 10000),
		unreachable: make(chan ident.MemberID, 100),
		refused:     make(chan error, 1000),
		trips:       make(chan time.Duration, 1000),
	}
	cfg := Config{
		Identity: idOf(id),
		URLs:     []string{scheme + "://" + address(id)},
		Clock:    clock.Real(),
		Logger:   hclog.NewNullLogger(),
		Dial:     net.dial,
		Roster:   func() *Roster { return &Roster{Cluster: 0xc1, Timeline: 1, Answerer: id} },
		OnRefused: func(_ ident.MemberID, err error) {
			select {
			case n.refused <- err:
			default:
			}
		},
		OnRoundTrip: func(_ ident.MemberID, d time.Duration) {
			select {
			case n.trips <- d:
			default:
			}
		},
	}
	for _, o := range options {
		o(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.transport = tr
	l := bufconn.Listen(256 << 10)
	net.mu.Lock()
	net.listeners[address(id)] = l
	net.mu.Unlock()
	tr.Listen(l, serverTLS)
	t.Cleanup(func() { tr.Close() })
	return n
}

func peersOf(scheme string, ids ...ident.MemberID) []Peer {
	var peers []Peer
	for _, id := range ids {
		peers = append(peers, Peer{ID: id, URLs: []string{scheme + "://" + address(id)}})
	}
	return peers
}

// pair is two members that know each other.
func pair(t *testing.T, options ...option) (*network, *node, *node) {
	t.Helper()
	leak.Check(t)
	net := newNetwork()
	a := newNode(t, net, 1, "http", nil, options...)
	b := newNode(t, net, 2, "http", nil, options...)
	for _, n := range []*node{a, b} {
		n.transport.Start(n)
		n.transport.SetPeers(peersOf("http", 1, 2))
	}
	a.awaitLink(2)
	b.awaitLink(1)
	return net, a, b
}

// patience with what takes milliseconds, on a machine that others keep busy.
const patience = time.Minute

// awaitLink sends until a frame gets through on each stream, and forgets what
// came meanwhile.
func (n *node) awaitLink(to ident.MemberID) {
	n.t.Helper()
	n.await("both streams to be up", func() bool {
		p := n.transport.peer(to)
		return p != nil && p.control.up() && p.bulk.up()
	})
}

// await polls: what it waits for has no event of its own.
func (n *node) await(what string, done func() bool) {
	n.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("member %s waited too long for %s", n.id, what)
		}
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func raftFrame(m *raftpb.Message) Frame { return Frame{Kind: KindRaft, Message: m} }

func TestFramesArriveInOrderOnEachStream(t *testing.T) {
	_, a, b := pair(t)
	const count = 2000
	for i := range uint64(count) {
		a.transport.Send(2, raftFrame(appendOf(1, 2, entryOf(1, i, "value"))))
		a.transport.Send(2, Frame{Kind: KindNotice, Data: []byte{byte(i), byte(i >> 8)}})
	}
	var index, notice uint64
	for range 2 * count {
		switch f := receive(t, "frame", b.frames); f.Kind {
		case KindRaft:
			if got := f.Message.Entries[0].GetIndex(); got != index {
				t.Fatalf("entry %d after %d", got, index)
			}
			index++
		case KindNotice:
			if got := uint64(f.Data[0]) | uint64(f.Data[1])<<8; got != notice {
				t.Fatalf("notice %d after %d", got, notice)
			}
			notice++
		}
	}
	stats := a.transport.Stats()[0]
	if stats.ID != 2 || !stats.Connected || stats.SentBytes == 0 || stats.SendFailures != 0 {
		t.Errorf("sender counts %+v", stats)
	}
	if got := b.transport.Stats()[0]; got.ReceivedBytes < stats.SentBytes {
		t.Errorf("receiver counts %+v of %d bytes", got, stats.SentBytes)
	}
}

func TestAHeartbeatDoesNotWaitBehindAppends(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	_, a, b := pair(t)
	defer free()
	b.block = func(f Frame) {
		if f.bulk() {
			<-release
		}
	}
	big := string(make([]byte, 1<<20))
	for i := range uint64(32) {
		a.transport.Send(2, raftFrame(appendOf(1, 2, entryOf(1, i, big))))
	}
	a.transport.Send(2, raftFrame(heartbeat(1, 2)))
	if f := receive(t, "heartbeat", b.frames); f.Message.GetType() != raftpb.MessageType_MsgHeartbeat {
		t.Fatalf("first came %s", f.Message.GetType())
	}
	free()
	for i := range uint64(32) {
		if got := receive(t, "append", b.frames).Message.Entries[0].GetIndex(); got != i {
			t.Fatalf("entry %d, want %d", got, i)
		}
	}
}

func TestASlowPeerCostsAQueueAndIsReported(t *testing.T) {
	release := make(chan struct{})
	_, a, b := pair(t)
	defer close(release)
	b.block = func(Frame) { <-release }
	big := string(make([]byte, 4<<20))
	for i := range uint64(200) {
		a.transport.Send(2, raftFrame(appendOf(1, 2, entryOf(1, i, big))))
	}
	if id := receive(t, "report", a.unreachable); id != 2 {
		t.Errorf("member %s is reported", id)
	}
	if got := a.transport.Stats()[0].SendFailures; got < 200-bulkBytesMax/(4<<20)-10 {
		t.Errorf("only %d of 200 frames were dropped", got)
	}
}

func TestAFlappingPeerIsReachedAgain(t *testing.T) {
	net, a, b := pair(t)
	for round := range byte(5) {
		net.setCut(address(2), true)
		a.await("the link to break", func() bool { return !a.transport.Stats()[0].Connected })
		receive(t, "report", a.unreachable)
		net.setCut(address(2), false)
		a.awaitLink(2)
		a.transport.Send(2, Frame{Kind: KindNotice, Data: []byte{round}})
		if f := receive(t, "notice", b.frames); f.Data[0] != round {
			t.Fatalf("round %d brought %v", round, f)
		}
	}
}

func TestRoundTripsAreMeasured(t *testing.T) {
	_, a, _ := pair(t)
	if d := receive(t, "round trip", a.trips); d <= 0 || a.transport.Stats()[0].RoundTrip <= 0 {
		t.Errorf("round trip %s, stats %+v", d, a.transport.Stats())
	}
}

func TestPeersOfAnotherIdentityAreRefusedWithAReason(t *testing.T) {
	cases := []struct {
		name   string
		mine   func(*Identity)
		reason error
		words  string
	}{
		{"cluster", func(id *Identity) { id.Cluster = 0xbad }, ErrCluster, "cluster bad"},
		{"timeline", func(id *Identity) { id.Timeline = 9 }, ErrTimeline, "timeline 9"},
		{"incarnation", func(id *Identity) { id.Incarnation = 77 }, ErrIncarnation, "remove it and add it again"},
		{"removed", func(id *Identity) { id.Member = 3 }, ErrRemoved, "member 3: member has been removed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			leak.Check(t)
			net := newNetwork()
			var log bytes.Buffer
			logger := hclog.New(&hclog.LoggerOptions{Output: &log, Mutex: &sync.Mutex{}})
			judge := newNode(t, net, 1, "http", nil, func(cfg *Config) { cfg.Logger = logger })
			judge.transport.Start(judge)
			peers := peersOf("http", 1)
			judge.transport.SetPeers(append(peers, Peer{ID: 2, Incarnation: 1002}))
			judge.transport.SetRemoved([]ident.MemberID{3})
			stranger := newNode(t, net, 2, "http", nil, func(cfg *Config) { c.mine(&cfg.Identity) })
			stranger.transport.Start(stranger)
			stranger.transport.SetPeers(peers)
			err := receive(t, "refusal", stranger.refused)
			if !errors.Is(err, c.reason) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("refused with %v", err)
			}
			stranger.transport.Close()
			judge.transport.Close()
			if !strings.Contains(log.String(), c.words) {
				t.Errorf("the judge logged %s", log.String())
			}
			if len(stranger.frames)+len(judge.frames) > 0 {
				t.Error("frames went through")
			}
		})
	}
}

func TestTheDialerRefusesAnotherMemberAtTheAddress(t *testing.T) {
	leak.Check(t)
	net := newNetwork()
	var log bytes.Buffer
	mutex := &sync.Mutex{}
	logger := hclog.New(&hclog.LoggerOptions{Output: &log, Mutex: mutex})
	a := newNode(t, net, 1, "http", nil, func(cfg *Config) { cfg.Logger = logger })
	b := newNode(t, net, 2, "http", nil)
	a.transport.Start(a)
	b.transport.Start(b)
	a.transport.SetPeers([]Peer{{ID: 5, URLs: []string{"http://" + address(2)}}})
	a.await("the refusal in the log", func() bool {
		mutex.Lock()
		defer mutex.Unlock()
		return strings.Contains(log.String(), ErrWrongMember.Error())
	})
	if a.transport.Stats()[0].Connected {
		t.Error("connected")
	}
}

func TestAMemberWipedBeforeItPublishedIsRefused(t *testing.T) {
	net, a, b := pair(t)
	b.transport.Close()
	again := newNode(t, net, 2, "http", nil, func(cfg *Config) { cfg.Identity.Incarnation = 4711 })
	again.transport.Start(again)
	again.transport.SetPeers(peersOf("http", 1))
	if err := receive(t, "refusal", again.refused); !errors.Is(err, ErrIncarnation) {
		t.Errorf("refused with %v", err)
	}
	roster := a.transport.cfg.Roster
	a.transport.cfg.Roster = func() *Roster {
		r := roster()
		r.Members = []RosterMember{{ID: 2, Name: "b"}}
		return r
	}
	r, err := FetchRoster(t.Context(), RosterConfig{Dial: net.dial}, "http://"+address(1))
	if err != nil || r.Cluster != 0xc1 || len(r.Members) != 1 || r.Members[0].Incarnation != 1002 {
		t.Errorf("roster %+v, %v", r, err)
	}
}

func TestARemovedMemberLearnsItAtOnce(t *testing.T) {
	_, a, b := pair(t)
	a.transport.SetRemoved([]ident.MemberID{2})
	if err := receive(t, "refusal", b.refused); !errors.Is(err, ErrRemoved) {
		t.Errorf("refused with %v", err)
	}
	if len(a.transport.Stats()) != 0 {
		t.Errorf("still linked: %+v", a.transport.Stats())
	}
}

// A member that was away while the cluster grew must hear the new leader and
// be able to answer it.
func TestAnUnknownMemberOfTheClusterIsHeardAndAnswered(t *testing.T) {
	net, a, b := pair(t)
	c := newNode(t, net, 3, "http", nil)
	c.transport.Start(c)
	c.transport.SetPeers(peersOf("http", 1, 2, 3))
	c.awaitLink(1)
	c.transport.Send(1, raftFrame(heartbeat(3, 1)))
	receive(t, "heartbeat", a.frames)
	a.awaitLink(3)
	a.transport.Send(3, raftFrame(heartbeat(1, 3)))
	receive(t, "answer", c.frames)
	a.transport.SetPeers(peersOf("http", 1, 2, 3))
	a.transport.SetPeers(peersOf("http", 1, 2))
	a.await("the link to end", func() bool { return len(a.transport.Stats()) == 1 })
	_ = b
}

func TestAMessageInAnothersNameBreaksTheStream(t *testing.T) {
	_, a, b := pair(t)
	a.transport.Send(2, raftFrame(heartbeat(9, 2)))
	b.await("the failure to be counted", func() bool { return b.transport.Stats()[0].ReceiveFailures == 1 })
	if len(b.frames) > 0 {
		t.Errorf("delivered %v", <-b.frames)
	}
}

func TestQuestionsAreAnswered(t *testing.T) {
	_, a, b := pair(t, func(cfg *Config) {
		cfg.Answer = func(_ context.Context, from ident.MemberID, kind uint8, data []byte) ([]byte, error) {
			if kind == 9 {
				return nil, errors.New("no such lease")
			}
			return fmt.Appendf(nil, "%s/%d/%s", from, kind, data), nil
		}
	})
	if got, err := a.transport.Ask(t.Context(), 2, 3, []byte("q")); err != nil || string(got) != "1/3/q" {
		t.Errorf("answer %q, %v", got, err)
	}
	if _, err := a.transport.Ask(t.Context(), 2, 9, nil); err == nil || !strings.Contains(err.Error(), "no such lease") {
		t.Errorf("error %v", err)
	}
	if _, err := a.transport.Ask(t.Context(), 7, 3, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}
	b.transport.SetRemoved([]ident.MemberID{1})
	if _, err := a.transport.Ask(t.Context(), 2, 3, nil); !errors.Is(err, ErrRemoved) && !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}

// timing counts timers of questions.
type timing struct {
	clock.Clock
	questions atomic.Int64
}

func (c *timing) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d == questionTimeout {
		c.questions.Add(1)
	}
	return c.Clock.AfterFunc(d, f)
}

func TestAQuestionMayTakeAsLongAsItsAskerSays(t *testing.T) {
	c := &timing{Clock: clock.Real()}
	_, a, _ := pair(t, func(cfg *Config) {
		cfg.Clock = c
		cfg.Answer = func(ctx context.Context, _ ident.MemberID, _ uint8, _ []byte) ([]byte, error) {
			_, bounded := ctx.Deadline()
			return fmt.Append(nil, bounded), nil
		}
	})
	patient, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, q := range []struct {
		ctx    context.Context
		answer string
		timers int64
	}{{patient, "true", 0}, {t.Context(), "false", 1}} {
		got, err := a.transport.Ask(q.ctx, 2, 3, nil)
		if err != nil || string(got) != q.answer || c.questions.Load() != q.timers {
			t.Errorf("answer %q, %v, %d timers of the default; want %s, %d", got, err, c.questions.Load(), q.answer, q.timers)
		}
	}
}

func TestCloseMayBeCalledAgainAndEndsEverything(t *testing.T) {
	_, a, b := pair(t)
	for range 2 {
		if err := errors.Join(a.transport.Close(), b.transport.Close()); err != nil {
			t.Error(err)
		}
	}
	done := make(chan error, 1)
	a.transport.SendSnapshot(2, snapshotOf(1, 2), source(nil), func(err error) { done <- err })
	if err := receive(t, "done", done); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	_, err := New(Config{FrameBytesMax: -1})
	for _, words := range []string{"member ID", "clock", "logger", "roster", "negative"} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q is missing in %v", words, err)
		}
	}
}

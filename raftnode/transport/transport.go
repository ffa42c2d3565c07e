// Package transport carries frames and snapshots between members.
//
// Each member dials each other one and sends on the streams it dialed; answers
// come back on the streams the other dialed. There are two streams to a peer,
// each on a connection of its own: appends and forwarded proposals on one,
// heartbeats, votes and answers on the other, so that a heartbeat never waits
// behind megabytes. A snapshot has a third connection while it lasts.
//
// Everything begins with a handshake: both sides say which cluster, timeline,
// member and incarnation they are, and both refuse what does not fit, with a
// reason that both log. The bytes are in docs/format/peer.md.
//
// Called by raftnode (Send, SendSnapshot) and by the server (Listen, SetPeers,
// Ask, FetchRoster). It keeps nothing on disk: after a crash links are made anew.
//
// Invariant: Send never blocks. What does not fit its queue is dropped and
// reported as unreachable; Raft sends again what matters.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
)

// Transport is the links to all peers.
type Transport struct {
	cfg    Config
	dialer dialer
	group  *task.Group
	gate   *gate
	wake   chan struct{} // Holds one token while a drop waits to be reported.

	snapshotSlot chan struct{} // Taken while a snapshot is received: one at a time.

	mu struct { // Never held while calling out.
		sync.RWMutex
		closed  bool
		handler Handler // nil before Start.
		peers   map[ident.MemberID]*peer
		removed map[ident.MemberID]bool
		inbound map[inboundKey]*inbound
		refused map[ident.MemberID]string // What was last logged about whom.
	}
}

// Identity is what a member says about itself in each handshake.
type Identity struct {
	Cluster     ident.ClusterID
	Timeline    ident.Timeline
	Member      ident.MemberID
	Incarnation uint64 // Random, of the data directory; a wiped member has another.
}

// Peer is another member, as the state machine knows it.
type Peer struct {
	ID          ident.MemberID
	URLs        []string // http:// or https://, tried in turn.
	Incarnation uint64   // 0 until the member has published itself.
}

// Handler is the node that the frames are for. All methods are called from
// goroutines of the transport.
type Handler interface {
	// Deliver hands over frames in the order they were sent on their stream. It
	// may block for a while: then only that stream waits.
	Deliver(from ident.MemberID, frames []Frame)
	// Unreachable says that frames to a member were dropped.
	Unreachable(to ident.MemberID)
	// Have says where this member's state stands, so that a sender of a snapshot
	// can leave out what is here already.
	Have() []byte
	// ReceiveSnapshot reads a snapshot to its end and takes it, or returns why
	// not. r returns io.EOF only after the last byte was verified.
	ReceiveSnapshot(from ident.MemberID, msg *raftpb.Message, r io.Reader) error
}

// SnapshotSource writes a frozen state. have is what the receiver said of
// itself; it may be empty.
type SnapshotSource interface {
	WriteTo(w io.Writer, have []byte) error
}

// StateSource is a frozen state that is closed after it was sent.
type StateSource interface {
	SnapshotSource
	Close() error
}

// Config says who we are and what the transport stands on.
type Config struct {
	Identity Identity
	URLs     []string           // Our own peer URLs, told to members that do not know us yet.
	TLS      func() *tls.Config // For dialing https peers, asked for each connection, as files may have changed.
	Clock    clock.Clock
	Logger   hclog.Logger

	// Dial opens a connection; nil means TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Roster answers members-to-be that ask who is in the cluster. Required.
	Roster func() *Roster
	// Answer answers Ask of another member; nil refuses all questions.
	Answer func(ctx context.Context, from ident.MemberID, kind uint8, data []byte) ([]byte, error)
	// State freezes the present state for a member that asks for all of it; nil
	// refuses.
	State func() (StateSource, error)
	// HTTP serves what arrives on the peer port as plain HTTP; nil means 404.
	HTTP http.Handler
	// OnRefused hears that a peer refused us. errors.Is tells why: ErrRemoved,
	// ErrIncarnation, ErrCluster, ErrTimeline… It may be called again and again.
	OnRefused func(by ident.MemberID, err error)
	// OnRoundTrip hears each measured round trip; nil means nobody listens.
	OnRoundTrip func(to ident.MemberID, d time.Duration)

	SnapshotBytesPerSecond int64 // Limit of one outgoing snapshot; 0 means none.
	FrameBytesMax          int   // Largest frame accepted; 0 means 64 MiB.
}

func (cfg *Config) validate() error {
	var problems []error
	complain := func(bad bool, text string) {
		if bad {
			problems = append(problems, errors.New(text))
		}
	}
	complain(cfg.Identity.Member == 0, "member ID is zero")
	complain(cfg.Clock == nil, "clock is missing")
	complain(cfg.Logger == nil, "logger is missing")
	complain(cfg.Roster == nil, "roster is missing")
	complain(len(cfg.URLs) > urlsMax, fmt.Sprintf("%d peer URLs, at most %d", len(cfg.URLs), urlsMax))
	complain(cfg.FrameBytesMax < 0 || cfg.SnapshotBytesPerSecond < 0, "a limit is negative")
	for _, u := range cfg.URLs {
		complain(len(u) > urlBytesMax, fmt.Sprintf("peer URL of %d bytes, at most %d", len(u), urlBytesMax))
	}
	return errors.Join(problems...)
}

// New checks cfg. Nothing runs before Listen or Start.
func New(cfg Config) (*Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	if cfg.FrameBytesMax == 0 {
		cfg.FrameBytesMax = FrameBytesMaxDefault
	}
	t := &Transport{
		cfg:          cfg,
		dialer:       dialer{tls: cfg.TLS, dial: cfg.Dial, frameBytesMax: cfg.FrameBytesMax},
		group:        task.New(context.Background()),
		wake:         make(chan struct{}, 1),
		snapshotSlot: make(chan struct{}, 1),
	}
	t.mu.peers = make(map[ident.MemberID]*peer)
	t.mu.removed = make(map[ident.MemberID]bool)
	t.mu.inbound = make(map[inboundKey]*inbound)
	t.mu.refused = make(map[ident.MemberID]string)
	t.gate = newGate(t)
	return t, nil
}

// Listen serves peers on l until Close: the handshake, questions, and plain
// HTTP. Streams are refused as starting until Start. serverTLS nil means
// cleartext.
func (t *Transport) Listen(l net.Listener, serverTLS *tls.Config) { t.gate.listen(l, serverTLS) }

// Start opens the gates: h gets what arrives.
func (t *Transport) Start(h Handler) {
	t.mu.Lock()
	t.mu.handler = h
	t.mu.Unlock()
	t.group.Go("peer reports", t.runReports)
}

// SetPeers tells who is in the cluster; the own member is ignored. New peers
// are dialed at once, links to those who left are closed.
func (t *Transport) SetPeers(peers []Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return
	}
	named := make(map[ident.MemberID]bool, len(peers))
	for _, want := range peers {
		if want.ID == t.cfg.Identity.Member {
			continue
		}
		named[want.ID] = true
		p := t.mu.peers[want.ID]
		if p == nil {
			p = newPeer(t.group.Context(), t, want.ID, want.URLs)
			t.mu.peers[want.ID] = p
		}
		p.update(want.URLs, want.Incarnation, false)
	}
	for id, p := range t.mu.peers {
		if !named[id] && !p.isLearned() {
			t.forgetLocked(id)
		}
	}
}

// SetRemoved tells who was removed, ever: they are refused by that name.
func (t *Transport) SetRemoved(ids []ident.MemberID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if !t.mu.removed[id] {
			t.mu.removed[id] = true
			t.forgetLocked(id)
		}
	}
}

// forgetLocked ends all links from and to a member.
func (t *Transport) forgetLocked(id ident.MemberID) {
	if p := t.mu.peers[id]; p != nil {
		p.cancel()
		delete(t.mu.peers, id)
	}
	for key, in := range t.mu.inbound {
		if key.from == id {
			in.cancel()
		}
	}
}

// Send queues a frame. It never blocks.
func (t *Transport) Send(to ident.MemberID, f Frame) {
	if p := t.peer(to); p != nil && !fail.Skip("transport/send") {
		p.send(f)
	}
}

func (t *Transport) peer(id ident.MemberID) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.peers[id]
}

// reportUnreachable has runReports tell the handler. Callers may be the
// handler's own goroutines, so it cannot be told here.
func (t *Transport) reportUnreachable() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *Transport) runReports(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		t.mu.RLock()
		handler, peers := t.mu.handler, slices.Collect(maps.Values(t.mu.peers))
		t.mu.RUnlock()
		for _, p := range peers {
			if p.unreachable.Swap(false) {
				handler.Unreachable(p.id)
			}
		}
	}
}

// Ask puts a question to a peer's Config.Answer. An error of the answerer
// comes back as its text. Where ctx has no deadline it is given up after a while.
func (t *Transport) Ask(ctx context.Context, to ident.MemberID, kind uint8, data []byte) ([]byte, error) {
	p := t.peer(to)
	if p == nil {
		return nil, fmt.Errorf("ask member %s: %w", to, ErrUnreachable)
	}
	p.control.mu.Lock()
	conn := p.control.mu.conn
	p.control.mu.Unlock()
	if conn == nil {
		return nil, fmt.Errorf("ask member %s: %w", to, ErrUnreachable)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, bounded := ctx.Deadline(); !bounded {
		defer t.cfg.Clock.AfterFunc(questionTimeout, cancel).Stop()
	}
	var reply inPacket
	err := conn.Invoke(ctx, askMethod, &outPacket{t.questionPacket(to, kind, data)}, &reply)
	if code := status.Code(err); ctx.Err() == nil && (code == codes.Unavailable || code == codes.Canceled) {
		return nil, fmt.Errorf("ask member %s: %w: %s", to, ErrUnreachable, status.Convert(err).Message())
	}
	if err != nil {
		return nil, fmt.Errorf("ask member %s: %w", to, err)
	}
	return decodeReply(reply.bytes)
}

// PeerStats is what one link has done.
type PeerStats struct {
	ID              ident.MemberID
	Connected       bool          // Our stream to it is up.
	Since           time.Duration // clock.Mono of the last change of Connected.
	RoundTrip       time.Duration // The last measured; 0 before.
	SentBytes       uint64
	ReceivedBytes   uint64
	SendFailures    uint64 // Frames dropped.
	ReceiveFailures uint64 // Inbound streams that ended with an error.
	SnapshotsSent   uint64
	SnapshotsFailed uint64
}

// Stats of all peers, sorted by ID.
func (t *Transport) Stats() []PeerStats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var list []PeerStats
	for _, id := range slices.Sorted(maps.Keys(t.mu.peers)) {
		list = append(list, t.mu.peers[id].stats())
	}
	return list
}

// Close ends all links and waits for them. It may be called again.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.mu.closed = true
	t.mu.Unlock()
	t.group.Stop()
	t.gate.close()
	return t.group.Wait()
}

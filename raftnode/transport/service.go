package transport

// The serving side: what a peer's streams and questions meet here.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/ident"
)

const (
	serviceName    = "holdfastpb.Peer"
	messagesMethod = "/" + serviceName + "/Messages"
	snapshotMethod = "/" + serviceName + "/Snapshot"
	askMethod      = "/" + serviceName + "/Ask"
	rosterMethod   = "/" + serviceName + "/Roster"
	stateMethod    = "/" + serviceName + "/State"
)

// serviceDesc is written by hand: packets are bytes of our own, and no
// generated code stands between them and the stream.
func serviceDesc() *grpc.ServiceDesc {
	unary := func(f func(*Transport, context.Context, []byte) ([]byte, error)) grpc.MethodHandler {
		return func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in inPacket
			if err := dec(&in); err != nil {
				return nil, err
			}
			out, err := f(srv.(*Transport), ctx, in.bytes)
			return &outPacket{out}, err
		}
	}
	stream := func(f func(*Transport, grpc.ServerStream) error) grpc.StreamHandler {
		return func(srv any, s grpc.ServerStream) error { return f(srv.(*Transport), s) }
	}
	return &grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Ask", Handler: unary((*Transport).serveAsk)},
			{MethodName: "Roster", Handler: unary((*Transport).serveRoster)},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "Messages", Handler: stream((*Transport).serveMessages), ServerStreams: true, ClientStreams: true},
			{StreamName: "Snapshot", Handler: stream((*Transport).serveSnapshot), ServerStreams: true, ClientStreams: true},
			{StreamName: "State", Handler: stream((*Transport).serveState), ServerStreams: true, ClientStreams: true},
		},
	}
}

type inboundKey struct {
	from    ident.MemberID
	channel byte
}

// inbound is a stream that a peer opened.
type inbound struct {
	peer    *peer
	handler Handler
	cancel  context.CancelFunc
}

// welcome shakes hands on a stream that a peer opened. A newer stream of the
// same channel takes the place of the one before. It returns nil, nil when the
// peer was refused and told why.
func (t *Transport) welcome(s grpc.ServerStream, cancel context.CancelFunc, channels ...byte) (*inbound, func(), error) {
	timer := t.cfg.Clock.AfterFunc(dialTimeout, cancel)
	packet, err := recvPacket(s)
	timer.Stop()
	if err != nil {
		return nil, nil, err
	}
	h, err := decodeHello(packet)
	if err == nil && !bytes.Contains(channels, []byte{h.channel}) {
		err = fmt.Errorf("channel %d: %w", h.channel, ErrDamaged)
	}
	var in *inbound
	if err == nil {
		in, err = t.admit(h)
	}
	if err != nil {
		t.logRefused(h.identity.Member, err)
		return nil, nil, sendPacket(s, refusalPacket(err))
	}
	in.cancel = cancel
	key := inboundKey{h.identity.Member, h.channel}
	t.mu.Lock()
	if before := t.mu.inbound[key]; before != nil {
		before.cancel()
	}
	t.mu.inbound[key] = in
	delete(t.mu.refused, key.from)
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		if t.mu.inbound[key] == in {
			delete(t.mu.inbound, key)
		}
		t.mu.Unlock()
	}
	return in, leave, sendPacket(s, welcomePacket(t.cfg.Identity))
}

// admit decides on a hello.
func (t *Transport) admit(h hello) (*inbound, error) {
	mine, from := t.cfg.Identity, h.identity.Member
	if err := checkIdentity(mine, h.identity); err != nil {
		return nil, err
	}
	if h.to != mine.Member || from == mine.Member {
		return nil, fmt.Errorf("member %s called for member %s, this is member %s: %w", from, h.to, mine.Member, ErrWrongMember)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.removed[from] {
		return nil, fmt.Errorf("member %s: %w", from, ErrRemoved)
	}
	if t.mu.closed || t.mu.handler == nil && h.channel != channelAsk {
		return nil, fmt.Errorf("member %s: %w", mine.Member, ErrStarting)
	}
	p := t.mu.peers[from]
	if p == nil {
		p = t.learnLocked(h)
	}
	if p == nil {
		return nil, fmt.Errorf("member %s does not know member %s, nor %d others: %w", mine.Member, from, learnedPeersMax, ErrStarting)
	}
	if !p.admit(h.identity.Incarnation) {
		return nil, fmt.Errorf("member %s has a new data directory: %w", from, ErrIncarnation)
	}
	return &inbound{peer: p, handler: t.mu.handler}, nil
}

// learnLocked takes in a member that this one has not heard of: the cluster
// added it while we were away, and it may be the leader that brings us the news.
func (t *Transport) learnLocked(h hello) *peer {
	learned := 0
	for _, p := range t.mu.peers {
		if p.isLearned() {
			learned++
		}
	}
	if learned >= learnedPeersMax {
		return nil
	}
	p := newPeer(t.group.Context(), t, h.identity.Member, h.urls)
	p.update(h.urls, 0, true)
	t.mu.peers[p.id] = p
	return p
}

// logRefused logs once who was refused and why, not at each attempt.
func (t *Transport) logRefused(from ident.MemberID, reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.refused[from] == reason.Error() || len(t.mu.refused) > rosterMembersMax {
		return
	}
	t.mu.refused[from] = reason.Error()
	if errors.Is(reason, ErrStarting) {
		t.cfg.Logger.Debug("peer called before this member was ready", "member", from)
		return
	}
	t.cfg.Logger.Warn("refused a peer", "member", from, "reason", reason.Error())
}

// attend runs f beside the stream's own goroutine. A gRPC stream cannot be
// interrupted while it receives, but it ends when its handler returns: so this
// one returns when it is told to, and f's next read fails.
func (t *Transport) attend(ctx context.Context, name string, f func() error) error {
	done := make(chan error, 1)
	t.group.Go(name, func(context.Context) error {
		done <- f()
		return nil
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	case <-t.group.Context().Done():
	}
	return status.Error(codes.Unavailable, "stream ended by its receiver")
}

func (t *Transport) serveMessages(s grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	return t.attend(ctx, "peer frames", func() error {
		in, leave, err := t.welcome(s, cancel, channelControl, channelBulk)
		if in == nil || err != nil {
			return err
		}
		defer leave()
		err = t.receiveFrames(in, s) // Never nil: it goes on until something breaks.
		if !errors.Is(err, io.EOF) && ctx.Err() == nil {
			in.peer.receiveFailures.Add(1)
			t.cfg.Logger.Warn("stream from peer broke", "member", in.peer.id, "error", err)
		}
		return err
	})
}

func (t *Transport) receiveFrames(in *inbound, s grpc.ServerStream) error {
	for {
		packet, err := recvPacket(s)
		if err != nil {
			return err
		}
		in.peer.receivedBytes.Add(uint64(len(packet)))
		kind, body, err := open(packet)
		if err != nil {
			return err
		}
		switch kind {
		case packetFrames:
			frames, err := decodeFrames(body, in.peer.id, t.cfg.Identity.Member)
			if err != nil {
				return err
			}
			in.handler.Deliver(in.peer.id, frames)
		case packetPing:
			if len(body) != 8 {
				return fmt.Errorf("ping of %d bytes: %w", len(body), ErrDamaged)
			}
			if err := sendPacket(s, seal(append([]byte{packetPong}, body...), 0)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("packet of type %d among frames: %w", kind, ErrDamaged)
		}
	}
}

// questionPacket carries the same claims as a hello, then kind and data.
func (t *Transport) questionPacket(to ident.MemberID, kind uint8, data []byte) []byte {
	b := []byte{packetQuestion, protocolVersion}
	b = appendIdentity(b, t.cfg.Identity)
	b = appendUint64(b, uint64(to))
	return seal(append(append(b, kind), data...), 0)
}

func (t *Transport) serveAsk(ctx context.Context, packet []byte) ([]byte, error) {
	d, err := openVersioned(packetQuestion, packet)
	if err != nil {
		return refusalPacket(err), nil
	}
	h := hello{channel: channelAsk, identity: d.identity(), to: ident.MemberID(d.uint64())}
	kind := d.byte()
	if d.failed {
		return refusalPacket(d.end("question")), nil
	}
	if _, err := t.admit(h); err != nil {
		t.logRefused(h.identity.Member, err)
		return refusalPacket(err), nil
	}
	if t.cfg.Answer == nil {
		return nil, status.Error(codes.Unimplemented, "this member answers no questions")
	}
	answer, err := t.cfg.Answer(ctx, h.identity.Member, kind, d.rest)
	if err != nil {
		return nil, err
	}
	return seal(append([]byte{packetReply}, answer...), 0), nil
}

func decodeReply(packet []byte) ([]byte, error) {
	kind, _, err := open(packet)
	if err != nil {
		return nil, err
	}
	if kind == packetRefusal {
		return nil, decodeRefusal(packet)
	}
	return openAs(packetReply, packet)
}

func (t *Transport) serveRoster(_ context.Context, packet []byte) ([]byte, error) {
	if _, err := openVersioned(packetRoster, packet); err != nil {
		return refusalPacket(err), nil
	}
	return t.Roster().packet(), nil
}

// Roster is Config.Roster, completed with incarnations that were seen but are
// not published yet.
func (t *Transport) Roster() *Roster {
	r := *t.cfg.Roster()
	r.Members = append([]RosterMember(nil), r.Members...)
	for i := range r.Members {
		m := &r.Members[i]
		if p := t.peer(m.ID); p != nil && m.Incarnation == 0 {
			m.Incarnation = p.seen()
		}
	}
	return &r
}

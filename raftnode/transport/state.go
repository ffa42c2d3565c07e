package transport

// A state stream, after the handshake, is asked for by the one who needs it:
//
//	asker                          member asked
//	                         ←     chunk, chunk, …
//	                         ←     end (length, checksum), or result with the reason why not
//
// It is how a member whose own state is damaged gets one before it takes part in
// Raft again. A stream that breaks anywhere before the end has sent nothing.

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// errNoState means that this member has no state to give now.
var errNoState = errors.New("this member gives no states away")

// FetchState gets a whole state from a peer. take reads it to its end, and must
// not believe any of it before it has met io.EOF: that comes only after the last
// byte was verified.
func (t *Transport) FetchState(ctx context.Context, from ident.MemberID, take func(io.Reader) error) error {
	p := t.peer(from)
	if p == nil {
		return fmt.Errorf("state of member %s: %w", from, ErrUnreachable)
	}
	conn, err := t.dialer.conn(p.nextURL())
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := t.greet(ctx, cancel, conn, stateMethod, channelState, p)
	if err != nil {
		return fmt.Errorf("state of member %s: %w", from, err)
	}
	stall := t.cfg.Clock.AfterFunc(snapshotStallMax, cancel)
	defer stall.Stop()
	r := &chunkReader{peer: p, stream: stream, stall: stall}
	if err := take(r); err != nil {
		return fmt.Errorf("state of member %s: %w", from, err)
	}
	if !r.ended {
		return fmt.Errorf("state of member %s was taken before its end at byte %d: %w", from, r.received, ErrDamaged)
	}
	t.cfg.Logger.Info("fetched a state", "member", from, "bytes", r.received)
	return nil
}

// serveState gives the present state to a peer that asks for it.
func (t *Transport) serveState(s grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	return t.attend(ctx, "peer state", func() error {
		in, leave, err := t.welcome(s, cancel, channelState)
		if in == nil || err != nil {
			return err
		}
		defer leave()
		sent, err := t.sendState(ctx, cancel, in, s)
		if err != nil {
			in.peer.snapshotsFailed.Add(1)
			t.cfg.Logger.Warn("a state did not reach the member that asked for it", "member", in.peer.id, "bytes", sent, "error", err)
			return sendPacket(s, resultPacket(err))
		}
		in.peer.snapshotsSent.Add(1)
		t.cfg.Logger.Info("gave a state to a member that asked for it", "member", in.peer.id, "bytes", sent)
		return nil
	})
}

func (t *Transport) sendState(ctx context.Context, cancel context.CancelFunc, in *inbound, s grpc.ServerStream) (int64, error) {
	if t.cfg.State == nil {
		return 0, errNoState
	}
	if in.peer.snapshotting.Swap(true) {
		return 0, fmt.Errorf("state for member %s: %w", in.peer.id, ErrBusy)
	}
	defer in.peer.snapshotting.Store(false)
	src, err := t.cfg.State()
	if err != nil {
		return 0, err
	}
	stall := t.cfg.Clock.AfterFunc(snapshotTakeMax, cancel)
	defer stall.Stop()
	w := &chunkWriter{ctx: ctx, peer: in.peer, stream: s, clock: t.cfg.Clock, rate: t.cfg.SnapshotBytesPerSecond, stall: stall, begin: t.cfg.Clock.Mono()}
	err = src.WriteTo(w, nil)
	if err == nil {
		err = w.finish()
	}
	return w.sent, errors.Join(err, src.Close())
}

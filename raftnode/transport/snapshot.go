package transport

// A snapshot stream, after the handshake:
//
//	sender                         receiver
//	offer (the MsgSnap)      →
//	                         ←     have (where its state stands)
//	chunk, chunk, …          →
//	end (length, checksum)   →
//	                         ←     result
//
// A stream that breaks anywhere before the result has sent nothing: the
// receiver drops what it staged, the sender reports failure, and Raft begins again.

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// SendSnapshot streams a snapshot in the background and calls done exactly
// once, from another goroutine, or before it returns when the transport is closed.
func (t *Transport) SendSnapshot(to ident.MemberID, msg *raftpb.Message, src SnapshotSource, done func(error)) {
	t.mu.RLock()
	closed, p := t.mu.closed, t.mu.peers[to]
	if !closed { // Under the lock, so that Close waits for it.
		t.group.Go("snapshot to peer", func(context.Context) error {
			done(t.sendSnapshot(to, p, msg, src))
			return nil
		})
	}
	t.mu.RUnlock()
	if closed {
		done(ErrClosed)
	}
}

func (t *Transport) sendSnapshot(to ident.MemberID, p *peer, msg *raftpb.Message, src SnapshotSource) error {
	if p == nil {
		return fmt.Errorf("snapshot to member %s: %w", to, ErrUnreachable)
	}
	if p.snapshotting.Swap(true) {
		return fmt.Errorf("snapshot to member %s: %w", to, ErrBusy)
	}
	defer p.snapshotting.Store(false)
	begin := t.cfg.Clock.Mono()
	sent, err := t.streamSnapshot(p, msg, src)
	if err != nil {
		p.snapshotsFailed.Add(1)
		return fmt.Errorf("snapshot to member %s, broken after %d bytes: %w", to, sent, err)
	}
	p.snapshotsSent.Add(1)
	t.cfg.Logger.Info("snapshot sent", "member", to, "bytes", sent, "took", t.cfg.Clock.Mono()-begin)
	return nil
}

func (t *Transport) streamSnapshot(p *peer, msg *raftpb.Message, src SnapshotSource) (int64, error) {
	conn, err := t.dialer.conn(p.nextURL())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(p.ctx) // Who is removed must not hold up the state of who takes its place.
	defer cancel()
	stream, err := t.greet(ctx, cancel, conn, snapshotMethod, channelSnapshot, p)
	if err != nil {
		return 0, err
	}
	stall := t.cfg.Clock.AfterFunc(snapshotStallMax, cancel)
	defer stall.Stop()
	if err := sendPacket(stream, seal(appendMessage([]byte{packetOffer}, msg), 0)); err != nil {
		return 0, reasonOf(stream, err)
	}
	packet, err := recvPacket(stream)
	if err != nil {
		return 0, err
	}
	have, err := openAs(packetHave, packet)
	if err != nil {
		return 0, err
	}
	w := &chunkWriter{ctx: ctx, peer: p, stream: stream, clock: t.cfg.Clock, rate: t.cfg.SnapshotBytesPerSecond, stall: stall, begin: t.cfg.Clock.Mono()}
	stall.Reset(snapshotTakeMax)
	if err := src.WriteTo(w, have); err != nil {
		return w.sent, reasonOf(stream, err)
	}
	if err := w.finish(); err != nil {
		return w.sent, reasonOf(stream, err)
	}
	packet, err = recvPacket(stream)
	if err != nil {
		return w.sent, err
	}
	return w.sent, decodeResult(packet)
}

// reasonOf prefers what the receiver said to the end of stream that its saying
// so caused here.
func reasonOf(stream grpc.ClientStream, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	packet, recvErr := recvPacket(stream)
	if recvErr != nil {
		return fmt.Errorf("stream broke: %s", status.Convert(recvErr).Message())
	}
	if result := decodeResult(packet); result != nil {
		return result
	}
	return err
}

// chunkWriter cuts what is written into checked chunks and holds the rate.
// Send blocks while the receiver's window is full: that is the flow control.
type chunkWriter struct {
	ctx    context.Context
	peer   *peer
	stream pipe
	clock  clock.Clock
	stall  clock.Timer
	rate   int64 // Bytes a second; 0 means no limit.
	begin  time.Duration
	buffer []byte
	sent   int64
	crc    uint32
}

func (w *chunkWriter) Write(data []byte) (int, error) {
	n := len(data)
	for len(data) > 0 {
		if w.buffer == nil {
			w.buffer = make([]byte, 0, chunkBytes)
		}
		part := min(len(data), chunkBytes-len(w.buffer))
		w.buffer = append(w.buffer, data[:part]...)
		data = data[part:]
		if len(w.buffer) == chunkBytes {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (w *chunkWriter) flush() error {
	if len(w.buffer) == 0 {
		return nil
	}
	if err := w.pace(); err != nil {
		return err
	}
	b := append(packetBuffer(1+8+len(w.buffer)+crcBytes), packetChunk)
	b = appendUint64(b, uint64(w.sent))
	b = seal(append(b, w.buffer...), 0)
	length := len(b)
	w.stall.Reset(snapshotTakeMax)
	if err := sendPacket(w.stream, b); err != nil {
		return err
	}
	w.crc = crc32.Update(w.crc, castagnoli, w.buffer)
	w.sent += int64(len(w.buffer))
	w.buffer = w.buffer[:0]
	w.peer.sentBytes.Add(uint64(length))
	return nil
}

// pace waits until the bytes sent so far are due.
func (w *chunkWriter) pace() error {
	if w.rate <= 0 {
		return nil
	}
	due := w.begin + time.Duration(float64(w.sent)/float64(w.rate)*float64(time.Second))
	wait := due - w.clock.Mono()
	if wait <= 0 {
		return nil
	}
	w.stall.Reset(wait + snapshotTakeMax)
	select {
	case <-w.clock.After(wait):
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func (w *chunkWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	b := appendUint64([]byte{packetEnd}, uint64(w.sent))
	b = binary.LittleEndian.AppendUint32(b, w.crc)
	w.stall.Reset(snapshotTakeMax)
	return sendPacket(w.stream, seal(b, 0))
}

// serveSnapshot receives one snapshot.
func (t *Transport) serveSnapshot(s grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	return t.attend(ctx, "peer snapshot", func() error {
		in, leave, err := t.welcome(s, cancel, channelSnapshot)
		if in == nil || err != nil {
			return err
		}
		defer leave()
		result := t.receiveSnapshot(ctx, cancel, in, s)
		if result != nil {
			in.peer.receiveFailures.Add(1)
			t.cfg.Logger.Warn("snapshot from peer was not taken", "member", in.peer.id, "error", result)
		}
		return sendPacket(s, resultPacket(result))
	})
}

func (t *Transport) receiveSnapshot(ctx context.Context, cancel context.CancelFunc, in *inbound, s grpc.ServerStream) error {
	t.endOtherSnapshots(in)
	select {
	case t.snapshotSlot <- struct{}{}:
		defer func() { <-t.snapshotSlot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	stall := t.cfg.Clock.AfterFunc(snapshotStallMax, cancel)
	defer stall.Stop()
	packet, err := recvPacket(s)
	if err != nil {
		return err
	}
	body, err := openAs(packetOffer, packet)
	if err != nil {
		return err
	}
	msg, err := decodeMessage(body)
	if err != nil {
		return err
	}
	if msg.GetType() != raftpb.MessageType_MsgSnap || msg.GetSnapshot().GetMetadata() == nil ||
		msg.GetFrom() != uint64(in.peer.id) || msg.GetTo() != uint64(t.cfg.Identity.Member) {
		return fmt.Errorf("offer of a snapshot from %x to %x: %w", msg.GetFrom(), msg.GetTo(), ErrDamaged)
	}
	if err := sendPacket(s, seal(append([]byte{packetHave}, in.handler.Have()...), 0)); err != nil {
		return err
	}
	r := &chunkReader{peer: in.peer, stream: s, stall: stall}
	if err := in.handler.ReceiveSnapshot(in.peer.id, msg, r); err != nil {
		return err
	}
	if !r.ended {
		return fmt.Errorf("snapshot was taken before its end at byte %d: %w", r.received, ErrDamaged)
	}
	return nil
}

// endOtherSnapshots makes way: the newest sender is the one that leads.
func (t *Transport) endOtherSnapshots(in *inbound) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, other := range t.mu.inbound {
		if key.channel == channelSnapshot && other != in {
			other.cancel()
		}
	}
}

// chunkReader returns the bytes of verified chunks, and io.EOF only after the
// end packet agreed with them. The stall counts while it waits for the sender,
// and not while its own side works.
type chunkReader struct {
	peer     *peer
	stream   pipe
	stall    clock.Timer
	rest     []byte
	received int64
	crc      uint32
	ended    bool
}

func (r *chunkReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *chunkReader) next() error {
	r.stall.Reset(snapshotStallMax)
	packet, err := recvPacket(r.stream)
	r.stall.Stop()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("snapshot after byte %d: %w", r.received, err)
	}
	r.peer.receivedBytes.Add(uint64(len(packet)))
	kind, body, err := open(packet)
	if err != nil {
		return fmt.Errorf("snapshot after byte %d: %w", r.received, err)
	}
	if kind == packetResult { // Instead of the rest.
		return fmt.Errorf("snapshot after byte %d: %w", r.received, cmp.Or(decodeResult(packet), ErrDamaged))
	}
	d := &decoder{rest: body}
	offset := int64(d.uint64())
	if d.failed || offset != r.received {
		return fmt.Errorf("snapshot goes on at byte %d after byte %d: %w", offset, r.received, ErrDamaged)
	}
	switch kind {
	case packetChunk:
		r.rest = d.rest
		r.received += int64(len(r.rest))
		r.crc = crc32.Update(r.crc, castagnoli, r.rest)
	case packetEnd:
		if len(d.rest) != 4 || binary.LittleEndian.Uint32(d.rest) != r.crc {
			return fmt.Errorf("snapshot of %d bytes has checksum %08x: %w", r.received, r.crc, ErrDamaged)
		}
		r.ended = true
	default:
		return fmt.Errorf("packet of type %d in a snapshot: %w", kind, ErrDamaged)
	}
	return nil
}

func resultPacket(result error) []byte {
	if result == nil {
		return seal([]byte{packetResult, 1}, 0)
	}
	text := result.Error()
	return seal(append([]byte{packetResult, 0}, text[:min(len(text), reasonBytesMax)]...), 0)
}

func decodeResult(packet []byte) error {
	body, err := openAs(packetResult, packet)
	if err != nil {
		return err
	}
	d := &decoder{rest: body}
	if ok := d.byte(); ok == 1 && len(d.rest) == 0 {
		return nil
	}
	return fmt.Errorf("the other side refused: %s", d.rest)
}

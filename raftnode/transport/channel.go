package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// channel is one outgoing stream to a peer and the connection below it. It is
// made again whenever it breaks.
type channel struct {
	peer       *peer
	number     byte
	silenceMax time.Duration
	queue      *queue
	lastPong   atomic.Int64 // clock.Mono.

	mu struct {
		sync.Mutex
		conn   *grpc.ClientConn // While the stream is up; Ask uses it too.
		cancel context.CancelFunc
	}
}

func newChannel(p *peer, number byte, silenceMax time.Duration, q *queue) *channel {
	return &channel{peer: p, number: number, silenceMax: silenceMax, queue: q}
}

// run keeps the stream up until ctx ends.
func (c *channel) run(ctx context.Context) {
	t := c.peer.t
	backoff, said := backoffMin, ""
	for ctx.Err() == nil {
		up, err := c.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if up {
			backoff, said = backoffMin, ""
		}
		wait := backoff
		var refused *RefusedError
		if errors.As(err, &refused) && !errors.Is(err, ErrStarting) {
			wait = refusedBackoff
			if t.cfg.OnRefused != nil {
				t.cfg.OnRefused(c.peer.id, err)
			}
		}
		if text := err.Error(); text != said { // Once, not at each attempt.
			said = text
			t.cfg.Logger.Warn("no stream to peer", "member", c.peer.id, "channel", c.number, "error", text)
		}
		backoff = min(2*backoff, backoffMax)
		select {
		case <-t.cfg.Clock.After(wait):
		case <-ctx.Done():
		}
	}
}

// restart ends the stream, if there is one; run makes another.
func (c *channel) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cancel != nil {
		c.mu.cancel()
	}
}

// serve connects once and carries frames until the stream breaks. up tells
// whether the handshake succeeded.
func (c *channel) serve(parent context.Context) (up bool, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	c.mu.Lock()
	c.mu.cancel = cancel
	c.mu.Unlock()

	t := c.peer.t
	conn, err := t.dialer.conn(c.peer.nextURL())
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stream, err := t.greet(ctx, cancel, conn, messagesMethod, c.number, c.peer)
	if err != nil {
		return false, err
	}
	c.lastPong.Store(int64(t.cfg.Clock.Mono()))
	c.setUp(conn)
	defer c.setUp(nil)
	t.cfg.Logger.Info("stream to peer is up", "member", c.peer.id, "channel", c.number)

	received := make(chan error, 1)
	reads := t.group.Go("peer pongs", func(context.Context) error {
		received <- c.receive(stream)
		cancel()
		return nil
	})
	if !reads { // This end was closed meanwhile: nobody would say how the stream ended.
		return true, ErrClosed
	}
	err = c.pump(ctx, stream)
	cancel()
	if cause := <-received; err == nil || errors.Is(err, context.Canceled) {
		err = cause
	}
	return true, fmt.Errorf("stream broke: %s", status.Convert(err).Message())
}

// setUp opens or closes what needs the stream.
func (c *channel) setUp(conn *grpc.ClientConn) {
	if dropped := c.queue.setOpen(conn != nil); dropped > 0 || conn == nil {
		c.peer.dropped(dropped)
	}
	c.mu.Lock()
	c.mu.conn = conn
	c.mu.Unlock()
	if c.number == channelControl {
		c.peer.setConnected(conn != nil)
	}
}

// pump sends frames as they come and a ping now and then.
func (c *channel) pump(ctx context.Context, stream grpc.ClientStream) error {
	clk := c.peer.t.cfg.Clock
	ticker := clk.NewTicker(pingInterval)
	defer ticker.Stop()
	var frames []Frame
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C():
			if err := c.ping(clk, stream); err != nil {
				return err
			}
		case <-c.queue.wake:
			frames = c.queue.swap(frames)
			if err := c.sendFrames(stream, frames); err != nil {
				return err
			}
		}
	}
}

func (c *channel) ping(clk clock.Clock, stream grpc.ClientStream) error {
	now := clk.Mono()
	if silent := now - time.Duration(c.lastPong.Load()); silent > c.silenceMax {
		return fmt.Errorf("no answer to a ping for %s: %w", silent, ErrUnreachable)
	}
	return sendPacket(stream, seal(appendUint64([]byte{packetPing}, uint64(now)), 0))
}

// sendFrames sends frames in packets of about packetBytesGoal.
func (c *channel) sendFrames(stream grpc.ClientStream, frames []Frame) error {
	for len(frames) > 0 {
		n, size := 0, 0
		for n < len(frames) && (n == 0 || size+frames[n].size() <= packetBytesGoal) {
			size += frames[n].size()
			n++
		}
		b := append(packetBuffer(1+size+crcBytes), packetFrames)
		for _, f := range frames[:n] {
			b = appendFrame(b, f)
		}
		b = seal(b, 0)
		length := len(b)
		if err := sendPacket(stream, b); err != nil {
			return err
		}
		c.queue.sent(n, size)
		c.peer.sentBytes.Add(uint64(length))
		frames = frames[n:]
	}
	return nil
}

// receive reads pongs until the stream ends.
func (c *channel) receive(stream grpc.ClientStream) error {
	t := c.peer.t
	for {
		packet, err := recvPacket(stream)
		if err != nil {
			return err
		}
		body, err := openAs(packetPong, packet)
		if err != nil {
			return err
		}
		if len(body) != 8 {
			return fmt.Errorf("pong of %d bytes: %w", len(body), ErrDamaged)
		}
		now := t.cfg.Clock.Mono()
		c.lastPong.Store(int64(now))
		if c.number != channelControl {
			continue
		}
		trip := now - time.Duration(binary.LittleEndian.Uint64(body))
		c.peer.roundTrip.Store(int64(trip))
		if t.cfg.OnRoundTrip != nil {
			t.cfg.OnRoundTrip(c.peer.id, trip)
		}
	}
}

// up reports whether the stream is up.
func (c *channel) up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.conn != nil
}

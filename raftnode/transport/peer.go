package transport

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// peer is one other member: where it listens, the streams to it, and counts.
type peer struct {
	t       *Transport
	id      ident.MemberID
	ctx     context.Context    // Of everything that goes to this peer.
	cancel  context.CancelFunc // Ends it.
	control *channel
	bulk    *channel

	snapshotting atomic.Bool // One snapshot to a peer at a time.
	unreachable  atomic.Bool // The report of a drop is on its way.

	mu struct {
		sync.Mutex
		urls        []string
		turn        int // Which URL the next attempt takes.
		incarnation uint64
		learned     bool // Known only from its own handshake.
		connected   bool
		since       time.Duration
	}

	sentBytes, receivedBytes       atomic.Uint64
	sendFailures, receiveFailures  atomic.Uint64
	snapshotsSent, snapshotsFailed atomic.Uint64
	roundTrip                      atomic.Int64
}

// newPeer starts dialing at once. ctx ends with the transport.
func newPeer(ctx context.Context, t *Transport, id ident.MemberID, urls []string) *peer {
	p := &peer{t: t, id: id}
	p.mu.urls = slices.Clone(urls)
	p.mu.since = t.cfg.Clock.Mono()
	p.control = newChannel(p, channelControl, controlSilenceMax, newQueue(controlFramesMax, controlBytesMax))
	p.bulk = newChannel(p, channelBulk, bulkSilenceMax, newQueue(bulkFramesMax, bulkBytesMax))
	p.ctx, p.cancel = context.WithCancel(ctx)
	t.group.Go("peer control", func(context.Context) error { p.control.run(p.ctx); return nil })
	t.group.Go("peer bulk", func(context.Context) error { p.bulk.run(p.ctx); return nil })
	return p
}

// send queues a frame, or drops it and has that reported.
func (p *peer) send(f Frame) {
	c := p.control
	if f.bulk() {
		c = p.bulk
	}
	if !c.queue.put(f) {
		p.dropped(1)
	}
}

func (p *peer) dropped(frames int) {
	p.sendFailures.Add(uint64(frames))
	if !p.unreachable.Swap(true) {
		p.t.reportUnreachable()
	}
}

// nextURL returns the URLs in turn, so that each attempt tries another.
func (p *peer) nextURL() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.urls) == 0 {
		return ""
	}
	p.mu.turn++
	return p.mu.urls[p.mu.turn%len(p.mu.urls)]
}

// update takes what the state machine says now.
func (p *peer) update(urls []string, incarnation uint64, learned bool) {
	p.mu.Lock()
	moved := !slices.Equal(p.mu.urls, urls)
	p.mu.urls = slices.Clone(urls)
	p.mu.learned = learned
	if incarnation != 0 {
		p.mu.incarnation = incarnation
	}
	p.mu.Unlock()
	if moved {
		p.control.restart()
		p.bulk.restart()
	}
}

// admit compares an incarnation with the one known, and remembers the first:
// a member that was wiped before it published itself may have voted too.
func (p *peer) admit(incarnation uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.incarnation == 0 {
		p.mu.incarnation = incarnation
	}
	return p.mu.incarnation == incarnation
}

func (p *peer) setConnected(connected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.connected != connected {
		p.mu.connected, p.mu.since = connected, p.t.cfg.Clock.Mono()
	}
}

func (p *peer) stats() PeerStats {
	p.mu.Lock()
	connected, since := p.mu.connected, p.mu.since
	p.mu.Unlock()
	return PeerStats{
		ID:              p.id,
		Connected:       connected,
		Since:           since,
		RoundTrip:       time.Duration(p.roundTrip.Load()),
		SentBytes:       p.sentBytes.Load(),
		ReceivedBytes:   p.receivedBytes.Load(),
		SendFailures:    p.sendFailures.Load(),
		ReceiveFailures: p.receiveFailures.Load(),
		SnapshotsSent:   p.snapshotsSent.Load(),
		SnapshotsFailed: p.snapshotsFailed.Load(),
	}
}

func (p *peer) isLearned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.learned
}

// seen is the incarnation known from the state machine or from a handshake.
func (p *peer) seen() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.incarnation
}

package client

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Renewer renews many leases over few streams, each renewal when its owner asks for
// it: for who keeps leases for others, that decide when they are renewed.
type Renewer struct {
	client *Client
	lanes  []*lane
}

// lane is one stream, on which requests go out together and are answered in order.
type lane struct {
	client *Client
	wake   chan struct{} // Holds one.

	mu struct {
		sync.Mutex
		waiting []*renewal
		closed  bool
	}
}

// renewal is one request.
type renewal struct {
	ctx    context.Context
	id     int64
	answer *pb.LeaseKeepAliveResponse
	err    error
	done   chan struct{} // Closed when one of them is set.
}

// NewRenewer returns a renewer, which ends with the client.
func (c *Client) NewRenewer(streams int) *Renewer {
	r := &Renewer{client: c}
	for range max(streams, 1) {
		l := &lane{client: c, wake: make(chan struct{}, 1)}
		if !c.start("lease renewals", l.run) {
			l.close()
		}
		r.lanes = append(r.lanes, l)
	}
	return r
}

// Renew renews a lease and tells its TTL, or that there is none such. It tries again
// while that may help and ctx lasts.
func (r *Renewer) Renew(ctx context.Context, id int64) (*pb.LeaseKeepAliveResponse, error) {
	w := &renewal{ctx: ctx, id: id, done: make(chan struct{})}
	if !r.lanes[uint64(id)%uint64(len(r.lanes))].add(w) {
		return nil, ErrClosed
	}
	select {
	case <-w.done:
		return w.answer, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *lane) add(w *renewal) bool {
	l.mu.Lock()
	closed := l.mu.closed
	if !closed {
		l.mu.waiting = append(l.mu.waiting, w)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return !closed
}

// take returns those who wait still.
func (l *lane) take() []*renewal {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken, n := make([]*renewal, 0, min(len(l.mu.waiting), renewalsTogether)), 0
	for ; n < len(l.mu.waiting) && len(taken) < renewalsTogether; n++ {
		if w := l.mu.waiting[n]; w.ctx.Err() == nil {
			taken = append(taken, w)
		}
	}
	l.mu.waiting = l.mu.waiting[n:]
	return taken
}

func (l *lane) close() {
	l.mu.Lock()
	waiting := l.mu.waiting
	l.mu.waiting, l.mu.closed = nil, true
	l.mu.Unlock()
	for _, w := range waiting {
		w.end(nil, ErrClosed)
	}
}

func (w *renewal) end(answer *pb.LeaseKeepAliveResponse, err error) {
	w.answer, w.err = answer, err
	close(w.done)
}

// run answers until the client is closed.
func (l *lane) run(ctx context.Context) {
	defer l.close()
	delay := retryDelayMin
	for ctx.Err() == nil {
		err := l.follow(ctx, func() { delay = retryDelayMin })
		if ctx.Err() != nil {
			return
		}
		l.client.config.Logger.Debug("renewals lost their stream, asking again", "error", err)
		l.client.pause(ctx, &delay)
	}
}

// follow renews over one stream for as long as that works.
func (l *lane) follow(ctx context.Context, useful func()) error {
	ctx, made := l.client.attempt(requireLeader(ctx))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stream pb.Lease_LeaseKeepAliveClient
	for {
		together := l.take()
		if len(together) == 0 {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		patience := l.client.config.Clock.AfterFunc(renewalsPatience, cancel)
		var err error
		if stream == nil {
			stream, err = l.client.lease.LeaseKeepAlive(ctx)
		}
		left := together
		if err == nil {
			left, err = exchange(stream, together)
		}
		patience.Stop()
		if err != nil {
			l.again(left, fromWire(err), made)
			return err
		}
		useful()
	}
}

// exchange sends requests and gives out the answers. It returns those without one.
func exchange(stream pb.Lease_LeaseKeepAliveClient, together []*renewal) ([]*renewal, error) {
	for _, w := range together {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: w.id}); err != nil {
			break // Recv says more.
		}
	}
	for i, w := range together {
		answer, err := stream.Recv()
		switch {
		case err != nil:
			return together[i:], err
		case answer.ID != w.id:
			return together[i:], errors.New("renewals are answered out of order")
		case answer.TTL <= 0:
			w.end(nil, ErrLeaseNotFound)
		default:
			w.end(answer, nil)
		}
	}
	return nil, nil
}

// again has those wait once more whom another stream may help.
func (l *lane) again(left []*renewal, err error, made *attempt) {
	for _, w := range left {
		refused := !unsettled(err) && !l.client.tokenRefused(err, made)
		if refused || !l.add(w) {
			w.end(nil, err)
		}
	}
}

const (
	// renewalsTogether go out before the first answer is waited for.
	renewalsTogether = 128

	// renewalsPatience is how long they may all stay unanswered before another
	// member is asked.
	renewalsPatience = 3 * time.Second
)

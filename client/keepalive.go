package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// KeepAliveOnce renews a lease and tells its TTL, or that there is none such.
func (c *Client) KeepAliveOnce(ctx context.Context, id int64) (*pb.LeaseKeepAliveResponse, error) {
	return call(requireLeader(ctx), c, reads, c.renewOnce, &pb.LeaseKeepAliveRequest{ID: id})
}

// renewOnce is a renewal in the shape of a unary call. Options that look at the
// outcome are left out: a stream sets them when it likes.
func (c *Client) renewOnce(
	ctx context.Context, r *pb.LeaseKeepAliveRequest, _ ...grpc.CallOption,
) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	return renew(stream, r)
}

func renew(
	stream pb.Lease_LeaseKeepAliveClient, r *pb.LeaseKeepAliveRequest,
) (*pb.LeaseKeepAliveResponse, error) {
	if err := stream.Send(r); err != nil && err != io.EOF { // At EOF Recv says more.
		return nil, err
	}
	answer, err := stream.Recv()
	switch {
	case err == io.EOF:
		return nil, status.Error(codes.Unavailable, "the member ended the stream of renewals")
	case err != nil:
		return nil, err
	case answer.TTL <= 0:
		return nil, ErrLeaseNotFound
	}
	return answer, nil
}

// KeepAlive renews a lease until it is stopped, or the lease is lost.
type KeepAlive struct {
	client   *Client
	id       int64
	ctx      context.Context
	cancel   context.CancelFunc
	renewals chan *pb.LeaseKeepAliveResponse
	err      error // Set before renewals is closed.
}

// KeepAlive renews a lease three times within its TTL. It ends with ctx; the
// lease then lives on for as long as it has left.
func (c *Client) KeepAlive(ctx context.Context, id int64) *KeepAlive {
	ctx, cancel := context.WithCancel(ctx)
	k := &KeepAlive{
		client: c, id: id, ctx: requireLeader(ctx), cancel: cancel,
		renewals: make(chan *pb.LeaseKeepAliveResponse, 1),
	}
	if !c.start("keepalive", k.run) {
		k.end(ErrClosed)
	}
	return k
}

// Renewals delivers answers to renewals, the latest only if nobody reads them
// in time. The channel is closed when renewing has ended, and Err tells why.
func (k *KeepAlive) Renewals() <-chan *pb.LeaseKeepAliveResponse { return k.renewals }

// Err is why renewing ended: nil after Stop or the end of its context,
// ErrLeaseNotFound when the lease is gone, ErrLeaseNotRenewed when its time
// passed without an answer, so that it must be taken for gone. Only valid once
// Renewals is closed.
func (k *KeepAlive) Err() error { return k.err }

// Stop ends renewing.
func (k *KeepAlive) Stop() { k.cancel() }

func (k *KeepAlive) end(err error) {
	k.cancel()
	k.err = err
	close(k.renewals)
}

func (k *KeepAlive) run(closed context.Context) {
	stop := context.AfterFunc(closed, k.cancel)
	defer stop()
	err := k.keep()
	switch {
	case closed.Err() != nil:
		err = ErrClosed
	case k.ctx.Err() != nil:
		err = nil
	}
	k.end(err)
}

// keep opens streams until the lease is lost.
func (k *KeepAlive) keep() error {
	clock := k.client.config.Clock
	life := &lifetime{start: clock.Mono()}
	delay := retryDelayMin
	for {
		before := life.start
		ctx, made := k.client.attempt(k.ctx)
		err := k.follow(ctx, life)
		if errors.Is(err, ErrLeaseNotFound) || k.ctx.Err() != nil {
			return err
		}
		if life.over(clock.Mono()) {
			return fmt.Errorf("lease %x, %v after its last renewal: %w: %w", k.id, clock.Mono()-life.start, ErrLeaseNotRenewed, err)
		}
		refused := k.client.tokenRefused(err, made)
		if life.ttl == 0 && !refused && !unsettled(err) {
			return err // Never renewed, and refused: another try would end alike.
		}
		k.client.config.Logger.Debug("lease lost its stream, asking again", "lease", k.id, "error", err)
		if life.start != before {
			delay = retryDelayMin
		}
		k.client.pause(k.ctx, &delay)
	}
}

// unsettled reports whether an error leaves hope for the next try.
func unsettled(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.Canceled, codes.DeadlineExceeded:
		return true
	}
	return errors.Is(err, ErrNotForLearner)
}

// lifetime is what this side may believe of a lease: it lives for ttl after
// the last renewal that was answered went out.
type lifetime struct {
	start time.Duration
	ttl   time.Duration // Zero before the first answer: nothing is known.
}

func (l *lifetime) over(now time.Duration) bool { return l.ttl > 0 && now-l.start >= l.ttl }

// follow renews over one stream for as long as that works.
func (k *KeepAlive) follow(ctx context.Context, life *lifetime) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clock := k.client.config.Clock
	// Everything that could wait for ever ends with this timer.
	patience := clock.AfterFunc(k.patience(life, clock.Mono()), cancel)
	defer func() { patience.Stop() }()

	stream, err := k.client.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return fromWire(err)
	}
	request := &pb.LeaseKeepAliveRequest{ID: k.id}
	for {
		sent := clock.Mono()
		answer, err := renew(stream, request)
		patience.Stop()
		if err != nil {
			return fromWire(err)
		}
		life.start, life.ttl = sent, time.Duration(answer.TTL)*time.Second
		k.report(answer)
		select {
		case <-clock.After(max(life.ttl/3, renewalWaitMin)):
		case <-k.ctx.Done():
			return k.ctx.Err()
		}
		patience = clock.AfterFunc(k.patience(life, clock.Mono()), cancel)
	}
}

// patience is how long to wait for an answer before asking another member: a
// third of the TTL, and never past the end of the lease.
func (k *KeepAlive) patience(life *lifetime, now time.Duration) time.Duration {
	if life.ttl == 0 {
		return k.client.config.RequestTimeout
	}
	left := max(life.start+life.ttl-now, 0)
	return min(max(life.ttl/3, renewalPatienceMin), left)
}

// report replaces an answer that nobody has read yet.
func (k *KeepAlive) report(answer *pb.LeaseKeepAliveResponse) {
	for {
		select {
		case k.renewals <- answer:
			return
		default:
		}
		select {
		case <-k.renewals:
		default:
		}
	}
}

package kubelet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lease is what is known of the node's lease in the store.
type lease struct {
	longer chan struct{} // Holds one: it was renewed.

	mu struct {
		sync.Mutex
		acked  time.Duration // When a renewal was answered last.
		until  time.Duration // It stands until then for sure, by the monotonic clock.
		length time.Duration // What each renewal gives it. 0: not known yet.
		fenced bool
		timer  clock.Timer
	}
}

// keepLease renews the node's lease.
func (k *Kubelet) keepLease(ctx context.Context) error {
	defer k.lease.end()
	delay := retryDelayMin
	for {
		began := k.clock.Mono()
		err := k.renew(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case status.Code(err) == codes.NotFound:
			k.log.Warn("the node's object is gone, registering anew")
			node, err := k.register(ctx)
			if err != nil {
				return err
			}
			k.keepNode(node)
		case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.InvalidArgument:
			return err
		case errors.Is(err, errTaken):
			k.log.Warn("another kubelet of this name lives", "error", err)
		default:
			k.log.Debug("heartbeats end, beginning again", "error", err)
		}
		if k.clock.Mono()-began > k.lease.ttl() {
			delay = retryDelayMin
		}
		if !k.pause(ctx, delay) {
			return ctx.Err()
		}
		delay = min(2*delay, k.lease.ttl()/6)
	}
}

var errTaken = objects.ErrGuard

// renew lives as long as one stream does.
func (k *Kubelet) renew(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interval := k.lease.ttl() / 3
	impatient := k.clock.AfterFunc(interval, cancel)
	defer impatient.Stop()
	stream, err := k.client.RPC().Heartbeat(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		sent := k.clock.Mono()
		err := stream.Send(&kubepb.HeartbeatRequest{Node: k.cfg.Node, Instance: k.cfg.Instance})
		var answer *kubepb.HeartbeatResponse
		if err == nil || first {
			answer, err = stream.Recv() // The reason of an end is here.
		}
		if err != nil {
			return err
		}
		impatient.Stop()
		ttl := time.Duration(answer.TtlMilliseconds) * time.Millisecond
		k.acknowledged(sent, ttl)
		interval = k.lease.ttl() / 3
		k.heardHold(answer)
		k.cfg.Heard(answer)
		if first {
			rouse(k.claimed)
		}
		select {
		case <-k.clock.After(interval - (k.clock.Mono() - sent)):
		case <-k.beat: // Somebody thinks that it is silent.
		case <-ctx.Done():
			return ctx.Err()
		}
		impatient.Reset(interval)
	}
}

func rouse(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

// ttl is how long a renewal lasts.
func (l *lease) ttl() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.length <= 0 {
		return leaseTTL
	}
	return l.mu.length
}

// acknowledged notes how long the lease stands, and arms the fence.
func (k *Kubelet) acknowledged(sent, ttl time.Duration) {
	l := &k.lease
	l.mu.Lock()
	l.mu.length, l.mu.acked = ttl, k.clock.Mono()
	was := l.mu.fenced
	l.mu.Unlock()
	l.stands(k, sent+ttl)
	rouse(l.longer)
	if was {
		k.log.Info("the node has its lease again")
		k.pods.pokeAll()
	}
}

// stands arms the fence for the end of the lease.
func (l *lease) stands(k *Kubelet, until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.until, l.mu.fenced = until, false
	left := until - fenceMargin - k.clock.Mono()
	if l.mu.timer == nil {
		l.mu.timer = k.clock.AfterFunc(left, k.fence)
	} else {
		l.mu.timer.Reset(left)
	}
}

// answeredSince reports whether the control plane has heard of the node since then.
func (k *Kubelet) answeredSince(t time.Duration) bool {
	k.lease.mu.Lock()
	defer k.lease.mu.Unlock()
	return k.lease.mu.acked > t
}

// fence is called when the lease may end soon.
func (k *Kubelet) fence() {
	k.lease.mu.Lock()
	late := k.clock.Mono() >= k.lease.mu.until-fenceMargin
	k.lease.mu.fenced = k.lease.mu.fenced || late
	k.lease.mu.Unlock()
	if late {
		k.log.Warn("the node's lease may end: singletons are stopped")
		k.pods.pokeAll()
	}
}

// mayHaveEnded reports whether somebody else may take this node for dead. A process
// that was stopped for a while finds out here, before any timer has fired.
func (k *Kubelet) mayHaveEnded() bool {
	k.lease.mu.Lock()
	defer k.lease.mu.Unlock()
	return k.lease.mu.fenced || k.lease.mu.until == 0 || k.clock.Mono() >= k.lease.mu.until-fenceMargin
}

// left is how long the lease stands for sure.
func (l *lease) left(k *Kubelet) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, l.mu.until-fenceMargin-k.clock.Mono())
}

func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.timer != nil {
		l.mu.timer.Stop()
	}
}

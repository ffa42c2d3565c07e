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
	mu struct {
		sync.Mutex
		until    time.Duration // It stands until then for sure, by the monotonic clock.
		timeline uint64
		fenced   bool
		timer    clock.Timer
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
			if _, err := k.register(ctx); err != nil {
				return err
			}
		case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.InvalidArgument:
			return err
		case errors.Is(err, errTaken):
			k.log.Warn("another kubelet of this name lives", "error", err)
		default:
			k.log.Debug("heartbeats end, beginning again", "error", err)
		}
		if k.clock.Mono()-began > ttlSeconds*time.Second {
			delay = retryDelayMin
		}
		if !k.pause(ctx, delay) {
			return ctx.Err()
		}
		delay = min(2*delay, ttlSeconds*time.Second/6)
	}
}

var errTaken = objects.ErrGuard

// renew lives as long as one stream does.
func (k *Kubelet) renew(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const interval = ttlSeconds * time.Second / 3
	impatient := k.clock.AfterFunc(interval, cancel)
	defer impatient.Stop()
	stream, err := k.client.RPC().Heartbeat(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		sent := k.clock.Mono()
		err := stream.Send(&kubepb.HeartbeatRequest{Node: k.cfg.Node, Instance: k.cfg.Instance, TtlSeconds: ttlSeconds})
		var answer *kubepb.HeartbeatResponse
		if err == nil || first {
			answer, err = stream.Recv() // The reason of an end is here.
		}
		if err != nil {
			return err
		}
		impatient.Stop()
		k.acknowledged(sent+time.Duration(answer.TtlMilliseconds)*time.Millisecond, answer.Timeline)
		k.cfg.Heard(answer)
		if first {
			rouse(k.claimed)
		}
		if !k.pause(ctx, interval-(k.clock.Mono()-sent)) {
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

// acknowledged notes how long the lease stands, and arms the fence.
func (k *Kubelet) acknowledged(until time.Duration, timeline uint64) {
	l := &k.lease
	l.mu.Lock()
	if before := l.mu.timeline; before != timeline && before != 0 {
		k.log.Warn("the store was restored: it is on another timeline", "before", before, "now", timeline)
	}
	l.mu.until, l.mu.timeline = until, timeline
	was := l.mu.fenced
	l.mu.fenced = false
	left := until - fenceMargin - k.clock.Mono()
	if l.mu.timer == nil {
		l.mu.timer = k.clock.AfterFunc(left, k.fence)
	} else {
		l.mu.timer.Reset(left)
	}
	l.mu.Unlock()
	if was {
		k.log.Info("the node has its lease again")
		k.pods.pokeAll()
	}
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

func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.timer != nil {
		l.mu.timer.Stop()
	}
}

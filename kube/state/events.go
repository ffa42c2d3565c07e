package state

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
)

// eventLease is the lease of the store that events of these minutes are on.
type eventLease struct {
	mu struct {
		sync.Mutex
		id    int64 // 0: none.
		since time.Duration
	}
}

// admitEvent returns the lease that an event ends with, if its source may write one.
func (a *attempt) admitEvent(ctx context.Context, e *corev1.Event) (int64, error) {
	s := a.service
	if n := e.Size(); n > eventBytesMax {
		return 0, invalid("an event of %d bytes; %d are the most", n, eventBytesMax)
	}
	if !a.counted {
		rates := s.eventRates
		if name := a.identity.Name; name == auth.SchedulerUser || name == auth.ControllersUser {
			rates = s.partRates
		}
		if !rates.take(a.identity.Name) {
			return 0, fmt.Errorf("events of %s: it writes more than %v a second, %w for another", a.identity.Name, rates.perSecond, errFull)
		}
		a.counted = true
	}
	if e.FirstTimestamp.IsZero() && e.EventTime.IsZero() {
		e.FirstTimestamp = e.CreationTimestamp
	}
	if e.LastTimestamp.IsZero() && e.EventTime.IsZero() {
		e.LastTimestamp = e.FirstTimestamp
	}
	return s.events.current(ctx, s)
}

// current is a lease that lasts for eventTTL at least. Two who find none grant one
// each, and the second runs out unused.
func (l *eventLease) current(ctx context.Context, s *Service) (int64, error) {
	now := s.clock.Mono()
	if id := l.at(now); id != 0 {
		return id, nil
	}
	granted, err := s.store.Grant(ctx, eventTTL+eventLeaseShare, 0)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.id, l.mu.since = granted.ID, now
	return granted.ID, nil
}

func (l *eventLease) at(now time.Duration) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now-l.mu.since >= eventLeaseShare*time.Second {
		return 0
	}
	return l.mu.id
}

// forget drops a lease that the store does not know: it was restored, or somebody
// revoked it.
func (l *eventLease) forget() {
	l.mu.Lock()
	l.mu.id = 0
	l.mu.Unlock()
}

package recipe

import (
	"context"

	"github.com/holdfast-db/holdfast/client"
)

// Lock is held by one session at a time, in the order of asking. It belongs to
// one goroutine; those that share a session share what it holds.
type Lock struct {
	claim claim
}

// NewLock returns a lock of that name, not held yet.
func NewLock(s *Session, name string) *Lock { return &Lock{newClaim(s, name)} }

// Lock waits until the session has the lock.
func (l *Lock) Lock(ctx context.Context) error {
	if _, err := l.claim.make(ctx, ""); err != nil {
		return err
	}
	return l.claim.hold(ctx)
}

// TryLock takes the lock if it is free, or fails with ErrLocked.
func (l *Lock) TryLock(ctx context.Context) error {
	if _, err := l.claim.make(ctx, ""); err != nil {
		return err
	}
	owner, _, err := l.claim.oldest(ctx)
	switch {
	case err != nil:
		l.claim.giveUp(ctx)
		return err
	case owner == nil:
		return ErrSessionExpired
	case owner.CreateRevision == l.claim.created:
		return nil
	}
	if _, err = l.claim.drop(ctx); err != nil {
		return err
	}
	l.claim.created = 0
	return ErrLocked
}

// Unlock lets go.
func (l *Lock) Unlock(ctx context.Context) error {
	if l.claim.created == 0 {
		return ErrLockReleased
	}
	if _, err := l.claim.drop(ctx); err != nil {
		return err
	}
	l.claim.created = 0
	return nil
}

// Key exists while the session waits for the lock or holds it.
func (l *Lock) Key() string { return l.claim.key }

// Held is true in a transaction that is executed while the lock is held.
func (l *Lock) Held() client.Compare { return l.claim.held() }

// Package recipe is what programs build on keys and leases to agree with each
// other: sessions, locks, elections and transactions over what was read.
//
//	s, err := recipe.NewSession(ctx, c, recipe.SessionConfig{TTL: 10})
//	l := recipe.NewLock(s, "jobs/nightly")
//	err = l.Lock(ctx)
//	_, err = c.Txn(ctx, client.Txn{If: []client.Compare{l.Held()}, Then: …})
//
// Keys are those of etcd's own recipes and of the lock and election services of
// the server, so that all of them exclude each other.
//
// Invariant: whoever waits or holds has a key that is bound to the session's
// lease. A process that crashes keeps nobody waiting for longer than its TTL.
// A process that was only slow may think that it still holds what it has lost:
// put Held into the transactions that matter.
package recipe

import (
	"context"
	"errors"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/task"
)

// Errors of this package. Those that servers tell have the same words.
var (
	// ErrSessionExpired means that the lease ended while its owner waited.
	ErrSessionExpired = errors.New("mutex: session is expired")

	// ErrLocked means that somebody else has the lock.
	ErrLocked = errors.New("mutex: locked by another session")

	// ErrLockReleased means that the lock was not held.
	ErrLockReleased = errors.New("mutex: lock has already been released")

	// ErrNotLeader means that the leadership is over, or never was.
	ErrNotLeader = errors.New("election: not leader")

	// ErrNoLeader means that nobody stands for election.
	ErrNoLeader = errors.New("election: no leader")
)

// SessionConfig says what a session stands on.
type SessionConfig struct {
	TTL   int64 // Seconds that the session outlives its process. Default 60.
	Lease int64 // Of somebody else, to be kept alive. Zero: a new one.
}

const ttlDefault = 60

// Session keeps a lease alive until it is closed or lost.
type Session struct {
	client *client.Client
	lease  int64
	keep   *client.KeepAlive
	tasks  *task.Group
	done   chan struct{}
	err    error // Set before done is closed.
}

// NewSession begins a session. It ends with ctx too; the lease then lives on
// for as long as it has left.
func NewSession(ctx context.Context, c *client.Client, cfg SessionConfig) (*Session, error) {
	if cfg.TTL == 0 {
		cfg.TTL = ttlDefault
	}
	if cfg.Lease == 0 {
		granted, err := c.Grant(ctx, cfg.TTL, 0)
		if err != nil {
			return nil, err
		}
		cfg.Lease = granted.ID
	}
	s := &Session{client: c, lease: cfg.Lease, tasks: task.New(context.Background()), done: make(chan struct{})}
	s.keep = c.KeepAlive(ctx, s.lease)
	s.tasks.Go("session", func(context.Context) error {
		for range s.keep.Renewals() {
		}
		s.err = s.keep.Err()
		close(s.done)
		return nil
	})
	return s, nil
}

// Lease is what the session's keys are bound to.
func (s *Session) Lease() int64 { return s.lease }

// Done is closed when the session is over, and Err tells why.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why the session is over: nil if its owner wanted that. Only valid once
// Done is closed.
func (s *Session) Err() error { return s.err }

// Orphan ends the session, and leaves its lease what it has left.
func (s *Session) Orphan() {
	s.keep.Stop()
	<-s.done
}

// Close ends the session and its lease, and so lets go of everything. That the
// lease has ended already is no error.
func (s *Session) Close(ctx context.Context) error {
	s.Orphan()
	_, err := s.client.Revoke(ctx, s.lease)
	if errors.Is(err, client.ErrLeaseNotFound) {
		return nil
	}
	return err
}

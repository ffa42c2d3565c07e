package state

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
)

// barrier asks the store how far it is, once for all who ask at the same time.
type barrier struct {
	mu struct {
		sync.Mutex
		current *round // The latest that has begun.
		next    *round // That has not begun: who comes now may join.
	}
}

// round is one question to the store.
type round struct {
	done     chan struct{}
	revision int64
	err      error
}

// now returns a revision that includes all that happened before the call.
func (b *barrier) now(ctx context.Context, ask func() (int64, error)) (int64, error) {
	b.mu.Lock()
	r := b.mu.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		b.mu.next = r
	} else {
		b.mu.Unlock() // Somebody asks for both once the round under way is over.
		return r.wait(ctx, ask)
	}
	before := b.mu.current
	b.mu.Unlock()
	if before != nil {
		<-before.done // Its asker's context ends it.
	}
	b.mu.Lock()
	b.mu.current, b.mu.next = r, nil
	b.mu.Unlock()
	r.revision, r.err = ask()
	close(r.done)
	return r.revision, r.err
}

func (r *round) wait(ctx context.Context, ask func() (int64, error)) (int64, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if r.err != nil {
		return ask() // Another's failure need not be ours.
	}
	return r.revision, nil
}

// fresh waits until the cache has all that happened before the call, and returns
// the revision that it has come to at least.
func (s *Service) fresh(ctx context.Context) (int64, error) {
	revision, err := s.barrier.now(ctx, func() (int64, error) {
		r, err := s.store.Get(ctx, client.Get{Range: client.One(keysFirst), CountOnly: true})
		if err != nil {
			return 0, err
		}
		return r.Header.Revision, nil
	})
	if err != nil {
		return 0, err
	}
	return revision, s.reach(ctx, revision)
}

// at waits until the cache is as new as a read asks for: 0 is now.
func (s *Service) at(ctx context.Context, version int64) error {
	if version < 0 {
		return invalid("resource_version: %d is none", version)
	}
	if version != 0 && s.cache.revision() >= version {
		return nil
	}
	newest, err := s.fresh(ctx)
	if err == nil && newest < version { // The store was restored, or it is made up.
		return fmt.Errorf("resource version %d, and the newest is %d: %w", version, newest, errExpired)
	}
	return err
}

// reach waits until the cache has come to a revision.
func (s *Service) reach(ctx context.Context, revision int64) error {
	return s.cache.wait(ctx, s.clock, revision, s.askProgress)
}

// askProgress has the store say how far the watch is: what was written may be none
// of our keys.
func (s *Service) askProgress() {
	s.upstream.Lock()
	w := s.upstream.watcher
	s.upstream.Unlock()
	if w != nil {
		_ = w.RequestProgress() // It is asked again, or a new watch says more.
	}
}

func (s *Service) setWatcher(w *client.Watcher) {
	s.upstream.Lock()
	s.upstream.watcher = w
	s.upstream.Unlock()
}

// wait returns when the cache has come to a revision. It calls ask while it waits.
func (c *cache) wait(ctx context.Context, clk clock.Clock, revision int64, ask func()) error {
	start := clk.Mono()
	for due := true; ; {
		is := c.at.Load()
		switch {
		case is.closed:
			return client.ErrClosed
		case is.revision >= revision:
			return nil
		case clk.Mono()-start > patienceMax:
			return errBehind
		}
		if due {
			ask()
		}
		retry := progressRetry
		if is.revision == 0 {
			retry = time.Second
		}
		select {
		case <-is.advanced:
			due = false // It is on its way.
		case <-clk.After(retry):
			due = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *cache) revision() int64 {
	return c.at.Load().revision
}

// close wakes all who wait, and ends all watches.
func (c *cache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.at.Load()
	if was.closed {
		return
	}
	c.at.Store(&progress{revision: was.revision, advanced: make(chan struct{}), closed: true})
	close(was.advanced)
	for _, shelf := range c.mu.shelves { //tidy:ordered each has its own crowd
		shelf.crowd.expire()
	}
}

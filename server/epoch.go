package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// What a member does about the epochs of its archive.
const (
	// EpochAuto is strict with an archive in sync mode and off with an async one,
	// where an outage of the store would become one of writes.
	EpochAuto = "auto"
	// EpochOff acknowledges whatever the archive says.
	EpochOff = "off"
	// EpochStrict acknowledges nothing unless the member has looked in the last
	// seconds that its cluster was not given up.
	EpochStrict = "strict"
)

// EpochStrict is what --archive-epoch comes to.
func (c *Config) EpochStrict() bool {
	return c.ArchiveURL != "" && (c.ArchiveEpoch == EpochStrict || c.ArchiveEpoch == EpochAuto && c.ArchiveMode == ArchiveSync)
}

// epochFence keeps a member whose cluster an operator has recovered elsewhere
// from acknowledging. Members look by themselves, as each of them answers
// clients; whoever leads does not matter.
//
// Invariant: an answer that left the fence was allowed by a look that had begun
// at most archive.EpochTTL before, and found no epoch.
type epochFence struct {
	on    bool // Set once.
	clock clock.Clock
	last  atomic.Pointer[epochLook] // That found none.
	over  atomic.Bool               // There is an epoch: for good.
	first chan struct{}             // Closed with the first look that told something.
	told  sync.Once
}

// epochLook is when a look was begun.
type epochLook struct {
	mono time.Duration
	wall time.Time
}

// newEpochFence is off unless strict.
func newEpochFence(clk clock.Clock, strict bool) *epochFence {
	return &epochFence{on: strict, clock: clk, first: make(chan struct{})}
}

// look asks once.
func (f *epochFence) look(ctx context.Context, newest func(context.Context) (ident.Timeline, error)) (ident.Timeline, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer f.clock.AfterFunc(epochLookMax, cancel).Stop()
	mono, wall := f.clock.Mono(), f.clock.Wall()
	n, err := newest(ctx)
	switch {
	case err != nil:
	case n > 0:
		f.over.Store(true)
	default:
		f.last.Store(&epochLook{mono, wall})
	}
	if err == nil {
		f.told.Do(func() { close(f.first) })
	}
	return n, err
}

// open tells whether the member may acknowledge now. Both clocks have a say: the
// monotonic one stands still while a machine sleeps, and the other may be set
// back.
func (f *epochFence) open() error {
	if !f.on {
		return nil
	}
	if f.over.Load() {
		return errSuperseded
	}
	began := f.last.Load()
	if began == nil || f.clock.Mono()-began.mono >= archive.EpochTTL || f.clock.Wall().Sub(began.wall) >= archive.EpochTTL {
		return errEpochUnread
	}
	return nil
}

// mayAcknowledge waits for the first look of a member that has just started, as
// requests wait for a leader, and then tells.
func (c *core) mayAcknowledge(ctx context.Context) error {
	if !c.epoch.on {
		return nil
	}
	select {
	case <-c.epoch.first:
		return c.epoch.open()
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.cfg.Clock.AfterFunc(c.timeout(), cancel).Stop()
	select {
	case <-c.epoch.first:
	case <-ctx.Done():
	}
	return c.epoch.open()
}

// watchEpoch looks for an epoch of this cluster, again and again.
func (s *Server) watchEpoch(ctx context.Context, store blobstore.Store) error {
	cluster, err := s.awaitCluster(ctx)
	if err != nil {
		return nil // The member is stopping.
	}
	newest := func(ctx context.Context) (ident.Timeline, error) {
		a, err := archive.Open(ctx, store, archive.UUID(cluster.Uuid), nil)
		if err != nil {
			return 0, err
		}
		return a.NewestEpoch(ctx)
	}
	wasOpen := true
	for {
		n, err := s.epoch.look(ctx, newest)
		closed := s.epoch.open()
		switch {
		case ctx.Err() != nil:
			return nil
		case n > 0:
			s.log.Error("THIS CLUSTER WAS GIVEN UP: an operator has recovered it elsewhere; nothing is acknowledged here any more, stop this member", "epoch", n, "archive", store.String())
			return nil
		case closed != nil && wasOpen:
			s.log.Warn("nothing is acknowledged until the archive tells that this cluster was not given up", "archive", store.String(), "error", err)
		case closed == nil && !wasOpen:
			s.log.Info("the archive tells that this cluster was not given up, writes are acknowledged")
		}
		wasOpen = closed == nil
		select {
		case <-s.cfg.Clock.After(s.epoch.pause()):
		case <-ctx.Done():
			return nil
		}
	}
}

// pause before the next look. Until the first one requests wait.
func (f *epochFence) pause() time.Duration {
	if f.last.Load() == nil {
		return epochSoon
	}
	return epochEvery
}

const (
	// epochEvery is how often a member looks; three looks may fail before it stops
	// to acknowledge.
	epochEvery   = 2 * time.Second
	epochLookMax = 3 * time.Second
	epochSoon    = 200 * time.Millisecond
)

package replica

import (
	"context"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
)

const (
	// mannersRest is how many times as long as a piece of work took it rests while
	// clients write: a seventh of one processor is what it then takes of them.
	mannersRest    = 6
	mannersRestMax = time.Second // A piece that took long has waited for others already.
)

// Manners are those of long work beside the log, as a snapshot for a client is:
// it rests after each piece while entries come, and goes on at once where none
// did. One goroutine.
type Manners struct {
	clock   clock.Clock
	applied func() ident.Index
	last    ident.Index   // At the end of the piece before.
	since   time.Duration // When this piece began.
}

// Manners begins a piece of work.
func (r *Replica) Manners() *Manners {
	return newManners(r.cfg.Clock, func() ident.Index { return r.Store().Applied().Position.Index })
}

func newManners(c clock.Clock, applied func() ident.Index) *Manners {
	return &Manners{clock: c, applied: applied, last: applied(), since: c.Mono()}
}

// GiveWay ends a piece of work and begins the next.
func (m *Manners) GiveWay(ctx context.Context) error {
	applied := m.applied()
	if applied != m.last {
		rest := min(mannersRest*(m.clock.Mono()-m.since), mannersRestMax)
		select {
		case <-m.clock.After(rest):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.last, m.since = m.applied(), m.clock.Mono()
	return nil
}

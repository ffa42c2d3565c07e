package replica

import (
	"context"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
)

const (
	// mannersRest is how many times as long as a piece of work took it rests while
	// clients write: a seventh of one processor is what it then takes of them.
	mannersRest    = 6
	mannersRestMax = time.Second // A piece that took long has waited for others already.
	// mannersGrowthMax is how far the store may grow while work rests that holds up
	// merges: what is written meanwhile counts in the quota, and a compaction gives
	// none of it back.
	mannersGrowthMax = 256 << 20
)

// Manners are those of long work beside the log, as a snapshot for a client is:
// it rests after each piece while entries come, and goes on at once where none
// did. One goroutine.
type Manners struct {
	clock   clock.Clock
	applied func() ident.Index
	hurried func() bool   // Others wait for the end of it: no rest.
	last    ident.Index   // At the end of the piece before.
	since   time.Duration // When this piece began.
}

// Manners begins a piece of work.
func (r *Replica) Manners() *Manners {
	return newManners(r.cfg.Clock, func() ident.Index { return r.Store().Applied().Position.Index }, func() bool { return false })
}

// mannersFrozen begins a piece of work for which a store is frozen.
func (r *Replica) mannersFrozen(store *mvcc.Store) *Manners {
	before := store.Bytes()
	return newManners(r.cfg.Clock, func() ident.Index { return store.Applied().Position.Index }, func() bool { return store.Bytes()-before > mannersGrowthMax })
}

func newManners(c clock.Clock, applied func() ident.Index, hurried func() bool) *Manners {
	return &Manners{clock: c, applied: applied, hurried: hurried, last: applied(), since: c.Mono()}
}

// GiveWay ends a piece of work and begins the next.
func (m *Manners) GiveWay(ctx context.Context) error {
	applied := m.applied()
	if applied != m.last && !m.hurried() {
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

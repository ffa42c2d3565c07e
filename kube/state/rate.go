package state

import (
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// rates bounds what each of many sources does: so many at once, so many a second.
type rates struct {
	clock     clock.Clock
	perSecond float64
	burst     float64
	max       int // Sources.

	mu struct {
		sync.Mutex
		sources map[string]*bucket
	}
}

type bucket struct {
	left float64
	at   time.Duration
}

func newRates(c clock.Clock, perSecond, burst float64, most int) *rates {
	r := &rates{clock: c, perSecond: perSecond, burst: burst, max: most}
	r.mu.sources = map[string]*bucket{}
	return r
}

// take reports whether a source may do one more.
func (r *rates) take(source string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Mono()
	b := r.mu.sources[source]
	if b == nil {
		if len(r.mu.sources) >= r.max {
			r.forgetLocked(now)
		}
		if len(r.mu.sources) >= r.max {
			return false
		}
		b = &bucket{left: r.burst, at: now}
		r.mu.sources[source] = b
	}
	b.left = min(r.burst, b.left+(now-b.at).Seconds()*r.perSecond)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// forgetLocked drops sources that have been still for so long that they have all again.
func (r *rates) forgetLocked(now time.Duration) {
	for source, b := range r.mu.sources { //tidy:ordered each by itself
		if b.left+(now-b.at).Seconds()*r.perSecond >= r.burst {
			delete(r.mu.sources, source)
		}
	}
}

package raftnode

import (
	"slices"
	"sync"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// readers keeps those who wait until a linearizable read may look at the state.
// All who arrive before the loop turns share one group; a group is sealed
// before its round is issued, so that nobody joins too late (rule 22).
type readers struct {
	mu struct {
		sync.Mutex
		sealed    uint64       // Number of the newest sealed group.
		gathering *readGroup   // Takes new readers; nil when nobody waits.
		issued    []*readGroup // Sealed, wait for their round; in order.
		confirmed []*readGroup // Wait for apply.
		forsaken  int          // At least so many groups were left by all since the last look through these two.
		applied   ident.Index
	}
}

type readGroup struct {
	number  uint64
	waiting int           // Who have not given up.
	index   ident.Index   // Once confirmed.
	done    chan struct{} // Closed when the state is fresh enough.
}

// join returns what to wait for, and whether the loop must be told. Who gives up
// leaves.
func (r *readers) join() (g *readGroup, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first = r.mu.gathering == nil; first {
		r.mu.gathering = &readGroup{done: make(chan struct{})}
	}
	r.mu.gathering.waiting++
	return r.mu.gathering, first
}

// leave counts one out who got no answer. While there is no leader no round ends,
// and what nobody waits for any more must not pile up.
func (r *readers) leave(g *readGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.waiting--; g.waiting > 0 || g == r.mu.gathering {
		return
	}
	if r.mu.forsaken++; 2*r.mu.forsaken <= len(r.mu.issued)+len(r.mu.confirmed) {
		return
	}
	nobody := func(g *readGroup) bool { return g.waiting == 0 }
	r.mu.issued = slices.DeleteFunc(r.mu.issued, nobody)
	r.mu.confirmed = slices.DeleteFunc(r.mu.confirmed, nobody)
	r.mu.forsaken = 0
}

// seal closes the group that gathers. It returns the number up to which rounds are wanted.
func (r *readers) seal() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.mu.gathering; g != nil && g.waiting > 0 {
		r.mu.sealed++
		g.number = r.mu.sealed
		r.mu.issued = append(r.mu.issued, g)
	}
	r.mu.gathering = nil
	return r.mu.sealed
}

// confirm says that groups up to number may look at a state that includes index.
func (r *readers) confirm(number uint64, index ident.Index) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for n < len(r.mu.issued) && r.mu.issued[n].number <= number {
		g := r.mu.issued[n]
		if index <= r.mu.applied {
			close(g.done)
		} else {
			g.index = index
			r.mu.confirmed = append(r.mu.confirmed, g)
		}
		n++
	}
	r.mu.issued = append(r.mu.issued[:0], r.mu.issued[n:]...)
}

// appliedTo wakes those whose index was applied. The state is published by now.
func (r *readers) appliedTo(index ident.Index) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.applied = max(r.mu.applied, index)
	if len(r.mu.confirmed) == 0 {
		return
	}
	kept := r.mu.confirmed[:0]
	for _, g := range r.mu.confirmed {
		if g.index <= r.mu.applied {
			close(g.done)
		} else {
			kept = append(kept, g)
		}
	}
	clear(r.mu.confirmed[len(kept):])
	r.mu.confirmed = kept
}

// Package keeper knows when leases run out.
//
// Every member keeps one beside its state machine, which tells it of grants and
// revocations; it counts only while the member leads. Package server asks it
// what is due, proposes the end of that, and lets clients renew through it. A
// simulation does the same on its own clock. Nothing here is durable: after a
// crash, or with another leader, every lease has its full time again.
package keeper

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// ExpiredMax leases are taken away by one entry, so that a flood of them does
// not hold up everybody's writes.
const ExpiredMax = 1000

// Keeper knows when leases run out, while this member leads.
//
// Time is the leader's alone, and monotonic: nobody else counts, and a new
// leader gives every lease its full time again, plus an election timeout for
// what was renewed with the old one. The keeper removes nothing: it names what
// has run out, and an entry of the log does the rest.
//
// Invariant: only leases that the state machine knows are in the keeper.
type Keeper struct {
	clock    clock.Clock
	election time.Duration

	mu     sync.Mutex
	leases map[ident.LeaseID]*keptLease
	due    leaseHeap  // By deadline; while leading, and without those proposed for expiry.
	term   ident.Term // Of our leadership; zero while somebody else leads.
}

type keptLease struct {
	id       ident.LeaseID
	ttl      time.Duration
	deadline time.Duration // By clock.Mono.
	at       int           // In the heap, -1 when not there.
	gone     chan struct{} // Closed once revoked.
}

func New(c clock.Clock, election time.Duration) *Keeper {
	return &Keeper{clock: c, election: election, leases: map[ident.LeaseID]*keptLease{}}
}

// Granted takes in a lease. Called by the state machine.
func (k *Keeper) Granted(id ident.LeaseID, ttlSeconds int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.leases[id]; old != nil {
		k.removeLocked(old)
	}
	l := &keptLease{id: id, ttl: time.Duration(ttlSeconds) * time.Second, at: -1, gone: make(chan struct{})}
	k.leases[id] = l
	l.deadline = k.clock.Mono() + l.ttl
	if k.term != 0 {
		heap.Push(&k.due, l)
	}
}

// Revoked takes a lease out. Called by the state machine.
func (k *Keeper) Revoked(id ident.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.leases[id]; l != nil {
		k.removeLocked(l)
	}
}

func (k *Keeper) removeLocked(l *keptLease) {
	if l.at >= 0 {
		heap.Remove(&k.due, l.at)
	}
	delete(k.leases, l.id)
	close(l.gone)
}

// Lead starts counting: every lease has its full time and an election timeout.
// Called again with the same term it does nothing.
func (k *Keeper) Lead(term ident.Term) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.term == term {
		return
	}
	k.term = term
	k.due = k.due[:0]
	now := k.clock.Mono()
	for _, l := range k.leases { //tidy:ordered the heap orders them
		l.deadline = now + l.ttl + k.election
		l.at = len(k.due)
		k.due = append(k.due, l)
	}
	heap.Init(&k.due)
}

// Follow stops counting.
func (k *Keeper) Follow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.term = 0
	for _, l := range k.due {
		l.at = -1
	}
	k.due = k.due[:0]
}

// Due names leases that have run out and takes them off the list, so that each
// is proposed once; Retry puts them back.
func (k *Keeper) Due() (ids []ident.LeaseID, term ident.Term) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Mono()
	for len(k.due) > 0 && k.due[0].deadline <= now && len(ids) < ExpiredMax {
		ids = append(ids, heap.Pop(&k.due).(*keptLease).id)
	}
	return ids, k.term
}

// Retry puts leases back whose expiry may not have taken effect.
func (k *Keeper) Retry(ids []ident.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		if l := k.leases[id]; l != nil && l.at < 0 && k.term != 0 {
			heap.Push(&k.due, l)
		}
	}
}

// Renew gives a lease its full time again and returns that in seconds, 0 when
// there is no such lease. One that has run out is not renewed: then gone is not
// nil, and is closed once the lease has been taken away.
func (k *Keeper) Renew(id ident.LeaseID) (ttlSeconds int64, gone <-chan struct{}, leading bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.term == 0 {
		return 0, nil, false
	}
	l := k.leases[id]
	if l == nil {
		return 0, nil, true
	}
	if l.at < 0 || l.deadline <= k.clock.Mono() {
		return 0, l.gone, true
	}
	l.deadline = k.clock.Mono() + l.ttl
	heap.Fix(&k.due, l.at)
	return int64(l.ttl / time.Second), nil, true
}

// Remaining tells the time a lease has left and what it was granted, in
// seconds; ok is false when there is no such lease.
func (k *Keeper) Remaining(id ident.LeaseID) (remaining, granted int64, ok, leading bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.term == 0 {
		return 0, 0, false, false
	}
	l := k.leases[id]
	if l == nil {
		return 0, 0, false, true
	}
	left := max(l.deadline-k.clock.Mono(), 0) // 0 until it is taken away: its keys are still there.
	return int64(left / time.Second), int64(l.ttl / time.Second), true, true
}

// List names all leases, those first that run out first. On a member that does
// not lead that is a guess.
func (k *Keeper) List() []ident.LeaseID {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.SortedFunc(maps.Values(k.leases), func(a, b *keptLease) int {
		return cmp.Or(cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.id, b.id))
	})
	ids := make([]ident.LeaseID, len(all))
	for i, l := range all {
		ids[i] = l.id
	}
	return ids
}

// leaseHeap orders leases by deadline, and by ID those with the same.
type leaseHeap []*keptLease

func (h leaseHeap) Len() int { return len(h) }

func (h leaseHeap) Less(i, j int) bool {
	return h[i].deadline < h[j].deadline || h[i].deadline == h[j].deadline && h[i].id < h[j].id
}

func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *leaseHeap) Push(x any) {
	l := x.(*keptLease)
	l.at = len(*h)
	*h = append(*h, l)
}

func (h *leaseHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.at = -1
	return l
}

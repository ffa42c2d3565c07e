package raftnode

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// waiters finds who waits for an answer. A request id names the member, this
// boot of it, and a number: entries of another boot answer nobody (rule 21).
type waiters struct {
	member ident.MemberID
	nonce  ident.Nonce
	last   atomic.Uint64
	count  atomic.Int64
	bytes  atomic.Int64
	closed atomic.Bool // Nobody is added any more.
	shards [waiterShards]waiterShard
	pool   sync.Pool
}

// waiterShards keeps handlers and apply from meeting on one lock.
const waiterShards = 64

type waiterShard struct {
	sync.Mutex
	waiting map[uint64]*waiter
	_       [48]byte // Each shard on its own cache line.
}

// waiter waits for one answer.
type waiter struct {
	request  entry.Request
	conf     *raftpb.ConfChangeV2 // Set for a configuration change.
	deadline time.Duration        // As the clock's Mono.
	claim    atomic.Uint64
	done     chan struct{} // Holds one token once the fields below are set.
	value    any
	err      error
	givenUp  error // Why there is no answer.
}

// A claim is the term in which Raft may have got the request, plus one, or one
// of these.
const (
	claimFree      = 0                  // Raft has not got the request.
	claimAbandoned = math.MaxUint64     // Nobody waits; Raft must not get it.
	claimUnknown   = math.MaxUint64 - 1 // Raft got it, and a snapshot hides what became of it.
)

// Gone implements Ticket.
func (w *waiter) Gone() bool { return w.claim.Load() == claimAbandoned }

// Claim implements Ticket.
func (w *waiter) Claim(term ident.Term) bool {
	for {
		old := w.claim.Load()
		if old == claimAbandoned {
			return false
		}
		if w.claim.CompareAndSwap(old, uint64(term)+1) {
			return true
		}
	}
}

// Release implements Ticket.
func (w *waiter) Release() {
	if old := w.claim.Load(); old != claimAbandoned {
		w.claim.CompareAndSwap(old, claimFree)
	}
}

// abandon reports whether Raft can be kept from getting the request.
func (w *waiter) abandon() bool { return w.claim.CompareAndSwap(claimFree, claimAbandoned) }

// claimedBefore reports whether Raft got the request in an earlier term.
func (w *waiter) claimedBefore(term ident.Term) bool {
	claim := w.claim.Load()
	return claim != claimFree && claim < claimUnknown && claim-1 < uint64(term)
}

func (s *waiters) init(member ident.MemberID, nonce ident.Nonce) {
	s.member, s.nonce = member, nonce
	for i := range s.shards {
		s.shards[i].waiting = make(map[uint64]*waiter)
	}
	s.pool.New = func() any { return &waiter{done: make(chan struct{}, 1)} }
}

// add makes a waiter for data, or none when too many wait or the end has begun.
func (s *waiters) add(data []byte, conf *raftpb.ConfChangeV2, deadline time.Duration) (*waiter, error) {
	count, bytes := s.count.Add(1), s.bytes.Add(int64(len(data))) // Both: gone takes both back.
	if count > WaitingRequestsMax || bytes > WaitingBytesMax && count > 1 {
		s.gone(len(data))
		return nil, ErrBusy
	}
	w := s.pool.Get().(*waiter)
	w.request = entry.Request{
		ID:   ident.RequestID{Member: s.member, Nonce: s.nonce, Sequence: s.last.Add(1)},
		Data: data,
	}
	w.conf, w.deadline = conf, deadline
	w.claim.Store(claimFree)
	shard := s.shard(w.request.ID.Sequence)
	shard.Lock()
	defer shard.Unlock()
	if s.closed.Load() { // Looked at under the lock: close visits every shard afterwards.
		s.gone(len(data))
		return nil, ErrStopped
	}
	shard.waiting[w.request.ID.Sequence] = w
	return w, nil
}

func (s *waiters) gone(bytes int) {
	s.count.Add(-1)
	s.bytes.Add(-int64(bytes))
}

func (s *waiters) shard(sequence uint64) *waiterShard { return &s.shards[sequence%waiterShards] }

// mine reports whether a request was made by this boot of this member.
func (s *waiters) mine(id ident.RequestID) bool { return id.Member == s.member && id.Nonce == s.nonce }

// remove takes a waiter out. Whoever got it is the one who ends the wait.
func (s *waiters) remove(id ident.RequestID) *waiter {
	if !s.mine(id) {
		return nil
	}
	shard := s.shard(id.Sequence)
	shard.Lock()
	w := shard.waiting[id.Sequence]
	if w != nil {
		delete(shard.waiting, id.Sequence)
	}
	shard.Unlock()
	if w != nil {
		s.gone(len(w.request.Data))
	}
	return w
}

// again makes a proposal of a request that was refused where it was forwarded
// to. The lock keeps the waiter from being resolved and reused meanwhile.
func (s *waiters) again(id ident.RequestID) (Proposal, bool) {
	if !s.mine(id) {
		return Proposal{}, false
	}
	shard := s.shard(id.Sequence)
	shard.Lock()
	defer shard.Unlock()
	w := shard.waiting[id.Sequence]
	if w == nil {
		return Proposal{}, false
	}
	w.Release()
	return Proposal{Request: w.request, Conf: w.conf, Ticket: w, Refused: true}, true
}

// resolve ends a wait, if there still is one.
func (s *waiters) resolve(id ident.RequestID, value any, err error) {
	if w := s.remove(id); w != nil {
		w.value, w.err = value, err
		w.done <- struct{}{}
	}
}

// expire ends the waits that have lasted too long. Nobody waits on a timer of
// his own: making one costs more than a put.
func (s *waiters) expire(now time.Duration) {
	s.giveUp(func(w *waiter) bool { return w.deadline <= now }, context.DeadlineExceeded)
}

// close ends all waits, and those to come.
func (s *waiters) close() {
	s.closed.Store(true)
	s.giveUp(func(*waiter) bool { return true }, ErrStopped)
}

func (s *waiters) giveUp(match func(*waiter) bool, why error) {
	s.each(match, func(id ident.RequestID) {
		if w := s.remove(id); w != nil {
			w.givenUp = why
			w.done <- struct{}{}
		}
	})
}

// resolveBefore ends the waits for requests that Raft got before term.
func (s *waiters) resolveBefore(term ident.Term, err error) {
	s.each(func(w *waiter) bool { return w.claimedBefore(term) }, func(id ident.RequestID) { s.resolve(id, nil, err) })
}

// obscure keeps resolveBefore from requests that Raft got up to now.
func (s *waiters) obscure() {
	s.each(func(w *waiter) bool {
		if claim := w.claim.Load(); claim != claimFree && claim < claimUnknown {
			w.claim.CompareAndSwap(claim, claimUnknown)
		}
		return false
	}, nil)
}

// each calls do for the waiters that match, without a lock.
func (s *waiters) each(match func(*waiter) bool, do func(ident.RequestID)) {
	for i := range s.shards {
		var ids []uint64
		s.shards[i].Lock()
		for _, sequence := range slices.Sorted(maps.Keys(s.shards[i].waiting)) {
			if match(s.shards[i].waiting[sequence]) {
				ids = append(ids, sequence)
			}
		}
		s.shards[i].Unlock()
		for _, sequence := range ids {
			do(ident.RequestID{Member: s.member, Nonce: s.nonce, Sequence: sequence})
		}
	}
}

// reuse takes back a waiter that was resolved. One that was given up may still
// be in a queue and is left to the garbage collector.
func (s *waiters) reuse(w *waiter) {
	w.request, w.value, w.err, w.conf = entry.Request{}, nil, nil, nil
	s.pool.Put(w)
}

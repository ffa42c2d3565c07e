// Package queue holds the names of objects that somebody must look at.
//
// A key that is added often is handed out once; one that is added while a worker
// has it is handed out again after Done, and never to two workers at a time. What
// failed comes again after a pause that doubles; one pause of a key is running at a
// time, and the earliest wins.
//
// It keeps names, not facts: whoever takes a key looks at how things are then, so
// that nothing is lost with the queue. After a crash every object is added anew.
package queue

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// The pauses after failures.
const (
	pauseMin = 20 * time.Millisecond
	PauseMax = 30 * time.Second // A person who mended the cause waits no longer.
)

// Queue is a set of keys in the order in which they were added.
type Queue[K comparable] struct {
	clock clock.Clock

	mu struct {
		sync.Mutex
		keys  map[K]*item
		ready []K
		work  *sync.Cond
	}
}

// item is what is known of a key. One without any of it is forgotten.
type item struct {
	queued   bool // In ready.
	running  bool // A worker has it.
	again    bool // Was added while a worker had it.
	failures int
	due      time.Duration // Of timer, by clock.Mono.
	timer    clock.Timer   // Nil: no pause is running.
	rests    bool          // It is not handed out yet.
	waits    bool          // Was added while it rests.
}

// New returns an empty queue.
func New[K comparable](c clock.Clock) *Queue[K] {
	q := &Queue[K]{clock: c}
	q.mu.keys = map[K]*item{}
	q.mu.work = sync.NewCond(&q.mu.Mutex)
	return q
}

// Add hands a key out as soon as a worker is free.
func (q *Queue[K]) Add(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(key)
}

func (q *Queue[K]) addLocked(key K) {
	it := q.itemLocked(key)
	switch {
	case it.queued:
	case it.rests:
		it.waits = true
	case it.running:
		it.again = true
	default:
		it.queued = true
		q.mu.ready = append(q.mu.ready, key)
		q.mu.work.Signal()
	}
}

func (q *Queue[K]) itemLocked(key K) *item {
	it := q.mu.keys[key]
	if it == nil {
		it = &item{}
		q.mu.keys[key] = it
	}
	return it
}

// AddAfter adds a key once d has passed, unless it is to be added earlier anyway.
func (q *Queue[K]) AddAfter(key K, d time.Duration) {
	if d <= 0 {
		q.Add(key)
		return
	}
	now := q.clock.Mono()
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.itemLocked(key)
	due := now + d
	if it.timer != nil {
		if it.due <= due {
			return
		}
		it.timer.Stop()
	}
	it.due = due
	it.timer = q.clock.AfterFunc(d, func() { q.fire(key, due) })
}

func (q *Queue[K]) fire(key K, due time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.mu.keys[key]
	if it == nil || it.timer == nil || it.due != due {
		return // Another pause took its place while this one ended.
	}
	it.timer = nil
	q.addLocked(key)
}

// Retry adds a key that failed after a pause that doubles with each failure.
func (q *Queue[K]) Retry(key K) {
	q.mu.Lock()
	it := q.itemLocked(key)
	d := PauseMax
	if it.failures < 16 {
		d = min(d, pauseMin<<it.failures)
	}
	it.failures++
	q.mu.Unlock()
	q.AddAfter(key, d)
}

// Forget ends the memory of failures of a key: it succeeded.
func (q *Queue[K]) Forget(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it := q.mu.keys[key]; it != nil {
		it.failures = 0
		q.dropLocked(key, it)
	}
}

// Rest keeps a key that a worker has from being handed out again before d has passed:
// what changes all the time is looked at now and then.
func (q *Queue[K]) Rest(key K, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.itemLocked(key)
	it.rests, it.waits, it.again = true, it.waits || it.again, false
	q.clock.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		waits := it.waits
		it.rests, it.waits = false, false
		if waits {
			q.addLocked(key)
		}
		q.dropLocked(key, it)
	})
}

// Next takes the oldest key, and waits for one until ctx ends. Done must follow.
func (q *Queue[K]) Next(ctx context.Context) (K, error) {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.mu.work.Broadcast()
	})
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.mu.ready) == 0 && ctx.Err() == nil {
		q.mu.work.Wait()
	}
	var key K
	if ctx.Err() != nil {
		return key, ctx.Err()
	}
	key = q.mu.ready[0]
	q.mu.ready = q.mu.ready[1:]
	it := q.mu.keys[key]
	it.queued, it.running = false, true
	return key, nil
}

// Done gives a key back.
func (q *Queue[K]) Done(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.mu.keys[key]
	if it == nil {
		return
	}
	it.running = false
	if it.again {
		it.again = false
		q.addLocked(key)
	}
	q.dropLocked(key, it)
}

func (q *Queue[K]) dropLocked(key K, it *item) {
	if !it.queued && !it.running && !it.again && it.failures == 0 && it.timer == nil && !it.rests {
		delete(q.mu.keys, key)
	}
}

// Idle reports whether no key waits for a worker and none has one. Pauses may run.
func (q *Queue[K]) Idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.mu.keys {
		if it.queued || it.running || it.waits {
			return false
		}
	}
	return true
}

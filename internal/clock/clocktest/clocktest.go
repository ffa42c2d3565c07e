// Package clocktest is a clock that stands still until a test advances it.
//
// Nothing fires but inside Advance, on the goroutine that called it, in the
// order in which it is due, and in the order of registration where two are due
// at once. So a test needs no sleeps and sees the same order each time.
package clocktest

import (
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// epoch is the wall time a fake starts at: a round date that is easy to see in logs.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// Fake is a clock.Clock under a test's command.
type Fake struct {
	mu struct {
		sync.Mutex
		mono    time.Duration
		wall    time.Time
		serial  uint64
		pending map[*event]struct{}
		changed *sync.Cond
	}
}

var _ clock.Clock = (*Fake)(nil)

// New returns a fake at 2030-01-01 00:00 UTC.
func New() *Fake {
	f := &Fake{}
	f.mu.wall = epoch
	f.mu.pending = make(map[*event]struct{})
	f.mu.changed = sync.NewCond(&f.mu.Mutex)
	return f
}

// event is something due at a time.
type event struct {
	fake   *Fake
	due    time.Duration
	serial uint64
	period time.Duration // Not zero for tickers.
	fire   func(now time.Time)
}

// Wall implements clock.Clock.
func (f *Fake) Wall() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.wall
}

// Mono implements clock.Clock.
func (f *Fake) Mono() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.mono
}

// SetWall makes the time of day jump. What waits is not touched: waiting
// follows Mono.
func (f *Fake) SetWall(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.wall = t
}

// Advance moves time on and fires all that becomes due, one by one. Functions
// of AfterFunc run on the caller's goroutine, so that they have returned when
// Advance returns; they must not wait for anything but themselves.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	end := f.mu.mono + d
	for {
		e := f.nextLocked(end)
		if e == nil {
			break
		}
		f.moveLocked(e.due)
		if e.period > 0 {
			e.due += e.period
		} else {
			delete(f.mu.pending, e)
		}
		now := f.mu.wall
		f.mu.Unlock()
		e.fire(now)
		f.mu.Lock()
	}
	f.moveLocked(end)
	f.mu.Unlock()
}

func (f *Fake) moveLocked(to time.Duration) {
	if to > f.mu.mono {
		f.mu.wall = f.mu.wall.Add(to - f.mu.mono)
		f.mu.mono = to
	}
}

// nextLocked returns what is due first, not later than end.
func (f *Fake) nextLocked(end time.Duration) *event {
	var first *event
	for e := range f.mu.pending { //tidy:ordered the smallest of a total order does not depend on the walk
		if e.due > end {
			continue
		}
		if first == nil || e.due < first.due || e.due == first.due && e.serial < first.serial {
			first = e
		}
	}
	return first
}

// Waiters tells how many timers and tickers wait.
func (f *Fake) Waiters() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.pending)
}

// AwaitWaiters returns once at least n timers and tickers wait: how a test
// knows that the goroutine it is about to wake has gone to sleep.
func (f *Fake) AwaitWaiters(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.mu.pending) < n {
		f.mu.changed.Wait()
	}
}

// AfterFunc implements clock.Clock.
func (f *Fake) AfterFunc(d time.Duration, fn func()) clock.Timer {
	e := &event{fake: f, fire: func(time.Time) { fn() }}
	e.arm(d)
	return e
}

// After implements clock.Clock.
func (f *Fake) After(d time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	e := &event{fake: f, fire: func(now time.Time) { c <- now }}
	e.arm(d)
	return c
}

// NewTicker implements clock.Clock.
func (f *Fake) NewTicker(d time.Duration) clock.Ticker {
	if d <= 0 {
		panic("clocktest: a ticker needs a positive period")
	}
	c := make(chan time.Time, 1)
	e := &event{fake: f, period: d}
	e.fire = func(now time.Time) {
		select {
		case c <- now:
		default: // The receiver is slow and misses this tick.
		}
	}
	e.arm(d)
	return ticker{e, c}
}

func (e *event) arm(d time.Duration) {
	f := e.fake
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.serial++
	e.serial = f.mu.serial
	e.due = f.mu.mono + max(d, 0)
	f.mu.pending[e] = struct{}{}
	f.mu.changed.Broadcast()
}

// Stop implements clock.Timer.
func (e *event) Stop() bool {
	f := e.fake
	f.mu.Lock()
	defer f.mu.Unlock()
	_, waiting := f.mu.pending[e]
	delete(f.mu.pending, e)
	return waiting
}

// Reset implements clock.Timer.
func (e *event) Reset(d time.Duration) bool {
	waiting := e.Stop()
	e.arm(d)
	return waiting
}

type ticker struct {
	event *event
	c     chan time.Time
}

func (t ticker) C() <-chan time.Time { return t.c }
func (t ticker) Stop()               { t.event.Stop() }

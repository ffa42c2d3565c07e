// Package clock is the only place that knows what time it is, so that a
// simulation can own time.
//
// Everything that waits, times out or stamps takes a Clock. Nothing under the
// state machine does: there time is a field of the log entry.
package clock

import "time"

// Clock tells time and wakes callers.
type Clock interface {
	// Wall is the time of day. It may jump; use it only for stamps people read.
	Wall() time.Time
	// Mono is the time since an arbitrary start. It never jumps.
	Mono() time.Duration
	// AfterFunc calls f in its own goroutine once d has passed.
	AfterFunc(d time.Duration, f func()) Timer
	// NewTicker delivers a tick each d; slow receivers miss ticks.
	NewTicker(d time.Duration) Ticker
	// After delivers once on the channel when d has passed.
	After(d time.Duration) <-chan time.Time
}

// Timer can be stopped; Stop reports whether it had not fired yet.
type Timer interface {
	Stop() bool
	Reset(d time.Duration) bool
}

// Ticker ticks until stopped.
type Ticker interface {
	C() <-chan time.Time
	Stop()
}

package clocktest

import (
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// Fast is the machine's clock on which so many times as much time passes: for
// tests of what waits whole seconds and of whose parts, as other processes or the
// network, no test can say that they wait too, as a Fake would need.
func Fast(times int) clock.Clock {
	real := clock.Real()
	return fast{real: real, start: real.Wall(), times: time.Duration(times)}
}

type fast struct {
	real  clock.Clock
	start time.Time
	times time.Duration
}

func (f fast) Wall() time.Time { return f.start.Add(f.Mono()) }

func (f fast) Mono() time.Duration { return f.real.Mono() * f.times }

func (f fast) After(d time.Duration) <-chan time.Time { return f.real.After(d / f.times) }

func (f fast) NewTicker(d time.Duration) clock.Ticker { return f.real.NewTicker(max(1, d/f.times)) }

func (f fast) AfterFunc(d time.Duration, fn func()) clock.Timer {
	return fastTimer{f.real.AfterFunc(d/f.times, fn), f.times}
}

type fastTimer struct {
	clock.Timer
	times time.Duration
}

func (t fastTimer) Reset(d time.Duration) bool { return t.Timer.Reset(d / t.times) }

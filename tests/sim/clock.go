package sim

import (
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// memberClock is the time that one member sees: its own rate and offset, over
// jumps of the time of day. Nothing in a member that is stepped waits on it.
type memberClock struct {
	w      *World
	rate   int64 // Parts per million that it runs fast.
	since  int64 // World time at which rate was set.
	base   int64 // What Mono said then.
	offset int64 // Of the time of day.
}

var _ clock.Clock = (*memberClock)(nil)

// epoch is the wall time at which worlds begin.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func (c *memberClock) mono() int64 {
	d := c.w.now - c.since
	return c.base + d + d*c.rate/1_000_000
}

// setRate goes on at another rate.
func (c *memberClock) setRate(ppm int64) {
	c.base, c.since = c.mono(), c.w.now
	c.rate = ppm
}

// stretch turns a time by this clock into one of the world.
func (c *memberClock) stretch(d int64) int64 { return d - d*c.rate/1_000_000 }

// Wall implements clock.Clock.
func (c *memberClock) Wall() time.Time {
	return epoch.Add(time.Duration(c.mono()+c.offset) * time.Microsecond)
}

// Mono implements clock.Clock.
func (c *memberClock) Mono() time.Duration { return time.Duration(c.mono()) * time.Microsecond }

// AfterFunc implements clock.Clock.
func (c *memberClock) AfterFunc(time.Duration, func()) clock.Timer {
	panic("a simulated member waits for its clock")
}

// NewTicker implements clock.Clock.
func (c *memberClock) NewTicker(time.Duration) clock.Ticker {
	panic("a simulated member waits for its clock")
}

// After implements clock.Clock.
func (c *memberClock) After(time.Duration) <-chan time.Time {
	panic("a simulated member waits for its clock")
}

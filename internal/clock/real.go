package clock

import "time"

// Real returns the clock of the machine.
func Real() Clock { return real{start: time.Now()} }

type real struct{ start time.Time }

func (real) Wall() time.Time { return time.Now() }

// Mono is counted from when the clock was made; the runtime keeps it free of jumps.
func (c real) Mono() time.Duration { return time.Since(c.start) }

func (real) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

func (real) NewTicker(d time.Duration) Ticker { return ticker{time.NewTicker(d)} }

func (real) After(d time.Duration) <-chan time.Time { return time.After(d) }

type ticker struct{ *time.Ticker }

func (t ticker) C() <-chan time.Time { return t.Ticker.C }

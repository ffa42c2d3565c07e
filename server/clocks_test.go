package server_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// skewed is the machine's clock with another time of day.
type skewed struct {
	clock.Clock
	ahead atomic.Int64
}

func (s *skewed) Wall() time.Time { return s.Clock.Wall().Add(time.Duration(s.ahead.Load())) }

func TestALeaderWhoseClockGoesWrongHandsOver(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	clocks := make([]*skewed, 3)
	c := servertest.New(t, 3, func(i int, cfg *server.Config) {
		clocks[i] = &skewed{Clock: clock.Real()}
		cfg.Clock = clocks[i]
	})
	wrong := c.Leader()
	for i, m := range c.Members {
		if m == wrong {
			clocks[i].ahead.Store(int64(-time.Hour))
		}
	}
	deadline := time.After(readyMax)
	for c.Leader() == wrong {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("a leader whose clock is an hour behind leads on")
		}
	}
	mustPut(t, dial(t, c.Leader()), "a", "1")
}

package clocktest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

func TestTimersFireInTheOrderTheyAreDue(t *testing.T) {
	c := clocktest.New()
	var fired []string
	c.AfterFunc(2*time.Second, func() { fired = append(fired, "b") })
	c.AfterFunc(time.Second, func() {
		fired = append(fired, "a")
		c.AfterFunc(500*time.Millisecond, func() { fired = append(fired, "from a") })
	})
	c.AfterFunc(2*time.Second, func() { fired = append(fired, "b2") })
	stopped := c.AfterFunc(time.Second, func() { fired = append(fired, "stopped") })
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop tells wrongly whether the timer waited")
	}
	c.Advance(999 * time.Millisecond)
	if len(fired) > 0 {
		t.Fatalf("too early: %q", fired)
	}
	c.Advance(5 * time.Second)
	if want := []string{"a", "from a", "b", "b2"}; !slices.Equal(fired, want) {
		t.Errorf("fired %q, want %q", fired, want)
	}
	if c.Mono() != 5999*time.Millisecond || c.Waiters() != 0 {
		t.Errorf("mono %v, %d wait", c.Mono(), c.Waiters())
	}
}

func TestASlowReceiverMissesTicks(t *testing.T) {
	c := clocktest.New()
	tick := c.NewTicker(time.Second)
	c.Advance(3500 * time.Millisecond)
	if at := (<-tick.C()).Sub(clocktest.New().Wall()); at != time.Second {
		t.Errorf("first tick at %v", at)
	}
	select {
	case at := <-tick.C():
		t.Errorf("another tick of %v waited", at)
	default:
	}
	c.Advance(500 * time.Millisecond)
	<-tick.C()
	tick.Stop()
	c.Advance(time.Hour)
	select {
	case <-tick.C():
		t.Error("ticked after Stop")
	default:
	}
}

func TestAJumpOfTheWallDoesNotWakeAnybody(t *testing.T) {
	c := clocktest.New()
	after := c.After(time.Minute)
	c.SetWall(c.Wall().Add(time.Hour))
	select {
	case <-after:
		t.Fatal("woken by the wall clock")
	default:
	}
	c.Advance(time.Minute)
	<-after
}

// They behave alike where a test can tell without waiting long.
func TestAllClocksAgree(t *testing.T) {
	for name, c := range map[string]clock.Clock{"real": clock.Real(), "fake": clocktest.New(), "fast": clocktest.Fast(10)} {
		t.Run(name, func(t *testing.T) {
			start := c.Mono()
			done := make(chan struct{})
			never := c.AfterFunc(time.Hour, func() { t.Error("fired") })
			c.AfterFunc(time.Millisecond, func() { close(done) })
			tick := c.NewTicker(time.Millisecond)
			after := c.After(time.Millisecond)
			if f, ok := c.(*clocktest.Fake); ok {
				f.Advance(time.Millisecond)
			}
			<-done
			<-after
			<-tick.C()
			tick.Stop()
			if c.Mono()-start < time.Millisecond {
				t.Errorf("only %v passed", c.Mono()-start)
			}
			if !never.Reset(2*time.Hour) || !never.Stop() {
				t.Error("a waiting timer said it was not waiting")
			}
		})
	}
}

func TestOnAFastClockHoursAreSoonOver(t *testing.T) {
	const times = 1_000_000
	c := clocktest.Fast(times)
	start, wall, mono := time.Now(), c.Wall(), c.Mono()
	<-c.After(time.Hour)
	tick := c.NewTicker(time.Hour)
	defer tick.Stop()
	<-tick.C()
	fired := make(chan struct{})
	timer := c.AfterFunc(1000*time.Hour, func() { close(fired) })
	if !timer.Reset(time.Hour) {
		t.Fatal("it has not waited")
	}
	<-fired
	if passed := c.Mono() - mono; passed < 3*time.Hour || passed > times*time.Since(start) {
		t.Errorf("%s have passed", passed)
	}
	if passed := c.Wall().Sub(wall); passed < 3*time.Hour {
		t.Errorf("%s have passed on the wall", passed)
	}
}

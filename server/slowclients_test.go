package server

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

func TestAClientThatTakesNothingForLongIsLeft(t *testing.T) {
	clock := clocktest.New()
	c := &core{cfg: Config{Clock: clock}}
	busy, stalled, ended := errors.New("busy"), errors.New("stalled"), errors.New("ended")
	var under atomic.Int64
	ctx, end := context.WithCancelCause(t.Context())
	began, left := make(chan struct{}), make(chan error)
	go func() {
		left <- c.sendSlowly(ctx, "test", &under, 1, busy, stalled, func(ctx context.Context, took func()) error {
			clock.Advance(2 * clientStallMax) // What has to be done before anything is sent does not count.
			for range 3 {
				took()
				clock.Advance(clientStallMax - 1)
			}
			took()
			close(began)
			<-ctx.Done() // As a Send does for which there is no room.
			return context.Cause(ctx)
		})
	}()
	<-began
	nothing := func(context.Context, func()) error { return ended }
	if err := c.sendSlowly(t.Context(), "test", &under, 1, busy, stalled, nothing); err != busy {
		t.Errorf("two at a time: %v", err)
	}
	clock.Advance(clientStallMax)
	if err := <-left; err != stalled {
		t.Errorf("it ends with %v", err)
	}
	end(ended)
	for under.Load() != 0 { // By the goroutine that sent.
		runtime.Gosched()
	}
	if err := c.sendSlowly(t.Context(), "test", &under, 1, busy, stalled, nothing); err != ended {
		t.Errorf("the place is not free again: %v", err)
	}
}

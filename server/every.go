package server

import (
	"context"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// every does something at each interval until the context ends. It is a task:
// its end is no failure.
func every(ctx context.Context, clk clock.Clock, interval time.Duration, do func()) error {
	tick := clk.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C():
		case <-ctx.Done():
			return nil
		}
		do()
	}
}

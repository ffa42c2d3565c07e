package pods

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// deadline is when something must have ended, by the monotonic clock. It only comes
// nearer.
type deadline struct {
	mu    sync.Mutex
	when  time.Duration
	moved context.Context // Ends when it came nearer.
	move  context.CancelFunc
}

func newDeadline(when time.Duration) *deadline {
	d := &deadline{when: when}
	d.moved, d.move = context.WithCancel(context.Background())
	return d
}

func (d *deadline) shorten(when time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if when < d.when {
		d.when = when
		d.move()
		d.moved, d.move = context.WithCancel(context.Background())
	}
}

func (d *deadline) at() time.Duration {
	when, _ := d.get()
	return when
}

func (d *deadline) get() (time.Duration, context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.when, d.moved
}

// bound returns a context that ends at the deadline, wherever that moves.
func (d *deadline) bound(ctx context.Context, c clock.Clock) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	timer := c.AfterFunc(d.at()-c.Mono(), cancel)
	var follow func()
	follow = func() {
		when, moved := d.get()
		timer.Reset(when - c.Mono()) // It fires in vain when this is over: cancel may be called again.
		if ctx.Err() == nil {
			context.AfterFunc(moved, follow)
		}
	}
	follow()
	return ctx, func() {
		cancel()
		timer.Stop()
	}
}

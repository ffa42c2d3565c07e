package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/task"
)

// TestTroubleOfTheStoreIsSeenAndRemembered looks once a second: the last look that
// failed counts, and where nobody looked nothing is said to be well.
func TestTroubleOfTheStoreIsSeenAndRemembered(t *testing.T) {
	clk := clocktest.New()
	answers := make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	q := newQuorum(func(context.Context) error { // An answer takes as long as the test does.
		select {
		case err := <-answers:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}, clk)
	begun := q.last()
	if begun != clk.Wall() {
		t.Error("before the first look all is said to be well")
	}
	g := task.New(ctx)
	g.Go("quorum", q.run)
	look := func(err error) {
		answers <- err
		clk.AwaitWaiters(1) // It has taken the answer in.
		clk.Advance(probeEach)
	}
	for range 3 {
		look(nil)
	}
	if q.last() != begun {
		t.Errorf("trouble at %v with a healthy store", q.last())
	}
	at := clk.Wall()
	look(errors.New("no leader"))
	look(nil)
	if q.last() != at {
		t.Errorf("trouble at %v, was at %v", q.last(), at)
	}
	clk.Advance(time.Minute)
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if q.last() != clk.Wall() {
		t.Error("nobody looks any more, and all is said to be well")
	}
}

package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
)

func TestWorkBesideTheLogRestsOnlyWhileEntriesCome(t *testing.T) {
	clock, index, hurried := clocktest.New(), ident.Index(1), false
	m := newManners(clock, func() ident.Index { return index }, func() bool { return hurried })
	clock.Advance(10 * time.Millisecond)
	if err := m.GiveWay(t.Context()); err != nil { // Nobody moves the clock: it must not wait.
		t.Fatal(err)
	}
	for took, want := range map[time.Duration]time.Duration{5 * time.Millisecond: 30 * time.Millisecond, time.Minute: mannersRestMax} {
		clock.Advance(took)
		index++
		began := clock.Mono()
		tasks := task.New(t.Context())
		tasks.Go("work", func(ctx context.Context) error { return m.GiveWay(ctx) })
		clock.AwaitWaiters(1)
		for clock.Waiters() == 1 {
			clock.Advance(time.Millisecond)
		}
		if err := tasks.Wait(); err != nil {
			t.Fatal(err)
		}
		if rested := clock.Mono() - began; rested != want {
			t.Errorf("after work of %v it rested %v, want %v", took, rested, want)
		}
	}
	clock.Advance(time.Minute)
	index++
	hurried = true
	if err := m.GiveWay(t.Context()); err != nil { // The same: nobody moves the clock.
		t.Fatal(err)
	}
	hurried = false
	gone, leave := context.WithCancel(t.Context())
	leave()
	clock.Advance(time.Millisecond)
	index++
	if err := m.GiveWay(gone); !errors.Is(err, context.Canceled) {
		t.Fatalf("a caller that left: %v", err)
	}
}

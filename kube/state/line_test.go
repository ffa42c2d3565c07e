package state

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-db/holdfast/internal/task"
)

// behind waits until so many stand behind the first of a line.
func (l *lines) behind(t *testing.T, key string, n int) {
	t.Helper()
	for {
		l.mu.Lock()
		is := len(l.mu.waiting[key])
		l.mu.Unlock()
		if is == n {
			return
		}
		if err := t.Context().Err(); err != nil {
			t.Fatalf("%d stand behind the first, not %d: %v", is, n, err)
		}
	}
}

func TestALineIsServedInTheOrderInWhichItWasMade(t *testing.T) {
	var l lines
	if waited, err := l.stand(t.Context(), "k"); waited || err != nil {
		t.Fatalf("waited: %v, %v", waited, err)
	}
	if waited, err := l.stand(t.Context(), "other"); waited || err != nil {
		t.Fatalf("for the line of another key waited: %v, %v", waited, err)
	}
	tired, tire := context.WithCancel(t.Context())
	tired2, tire2 := context.WithCancel(t.Context())
	served := make(chan int, 4)
	g := task.New(t.Context())
	for i, ctx := range []context.Context{t.Context(), tired, t.Context(), tired2} {
		g.Go("in line", func(context.Context) error {
			waited, err := l.stand(ctx, "k")
			if tires := ctx != t.Context(); !waited || tires != errors.Is(err, context.Canceled) {
				t.Errorf("%d waited: %v, %v", i, waited, err)
			}
			if err == nil {
				served <- i
				l.leave("k")
			}
			return nil
		})
		l.behind(t, "k", i+1)
	}
	tire()
	l.behind(t, "k", 3)
	tire2()
	l.behind(t, "k", 2)
	if key := l.of([]wrote{{key: "a"}, {key: "k"}}); key != "k" {
		t.Errorf("the key that has a line is %q", key)
	}
	l.leave("k")
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if first, second := <-served, <-served; first != 0 || second != 2 {
		t.Errorf("served: %d, %d", first, second)
	}
	l.leave("other")
	if len(l.mu.waiting) != 0 {
		t.Errorf("lines are left: %v", l.mu.waiting)
	}
}

// Who gives up in the moment of its turn passes it on.
func TestATurnIsNotLost(t *testing.T) {
	var l lines
	for range 200 {
		if _, err := l.stand(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		g := task.New(t.Context())
		g.Go("gives up", func(context.Context) error {
			if _, err := l.stand(ctx, "k"); err == nil {
				l.leave("k")
			}
			return nil
		})
		l.behind(t, "k", 1)
		g.Go("leaves", func(context.Context) error { l.leave("k"); return nil })
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if key := l.of([]wrote{{key: "k"}}); key != "" {
			t.Fatal("the line stands for ever")
		}
	}
}

package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/task"
)

// take returns what waits, without waiting for more.
func take(t *testing.T, q *Queue[string]) []string {
	t.Helper()
	var keys []string
	for {
		q.mu.Lock()
		n := len(q.mu.ready)
		q.mu.Unlock()
		if n == 0 {
			return keys
		}
		key, err := q.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestAKeyIsHandedOutOnceHoweverOftenItIsAdded(t *testing.T) {
	q := New[string](clocktest.New())
	q.Add("a")
	q.Add("b")
	q.Add("a")
	equal(t, take(t, q), "a", "b")
}

func TestAKeyThatRestsComesAgainOnlyThen(t *testing.T) {
	c := clocktest.New()
	q := New[string](c)
	q.Add("a")
	equal(t, take(t, q), "a")
	q.Add("a") // While a worker has it.
	q.Rest("a", time.Second)
	q.Done("a")
	q.Add("a")
	q.AddAfter("a", time.Millisecond)
	c.Advance(999 * time.Millisecond)
	equal(t, take(t, q))
	c.Advance(time.Millisecond)
	equal(t, take(t, q), "a")
	q.Rest("a", time.Second)
	q.Done("a")
	c.Advance(time.Second)
	equal(t, take(t, q)) // Nobody wanted it.
	if len(q.mu.keys) > 0 {
		t.Errorf("left: %v", q.mu.keys)
	}
	q.Add("a")
	equal(t, take(t, q), "a")
}

func TestAKeyThatAWorkerHasComesAgainOnlyAfterDone(t *testing.T) {
	q := New[string](clocktest.New())
	q.Add("a")
	equal(t, take(t, q), "a")
	q.Add("a")
	q.Add("a")
	equal(t, take(t, q))
	if q.Idle() {
		t.Error("idle while a worker has a key")
	}
	q.Done("a")
	equal(t, take(t, q), "a")
	q.Done("a")
	equal(t, take(t, q))
	if !q.Idle() || len(q.mu.keys) != 0 {
		t.Errorf("%d keys are still known", len(q.mu.keys))
	}
}

func TestFailuresDoubleThePauseAndSuccessEndsThat(t *testing.T) {
	clk := clocktest.New()
	q := New[string](clk)
	for _, pause := range []time.Duration{20, 40, 80, 160} {
		q.Retry("a")
		clk.Advance(pause*time.Millisecond - 1)
		equal(t, take(t, q))
		clk.Advance(1)
		equal(t, take(t, q), "a")
		q.Done("a")
	}
	for range 20 {
		q.Retry("a")
		clk.Advance(PauseMax)
		equal(t, take(t, q), "a")
		q.Done("a")
	}
	q.Forget("a")
	q.Retry("a")
	clk.Advance(20 * time.Millisecond)
	equal(t, take(t, q), "a")
}

func TestTheEarliestOfSeveralPausesWins(t *testing.T) {
	clk := clocktest.New()
	q := New[string](clk)
	q.AddAfter("a", 10*time.Second)
	q.AddAfter("a", 2*time.Second)
	q.AddAfter("a", 5*time.Second)
	clk.Advance(2 * time.Second)
	equal(t, take(t, q), "a")
	q.Done("a")
	clk.Advance(time.Minute)
	equal(t, take(t, q))
	q.AddAfter("a", 0)
	equal(t, take(t, q), "a")
}

func TestAWorkerThatWaitsEndsWithItsContextAndGetsWhatIsAdded(t *testing.T) {
	q := New[string](clocktest.New())
	got := make(chan string)
	ctx, cancel := context.WithCancel(context.Background())
	g := task.New(context.Background())
	g.Go("worker", func(context.Context) error {
		for {
			key, err := q.Next(ctx)
			if err != nil {
				return err
			}
			got <- key
			q.Done(key)
		}
	})
	q.Add("a")
	if key := <-got; key != "a" {
		t.Error(key)
	}
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

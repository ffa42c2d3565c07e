package server_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/recipe"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func clientOf(t *testing.T, c *servertest.Cluster) *client.Client {
	t.Helper()
	cl, err := client.New(client.Config{Endpoints: c.ClientURLs(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func newSession(t *testing.T, c *client.Client) *recipe.Session {
	t.Helper()
	s, err := recipe.NewSession(t.Context(), c, recipe.SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARecipesLockIsHeldByOneAtATime(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := clientOf(t, servertest.New(t, 3, nil))
	const workers, rounds = 4, 5
	inside, total := 0, 0 // The race detector finds two inside as well.
	var wg sync.WaitGroup
	for range workers {
		s := newSession(t, c)
		wg.Go(func() {
			l := recipe.NewLock(s, "lock")
			for range rounds {
				if err := l.Lock(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if inside++; inside != 1 {
					t.Errorf("%d inside", inside)
				}
				total++
				inside--
				if err := l.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if total != workers*rounds {
		t.Errorf("%d rounds", total)
	}
}

// waitsNoLonger begins to wait for a lock that another has, stops, and looks what
// is left: nothing, unless the request that made the claim was cut off without an
// answer; who waits again then finds the claim and takes it back.
func waitsNoLonger(t *testing.T, c *client.Client, l *recipe.Lock) {
	t.Helper()
	claims := func() int64 {
		r, err := c.Get(t.Context(), client.Get{Range: client.Prefix("lock/"), CountOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		return r.Count
	}
	for n := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error, 1)
		go func() { waited <- l.Lock(ctx) }()
		for claims() != 2 {
		}
		// It may not have heard yet that it has claimed; what then stays is claimed anew by the next.
		<-time.After(time.Duration(n) * 10 * time.Millisecond)
		cancel()
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Fatalf("who no longer waits: %v", err)
		}
		if claims() == 1 {
			return
		}
	}
	t.Fatal("who no longer waits leaves its claim")
}

func TestARecipesLockThatIsTakenOrLost(t *testing.T) {
	c := clientOf(t, servertest.New(t, 1, nil))
	one, two := newSession(t, c), newSession(t, c)
	first, second := recipe.NewLock(one, "lock"), recipe.NewLock(two, "lock")
	if err := first.TryLock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.TryLock(t.Context()); !errors.Is(err, recipe.ErrLocked) {
		t.Fatalf("a lock that is taken: %v", err)
	}
	if err := second.Unlock(t.Context()); !errors.Is(err, recipe.ErrLockReleased) {
		t.Fatalf("to let go of what is not held: %v", err)
	}
	waitsNoLonger(t, c, second)
	write := client.Txn{If: []client.Compare{first.Held()}, Then: []client.Op{client.Put{Key: "guarded"}}}
	if r, err := c.Txn(t.Context(), write); err != nil || !r.Succeeded {
		t.Fatalf("a write under the lock: %v, %v", r, err)
	}
	if _, err := c.Revoke(t.Context(), one.Lease()); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Txn(t.Context(), write); err != nil || r.Succeeded {
		t.Fatalf("a write under a lock that is lost: %v, %v", r, err)
	}
	if err := second.Lock(t.Context()); err != nil {
		t.Fatalf("a lock whose owner is gone: %v", err)
	}
}

func TestARecipesElection(t *testing.T) {
	cluster := servertest.New(t, 1, nil)
	c, member := clientOf(t, cluster), cluster.Members[0]
	one, two := newSession(t, c), newSession(t, c)
	e1, e2 := recipe.NewElection(one, "e"), recipe.NewElection(two, "e")
	if _, err := e1.Leader(t.Context()); !errors.Is(err, recipe.ErrNoLeader) {
		t.Fatalf("nobody stands: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan string)
	observed := make(chan error, 1)
	go func() {
		observed <- recipe.Observe(ctx, c, "e", func(kv *mvccpb.KeyValue) error { seen <- string(kv.Value); return nil })
	}()
	if err := e1.Campaign(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	want := func(value string) {
		t.Helper()
		if got := <-seen; got != value {
			t.Fatalf("observed %q, not %q", got, value)
		}
	}
	want("one")
	won := make(chan error, 1)
	go func() { won <- e2.Campaign(t.Context(), "two") }()
	resumed := recipe.ResumeElection(one, "e", e1.Key(), e1.Revision())
	if err := resumed.Proclaim(t.Context(), "still one"); err != nil {
		t.Fatal(err)
	}
	want("still one")
	if err := e1.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	want("two")
	if err := resumed.Proclaim(t.Context(), "me"); !errors.Is(err, recipe.ErrNotLeader) {
		t.Fatalf("who has resigned: %v", err)
	}
	late := newSession(t, c)
	go func() { won <- recipe.NewElection(late, "e").Campaign(t.Context(), "late") }()
	waitKeys(t, dial(t, member), "e/", 2)
	if _, err := c.Revoke(t.Context(), late.Lease()); err != nil {
		t.Fatal(err)
	}
	if err := e2.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-won; !errors.Is(err, recipe.ErrSessionExpired) {
		t.Fatalf("a session that ended while it stood: %v", err)
	}
	cancel()
	if err := <-observed; !errors.Is(err, context.Canceled) {
		t.Fatalf("end of observing: %v", err)
	}
}

func TestTransactionsOverWhatWasReadLoseNoUpdate(t *testing.T) {
	c := clientOf(t, servertest.New(t, 1, nil))
	const workers, rounds = 4, 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				err := recipe.Transact(t.Context(), c, recipe.Isolation(w%3), func(s *recipe.STM) error {
					value, err := s.Get("n")
					if err != nil {
						return err
					}
					n, _ := strconv.Atoi(value)
					s.Put("n", strconv.Itoa(n+1))
					s.Put(fmt.Sprintf("w%d", w), value)
					if back, err := s.Get("n"); err != nil || back != strconv.Itoa(n+1) {
						return fmt.Errorf("reads %q of what it wrote, %w", back, err)
					}
					s.Delete("gone")
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, err := c.Get(t.Context(), client.Get{Range: client.One("n")})
	if err != nil || string(r.Kvs[0].Value) != strconv.Itoa(workers*rounds) {
		t.Fatalf("sum of %d: %v, %v", workers*rounds, r, err)
	}
}

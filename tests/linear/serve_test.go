package linear

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// servingMax is how many election timeouts may pass until writes succeed again
// after the leader was killed.
const servingMax = 3

// TestTimeToServeAfterALeaderIsKilled measures from the kill to the first
// acknowledged write that was sent after it. A measurement during which the
// harness itself stood still is void, and so is the test if most are.
func TestTimeToServeAfterALeaderIsKilled(t *testing.T) {
	kills := 4
	if *histories > 0 {
		kills = 40
	}
	env := environmentFor(t)
	r := newRun(env, Scenario{Seed: time.Now().UnixNano(), Members: 3, Workload: "register"})
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	void := 0
	for i := range kills {
		if err := untilAllServe(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		leader, _ := r.findLeader(t.Context())
		if leader < 0 {
			void++
			continue
		}
		r.stalls.reset()
		d, err := killAndWrite(t.Context(), r, leader, i)
		if err != nil {
			t.Fatal(err)
		}
		if stalled, stood := r.stalls.void(); stood {
			void++
			t.Logf("void: %v, the harness stood still for %v", d, stalled)
		} else {
			took = append(took, d)
		}
		if err := r.places[leader].Start(); err != nil {
			t.Fatal(err)
		}
	}
	if len(took) == 0 {
		t.Logf("no verdict: the harness stood still in all of %d measurements", void)
		return
	}
	slices.Sort(took)
	in := func(d time.Duration) string {
		return fmt.Sprintf("%v (%.2f election timeouts)", d.Round(time.Millisecond), float64(d)/float64(electionTimeout))
	}
	p99 := took[(len(took)*99-1)/100]
	t.Logf("%d kills, %d void: median %s, p99 %s", len(took), void, in(took[len(took)/2]), in(p99))
	if p99 > servingMax*electionTimeout {
		t.Errorf("p99 is %s: more than %d election timeouts", in(p99), servingMax)
	}
}

func untilAllServe(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for i := range r.places {
		if err := r.untilServing(ctx, i); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// killAndWrite has a writer at each survivor, so that none waits for the turn
// of another.
func killAndWrite(ctx context.Context, r *run, leader, round int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, servingLimit)
	defer cancel()
	var first atomic.Int64
	r.places[leader].Signal(syscall.SIGKILL)
	killed := time.Now()
	done := make(chan struct{}, len(r.places))
	for i := range r.places {
		if i == leader {
			continue
		}
		go func() { // Ends with ctx.
			defer func() { done <- struct{}{} }()
			for n := 0; ctx.Err() == nil; n++ {
				try, stop := context.WithTimeout(ctx, 250*time.Millisecond)
				_, err := r.admin.wires[i].kv.Put(try, &pb.PutRequest{Key: []byte("serve"), Value: fmt.Appendf(nil, "%d %d %d", round, i, n)})
				stop()
				if err == nil {
					first.CompareAndSwap(0, int64(time.Since(killed)))
					cancel()
				}
			}
		}()
	}
	for range len(r.places) - 1 {
		<-done
	}
	r.places[leader].Kill()
	if first.Load() == 0 {
		return 0, fmt.Errorf("no write succeeded for %v after the leader was killed", servingLimit)
	}
	return time.Duration(first.Load()), nil
}

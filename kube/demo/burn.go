package demo

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
)

// burn uses as much processor time as it was told, if there is that much.
func (s *server) burn(w http.ResponseWriter, r *http.Request) {
	q, err := api.ParseQuantity(r.FormValue("cpu"))
	cores := q.AsApproximateFloat64()
	if err != nil || !(cores > 0 && cores <= burnCoresMax) {
		http.Error(w, fmt.Sprintf("cpu=%q: use up to %d, such as 200m", r.FormValue("cpu"), burnCoresMax), http.StatusBadRequest)
		return
	}
	d, err := seconds(r, 30)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	began := s.clock.Mono()
	g := task.New(ctx)
	workers := int(math.Ceil(cores))
	for range workers {
		g.Go("burn", func(ctx context.Context) error { return s.burnShare(ctx, cores/float64(workers), began+d) })
	}
	if g.Wait() != nil || r.Context().Err() != nil {
		return // Whoever asked has gone.
	}
	fmt.Fprintf(w, "burned %s for %v\n", q.String(), d)
}

// burnShare is busy for a part of each period. What it could not have, being throttled,
// it does not make up for.
func (s *server) burnShare(ctx context.Context, share float64, end time.Duration) error {
	busy := time.Duration(share * float64(burnPeriod))
	x := uint64(1)
	for ctx.Err() == nil {
		period := s.clock.Mono()
		if period >= end {
			break
		}
		for s.clock.Mono()-period < busy {
			for range 1000 {
				x = x*6364136223846793005 + 1442695040888963407
			}
		}
		if rest := burnPeriod - busy; rest > 0 {
			select {
			case <-s.clock.After(rest):
			case <-ctx.Done():
			}
		}
	}
	if x == 0 { // Never, but the compiler does not know.
		s.logf("the numbers are used up")
	}
	return ctx.Err()
}

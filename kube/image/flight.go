package image

import (
	"context"
	"sync"
)

// flights joins those who ask for the same thing at the same time.
type flights struct {
	sync.Mutex
	under map[string]*flight
}

type flight struct {
	waiting int // Guarded by flights.
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // Set before done is closed.
}

// join has f run once for all who ask for key while it does. It ends when nobody
// waits for it any more.
func (s *Store) join(ctx context.Context, key string, f func(ctx context.Context) error) error {
	s.flights.Lock()
	fl := s.flights.under[key]
	if fl == nil {
		within, cancel := context.WithCancel(s.group.Context())
		fl = &flight{cancel: cancel, done: make(chan struct{})}
		runs := s.group.Go("image", func(context.Context) error {
			defer cancel()
			fl.err = f(within)
			s.flights.Lock()
			if s.flights.under[key] == fl {
				delete(s.flights.under, key)
			}
			s.flights.Unlock()
			close(fl.done)
			return nil // A failure is of those who wait, not of the store.
		})
		if !runs {
			s.flights.Unlock()
			cancel()
			return context.Canceled
		}
		s.flights.under[key] = fl
	}
	fl.waiting++
	s.flights.Unlock()

	select {
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
		s.leave(key, fl)
		return ctx.Err()
	}
}

func (s *Store) leave(key string, fl *flight) {
	s.flights.Lock()
	defer s.flights.Unlock()
	fl.waiting--
	if fl.waiting > 0 {
		return
	}
	fl.cancel()
	if s.flights.under[key] == fl { // The next begins anew, not in one that ends.
		delete(s.flights.under, key)
	}
}

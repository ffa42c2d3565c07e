package load

import (
	"context"
	"math/rand/v2"
	"time"
)

// carrier is a connection with simulated clients on it.
type carrier struct {
	run    *run
	number int
	conn   *conn
	source *source

	// Guarded by the connection's lock.
	idle     []*stream // Clients without a request, when there is a rate.
	due      time.Time // Of the next request of this connection.
	interval time.Duration
	open     int // Clients with a request.
	over     bool

	done    int64
	keys    int64
	errors  map[string]int64
	latency Histogram
	last    time.Time // Answer.
}

// caller is a simulated client.
type caller struct {
	start time.Time // Of its request.
	lease int64     // That it renews.
}

func newCarrier(r *run, c *conn, number, clients int) *carrier {
	k := &carrier{
		run: r, number: number, conn: c, errors: map[string]int64{},
		source: newSource(r.workload, rand.New(rand.NewPCG(uint64(number), uint64(time.Now().UnixNano())))),
	}
	k.source.base, k.source.watchers = r.base, r.watchers
	if r.cfg.Rate > 0 {
		k.interval = time.Duration(float64(time.Second) * float64(r.cfg.Conns) / r.cfg.Rate)
	}
	for range clients {
		k.idle = append(k.idle, &stream{user: &caller{}})
	}
	c.user = k
	return k
}

// carry makes requests until the run is over.
func (k *carrier) carry(ctx context.Context) error {
	k.conn.mu.Lock()
	// Connections take turns, so that all of them together keep an even pace.
	k.due = k.run.start.Add(time.Duration(k.number) * k.interval / time.Duration(k.run.cfg.Conns))
	if k.interval == 0 {
		for n := len(k.idle); n > 0; n-- {
			k.next(k.run.start)
		}
	}
	finished := k.finished()
	err := k.conn.flush()
	k.conn.mu.Unlock()
	if err != nil || finished {
		return err
	}
	err = k.conn.read()
	k.conn.mu.Lock()
	defer k.conn.mu.Unlock()
	if k.finished() || ctx.Err() != nil {
		return nil
	}
	k.errors[err.Error()] += int64(k.open)
	return err
}

// finished reports whether everything was answered and no more will be asked.
func (k *carrier) finished() bool { return k.over && k.open == 0 }

// next lets an idle client make a request that was due at a time.
func (k *carrier) next(due time.Time) {
	s := k.idle[len(k.idle)-1]
	c := s.user.(*caller)
	err := error(nil)
	switch renews := k.run.workload.Kind == Renew; {
	case renews && c.lease == 0: // Comes before what is measured.
		if err = s.append(k.source.newLease()); err == nil {
			err = k.conn.open(s, paths[Grant], true)
		}
	default:
		n, ok := k.run.more(due)
		if !ok {
			k.over = true
			return
		}
		c.start = due
		if err = s.append(k.source.request(n, c.lease)); err != nil {
			break
		}
		if renews && s.id != 0 {
			k.conn.pump(s)
		} else {
			err = k.conn.open(s, k.source.path(), !renews)
		}
	}
	if err != nil {
		k.errors[err.Error()]++
		k.over = true
		return
	}
	k.idle = k.idle[:len(k.idle)-1]
	k.open++
}

// message implements user.
func (k *carrier) message(s *stream, m []byte) {
	c := s.user.(*caller)
	switch {
	case k.run.workload.Kind != Renew:
		k.keys += k.source.keysOf(m)
	case c.lease == 0:
		c.lease = number(m, grantIDField)
	default:
		k.answered(s, nil)
	}
}

// closed implements user.
func (k *carrier) closed(s *stream, cause error) {
	if k.run.workload.Kind != Renew || cause != nil {
		if s.user.(*caller).lease == 0 && k.run.workload.Kind == Renew {
			k.over = true // Without a lease there is nothing to do.
		}
		k.answered(s, cause)
		return
	}
	// The lease is there: begin.
	k.open--
	k.idle = append(k.idle, s)
	k.goOn(time.Now())
}

// answered counts an answer, and goes on.
func (k *carrier) answered(s *stream, cause error) {
	now := time.Now()
	k.open--
	k.last = now
	k.idle = append(k.idle, s)
	if cause != nil {
		k.errors[cause.Error()]++
	} else {
		k.done++
		k.latency.Record(now.Sub(s.user.(*caller).start))
	}
	k.run.answered.Add(1)
	k.goOn(now)
}

func (k *carrier) goOn(now time.Time) {
	if k.interval == 0 {
		k.next(now)
	} else {
		k.catchUp(now)
	}
	if k.finished() {
		_ = k.conn.flush()
		k.conn.net.Close() // Ends the reader.
	}
}

// catchUp makes the requests that are due, as far as there are clients for them.
func (k *carrier) catchUp(now time.Time) {
	for len(k.idle) > 0 && !k.over && !k.due.After(now) {
		k.next(k.due)
		k.due = k.due.Add(k.interval)
	}
}

// pace makes requests when they are due.
func (k *carrier) pace(ctx context.Context) error {
	for {
		k.conn.mu.Lock()
		now := time.Now()
		k.catchUp(now)
		if !k.over && !k.run.deadline.IsZero() && !now.Before(k.run.deadline) {
			k.over = true
		}
		finished := k.finished()
		err := k.conn.flush()
		wait := k.due.Sub(now)
		k.conn.mu.Unlock()
		if finished {
			k.conn.net.Close()
			return nil
		}
		if err != nil {
			return nil // The reader says why.
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(wait, paceInterval)):
		}
	}
}

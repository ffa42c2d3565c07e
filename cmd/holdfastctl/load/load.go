// Package load makes requests of the etcd v3 protocol and measures how long they
// take, at so little cost that it can share a machine with the server.
//
// It speaks HTTP/2 itself instead of using a gRPC client: one goroutine carries a
// connection with any number of simulated clients on it. When an answer has come,
// the next request of that client goes into the connection's buffer, and the
// buffer goes out when nothing more is to be read. Server and network see what a
// gRPC client with as many calls at a time would send.
//
// A simulated client asks, waits for the answer and asks again. With a rate,
// requests have times at which they are due, and a latency counts from there:
// what waits for a slow server is not left out (coordinated omission).
//
// Used by `holdfastctl bench`. It keeps nothing; the keys it writes stay where
// they are.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/internal/task"
)

// Config says where the load goes, and how much.
type Config struct {
	Endpoints []string    // Connections are spread over them.
	TLS       *tls.Config // For https endpoints, and those without a scheme if it is set.
	Dial      func(ctx context.Context, address string) (net.Conn, error)

	Clients  int           // At a time, over all connections.
	Conns    int           // At most one for each client.
	Rate     float64       // Requests a second over all; zero: as fast as answers come.
	Total    int64         // Ends the run; zero: no limit.
	Duration time.Duration // Ends the run; zero: no limit.

	Progress func(done int64) // Told now and then; may be nil.
}

// Validate reports all that is wrong.
func (c *Config) Validate() error {
	var wrong []error
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if len(c.Endpoints) == 0 {
		say("no endpoints")
	}
	if c.Clients < 1 || c.Clients > clientsMax {
		say("--clients %d is not from 1 to %d", c.Clients, clientsMax)
	}
	if c.Conns < 1 || c.Conns > c.Clients {
		say("--conns %d is not from 1 to the number of clients, %d", c.Conns, c.Clients)
	}
	if c.Rate < 0 {
		say("--rate %v is negative", c.Rate)
	}
	if c.Total < 0 || c.Duration < 0 || c.Total == 0 && c.Duration == 0 {
		say("--total or --duration must say when to end")
	}
	return errors.Join(wrong...)
}

// Result is what a run has measured.
type Result struct {
	Requests int64            // Answered without error.
	Errors   map[string]int64 // How often, by text.
	Keys     int64            // In the answers.
	Elapsed  time.Duration    // From the first request to the last answer.
	Latency  Histogram
	Sent     int64 // Bytes, with all protocol but TLS.
	Received int64
}

// Failed is the number of requests that failed.
func (r *Result) Failed() (n int64) {
	for _, e := range r.Errors {
		n += e
	}
	return n
}

// Run loads a cluster with requests until the configuration says that it is
// enough, or ctx ends. A broken connection ends it with an error, and with the
// result so far.
func Run(ctx context.Context, cfg Config, w Workload) (*Result, error) {
	if err := errors.Join(cfg.Validate(), w.Validate()); err != nil {
		return nil, err
	}
	r := &run{cfg: &cfg, workload: &w}
	_, result, err := r.all(ctx)
	return result, err
}

// run is what all connections of a run share.
type run struct {
	cfg      *Config
	workload *Workload
	start    time.Time
	deadline time.Time // Zero: none.
	issued   atomic.Int64
	answered atomic.Int64

	// Of a run with watchers; see source.
	base     time.Time
	watchers []int64
}

// all connects, makes all requests and counts the answers.
func (r *run) all(ctx context.Context) ([]*carrier, *Result, error) {
	carriers, err := r.connect(ctx)
	defer closeAll(carriers)
	if err != nil {
		return nil, nil, err
	}
	r.start = time.Now()
	if r.cfg.Duration > 0 {
		r.deadline = r.start.Add(r.cfg.Duration)
	}
	g := task.New(ctx)
	var carried atomic.Int64
	for _, c := range carriers {
		g.Go("connection", func(ctx context.Context) error {
			defer func() {
				if carried.Add(1) == int64(len(carriers)) {
					g.Stop()
				}
			}()
			return c.carry(ctx)
		})
		if r.cfg.Rate > 0 {
			g.Go("pace", c.pace)
		}
	}
	g.Go("watch over", func(ctx context.Context) error { return r.supervise(ctx, carriers) })
	err = g.Wait()
	return carriers, r.result(carriers), err
}

// more takes the number of the next request, if there shall be one.
func (r *run) more(now time.Time) (n int64, ok bool) {
	if !r.deadline.IsZero() && !now.Before(r.deadline) {
		return 0, false
	}
	n = r.issued.Add(1) - 1
	return n, r.cfg.Total == 0 || n < r.cfg.Total
}

func (r *run) connect(ctx context.Context) ([]*carrier, error) {
	var all []*carrier
	for i := range r.cfg.Conns {
		c, err := dial(ctx, r.cfg, r.cfg.Endpoints[i%len(r.cfg.Endpoints)])
		if err != nil {
			return all, err
		}
		clients := r.cfg.Clients / r.cfg.Conns
		if i < r.cfg.Clients%r.cfg.Conns {
			clients++
		}
		all = append(all, newCarrier(r, c, i, clients))
	}
	return all, nil
}

func closeAll(carriers []*carrier) {
	for _, c := range carriers {
		c.conn.net.Close()
	}
}

// supervise reports progress, and ends a run that has come to a stop.
func (r *run) supervise(ctx context.Context, carriers []*carrier) error {
	defer closeAll(carriers) // Ends readers that wait.
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			done := r.answered.Load()
			if r.cfg.Progress != nil {
				r.cfg.Progress(done)
			}
			if done != last {
				last, since = done, now
			} else if now.Sub(since) > stallMax {
				return fmt.Errorf("no answer within %v: are %s there, and is there a quorum?", stallMax, strings.Join(r.cfg.Endpoints, ","))
			}
		}
	}
}

func (r *run) result(carriers []*carrier) *Result {
	result := &Result{Errors: map[string]int64{}}
	end := r.start
	for _, c := range carriers {
		c.conn.mu.Lock()
		result.Requests += c.done
		result.Keys += c.keys
		result.Latency.Add(&c.latency)
		result.Sent += c.conn.sent
		result.Received += c.conn.received
		for text, n := range c.errors {
			result.Errors[text] += n
		}
		if c.last.After(end) {
			end = c.last
		}
		c.conn.mu.Unlock()
	}
	result.Elapsed = end.Sub(r.start)
	return result
}

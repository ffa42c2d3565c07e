// Package load makes clients that ask a server as fast as it answers.
//
// A client waits for one answer before it asks again; several share a
// connection, whose goroutine works for them all. A run begins with Start,
// Measure takes the figures of a window within it, and Stop or a killed server
// ends it.
package load

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

// Work says what clients ask. Its methods run on the goroutine of the client's
// connection, so that clients share nothing that changes.
type Work interface {
	// Next appends the next request of a client.
	Next(client int, b []byte) (path string, request []byte)
	// Answered takes its answer.
	Answered(client int, body []byte) error
}

// Finite is work that ends.
type Finite interface {
	// Done reports whether a client has nothing more to ask.
	Done(client int) bool
}

// Config says how many ask whom.
type Config struct {
	Addrs   []string // Connections go round.
	Conns   int
	Clients int
	Work    Work
	Dialer  wire.Dialer
}

// Run is a load under way.
type Run struct {
	lanes []*lane
	stop  atomic.Bool
	ended sync.WaitGroup
}

// lane is one connection and its clients.
type lane struct {
	run     *Run
	conn    *wire.Conn
	work    Work
	clients []*client
	err     error // Set before the end.

	answers  atomic.Int64
	refused  atomic.Int64
	bytes    atomic.Int64
	window   atomic.Pointer[histogram] // Where latencies go while a window is measured.
	lastText atomic.Pointer[string]
}

type client struct {
	id      int
	lane    *lane
	call    wire.Call
	started time.Time
	request []byte
}

// Start begins a run.
func Start(cfg Config) (*Run, error) {
	r := &Run{}
	for i := range cfg.Conns {
		conn, err := cfg.Dialer.Dial(cfg.Addrs[i%len(cfg.Addrs)])
		if err != nil {
			r.Kill()
			return nil, err
		}
		l := &lane{run: r, conn: conn, work: cfg.Work}
		for id := i; id < cfg.Clients; id += cfg.Conns {
			c := &client{id: id, lane: l}
			c.call.Message, c.call.End = c.message, c.end
			l.clients = append(l.clients, c)
		}
		r.lanes = append(r.lanes, l)
	}
	for _, l := range r.lanes {
		r.ended.Go(l.serve)
	}
	return r, nil
}

func (l *lane) serve() {
	defer l.conn.Close()
	for _, c := range l.clients {
		if err := c.ask(); err != nil {
			l.err = err
			return
		}
	}
	l.err = l.conn.Run()
}

// errStopped ends a lane that was told to.
var errStopped = errors.New("stopped")

func (c *client) ask() error {
	finite, ends := c.lane.work.(Finite)
	if c.lane.run.stop.Load() || ends && finite.Done(c.id) {
		if c.lane.conn.Idle() {
			return errStopped
		}
		return nil
	}
	var path string
	path, c.request = c.lane.work.Next(c.id, c.request[:0])
	c.started = time.Now()
	return c.lane.conn.Start(path, c.request, &c.call, false)
}

func (c *client) message(body []byte) error {
	c.lane.bytes.Add(int64(len(body)))
	return c.lane.work.Answered(c.id, body)
}

func (c *client) end(status int, text string) error {
	l := c.lane
	if status != 0 {
		l.refused.Add(1)
		why := fmt.Sprintf("status %d: %s", status, text)
		l.lastText.Store(&why)
		return c.ask()
	}
	l.answers.Add(1)
	if h := l.window.Load(); h != nil {
		h.add(time.Since(c.started))
	}
	return c.ask()
}

// Answers is how many calls have succeeded so far.
func (r *Run) Answers() (n int64) {
	for _, l := range r.lanes {
		n += l.answers.Load()
	}
	return n
}

// Figures are those of a window.
type Figures struct {
	Seconds  float64
	Answers  int64
	Bytes    int64
	P50, P99 time.Duration
}

// PerSecond is the throughput.
func (f *Figures) PerSecond() float64 { return float64(f.Answers) / f.Seconds }

// Measure lets the run go on until wait returns, and says what happened
// meanwhile. A refused call is an error: nothing refuses in a benchmark.
func (r *Run) Measure(wait func() error) (*Figures, error) {
	for _, l := range r.lanes {
		l.window.Store(&histogram{})
	}
	count, bytes, start := r.Answers(), r.received(), time.Now()
	err := wait()
	f := &Figures{Seconds: time.Since(start).Seconds(), Answers: r.Answers() - count, Bytes: r.received() - bytes}
	var all histogram
	for _, l := range r.lanes {
		h := l.window.Swap(nil) // Its lane may add one more: no matter.
		all.merge(h)
		if l.refused.Load() > 0 {
			err = errors.Join(err, fmt.Errorf("%d calls refused, the last with %s", l.refused.Load(), *l.lastText.Load()))
		}
	}
	f.P50, f.P99 = all.quantile(0.5), all.quantile(0.99)
	if err == nil && f.Answers == 0 {
		err = errors.New("no call was answered")
	}
	return f, err
}

func (r *Run) received() (n int64) {
	for _, l := range r.lanes {
		n += l.bytes.Load()
	}
	return n
}

// For is a wait for Measure.
func For(d time.Duration) func() error {
	return func() error { time.Sleep(d); return nil }
}

// Stop lets calls under way end.
func (r *Run) Stop() error {
	r.stop.Store(true)
	return r.Wait()
}

// Kill does not.
func (r *Run) Kill() {
	for _, l := range r.lanes {
		l.conn.Close()
	}
	r.ended.Wait()
}

// Wait returns when all clients have ended; a lost connection is an error.
func (r *Run) Wait() error {
	r.ended.Wait()
	var errs []error
	for _, l := range r.lanes {
		if l.err != errStopped {
			errs = append(errs, l.err)
		}
		if text := l.lastText.Load(); text != nil {
			errs = append(errs, fmt.Errorf("%d calls refused, the last with %s", l.refused.Load(), *text))
		}
	}
	return errors.Join(errs...)
}

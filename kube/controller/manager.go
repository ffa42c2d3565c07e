package controller

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/controller/nodelife"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Signer makes certificates for requests that were approved: an authority.Authority.
type Signer interface {
	// SignFor returns a certificate, PEM, for a request, PEM, that asks for its subject and
	// nothing else. It is good for that time at most.
	SignFor(subject pkix.Name, csr []byte, profile string, life time.Duration) (cert, roots []byte, err error)
}

// Config says what the controllers work on. Client, Store and Logger are required.
type Config struct {
	Client *objects.Client // As system:controllers.
	Store  *client.Client  // For the heartbeats of nodes, and whether there is a quorum.
	Logger hclog.Logger
	Clock  clock.Clock // Default: the machine's.
	Signer Signer      // Nil: requests are approved and nobody signs them here.

	Nodes    nodelife.Limits // How patient to be with silent nodes.
	Recovery RecoveryLimits  // How long to wait after a restore.
	Finished int             // Pods that have ended and are kept, in all. Default 1000.
	Workers  int             // Objects of one kind that are looked at at once. Default 4.
}

// Validate reports all that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("client: required"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("store: required"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("logger: required"))
	}
	if c.Finished < 0 || c.Workers < 0 {
		errs = append(errs, errors.New("finished, workers: not below 0"))
	}
	return errors.Join(errs...)
}

// Manager is the controllers of one process.
type Manager struct {
	cfg    Config
	quorum *quorum
	brake  atomic.Pointer[nodelife.Brake] // Nil while another leads, or nothing is planned yet.
}

// New returns controllers that do nothing yet.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("controllers: %w", err)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Finished == 0 {
		cfg.Finished = 1000
	}
	if cfg.Workers == 0 {
		cfg.Workers = 4
	}
	cfg.Nodes, cfg.Recovery = cfg.Nodes.Defaults(), cfg.Recovery.defaults()
	return &Manager{cfg: cfg, quorum: newQuorum(confirms(cfg.Store), cfg.Clock)}, nil
}

// Observe watches whether the store has a quorum, for as long as the process lives.
// A process that did so while another led knows, when it leads, that a silence of
// nodes is not its own. Without it, nobody is evicted in the first minute of Run.
func (m *Manager) Observe(ctx context.Context) error { return m.quorum.run(ctx) }

// Brake is what keeps nodes' pods from being evicted; off in whoever does not lead.
func (m *Manager) Brake() nodelife.Brake {
	if b := m.brake.Load(); b != nil {
		return *b
	}
	return nodelife.Brake{}
}

// Run works for one leadership, until ctx ends or something is wrong for good. It
// returns nil when a write is refused because another leads.
func (m *Manager) Run(ctx context.Context, fence *kubepb.Fence) error {
	defer m.brake.Store(nil)
	g := task.New(ctx)
	t := newTerm(m, fence)
	g.Go("quorum", m.quorum.run)
	for name, run := range t.views.runners() {
		g.Go("informer "+name, run)
	}
	g.Go("events", t.recorder.run)
	g.Go("controllers", func(ctx context.Context) error { return t.run(ctx, g) })
	err := g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, objects.ErrFenced) {
		t.log.Warn("other controllers lead", "fence", fence.GetCreateRevision())
		return nil
	}
	return err
}

// quorum knows when the store last failed to confirm anything.
type quorum struct {
	probe func(ctx context.Context) error
	clock clock.Clock
	state chan quorumState // Of capacity 1: a lock that select understands.
}

type quorumState struct {
	trouble time.Time // Zero: none was seen.
	running bool
}

const (
	probeEach = time.Second
	probeMax  = 3 * time.Second // A healthy store confirms within a fraction of it.
)

// confirms reads something that only a quorum can confirm.
func confirms(store *client.Client) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := store.Get(ctx, client.Get{Range: client.One("/holdfast/quorum"), CountOnly: true})
		return err
	}
}

func newQuorum(probe func(ctx context.Context) error, c clock.Clock) *quorum {
	q := &quorum{probe, c, make(chan quorumState, 1)}
	q.state <- quorumState{trouble: c.Wall()} // Before the first look nothing is known.
	return q
}

// last is when there was trouble last.
func (q *quorum) last() time.Time {
	s := <-q.state
	q.state <- s
	return s.trouble
}

func (q *quorum) run(ctx context.Context) error {
	s := <-q.state
	mine := !s.running
	s.running = true
	q.state <- s
	if !mine { // Observe is at it.
		<-ctx.Done()
		return ctx.Err()
	}
	defer func() {
		s := <-q.state
		s.running, s.trouble = false, q.clock.Wall() // From here on nobody looks.
		q.state <- s
	}()
	for {
		probe, cancel := context.WithTimeout(ctx, probeMax)
		err := q.probe(probe)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s := <-q.state
			s.trouble = q.clock.Wall()
			q.state <- s
		}
		select {
		case <-q.clock.After(probeEach):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

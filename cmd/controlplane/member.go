package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
)

// member is the store's member in this process. One that found its state damaged is
// started again with that of a peer; clients in this process go on with it.
type member struct {
	cfg     server.Config
	metrics []prometheus.Collector
	first   chan struct{} // Closed once a member runs, if only for a while.

	mu struct {
		sync.Mutex
		now *server.Server // Nil between two.
	}
}

func newMember(cfg server.Config, metrics ...prometheus.Collector) *member {
	return &member{cfg: cfg, metrics: metrics, first: make(chan struct{})}
}

// repairedMin is how long a member must have run to be started again because of
// damage: a disk that damages a fresh state at once is not worth another try.
const repairedMin = 10 * time.Second

// run is the member until ctx ends; then it hands over what it leads, and stops.
func (m *member) run(ctx context.Context) error {
	clk := clock.Real()
	for {
		began := clk.Mono()
		err := m.once(ctx)
		if ctx.Err() != nil && err == nil {
			return ctx.Err()
		}
		if !errors.Is(err, server.ErrDamaged) || clk.Mono()-began < repairedMin {
			return err
		}
		m.cfg.Logger.Warn("starting the member again with a state from a peer", "error", err)
	}
}

func (m *member) once(ctx context.Context) error {
	s, err := server.Start(ctx, m.cfg)
	if err != nil {
		return err
	}
	for _, c := range m.metrics {
		if err := s.Collect(c); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	m.set(s)
	defer m.set(nil)
	select {
	case <-ctx.Done():
		return s.Close()
	case <-s.Done():
		if err := s.Err(); err != nil {
			return err
		}
		return errors.New("the member has ended")
	}
}

func (m *member) set(s *server.Server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now = s
	if s != nil {
		select {
		case <-m.first:
		default:
			close(m.first)
		}
	}
}

func (m *member) get() *server.Server {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.now
}

// dial connects to the member that runs now.
func (m *member) dial(ctx context.Context, _ string) (net.Conn, error) {
	s := m.get()
	if s == nil {
		return nil, errors.New("the member is not running at the moment")
	}
	return s.Inside(ctx)
}

// client of this member, which survives its restarts.
func (m *member) client(log hclog.Logger) (*client.Client, error) {
	return client.New(client.Config{Endpoints: []string{"inside:1"}, Dial: m.dial, Txn: m.txn, Logger: log})
}

// txn asks the member that runs now.
func (m *member) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s := m.get()
	if s == nil {
		return nil, client.ErrNoLeader // Until there is one again.
	}
	return s.Txn(ctx, r)
}

// timeline of the store; 0 while the member does not run.
func (m *member) timeline() uint64 {
	if s := m.get(); s != nil {
		return uint64(s.Timeline())
	}
	return 0
}

// ready returns once the store has a quorum that this member is part of.
func (m *member) ready(ctx context.Context) error {
	select {
	case <-m.first:
	case <-ctx.Done():
		return ctx.Err()
	}
	s := m.get()
	if s == nil {
		return fmt.Errorf("the member has ended before it was ready")
	}
	select {
	case <-s.Ready():
		return nil
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

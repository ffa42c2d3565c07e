package state

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// What the parts of the control plane know is where they lead: the journal of the
// scheduler, and the samples of nodes where the controllers scale by them. Other
// servers pass questions and samples on, as themselves, once they have authorized who
// asks. What was passed on is not passed on again.
const (
	schedulerPart   = "scheduler"
	controllersPart = "controllers"
)

// peers are the connections to other servers, by address.
type peers struct {
	mu struct {
		sync.Mutex
		byAddress map[string]*grpc.ClientConn
		closed    bool
	}
}

// leading is the server on which a part of the control plane leads. Nil: it is this
// one, as far as it matters to the caller.
func (s *Service) leading(id auth.Identity, part string) (kubepb.ClusterStateClient, error) {
	if s.cfg.Peer == nil || id.Name == auth.APIServerUser {
		return nil, nil
	}
	value := s.cache.leader(part)
	if value == "" {
		return nil, fmt.Errorf("of the %s: %w", part, errNoLeader)
	}
	claim := leader.ParseClaim(value)
	switch claim.Address {
	case s.cfg.Address:
		return nil, nil
	case "":
		return nil, fmt.Errorf("of the %s, %s, tells no address: %w", part, claim.Name, errNoLeader)
	}
	conn, err := s.peer(claim.Address)
	if err != nil {
		return nil, err
	}
	return kubepb.NewClusterStateClient(conn), nil
}

func (s *Service) peer(address string) (*grpc.ClientConn, error) {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	if s.peers.mu.closed {
		return nil, errBehind
	}
	if c := s.peers.mu.byAddress[address]; c != nil {
		return c, nil
	}
	c, err := s.cfg.Peer(address)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", address, err)
	}
	if s.peers.mu.byAddress == nil {
		s.peers.mu.byAddress = map[string]*grpc.ClientConn{}
	}
	s.peers.mu.byAddress[address] = c
	return c, nil
}

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	var failed error
	for _, c := range p.mu.byAddress { //tidy:ordered all are closed
		if err := c.Close(); err != nil {
			failed = err
		}
	}
	p.mu.byAddress = nil
	return failed
}

// passOn calls another server.
func passOn[Q, R any](ctx context.Context, r *Q, call func(context.Context, *Q, ...grpc.CallOption) (*R, error)) (*R, error) {
	ctx, cancel := context.WithTimeout(ctx, passOnMax)
	defer cancel()
	return call(ctx, r, grpc.MaxCallRecvMsgSize(math.MaxInt32)) // What all nodes use may be much.
}

// leader is the value of the key of who leads: the oldest that campaigns. Empty: nobody.
func (c *cache) leader(part string) string {
	prefix := leader.Prefix + part + "/"
	c.mu.RLock()
	defer c.mu.RUnlock()
	value, since := "", int64(0)
	for key, kv := range c.mu.claims { //tidy:ordered the oldest is one
		if strings.HasPrefix(key, prefix) && (since == 0 || kv.CreateRevision < since) {
			value, since = string(kv.Value), kv.CreateRevision
		}
	}
	return value
}

package state

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Bootstrap implements kubepb.ClusterStateServer. It is the only call that needs no
// identity: the token is one.
func (s *Service) Bootstrap(ctx context.Context, r *kubepb.BootstrapRequest) (*kubepb.SignResponse, error) {
	answer, err := s.bootstrap(ctx, r)
	return answer, toWire(err)
}

func (s *Service) bootstrap(ctx context.Context, r *kubepb.BootstrapRequest) (*kubepb.SignResponse, error) {
	if s.cfg.Authority == nil {
		return nil, fmt.Errorf("this cluster signs no certificates: %w", errNotHere)
	}
	if err := checkName("node", r.GetNode()); err != nil {
		return nil, err
	}
	if r.Token == "" || len(r.Token) > tokenBytesMax {
		return nil, invalid("token: it has between 1 and %d bytes", tokenBytesMax)
	}
	if err := checkCSR(r.Csr); err != nil {
		return nil, err
	}
	if !s.bootstraps.take("") {
		return nil, fmt.Errorf("join tokens: more than %d a second are tried, %w for another", bootstrapsPerSecond, errFull)
	}
	if err := s.nobodyLives(ctx, r.Node); err != nil {
		s.log.Warn("bootstrap was refused", "node", r.Node, "error", err)
		return nil, err
	}
	cert, roots, err := s.cfg.Authority.Bootstrap(ctx, r.Token, r.Node, r.Csr)
	if err != nil {
		s.log.Warn("bootstrap was refused", "node", r.Node, "error", err)
		return nil, err
	}
	s.log.Info("signed the first certificate of a node", "node", r.Node)
	return &kubepb.SignResponse{Certificate: cert, Authority: roots}, nil
}

// nobodyLives refuses the name of a node that beats: a token that is for no node in
// particular makes nobody one that is there, with what its pods may read.
func (s *Service) nobodyLives(ctx context.Context, node string) error {
	if _, err := s.fresh(ctx); err != nil {
		return err
	}
	if s.cache.lookup(HeartbeatPrefix+node) != nil {
		return fmt.Errorf("node %s lives; that it has ended %w: choose another name, or stop its kubelet and wait until its lease has run out", node, errGuard)
	}
	return nil
}

// roots are what nodes shall trust, read now and then: each heartbeat asks.
type roots struct {
	mu struct {
		sync.Mutex
		pem  []byte
		next time.Duration // When they are read again.
	}
}

// trusted are the authorities to be trusted. Nil: nobody signs here, or they were
// never read.
func (s *Service) trusted() []byte {
	if s.cfg.Authority == nil {
		return nil
	}
	now := s.clock.Mono()
	s.roots.mu.Lock()
	defer s.roots.mu.Unlock()
	if s.roots.mu.pem != nil && now < s.roots.mu.next {
		return s.roots.mu.pem
	}
	pem, err := s.cfg.Authority.Roots()
	if err != nil {
		s.log.Warn("the authorities cannot be read; nodes are told what they were before", "error", err)
	} else {
		s.roots.mu.pem = pem
	}
	s.roots.mu.next = now + rootsInterval
	return s.roots.mu.pem
}

func checkCSR(csr []byte) error {
	if len(csr) == 0 || len(csr) > csrBytesMax {
		return invalid("csr: it has between 1 and %d bytes of PEM", csrBytesMax)
	}
	return nil
}

// SignRequest implements kubepb.ClusterStateServer.
func (s *Service) SignRequest(ctx context.Context, r *kubepb.SignRequestRequest) (*kubepb.SignResponse, error) {
	answer, err := s.signRequest(ctx, r)
	return answer, toWire(err)
}

func (s *Service) signRequest(ctx context.Context, r *kubepb.SignRequestRequest) (*kubepb.SignResponse, error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return nil, err
	}
	node, _ := id.NodeName()
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Sign, NodeName: node}); err != nil {
		return nil, err
	}
	if s.cfg.Authority == nil {
		return nil, fmt.Errorf("this cluster signs no certificates: %w", errNotHere)
	}
	if err := checkCSR(r.GetCsr()); err != nil {
		return nil, err
	}
	if r.Profile != "" && r.Profile != "client" && r.Profile != "serving" {
		return nil, invalid("profile: %q is neither client nor serving", shorten(r.Profile))
	}
	cert, roots, err := s.cfg.Authority.Sign(ctx, pkix.Name{CommonName: id.Name, Organization: id.Groups}, r.Csr, r.Profile)
	if err != nil {
		s.log.Warn("a certificate was refused", "identity", id.Name, "profile", r.Profile, "error", err)
		return nil, err
	}
	return &kubepb.SignResponse{Certificate: cert, Authority: roots}, nil
}

// Explain implements kubepb.ClusterStateServer.
func (s *Service) Explain(ctx context.Context, r *kubepb.ExplainRequest) (*kubepb.ExplainResponse, error) {
	answer, err := s.explain(ctx, r)
	return answer, toWire(err)
}

func (s *Service) explain(ctx context.Context, r *kubepb.ExplainRequest) (*kubepb.ExplainResponse, error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return nil, err
	}
	ref := r.GetPod()
	if err := checkPlace(api.Pod, ref.GetNamespace(), ref.GetName()); err != nil {
		return nil, err
	}
	err = s.authorize(&auth.Request{Identity: id, Verb: auth.Explain, Kind: api.Pod, Namespace: ref.Namespace, Name: ref.Name})
	if err != nil {
		return nil, err
	}
	elsewhere, err := s.leading(id, schedulerPart)
	if err != nil {
		return nil, err
	}
	if elsewhere != nil {
		return passOn(ctx, r, elsewhere.Explain)
	}
	if s.cfg.Explainer == nil {
		return nil, fmt.Errorf("no scheduler runs here that could explain: %w", errNotHere)
	}
	return s.cfg.Explainer.Explain(ctx, &kubepb.Ref{Kind: api.Pod.Name, Namespace: ref.Namespace, Name: ref.Name})
}

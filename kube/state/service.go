package state

import (
	"context"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net/netip"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Authority signs certificates.
type Authority interface {
	// Bootstrap signs the first certificate of a node against a join token.
	Bootstrap(ctx context.Context, token, node string, csr []byte) (cert, roots []byte, err error)
	// Sign signs the next certificate of who asks, whose subject it gets.
	Sign(ctx context.Context, subject pkix.Name, csr []byte, profile string) (cert, roots []byte, err error)
	// Roots are the authorities to be trusted now, in PEM.
	Roots() ([]byte, error)
}

// Explainer says why a pod is where it is: the scheduler.
type Explainer interface {
	Explain(ctx context.Context, pod *kubepb.Ref) (*kubepb.ExplainResponse, error)
}

// Config says what a Service stands on. Store and Logger are required.
type Config struct {
	Store  *client.Client
	Logger hclog.Logger

	// Clock stamps objects and paces retries. Default: the machine's.
	Clock clock.Clock

	// Random is where uids and generated names come from. Default: the system's.
	Random io.Reader

	// Authority signs. Nil: Bootstrap and SignRequest answer that it is not here.
	Authority Authority

	// Explainer is asked by Explain. Nil: that answers that it is not here.
	Explainer Explainer

	// Address is where others reach this server, as this process' claims of leadership
	// say (leader.Claim). Peer connects to another server, with this server's
	// certificate as system:apiserver: what only a leader knows is asked there. Nil:
	// there are no others.
	Address string
	Peer    func(address string) (*grpc.ClientConn, error)

	// HeartbeatTTL is the lease of a node that asks for none in particular, in seconds.
	// Default 10.
	HeartbeatTTL int64

	// Timeline tells the store's timeline, which is another after a restore. Nil:
	// it is not known, and answers say 0.
	Timeline func() uint64

	// ServiceRange is where the addresses of services come from.
	// Default: DefaultServiceRange.
	ServiceRange netip.Prefix

	// PodRange is cut into one subnet of SubnetBits for each node.
	// Default: DefaultPodRange, and 24: 256 nodes of 254 addresses.
	PodRange   netip.Prefix
	SubnetBits int
}

// Ranges that other networks seldom use.
const (
	DefaultServiceRange = "10.96.0.0/16"
	DefaultPodRange     = "10.244.0.0/16"
	defaultSubnetBits   = 24
)

func (c *Config) setDefaults() error {
	var wrong []error
	if c.Store == nil {
		wrong = append(wrong, errors.New("no Store"))
	}
	if c.Logger == nil {
		wrong = append(wrong, errors.New("no Logger"))
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if !c.ServiceRange.IsValid() {
		c.ServiceRange = netip.MustParsePrefix(DefaultServiceRange)
	}
	if !c.PodRange.IsValid() {
		c.PodRange = netip.MustParsePrefix(DefaultPodRange)
	}
	if c.HeartbeatTTL == 0 {
		c.HeartbeatTTL = heartbeatTTL
	}
	if c.SubnetBits == 0 {
		c.SubnetBits = defaultSubnetBits
	}
	if c.Peer != nil && c.Address == "" {
		wrong = append(wrong, errors.New("no Address for others, as there are some"))
	}
	if err := checkRanges(c); err != nil {
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

// Service implements kubepb.ClusterStateServer. It is safe for use by many.
type Service struct {
	kubepb.UnimplementedClusterStateServer

	cfg   Config
	store *client.Client
	log   hclog.Logger
	clock clock.Clock
	cache *cache
	tasks *task.Group

	makings makings
	lines   lines

	barrier barrier

	timeline   timeline
	renewer    *client.Renewer // Of the leases of nodes.
	turns      turns
	events     eventLease
	eventRates *rates // Of nodes and people.
	partRates  *rates // Of the scheduler and the controllers.
	bootstraps *rates
	samples    samples
	roots      roots
	peers      peers
	tunnels    *tunnel.Hub

	random struct {
		sync.Mutex
		from io.Reader
	}

	upstream struct { // The watch that fills the cache.
		sync.Mutex
		watcher *client.Watcher // Nil between two.
	}
}

// New returns a service, which reads the store in the background: calls wait for it.
func New(cfg Config) (*Service, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, store: cfg.Store, log: cfg.Logger, clock: cfg.Clock, cache: newCache(), tasks: task.New(context.Background())}
	s.random.from = cfg.Random
	s.makings.forget()
	s.renewer = cfg.Store.NewRenewer(renewalStreams)
	s.eventRates = newRates(cfg.Clock, eventsPerSecond, eventsBurst, eventSourcesMax)
	s.partRates = newRates(cfg.Clock, partEventsPerSecond, partEventsBurst, 2)
	s.bootstraps = newRates(cfg.Clock, bootstrapsPerSecond, bootstrapsBurst, 1)
	s.tunnels = tunnel.NewHub(tunnel.HubConfig{Logger: cfg.Logger, Clock: cfg.Clock, Random: rand.Reader}) // Secrets: never those of a test.
	s.tasks.Go("cluster state cache", s.follow)
	s.tasks.Go("first steps", s.begin)
	return s, nil
}

// Ready returns once the cache is filled, and it is known whether the store was
// restored.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.filled(ctx); err != nil {
		return err
	}
	_, err := s.standsBy(ctx)
	return err
}

func (s *Service) filled(ctx context.Context) error {
	return s.cache.wait(ctx, s.clock, 1, func() {})
}

// Close ends watches and tunnels, and waits for what runs in the background. The store's client
// stays open.
func (s *Service) Close() error {
	s.tasks.Stop()
	s.cache.close()
	return errors.Join(s.tunnels.Close(), s.tasks.Wait(), s.peers.close())
}

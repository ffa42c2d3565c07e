// Package client talks to a cluster over the etcd v3 protocol: holdfast's, or
// any other that speaks it.
//
//	c, err := client.New(client.Config{Endpoints: []string{"https://a:2379", "https://b:2379"}, TLS: tls, Logger: log})
//	_, err = c.Put(ctx, client.Put{Key: "color", Value: []byte("blue")})
//	got, err := c.Get(ctx, client.Get{Range: client.Prefix("col")})
//
// A Client keeps one connection to each endpoint and gives calls to those that
// answer, in turn. What it adds to the protocol: a call moves to another member
// when that is safe (a write only if nothing can have come of it), a watch goes
// on after any failure without loss or duplicate, and a lease is renewed until
// its time is up. Answers are the protocol's own messages; errors of the
// protocol are the values of errors.go.
//
// Invariant: a write whose error is not ErrUnknownOutcome did not happen.
// Nothing survives the process: whoever crashes lets its leases run out.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Config says where the cluster is and how patient to be. Logger and Endpoints
// are required.
type Config struct {
	// Endpoints are the members' client addresses: "host:port", or URLs of the
	// schemes http, https, unix and unixs. Either all are encrypted or none.
	Endpoints []string

	// TLS is used for https and unixs, and for addresses without a scheme when
	// it is set. Nil: no client certificate, and the system's roots.
	TLS *tls.Config

	// User logs in with Password when a call needs it, and again when its token
	// has run out. Token is one that somebody else has made, in place of both.
	User, Password string
	Token          string

	// DialTimeout is how long one attempt to connect may take. A call goes on
	// waiting for a connection until its own deadline. Default 5 s.
	DialTimeout time.Duration

	// FailFast ends a call with ErrUnreachable when every member refuses to be
	// connected to: nobody listens, the name is unknown, a certificate does not
	// fit. Default: it waits, as the member may be starting. An attempt that only
	// takes too long is made again in both cases.
	FailFast bool

	// RequestTimeout ends a call whose context has no deadline; streams and
	// calls that may take long by nature have none. Default 15 s: two server
	// timeouts, so that a second member can be asked.
	RequestTimeout time.Duration

	// KeepAliveTime is how long a connection with calls on it may be silent
	// before it is probed. Default 10 s, which is also the least.
	KeepAliveTime time.Duration

	// KeepAliveTimeout is how long a probe may stay without answer before the
	// connection is given up. Default 3 s: with KeepAliveTime less than
	// RequestTimeout, so that another member can be asked still.
	KeepAliveTimeout time.Duration

	// RequestBytesMax and ResponseBytesMax bound one message: a larger one fails.
	// Zero: no limit but the members' own.
	RequestBytesMax, ResponseBytesMax int

	// Dial replaces the network, for members in the same process. The address
	// is "host:port" or "unix:path".
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Txn executes transactions in place of the network, for a member in the same
	// process: nothing is encoded, and nobody writes to what was passed afterwards.
	Txn func(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error)

	// Clock paces retries and renewals. Default: the machine's.
	Clock clock.Clock

	Logger hclog.Logger
}

func (c *Config) setDefaults() error {
	if c.Logger == nil {
		return errors.New("client config: no Logger")
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = dialTimeout
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = requestTimeout
	}
	if c.KeepAliveTime == 0 {
		c.KeepAliveTime = keepAliveTime
	}
	if c.KeepAliveTimeout == 0 {
		c.KeepAliveTimeout = keepAliveTimeout
	}
	if c.RequestBytesMax == 0 {
		c.RequestBytesMax = messageBytesMax
	}
	if c.ResponseBytesMax == 0 {
		c.ResponseBytesMax = messageBytesMax
	}
	if c.Dial == nil {
		c.Dial = dial
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	return nil
}

// Client is safe for use by many goroutines.
type Client struct {
	config   Config
	resolver *manual.Resolver
	conn     *grpc.ClientConn

	kv          pb.KVClient
	watch       pb.WatchClient
	lease       pb.LeaseClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient

	identity *identity

	tasks *task.Group // Watchers and renewals.

	mu struct {
		sync.Mutex
		endpoints []string
		closed    bool
	}
}

// New returns a client. It does not wait for a connection.
func New(cfg Config) (*Client, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	addresses, secure, err := parseEndpoints(cfg.Endpoints, cfg.TLS != nil)
	if err != nil {
		return nil, err
	}
	c := &Client{config: cfg, resolver: manual.NewBuilderWithScheme("holdfast"), identity: newIdentity(&cfg), tasks: task.New(context.Background())}
	c.mu.endpoints = cfg.Endpoints
	c.resolver.InitialState(resolver.State{Addresses: addresses})
	c.conn, err = grpc.NewClient("holdfast:///cluster",
		grpc.WithResolvers(c.resolver),
		grpc.WithTransportCredentials(transportCredentials(cfg.TLS, secure)),
		grpc.WithContextDialer(cfg.Dial),
		grpc.WithUnaryInterceptor(c.unaryWithToken),
		grpc.WithStreamInterceptor(c.streamWithToken),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDisableServiceConfig(), // Policy is ours, not the resolver's.
		grpc.WithDisableRetry(),         // Only this package knows what may be repeated.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectDelayMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectDelayMax},
			MinConnectTimeout: cfg.DialTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: cfg.KeepAliveTime, Timeout: cfg.KeepAliveTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec.New()),
			grpc.WaitForReady(!cfg.FailFast),
			grpc.MaxCallSendMsgSize(cfg.RequestBytesMax),
			grpc.MaxCallRecvMsgSize(cfg.ResponseBytesMax),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("client for %q: %w", cfg.Endpoints, err)
	}
	c.kv = pb.NewKVClient(c.conn)
	c.watch = pb.NewWatchClient(c.conn)
	c.lease = pb.NewLeaseClient(c.conn)
	c.cluster = pb.NewClusterClient(c.conn)
	c.maintenance = pb.NewMaintenanceClient(c.conn)
	c.auth = pb.NewAuthClient(c.conn)
	return c, nil
}

// At returns a client of its own for one endpoint, for questions to a certain
// member. Close it too.
func (c *Client) At(endpoint string) (*Client, error) {
	cfg := c.config
	cfg.Endpoints = []string{endpoint}
	return New(cfg)
}

// Connected reports whether a member is connected to at the moment.
func (c *Client) Connected() bool { return c.conn.GetState() == connectivity.Ready }

// Endpoints returns the addresses in use.
func (c *Client) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.mu.endpoints...)
}

// SetEndpoints replaces the addresses. Calls under way at one that stays are
// not disturbed.
func (c *Client) SetEndpoints(endpoints []string) error {
	addresses, secure, err := parseEndpoints(endpoints, c.config.TLS != nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, was, _ := parseEndpoints(c.mu.endpoints, c.config.TLS != nil); was != secure {
		return fmt.Errorf("endpoints %q: %w", endpoints, ErrMixedSecurity)
	}
	c.mu.endpoints = append([]string(nil), endpoints...)
	c.resolver.UpdateState(resolver.State{Addresses: addresses})
	return nil
}

// start runs f until it returns or the client is closed. It reports false when
// the client is closed already.
func (c *Client) start(name string, f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return false
	}
	c.tasks.Go(name, func(ctx context.Context) error {
		f(ctx)
		return nil
	})
	return true
}

// Close ends watchers and renewals, waits for them and closes connections.
// Calls under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	c.tasks.Stop()
	return errors.Join(c.tasks.Wait(), c.conn.Close())
}

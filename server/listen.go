package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"github.com/holdfast-db/holdfast/internal/frontdoor"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
	lockpb "github.com/holdfast-db/holdfast/proto/v3lockpb"
)

// listen opens the address of a URL; its scheme decides about TLS.
func (s *Server) listen(raw string, c *certificates) (net.Listener, *tls.Config, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	network, address := "tcp", u.Host
	if isUnix(u) {
		network, address = "unix", u.Host+u.Path
		if err := s.removeSocket(address); err != nil {
			return nil, nil, err
		}
	}
	l, err := s.cfg.Listen(network, address)
	if err != nil {
		return nil, nil, err
	}
	if isSecure(raw) {
		return l, c.accept, nil
	}
	return l, nil, nil
}

// removeSocket makes room for a socket where a process that was killed left its
// own. It touches neither one that somebody listens on nor any other file.
func (s *Server) removeSocket(path string) error {
	info, err := s.cfg.FS.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsSocket:
		return fmt.Errorf("%s: %w", path, errNoSocket)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s: %w", path, errSocketInUse)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return s.cfg.FS.Remove(path)
}

var (
	errNoSocket    = errors.New("there is a file of that name which is no socket")
	errSocketInUse = errors.New("another process listens there")
)

// openClients takes the client addresses. Nobody is served before the member
// has joined a quorum: connections wait.
func (s *Server) openClients(c *certificates) error {
	s.grpc = s.newGRPC(doorCredentials{})
	s.inside = newInside(s.newGRPC(insecure.NewCredentials()))
	if s.cfg.EnableGateway {
		g, err := s.newGateway()
		if err != nil {
			return err
		}
		s.gateway = g
	}
	s.http = s.newHTTP(s.clientHTTP())
	s.metricsServer = s.newHTTP(s.metricsHTTP())
	// Last: what has a door has the rest too, for who closes it.
	s.door = frontdoor.New(frontdoor.Config{
		Name: "client", Logger: s.log, Clock: s.cfg.Clock, Looking: handshakesMax, Timeout: sniffTimeout,
	})
	calls := frontdoor.Kind("")
	if len(s.cfg.ListenClientHTTPURLs) > 0 {
		calls = frontdoor.GRPC
	}
	if err := s.openPorts(c, "clients", s.cfg.ListenClientURLs, calls); err != nil {
		return err
	}
	if err := s.openPorts(c, "HTTP of clients", s.cfg.ListenClientHTTPURLs, frontdoor.HTTP); err != nil {
		return err
	}
	for _, u := range s.cfg.ListenMetricsURLs {
		l, secure, err := s.listen(u, c)
		if err != nil {
			return fmt.Errorf("listen for metrics on %s: %w", u, err)
		}
		if secure != nil {
			l = tls.NewListener(l, secure)
		}
		s.group.Go("metrics http", func(context.Context) error { return serving(s.metricsServer.Serve(l)) })
	}
	return nil
}

// openPorts takes the addresses of these URLs. One that is named twice, with TLS
// and without, serves both.
func (s *Server) openPorts(c *certificates, whom string, urls []string, only frontdoor.Kind) error {
	taken := map[string]int{} // Index into s.clients.
	for _, raw := range urls {
		address := addressOf(raw)
		if i, ok := taken[address]; ok {
			p := &s.clients[i]
			if isSecure(raw) {
				p.TLS = c.accept
			}
			p.Cleartext = p.Cleartext || !isSecure(raw)
			continue
		}
		l, secure, err := s.listen(raw, c)
		if err != nil {
			return fmt.Errorf("listen for %s on %s: %w", whom, raw, err)
		}
		taken[address] = len(s.clients)
		s.clients = append(s.clients, frontdoor.Port{Listener: l, TLS: secure, Cleartext: secure == nil, Only: only})
	}
	return nil
}

// addressOf a URL is what it has in common with one of another scheme.
func addressOf(raw string) string {
	_, address, _ := strings.Cut(raw, "://")
	return strings.TrimSuffix(address, "/")
}

func isSecure(raw string) bool {
	return strings.HasPrefix(raw, "https://") || strings.HasPrefix(raw, "unixs://")
}

// serveClients opens the gates.
func (s *Server) serveClients() {
	s.group.Go("client grpc", func(context.Context) error { return s.grpc.Serve(s.door.GRPC()) })
	s.group.Go("client http", func(context.Context) error { return serving(s.http.Serve(s.door.HTTP())) })
	s.group.Go("inside grpc", func(context.Context) error { return s.inside.grpc.Serve(s.inside.listener) })
	for _, l := range s.clients {
		s.door.Listen(l)
	}
}

// closeClients ends serving. Requests under way get as long as moment.
func (s *Server) closeClients(moment time.Duration) {
	if s.admin != nil {
		s.admin.Close()
	}
	for _, l := range s.clients {
		l.Close()
	}
	if s.door == nil {
		return
	}
	timer := s.cfg.Clock.AfterFunc(moment, s.grpc.Stop)
	s.hub.Close() // Watches never end by themselves.
	s.grpc.GracefulStop()
	timer.Stop()
	if s.gateway != nil {
		s.gateway.conn.Close()
	}
	s.inside.grpc.Stop()
	s.http.Close()
	s.metricsServer.Close()
	s.door.Close()
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: sniffTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          s.log.StandardLogger(nil),
	}
}

// serving is the error of a server that ended by itself.
func serving(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) newGRPC(creds credentials.TransportCredentials) *grpc.Server {
	streams := s.cfg.ConcurrentStreamsMax
	if streams == 0 {
		streams = math.MaxUint32
	}
	g := grpc.NewServer(append(s.traced(),
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(counting{codec.New(), s.metrics}),
		grpc.MaxRecvMsgSize(s.cfg.RequestBytesMax+receiveOverheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(sniffTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: s.cfg.KeepAliveMinTime}),
		grpc.KeepaliveParams(s.keepAlive()),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WaitForHandlers(true), // They use what is closed next.
	)...)
	g.RegisterService(kvDesc(), &kvService{core: s.core})
	pb.RegisterWatchServer(g, &watchService{core: s.core})
	pb.RegisterLeaseServer(g, &leaseService{core: s.core})
	pb.RegisterClusterServer(g, &clusterService{core: s.core})
	pb.RegisterMaintenanceServer(g, &maintenanceService{core: s.core})
	pb.RegisterAuthServer(g, &authService{core: s.core})
	lockpb.RegisterLockServer(g, &lockService{onBehalf: newOnBehalf(s.core)})
	electionpb.RegisterElectionServer(g, &electionService{onBehalf: newOnBehalf(s.core)})
	h := health.NewServer()
	s.healths = append(s.healths, h)
	healthpb.RegisterHealthServer(g, h)
	reflection.Register(g)
	s.calls.addServices(g.GetServiceInfo())
	return g
}

// keepAlive says how this member probes connections of clients.
func (s *Server) keepAlive() keepalive.ServerParameters {
	p := keepalive.ServerParameters{Time: s.cfg.KeepAliveInterval, Timeout: s.cfg.KeepAliveTimeout}
	if p.Time == 0 {
		p.Time = math.MaxInt64 // gRPC takes 0 for two hours.
	}
	return p
}

// inside serves the program that embeds the member, without a network.
type inside struct {
	grpc     *grpc.Server
	listener *bufconn.Listener
}

func newInside(g *grpc.Server) *inside {
	return &inside{g, bufconn.Listen(insideBufferBytes)}
}

// Inside is a connection to this member without a network, for a client of the
// program that embeds it. Calls wait until the member is ready.
func (s *Server) Inside(ctx context.Context) (net.Conn, error) {
	return s.inside.listener.DialContext(ctx)
}

// DialInside opens a connection to this member for the program that embeds it.
// Calls wait until the member is ready.
func (s *Server) DialInside() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///inside",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.Inside(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec.New()), grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	)
}

// doorCredentials tell gRPC about the TLS that was negotiated at the door.
type doorCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (doorCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c, ok := conn.(*tls.Conn); ok {
		return conn, credentials.TLSInfo{
			State:          c.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}, nil
	}
	return conn, nil, nil
}

// Info implements credentials.TransportCredentials.
func (doorCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "door"}
}

// Clone implements credentials.TransportCredentials.
func (c doorCredentials) Clone() credentials.TransportCredentials { return c }

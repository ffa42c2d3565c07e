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
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// certificates secure one kind of connection; nil means cleartext.
type certificates struct {
	accept *tls.Config
	dial   *tls.Config
}

func (c *certificates) dialing() *tls.Config {
	if c == nil {
		return nil
	}
	return c.dial
}

// certificates reads the files for connections accepted on urls.
func (s *Server) certificates(t TLS, urls []string) (*certificates, error) {
	if t.CertFile == "" {
		return nil, nil
	}
	own, err := s.reloader(t.CertFile, t.KeyFile, t.CAFile)
	if err != nil {
		return nil, err
	}
	c := &certificates{}
	if c.accept, err = own.ServerConfig(pki.ServerOptions{ClientAuth: t.ClientCertAuth}); err != nil {
		return nil, err
	}
	shown := own
	if t.ClientCertFile != "" {
		if shown, err = s.reloader(t.ClientCertFile, t.ClientKeyFile, t.CAFile); err != nil {
			return nil, err
		}
	}
	c.dial = shown.ClientConfig("")
	return c, nil
}

func (s *Server) reloader(cert, key, ca string) (*pki.Reloader, error) {
	return pki.NewReloader(pki.Config{
		FS: s.cfg.FS, Clock: s.cfg.Clock, Logger: s.log,
		Files: pki.Files{Cert: cert, Key: key, CA: ca},
	})
}

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
	if u.Scheme == "https" || u.Scheme == "unixs" {
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

// clientListener is an address of clients, taken but not served yet.
type clientListener struct {
	net.Listener
	secure *tls.Config
}

// openClients takes the client addresses. Nobody is served before the member
// has joined a quorum: connections wait.
func (s *Server) openClients(c *certificates) error {
	s.door = frontdoor.New(frontdoor.Config{
		Name: "client", Logger: s.log, Clock: s.cfg.Clock, Looking: handshakesMax, Timeout: sniffTimeout,
	})
	s.grpc = s.newGRPC(doorCredentials{})
	s.inside = newInside(s.newGRPC(insecure.NewCredentials()))
	s.http = s.newHTTP(s.clientHTTP())
	s.metricsServer = s.newHTTP(s.metricsHTTP())
	for _, u := range s.cfg.ListenClientURLs {
		l, secure, err := s.listen(u, c)
		if err != nil {
			return fmt.Errorf("listen for clients on %s: %w", u, err)
		}
		s.clients = append(s.clients, clientListener{l, secure})
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

// serveClients opens the gates.
func (s *Server) serveClients() {
	s.group.Go("client grpc", func(context.Context) error { return s.grpc.Serve(s.door.GRPC()) })
	s.group.Go("client http", func(context.Context) error { return serving(s.http.Serve(s.door.HTTP())) })
	s.group.Go("inside grpc", func(context.Context) error { return s.inside.grpc.Serve(s.inside.listener) })
	for _, l := range s.clients {
		s.door.Listen(l.Listener, l.secure)
	}
}

// closeClients ends serving. Requests under way get a moment.
func (s *Server) closeClients() {
	for _, l := range s.clients {
		l.Close()
	}
	if s.door == nil {
		return
	}
	timer := s.cfg.Clock.AfterFunc(stopTimeout, s.grpc.Stop)
	s.hub.Close() // Watches never end by themselves.
	s.grpc.GracefulStop()
	timer.Stop()
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
	g := grpc.NewServer(
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(counting{codec.New(), s.metrics}),
		grpc.MaxRecvMsgSize(s.cfg.RequestBytesMax+receiveOverheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(sniffTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WaitForHandlers(true), // They use what is closed next.
	)
	g.RegisterService(kvDesc(), &kvService{core: s.core})
	pb.RegisterWatchServer(g, &watchService{core: s.core})
	pb.RegisterLeaseServer(g, &leaseService{core: s.core})
	pb.RegisterClusterServer(g, &clusterService{core: s.core})
	pb.RegisterMaintenanceServer(g, &maintenanceService{core: s.core})
	pb.RegisterAuthServer(g, &authService{core: s.core})
	healthpb.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)
	s.calls.addServices(g.GetServiceInfo())
	return g
}

// inside serves the program that embeds the member, without a network.
type inside struct {
	grpc     *grpc.Server
	listener *bufconn.Listener
}

func newInside(g *grpc.Server) *inside {
	return &inside{g, bufconn.Listen(insideBufferBytes)}
}

// DialInside opens a connection to this member for the program that embeds it.
// Calls wait until the member is ready.
func (s *Server) DialInside() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///inside",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inside.listener.DialContext(ctx) }),
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

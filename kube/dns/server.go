package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
)

// Config says where a Server answers and what it knows. Listen, View, Synced, Random
// and Logger are required.
type Config struct {
	// Listen is where it answers, with UDP and TCP: an address of the node alone. Port 53
	// takes root.
	Listen netip.AddrPort

	Domain string // Of the cluster. Default: cluster.local.
	View   View
	// Synced reports whether the View has everything. Before it has, questions about the
	// cluster are answered with a failure, so that clients ask again.
	Synced func() bool

	// Resolvers are asked, in turn, what is not of the cluster. None: it is refused.
	// Called for each question, from many goroutines.
	Resolvers func() []netip.AddrPort

	Random func() uint64 // Numbers of questions that nobody can guess. From many goroutines.
	Clock  clock.Clock   // Default: the machine's.
	Logger hclog.Logger
}

// Server answers questions.
type Server struct {
	cfg   Config
	log   hclog.Logger
	zone  Zone
	cache cache
	turn  atomic.Uint32 // Counts answers of several records.
	first atomic.Int32  // The resolver that answered last.
	udp   *net.UDPConn
	tcp   net.Listener

	forwards, connections *crowd // What is going on.

	mu struct {
		sync.Mutex
		flights map[cacheKey]*flight
	}
}

// DefaultDomain is that of clusters.
const DefaultDomain = "cluster.local"

// Open listens, in the network namespace in which it is called. Serve answers; Close
// ends it if Serve was never called.
func Open(cfg Config) (*Server, error) {
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	at := cfg.Listen.String()
	tcp, err := net.Listen("tcp", at)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String()) // With port 0: the same.
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("dns: %w", err)
	}
	s.tcp, s.udp = tcp, udp.(*net.UDPConn)
	return s, nil
}

func newServer(cfg Config) (*Server, error) {
	if cfg.View == nil || cfg.Synced == nil || cfg.Random == nil || cfg.Logger == nil {
		return nil, errors.New("dns: no View, Synced, Random or Logger")
	}
	if cfg.Domain == "" {
		cfg.Domain = DefaultDomain
	}
	if cfg.Resolvers == nil {
		cfg.Resolvers = func() []netip.AddrPort { return nil }
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	domain := strings.ToLower(strings.Trim(cfg.Domain, "."))
	s := &Server{
		cfg: cfg, log: cfg.Logger.Named("dns"), zone: Zone{domain, cfg.View},
		forwards: newCrowd(forwardsMax), connections: newCrowd(connectionsMax),
	}
	s.mu.flights = map[cacheKey]*flight{}
	s.cache.clock, s.cache.mu.entries = cfg.Clock, map[cacheKey]cached{}
	return s, nil
}

// Addr is where it answers.
func (s *Server) Addr() netip.AddrPort { return netip.MustParseAddrPort(s.tcp.Addr().String()) }

// Close stops listening.
func (s *Server) Close() error {
	if s.udp == nil {
		return nil
	}
	return errors.Join(ignoreClosed(s.udp.Close()), ignoreClosed(s.tcp.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	g := task.New(ctx)
	stop := context.AfterFunc(g.Context(), func() { s.Close() })
	defer stop()
	g.Go("dns udp", func(ctx context.Context) error { return s.datagrams(ctx, g) })
	g.Go("dns tcp", func(ctx context.Context) error { return s.accept(ctx, g) })
	return g.Wait()
}

// datagrams answers at once what it knows, and has others ask for the rest.
func (s *Server) datagrams(ctx context.Context, g *task.Group) error {
	b := make([]byte, readMax)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			continue // Of an answer that could not be delivered.
		}
		q, refusal := parse(b[:n], false)
		if q == nil {
			s.send(refusal, from)
			continue
		}
		if m, ok := s.known(q); ok {
			s.send(q.pack(m), from)
			continue
		}
		if !s.forwards.enter(from.Addr()) {
			s.send(q.pack(q.failure()), from)
			continue
		}
		g.Go("dns question", func(ctx context.Context) error {
			defer s.forwards.leave(from.Addr())
			s.send(q.pack(s.resolve(ctx, q)), from)
			return nil
		})
	}
}

func (s *Server) send(b []byte, to netip.AddrPort) {
	if b == nil {
		return
	}
	if _, err := s.udp.WriteToUDPAddrPort(b, to); err != nil {
		s.log.Debug("an answer could not be sent", "error", err)
	}
}

func (s *Server) accept(ctx context.Context, g *task.Group) error {
	for {
		c, err := s.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			s.log.Warn("cannot accept a connection", "error", err)
			select {
			case <-s.cfg.Clock.After(acceptPause):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		if !s.connections.enter(from) {
			c.Close()
			continue
		}
		if !g.Go("dns connection", func(ctx context.Context) error {
			defer s.connections.leave(from)
			s.connection(ctx, c)
			return nil
		}) {
			c.Close()
		}
	}
}

// connection answers one question after the other.
func (s *Server) connection(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for {
		if c.SetDeadline(s.cfg.Clock.Wall().Add(connectionIdle)) != nil {
			return
		}
		b, err := readFramed(c)
		if err != nil {
			return
		}
		q, out := parse(b, true)
		if q != nil {
			m, ok := s.known(q)
			if !ok {
				m = s.resolve(ctx, q)
			}
			out = q.pack(m)
		}
		if out == nil || writeFramed(c, out) != nil {
			return
		}
	}
}

// Over TCP a message has its length before it.

func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFramed(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// Package frontdoor lets gRPC and plain HTTP share one port, with or without
// TLS.
//
// It looks at the first bytes of each connection, off the accept loop, under a
// deadline and with a bound on how many may be looked at: beyond it the one that
// has kept silent longest goes, so that strangers who say nothing hold up nobody.
// gRPC always runs on grpc-go's own transport.
//
// With TLS the two are told apart by ALPN: gRPC clients offer only h2, and
// whoever offers HTTP/1.1 too is a person's tool, and gets HTTP in the version
// that it likes best. In cleartext HTTP/2 begins with "PRI", which is no method
// of HTTP/1.1. A port may take both: a TLS handshake begins with a byte that is
// in no text.
package frontdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
)

// Config of a door.
type Config struct {
	Name    string // Of the endpoint, for logs.
	Logger  hclog.Logger
	Clock   clock.Clock
	Looking int           // How many connections may be looked at at a time.
	Timeout time.Duration // Of TLS handshake and first bytes together.
}

// acceptPause after an accept that failed: out of descriptors, mostly.
const acceptPause = 100 * time.Millisecond

// Port is an address to accept on, and what may come through it.
type Port struct {
	net.Listener
	TLS       *tls.Config // Nil: cleartext.
	Cleartext bool        // Beside TLS. Without TLS it says nothing.
	Only      Kind        // Connections of the other kind are closed.
}

// Kind of connections.
type Kind string

// The kinds. The zero Kind is both.
const (
	GRPC Kind = "gRPC"
	HTTP Kind = "HTTP"
)

func (k Kind) protocols() []string {
	if k == GRPC {
		return []string{http2}
	}
	return []string{http2, http1}
}

// The protocols' names in ALPN.
const (
	http1 = "http/1.1"
	http2 = "h2"
)

// Door sorts connections.
type Door struct {
	cfg   Config
	group *task.Group
	grpc  *handed
	http  *handed

	mu struct {
		sync.Mutex
		closed    bool
		listeners []net.Listener
		next      uint64
		looking   map[net.Conn]uint64 // And when each came. At most cfg.Looking.
	}
}

// New returns a door that nothing comes through yet.
func New(cfg Config) *Door {
	d := &Door{
		cfg:   cfg,
		group: task.New(context.Background()),
		grpc:  newHanded(cfg.Name),
		http:  newHanded(cfg.Name),
	}
	d.mu.looking = map[net.Conn]uint64{}
	return d
}

// GRPC hands out the connections that speak gRPC. With TLS they are *tls.Conn,
// the handshake done already.
func (d *Door) GRPC() net.Listener { return d.grpc }

// HTTP hands out all others.
func (d *Door) HTTP() net.Listener { return d.http }

// Listen starts to accept on a port.
func (d *Door) Listen(p Port) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		p.Close()
		return
	}
	d.mu.listeners = append(d.mu.listeners, p.Listener)
	if p.TLS != nil {
		p.TLS = offering(p.TLS, p.Only.protocols())
	}
	d.group.Go(d.cfg.Name+" accept", func(ctx context.Context) error { return d.accept(ctx, p) })
}

// offering is a configuration that offers these protocols, whatever it chooses
// for a client, and notes what the client offers.
func offering(secure *tls.Config, protocols []string) *tls.Config {
	c := secure.Clone()
	c.NextProtos = protocols
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if g, ok := hello.Conn.(*greeted); ok {
			g.http1 = slices.Contains(hello.SupportedProtos, http1)
		}
		if secure.GetConfigForClient == nil {
			return nil, nil // It stays with c.
		}
		chosen, err := secure.GetConfigForClient(hello)
		if chosen != nil {
			chosen = chosen.Clone()
			chosen.NextProtos = protocols
		}
		return chosen, err
	}
	return c
}

// greeted is a connection below TLS, and what the client's greeting said.
type greeted struct {
	net.Conn
	http1 bool // It speaks HTTP/1.1 too.
}

func (d *Door) accept(ctx context.Context, p Port) error {
	for ctx.Err() == nil {
		conn, err := p.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			d.cfg.Logger.Error("cannot accept a connection", "endpoint", d.cfg.Name, "address", p.Addr().String(), "error", err)
			select {
			case <-d.cfg.Clock.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		if !d.hold(conn) {
			conn.Close()
			continue
		}
		d.group.Go(d.cfg.Name+" handshake", func(context.Context) error { d.look(conn, p); return nil })
	}
	return nil
}

func (d *Door) look(conn net.Conn, p Port) {
	timer := d.cfg.Clock.AfterFunc(d.cfg.Timeout, func() { conn.Close() })
	sorted, kind, err := p.sort(conn)
	timer.Stop()
	d.release(conn)
	if err == nil && p.Only != "" && kind != p.Only {
		err = errors.New("this port speaks " + string(p.Only) + " alone")
	}
	switch {
	case errors.Is(err, io.EOF): // A probe of the port.
		conn.Close()
	case err != nil:
		d.cfg.Logger.Warn("rejected connection on "+d.cfg.Name+" endpoint", "remote-addr", conn.RemoteAddr().String(), "error", err)
		conn.Close()
	case kind == GRPC:
		d.grpc.hand(sorted)
	default:
		d.http.hand(sorted)
	}
}

// hold takes a connection in; when there are too many, the oldest goes: who has
// something to say says it at once.
func (d *Door) hold(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.looking) >= d.cfg.Looking {
		var oldest net.Conn
		for c, came := range d.mu.looking { //tidy:ordered the least is looked for
			if oldest == nil || came < d.mu.looking[oldest] {
				oldest = c
			}
		}
		oldest.Close()
		delete(d.mu.looking, oldest)
	}
	d.mu.next++
	d.mu.looking[conn] = d.mu.next
	return !d.mu.closed
}

func (d *Door) release(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.looking, conn)
}

// handshakeByte begins each TLS connection.
const handshakeByte = 0x16

func (p Port) sort(conn net.Conn) (net.Conn, Kind, error) {
	secure := p.TLS != nil
	if secure && p.Cleartext {
		first := make([]byte, 1)
		if _, err := io.ReadFull(conn, first); err != nil {
			return nil, "", err
		}
		secure = first[0] == handshakeByte
		conn = &peeked{conn, first}
	}
	if secure {
		below := &greeted{Conn: conn}
		c := tls.Server(below, p.TLS)
		if err := c.Handshake(); err != nil {
			return nil, "", err
		}
		calls := p.Only == GRPC || p.Only == "" && !below.http1
		if calls && c.ConnectionState().NegotiatedProtocol == http2 {
			return c, GRPC, nil
		}
		return c, HTTP, nil
	}
	first := make([]byte, len("PRI"))
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, "", err
	}
	if string(first) == "PRI" {
		return &peeked{conn, first}, GRPC, nil
	}
	return &peeked{conn, first}, HTTP, nil
}

// Close ends accepting. Connections that were handed out belong to others.
func (d *Door) Close() error {
	d.mu.Lock()
	d.mu.closed = true
	for _, l := range d.mu.listeners {
		l.Close()
	}
	for conn := range d.mu.looking { //tidy:ordered all are closed
		conn.Close()
	}
	d.mu.Unlock()
	d.grpc.Close()
	d.http.Close()
	d.group.Stop()
	return d.group.Wait()
}

// peeked gives back the bytes that were looked at.
type peeked struct {
	net.Conn
	first []byte
}

func (c *peeked) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// handed is a listener whose connections were accepted elsewhere.
type handed struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHanded(name string) *handed {
	return &handed{name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (h *handed) hand(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener. Connections have addresses of their own.
func (h *handed) Addr() net.Addr { return &net.UnixAddr{Name: h.name, Net: "handed"} }

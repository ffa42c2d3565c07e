// Package frontdoor lets gRPC and plain HTTP share one port, with or without
// TLS.
//
// It looks at the first bytes of each connection, off the accept loop, under a
// deadline and with a bound on how many may be looked at, so that strangers who
// say nothing hold up nobody. gRPC always runs on grpc-go's own transport.
//
// With TLS the two are told apart by ALPN: gRPC clients offer only h2, and
// whoever offers HTTP/1.1 too is a person's tool and gets that. In cleartext
// HTTP/2 begins with "PRI", which is no method of HTTP/1.1.
package frontdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
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

// Door sorts connections.
type Door struct {
	cfg   Config
	group *task.Group
	grpc  *handed
	http  *handed
	slots chan struct{} // Taken from accept to the end of the look.

	mu struct {
		sync.Mutex
		closed    bool
		listeners []net.Listener
		looking   map[net.Conn]struct{}
	}
}

// New returns a door that nothing comes through yet.
func New(cfg Config) *Door {
	d := &Door{
		cfg:   cfg,
		group: task.New(context.Background()),
		grpc:  newHanded(cfg.Name),
		http:  newHanded(cfg.Name),
		slots: make(chan struct{}, cfg.Looking),
	}
	d.mu.looking = map[net.Conn]struct{}{}
	return d
}

// GRPC hands out the connections that speak gRPC. With TLS they are *tls.Conn,
// the handshake done already.
func (d *Door) GRPC() net.Listener { return d.grpc }

// HTTP hands out all others.
func (d *Door) HTTP() net.Listener { return d.http }

// Listen starts to accept on l; secure nil means cleartext.
func (d *Door) Listen(l net.Listener, secure *tls.Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		l.Close()
		return
	}
	d.mu.listeners = append(d.mu.listeners, l)
	if secure != nil {
		secure = secure.Clone()
		secure.NextProtos = []string{"http/1.1", "h2"}
	}
	d.group.Go(d.cfg.Name+" accept", func(ctx context.Context) error { return d.accept(ctx, l, secure) })
}

func (d *Door) accept(ctx context.Context, l net.Listener, secure *tls.Config) error {
	for ctx.Err() == nil {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			d.cfg.Logger.Error("cannot accept a connection", "endpoint", d.cfg.Name, "address", l.Addr().String(), "error", err)
			select {
			case <-d.cfg.Clock.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case d.slots <- struct{}{}:
			d.group.Go(d.cfg.Name+" handshake", func(context.Context) error { d.look(conn, secure); return nil })
		case <-ctx.Done():
			conn.Close()
		}
	}
	return nil
}

func (d *Door) look(conn net.Conn, secure *tls.Config) {
	defer func() { <-d.slots }()
	if !d.hold(conn) {
		conn.Close()
		return
	}
	timer := d.cfg.Clock.AfterFunc(d.cfg.Timeout, func() { conn.Close() })
	sorted, isGRPC, err := sort(conn, secure)
	timer.Stop()
	d.release(conn)
	switch {
	case errors.Is(err, io.EOF): // A probe of the port.
		conn.Close()
	case err != nil:
		d.cfg.Logger.Warn("rejected connection", "endpoint", d.cfg.Name, "remote-addr", conn.RemoteAddr().String(), "error", err)
		conn.Close()
	case isGRPC:
		d.grpc.hand(sorted)
	default:
		d.http.hand(sorted)
	}
}

func (d *Door) hold(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.looking[conn] = struct{}{}
	return !d.mu.closed
}

func (d *Door) release(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.looking, conn)
}

func sort(conn net.Conn, secure *tls.Config) (net.Conn, bool, error) {
	if secure != nil {
		c := tls.Server(conn, secure)
		if err := c.Handshake(); err != nil {
			return nil, false, err
		}
		return c, c.ConnectionState().NegotiatedProtocol == "h2", nil
	}
	first := make([]byte, len("PRI"))
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, false, err
	}
	return &peeked{conn, first}, string(first) == "PRI", nil
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

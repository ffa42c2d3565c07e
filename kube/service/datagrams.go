package service

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// flow is what one client and one endpoint send each other.
type flow struct {
	*net.UDPConn // Connected to the endpoint.
	from         origin
	endpoint     netip.AddrPort
}

// origin is where a flow comes from: a client, and the listener that it knows.
type origin struct {
	listener *net.UDPConn
	client   netip.AddrPort
}

// relay carries datagrams until the listener is closed. Each flow has a task that
// brings back what the endpoint says.
func (s *served) relay(ctx context.Context, l *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer s.endFlows(func(f *flow) bool { return f.from.listener == l })
	b := make([]byte, datagramMax)
	for {
		n, client, err := l.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // Of an answer that could not be delivered.
		}
		from := origin{l, client}
		s.mu.Lock()
		f := s.mu.flows[from]
		s.mu.Unlock()
		if f == nil {
			if f = s.begin(from); f == nil {
				continue // A datagram may be lost.
			}
		}
		if _, err := f.Write(b[:n]); err != nil {
			f.Close() // The next one begins anew.
		}
	}
}

// endFlows closes some; their tasks do the rest.
func (s *served) endFlows(which func(*flow) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.mu.flows { //tidy:ordered each by itself
		if which(f) {
			f.Close()
		}
	}
}

// begin makes a flow. Nil: there is no endpoint, or there are too many flows.
func (s *served) begin(from origin) *flow {
	e, ok := s.endpoint(from.client.Addr().Unmap(), nil)
	if !ok || !s.enterFlow() {
		return nil
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e))
	if err != nil {
		s.leaveFlow()
		s.plane.log.Debug("no flow to an endpoint", "endpoint", e, "error", err)
		return nil
	}
	f := &flow{c, from, e}
	s.mu.Lock()
	s.mu.flows[from] = f
	if !slices.Contains(backendsOf(s.mu.port), e) { // It has just gone.
		f.Close()
	}
	s.mu.Unlock()
	if !s.plane.tasks.Go("service flow", func(ctx context.Context) error { s.answer(ctx, f); return nil }) {
		s.drop(f)
		return nil
	}
	return f
}

// drop ends what begin began.
func (s *served) drop(f *flow) {
	f.Close()
	s.mu.Lock()
	delete(s.mu.flows, f.from)
	s.mu.Unlock()
	s.leaveFlow()
}

// answer brings back what an endpoint says, until the flow is closed or silent for long.
func (s *served) answer(ctx context.Context, f *flow) {
	defer s.drop(f)
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	raw, err := f.SyscallConn()
	for err == nil {
		if err = f.SetReadDeadline(s.plane.cfg.Clock.Wall().Add(flowIdle)); err == nil {
			err = s.answerOnce(f, raw)
		}
	}
}

// answerOnce takes a buffer once there is something to read: a thousand flows wait
// without one.
func (s *served) answerOnce(f *flow, raw syscall.RawConn) error {
	var read error
	b, n := (*[datagramMax]byte)(nil), 0
	err := raw.Read(func(fd uintptr) bool {
		b = s.plane.datagrams.Get().(*[datagramMax]byte)
		if n, read = unix.Read(int(fd), b[:]); read != unix.EAGAIN {
			return true
		}
		s.plane.datagrams.Put(b)
		b = nil
		return false
	})
	if b != nil {
		defer s.plane.datagrams.Put(b)
	}
	if err := errors.Join(err, read); err != nil {
		return err
	}
	_, err = f.from.listener.WriteToUDPAddrPort(b[:n], f.from.client)
	return err
}

// share lets nodes of one machine listen at the same place.
func share(_, _ string, c syscall.RawConn) error {
	var err error
	if outer := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); outer != nil {
		return outer
	}
	return err
}

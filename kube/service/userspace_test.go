package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/service"
)

// local is an endpoint on loopback that says its name, then echoes.
type local struct {
	name string
	at   netip.AddrPort
	l    net.Listener
	p    net.PacketConn
	open atomic.Int32 // Connections.
}

func newLocal(t *testing.T, name string) *local {
	t.Helper()
	e := &local{name: name}
	networktest.Eventually(t, func() (err error) { // A port that is free for both.
		if e.l, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return err
		}
		if e.p, err = net.ListenPacket("udp4", e.l.Addr().String()); err != nil {
			e.l.Close()
		}
		return err
	})
	t.Cleanup(e.close)
	e.at = netip.MustParseAddrPort(e.l.Addr().String())
	go func() {
		for {
			c, err := e.l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				e.open.Add(1)
				defer e.open.Add(-1)
				fmt.Fprintln(c, name)
				io.Copy(c, c)
				fmt.Fprintln(c, "bye")
			}()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := e.p.ReadFrom(b)
			if err != nil {
				return
			}
			e.p.WriteTo([]byte(name), from)
		}
	}()
	return e
}

func (e *local) close() { e.l.Close(); e.p.Close() }

// freePort is one that nobody listens at now.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func newUserspace(t *testing.T) *service.Userspace {
	t.Helper()
	u, err := service.NewUserspace(service.UserspaceConfig{Random: rand.Uint64, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// loopback is a service with an address of loopback and a port of the node.
func loopback(t *testing.T, p service.Protocol, endpoints ...*local) *service.Port {
	t.Helper()
	port := &service.Port{
		Name: "default/web/" + p.String(), Protocol: p,
		Fronts: []service.Front{{Address: netip.MustParseAddr("127.96.0.10"), Port: freePort(t)}, {Port: freePort(t)}},
	}
	return with(port, endpoints...)
}

func with(p *service.Port, endpoints ...*local) *service.Port {
	q := *p
	q.Endpoints = nil
	for _, e := range endpoints {
		q.Endpoints = append(q.Endpoints, e.at)
	}
	return &q
}

func askLocal(t *testing.T, f service.Front) (string, error) {
	t.Helper()
	at := f.Address
	if !at.IsValid() {
		at = netip.MustParseAddr("127.0.0.1")
	}
	c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(at, f.Port).String(), 20*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var name string
	_, err = fmt.Fscan(c, &name)
	return name, err
}

func TestWithoutRootServicesAreReachedOnLoopback(t *testing.T) {
	leak.Check(t)
	u := newUserspace(t)
	a, b, c := newLocal(t, "a"), newLocal(t, "b"), newLocal(t, "c")
	web := loopback(t, service.TCP, a, b, c)
	if err := u.Replace(planOf(web)); err != nil {
		t.Fatal(err)
	}
	for _, f := range web.Fronts {
		counts := map[string]int{}
		for range 300 {
			name, err := askLocal(t, f)
			if err != nil {
				t.Fatal(err)
			}
			counts[name]++
		}
		even(t, counts, 300, 3)
	}
	// All that both sides say arrives, each until it has said all.
	conn, err := net.Dial("tcp4", netip.AddrPortFrom(web.Fronts[0].Address, web.Fronts[0].Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, strings.Repeat("x", 1<<20))
	conn.(*net.TCPConn).CloseWrite()
	all, err := io.ReadAll(conn)
	if err != nil || len(all) != len("a\n")+1<<20+len("bye\n") {
		t.Errorf("%d bytes, %v", len(all), err)
	}
	// An endpoint that died unnoticed costs nobody a connection.
	b.close()
	for range 30 {
		if name, err := askLocal(t, web.Fronts[1]); err != nil || name == "b" {
			t.Fatal(name, err)
		}
	}
	for _, p := range []*service.Port{with(web), nil} {
		if err := u.Update(service.Plan{web.Name: p}); err != nil {
			t.Fatal(err)
		}
		if _, err := askLocal(t, web.Fronts[0]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without endpoints: %v", err)
		}
	}
}

func TestWithoutRootClientsStickAndConnectionsOutliveTheirEndpointsTurn(t *testing.T) {
	leak.Check(t)
	u := newUserspace(t)
	a, b := newLocal(t, "a"), newLocal(t, "b")
	web := loopback(t, service.TCP, a, b)
	web.Sticky = time.Hour
	if err := u.Replace(planOf(web)); err != nil {
		t.Fatal(err)
	}
	first, err := askLocal(t, web.Fronts[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if name, err := askLocal(t, web.Fronts[1]); name != first {
			t.Fatal(name, err)
		}
	}
	conn, err := net.Dial("tcp4", netip.AddrPortFrom(web.Fronts[0].Address, web.Fronts[0].Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reads(t, conn)
	other := a
	if first == "a" {
		other = b
	}
	if err := u.Update(planOf(with(web, other))); err != nil {
		t.Fatal(err)
	}
	if name, err := askLocal(t, web.Fronts[0]); name != other.name {
		t.Error(name, err)
	}
	fmt.Fprintln(conn, "still")
	reads(t, conn)
}

func TestWithoutRootDatagramsFollowTheirEndpoints(t *testing.T) {
	leak.Check(t)
	u := newUserspace(t)
	a, b := newLocal(t, "a"), newLocal(t, "b")
	web := loopback(t, service.UDP, a)
	if err := u.Replace(planOf(web)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp4", netip.AddrPortFrom(web.Fronts[0].Address, web.Fronts[0].Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := func(want string) {
		t.Helper()
		networktest.Eventually(t, func() error {
			c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			c.Write([]byte("?"))
			got := make([]byte, 64)
			n, err := c.Read(got)
			if err == nil && string(got[:n]) != want {
				err = fmt.Errorf("%s answers, not %s", got[:n], want)
			}
			return err
		})
	}
	answers("a")
	draining := with(web, b)
	draining.Draining = []netip.AddrPort{a.at}
	if err := u.Update(planOf(draining)); err != nil {
		t.Fatal(err)
	}
	answers("a")
	if err := u.Update(planOf(with(web, b))); err != nil {
		t.Fatal(err)
	}
	answers("b")
}

func TestWithoutRootTwoNodesOfOneMachineShareTheirPlaces(t *testing.T) {
	leak.Check(t)
	first, second := newUserspace(t), newUserspace(t)
	a := newLocal(t, "a")
	web := loopback(t, service.TCP, a)
	for _, u := range []*service.Userspace{first, second} {
		if err := u.Replace(planOf(web)); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	networktest.Eventually(t, func() error { // A connection that waited for the first may be reset.
		_, err := askLocal(t, web.Fronts[0])
		return err
	})
}

func TestAPlaceThatIsTakenDoesNotKeepOthersFromTheirs(t *testing.T) {
	leak.Check(t)
	u := newUserspace(t)
	a := newLocal(t, "a")
	web, other := loopback(t, service.TCP, a), loopback(t, service.TCP, a)
	other.Name = "default/other"
	var config net.ListenConfig
	taken, err := config.Listen(context.Background(), "tcp4", netip.AddrPortFrom(web.Fronts[0].Address, web.Fronts[0].Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := u.Replace(planOf(web, other)); err == nil || !strings.Contains(err.Error(), web.Name) {
		t.Errorf("a place that is taken: %v", err)
	}
	for _, f := range []service.Front{web.Fronts[1], other.Fronts[0]} {
		if _, err := askLocal(t, f); err != nil {
			t.Error(err)
		}
	}
	taken.Close()
	if err := u.Replace(planOf(web, other)); err != nil {
		t.Fatal(err)
	}
	if _, err := askLocal(t, web.Fronts[0]); err != nil {
		t.Error(err)
	}
}

// quiet is a log that counts what has a word in it.
type quiet struct {
	mu   sync.Mutex
	text string
}

func (q *quiet) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.text += string(b)
	return len(b), nil
}

func (q *quiet) count(word string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return strings.Count(q.text, word)
}

// narrow is a plane with two places for connections and one for flows at each port.
func narrow(t *testing.T) (*service.Userspace, *quiet) {
	t.Helper()
	log := &quiet{}
	u, err := service.NewUserspace(service.UserspaceConfig{Connections: 8, Flows: 4, Random: rand.Uint64, Logger: hclog.New(&hclog.LoggerOptions{Output: log})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u, log
}

func TestWithoutRootAFloodWaitsAndLeavesOthersTheirs(t *testing.T) {
	leak.Check(t)
	u, log := narrow(t)
	a, b := newLocal(t, "a"), newLocal(t, "b")
	flooded, other := loopback(t, service.TCP, b), loopback(t, service.TCP, a)
	other.Name = "default/other/tcp"
	if err := u.Replace(planOf(flooded, other)); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(flooded.Fronts[0].Address, flooded.Fronts[0].Port).String()
	var conns []net.Conn
	for range 20 { // Two are carried, one is in the plane's hands, the kernel has the rest.
		c, err := net.Dial("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	reads(t, conns[0])
	reads(t, conns[1])
	for range 20 {
		if name, err := askLocal(t, other.Fronts[0]); err != nil || name != "a" {
			t.Fatalf("another service in the flood: %s, %v", name, err)
		}
	}
	if open := b.open.Load(); open != 2 {
		t.Errorf("%d connections are carried", open)
	}
	conns[2].SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := conns[2].Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection without a place: %d bytes, %v", n, err)
	}
	conns[0].Close()
	reads(t, conns[2])
	if n := log.count("wait until others of it end: port=" + flooded.Name + " "); n != 1 {
		t.Errorf("told %d times", n)
	}
	// When the port goes, who waits is not kept waiting.
	if err := u.Update(service.Plan{flooded.Name: nil}); err != nil {
		t.Fatal(err)
	}
	conns[3].SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := conns[3].Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that waited for a port that is gone: %d bytes, %v", n, err)
	}
}

func TestWithoutRootFlowsOfDatagramsHaveTheirPlacesToo(t *testing.T) {
	leak.Check(t)
	u, log := narrow(t)
	a := newLocal(t, "a")
	dns := loopback(t, service.UDP, a)
	if err := u.Replace(planOf(dns)); err != nil {
		t.Fatal(err)
	}
	flow := func() net.Conn {
		c, err := net.Dial("udp4", netip.AddrPortFrom(dns.Fronts[0].Address, dns.Fronts[0].Port).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answers := func(c net.Conn) error {
		c.SetDeadline(time.Now().Add(50 * time.Millisecond))
		c.Write([]byte("?"))
		_, err := c.Read(make([]byte, 8))
		return err
	}
	first, second := flow(), flow()
	networktest.Eventually(t, func() error { return answers(first) })
	if err := answers(second); err == nil {
		t.Error("there is a second flow where one may be")
	}
	networktest.Eventually(t, func() error {
		if told := log.count("datagrams of new clients of a service are lost"); told != 1 {
			return fmt.Errorf("told %d times", told)
		}
		return nil
	})
	b := newLocal(t, "b")
	if err := u.Update(planOf(with(dns, b))); err != nil { // The first ends, and leaves its place.
		t.Fatal(err)
	}
	networktest.Eventually(t, func() error { return answers(second) })
}

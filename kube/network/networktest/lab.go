// Package networktest makes small networks in namespaces of their own for tests: a
// wire, machines on it, and pods. The machine's own network is never touched, and all
// is gone when the test ends: nothing has a name outside of it.
//
// It takes root. Without, a test is left out, or fails with HOLDFAST_REQUIRE_ALL=1.
package networktest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace.
type Space struct {
	t      testing.TB
	handle netns.NsHandle
}

// Lab is a wire with machines.
type Lab struct {
	t      testing.TB
	wire   *Space // Has the bridge that is the wire.
	kernel *netlink.Handle
	count  int
}

// Root leaves a test out that does not run as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal("network namespaces take root")
	}
	t.Skip("network namespaces take root")
}

// New makes a wire without machines.
func New(t testing.TB) *Lab {
	t.Helper()
	Root(t)
	l := &Lab{t: t, wire: NewSpace(t)}
	var err error
	if l.kernel, err = netlink.NewHandleAt(l.wire.handle, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.kernel.Close)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wire"}}
	if err := l.kernel.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	if err := l.kernel.LinkSetUp(bridge); err != nil {
		t.Fatal(err)
	}
	return l
}

// Machine makes a namespace whose interface "uplink" is on the wire. It has no default
// route.
func (l *Lab) Machine(address netip.Prefix) *Space {
	l.t.Helper()
	s := NewSpace(l.t)
	l.count++
	port := fmt.Sprintf("port%d", l.count)
	pair := netlink.NewVeth(netlink.LinkAttrs{Name: port})
	pair.PeerName, pair.PeerNamespace = "uplink", netlink.NsFd(s.handle)
	if err := l.kernel.LinkAdd(pair); err != nil {
		l.t.Fatal(err)
	}
	bridge, err := l.kernel.LinkByName("wire")
	if err != nil {
		l.t.Fatal(err)
	}
	end, err := l.kernel.LinkByName(port)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.kernel.LinkSetMaster(end, bridge); err != nil {
		l.t.Fatal(err)
	}
	if err := l.kernel.LinkSetUp(end); err != nil {
		l.t.Fatal(err)
	}
	s.Netlink(func(h *netlink.Handle) error {
		up, err := h.LinkByName("uplink")
		if err != nil {
			return err
		}
		ip := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
		if err := h.AddrAdd(up, &netlink.Addr{IPNet: ip}); err != nil {
			return err
		}
		return h.LinkSetUp(up)
	})
	return s
}

// Apart runs the rest of a test in a process whose network is its own from the start:
// threads that nobody calls by name are in it too. It reports whether this is that
// process, and with the space of it.
func Apart(t *testing.T) (*Space, bool) {
	t.Helper()
	Root(t)
	const within = "HOLDFAST_TEST_APART"
	if os.Getenv(within) == t.Name() {
		s := &Space{t: t}
		var err error
		if s.handle, err = netns.Get(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.handle.Close() })
		s.raiseLoopback()
		return s, true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), within+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return nil, false
}

// NewSpace makes a namespace with nothing but its loopback.
func NewSpace(t testing.TB) *Space {
	t.Helper()
	Root(t)
	s := &Space{t: t}
	if err := apart(func() (err error) {
		s.handle, err = netns.New()
		return err
	}); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { s.handle.Close() })
	s.raiseLoopback()
	return s
}

func (s *Space) raiseLoopback() {
	s.t.Helper()
	s.Netlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
}

// apart calls f on a thread of its own, whose namespace may change: it comes back to
// the one that it had.
func apart(f func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		return err
	}
	defer before.Close()
	err = f()
	if back := netns.Set(before); back != nil {
		panic(fmt.Sprintf("a thread is lost in a namespace: %v", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Path names the namespace for who opens it.
func (s *Space) Path() string { return fmt.Sprintf("/proc/self/fd/%d", int(s.handle)) }

// In calls f within the namespace. Sockets that f opens stay there.
func (s *Space) In(f func() error) error {
	return apart(func() error {
		if err := netns.Set(s.handle); err != nil {
			return err
		}
		return f()
	})
}

// Do is In for what must succeed.
func (s *Space) Do(f func() error) {
	s.t.Helper()
	if err := s.In(f); err != nil {
		s.t.Fatal(err)
	}
}

// Netlink calls f with a connection to the kernel about the namespace.
func (s *Space) Netlink(f func(h *netlink.Handle) error) {
	s.t.Helper()
	h, err := netlink.NewHandleAt(s.handle, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		s.t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		s.t.Fatal(err)
	}
}

// Dial connects from within the namespace.
func (s *Space) Dial(network, address string) (net.Conn, error) {
	var c net.Conn
	err := s.In(func() (err error) {
		c, err = net.DialTimeout(network, address, 5*time.Second)
		return err
	})
	return c, err
}

// Echo serves TCP and UDP at a port of all addresses of the namespace, until the test
// ends: whoever connects, or sends a datagram, is told a name and who it seems to be:
// "NAME ADDRESS".
func (s *Space) Echo(port uint16, name string) {
	s.t.Helper()
	at := fmt.Sprintf("0.0.0.0:%d", port)
	var l net.Listener
	var p net.PacketConn
	s.Do(func() (err error) {
		if l, err = net.Listen("tcp4", at); err != nil {
			return err
		}
		p, err = net.ListenPacket("udp4", at)
		return err
	})
	s.t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(s.t.Context(), func() { c.Close() }) // Its client may have lost the way here.
			go serve(c, name)
		}
	}()
	go func() {
		b := make([]byte, 512)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo([]byte(name+" "+host(from)), from)
		}
	}()
}

// serve says who it is, then gives back what comes.
func serve(c net.Conn, name string) {
	defer c.Close()
	fmt.Fprintf(c, "%s %s\n", name, host(c.RemoteAddr()))
	b := make([]byte, 512)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// Ask connects to an Echo from within the namespace and returns what it says: its
// name and who it saw.
func (s *Space) Ask(address string) (name, saw string, err error) {
	c, err := s.Dial("tcp4", address)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = fmt.Fscan(c, &name, &saw)
	return name, saw, err
}

// AtOnce checks that something takes less than a second: not once but at one of a few
// attempts, since a machine may pause. What f says is wrong is so at the first.
func AtOnce(t testing.TB, f func() error) {
	t.Helper()
	var took time.Duration
	for range 5 {
		began := time.Now()
		if err := f(); err != nil {
			t.Errorf("after %v: %v", time.Since(began), err)
			return
		}
		if took = time.Since(began); took < time.Second {
			return
		}
	}
	t.Errorf("it takes %v, again and again", took)
}

// Eventually waits until f says that all is well, or fails the test with what it said
// last.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

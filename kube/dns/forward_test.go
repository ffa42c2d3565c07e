package dns

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/leak"
)

// hasty is a clock by which resolvers have so much less time: if somebody is named, until
// that one was asked.
type hasty struct {
	clock.Clock
	by   time.Duration
	with *middle
}

func (h hasty) Wall() time.Time {
	if h.with != nil && h.with.asked.Load() > 0 {
		return h.Clock.Wall()
	}
	return h.Clock.Wall().Add(-h.by)
}

// middle stands before a server of UDP, and sees what comes.
type middle struct {
	*net.UDPConn
	asked atomic.Int32
}

// between passes on to a server all of what comes but the first few.
func between(t *testing.T, loses int32, to func() netip.AddrPort) *middle {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{UDPConn: c}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if m.asked.Add(1) <= loses {
				continue
			}
			there, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to()))
			if err != nil {
				return
			}
			t.Cleanup(func() { there.Close() })
			there.Write(b[:n])
			go func() {
				answer := make([]byte, 1500)
				for n, err := there.Read(answer); err == nil; n, err = there.Read(answer) {
					c.WriteToUDPAddrPort(answer[:n], from)
				}
			}()
		}
	}()
	return m
}

func (m *middle) addr() netip.AddrPort { return m.LocalAddr().(*net.UDPAddr).AddrPort() }

func TestAResolverIsAskedOnceMoreWhereAPacketIsLost(t *testing.T) {
	leak.Check(t)
	o := newOutside(t)
	m := between(t, 1, o.addr)
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers, c.Clock = resolvers(m.addr()), hasty{clock.Real(), forwardWaits[0] * 9 / 10, m}
	})
	if a := asking(t, s, "example.com.", dnsmessage.TypeA); a.RCode != 0 || len(a.Answers) != 1 || m.asked.Load() != 2 {
		t.Errorf("%v, %v, asked %d times", a.RCode, a.Answers, m.asked.Load())
	}
}

func TestAResolverThatAnswersIsAskedFirstNextTime(t *testing.T) {
	leak.Check(t)
	dead, o := between(t, 1<<30, nil), newOutside(t)
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers, c.Clock = resolvers(dead.addr(), o.addr()), hasty{clock.Real(), forwardWaits[0] * 9 / 10, dead}
	})
	for i := range 5 {
		if a := asking(t, s, fmt.Sprintf("none-%d.example.com.", i), dnsmessage.TypeA); a.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%d: %v", i, a.RCode)
		}
	}
	if n := dead.asked.Load(); n != 1 {
		t.Errorf("one that is silent was asked %d times", n)
	}
}

func TestAResolverThatAsksUsInTurnDoesNotMakeUsAskForEver(t *testing.T) {
	leak.Check(t)
	var ours atomic.Value
	round := between(t, 0, func() netip.AddrPort { return ours.Load().(netip.AddrPort) })
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers, c.Clock = resolvers(round.addr()), hasty{clock.Real(), forwardWaits[1] * 9 / 10, nil}
	})
	ours.Store(s.Addr())
	if a := asking(t, s, "example.com.", dnsmessage.TypeA); a.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%v", a.RCode)
	}
	if n := round.asked.Load(); n > int32(len(forwardWaits)) {
		t.Errorf("asked %d times", n)
	}
}

// going is how many go on.
func going(c *crowd) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.all
}

func TestWhoAskTheSameAtATimeShareOneQuestion(t *testing.T) {
	leak.Check(t)
	o := newOutside(t)
	o.mu.Lock() // It says nothing before all have asked.
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers, c.Clock = resolvers(o.addr()), hasty{clock.Real(), -time.Minute, nil}
	})
	const many = 20
	answers := make(chan *dnsmessage.Message, many)
	for range many {
		go func() { answers <- asking(t, s, "Example.com.", dnsmessage.TypeA) }()
	}
	for going(s.forwards) < many {
		runtime.Gosched()
	}
	o.mu.Unlock()
	for range many {
		if a := <-answers; len(a.Answers) != 1 {
			t.Errorf("%v", a)
		}
	}
	if n := o.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestOneClientDoesNotKeepOthersFromTheirNames(t *testing.T) {
	leak.Check(t)
	o := newOutside(t)
	o.mu.Lock() // It is slow, for as long as the test wants.
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers, c.Clock = resolvers(o.addr()), hasty{clock.Real(), -time.Minute, nil}
	})
	from := func(address string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(address)}}
		c, err := d.Dial("udp4", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	code := func(c net.Conn) dnsmessage.RCode {
		t.Helper()
		b := make([]byte, 1500)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b[:n]); err != nil {
			t.Fatal(err)
		}
		return m.RCode
	}
	greedy := from("127.0.0.1")
	for i := range forwardsMax/clientShare + 1 { // The last is refused at once.
		greedy.Write(packet(fmt.Sprintf("none-%d.example.com.", i), dnsmessage.TypeA, nil))
	}
	if c := code(greedy); c != dnsmessage.RCodeServerFailure {
		t.Errorf("who asks for too much: %v", c)
	}
	other := from("127.0.0.2")
	other.Write(packet("example.com.", dnsmessage.TypeA, nil))
	for going(s.forwards) <= forwardsMax/clientShare && t.Context().Err() == nil {
		runtime.Gosched()
	}
	o.mu.Unlock()
	if c := code(other); c != dnsmessage.RCodeSuccess {
		t.Errorf("another client: %v", c)
	}
	for range forwardsMax / clientShare {
		if c := code(greedy); c != dnsmessage.RCodeNameError {
			t.Errorf("what was asked for before: %v", c)
		}
	}
}

// exchanged is the answer to a packet.
func exchanged(t *testing.T, s *Server, b []byte) (*dnsmessage.Message, int) {
	t.Helper()
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	n, err := c.Read(got)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(got[:n]); err != nil {
		t.Fatal(err)
	}
	return &m, n
}

// withOptions are those of a client that takes so many bytes.
func withOptions(bytes int, version uint32) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) {
		o := options(0, false)
		o.Header.Class, o.Header.TTL = dnsmessage.Class(bytes), version<<16
		m.Additionals = append(m.Additionals, o)
	}
}

func TestAnAnswerIsAsLongAsItsReaderTakes(t *testing.T) {
	leak.Check(t)
	w := newWorld()
	w.service("wide", corev1.ClusterIPNone)
	var all []string
	for i := range 250 {
		all = append(all, fmt.Sprintf("10.244.9.%d", i))
	}
	w.endpoints("wide", "", 80, all...)
	s, _ := start(t, w, nil)
	const name = "Wide.sHop.svc.cluster.local."
	for _, c := range []struct{ takes, least int }{{300, 28}, {512, 28}, {900, 50}, {1232, 70}, {60000, 70}} {
		m, n := exchanged(t, s, packet(name, dnsmessage.TypeA, withOptions(c.takes, 0)))
		most := min(max(c.takes, datagramPlain), datagramMax)
		if n > most || !m.Truncated || len(m.Answers) < c.least {
			t.Errorf("who takes %d: %d bytes, %d records, truncated %v", c.takes, n, len(m.Answers), m.Truncated)
		}
		if m.Questions[0].Name.String() != name || m.Answers[0].Header.Name.String() != name { // Some draw the case, and look.
			t.Errorf("asked for %s: %v", name, m.Questions)
		}
	}
}

func TestOtherVersionsOfOptionsAreRefusedByTheirName(t *testing.T) {
	leak.Check(t)
	s, _ := start(t, newWorld(), nil)
	m, _ := exchanged(t, s, packet("web.shop.svc.cluster.local.", dnsmessage.TypeA, withOptions(1232, 1)))
	var o *dnsmessage.Resource
	for i := range m.Additionals {
		if m.Additionals[i].Header.Type == dnsmessage.TypeOPT {
			o = &m.Additionals[i]
		}
	}
	if o == nil || o.Header.ExtendedRCode(m.RCode) != rcodeBadVersion || len(m.Answers) != 0 {
		t.Errorf("version 1: %v, %v", m.Header, m.Additionals)
	}
	twice := func(m *dnsmessage.Message) { withOptions(1232, 0)(m); withOptions(1232, 0)(m) }
	if m, _ := exchanged(t, s, packet("web.shop.svc.cluster.local.", dnsmessage.TypeA, twice)); m.RCode != dnsmessage.RCodeFormatError {
		t.Errorf("options twice: %v", m.RCode)
	}
	if _, bad := parse([]byte(strings.Repeat("\x00", 12)), false); bad == nil {
		t.Error("nothing is said to a packet without a question")
	}
}

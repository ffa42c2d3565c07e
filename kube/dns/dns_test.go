package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// world is a View of what a test says.
type world struct {
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
}

func (w *world) Service(namespace, name string) (*corev1.Service, bool) {
	i := slices.IndexFunc(w.services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil, false
	}
	return w.services[i], true
}

func (w *world) Any(namespace string) bool {
	return slices.ContainsFunc(w.services, func(s *corev1.Service) bool { return s.Namespace == namespace })
}

func (w *world) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	var found []*discoveryv1.EndpointSlice
	for _, s := range w.slices {
		if s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == service {
			found = append(found, s)
		}
	}
	return found
}

func (w *world) At(a netip.Addr) (at []*corev1.Service, parts []*discoveryv1.EndpointSlice) {
	for _, s := range w.services {
		if s.Spec.ClusterIP == a.String() {
			at = append(at, s)
		}
	}
	for _, s := range w.slices {
		if slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, a.String()) }) {
			parts = append(parts, s)
		}
	}
	return at, parts
}

func (w *world) service(name, address string, ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{}
	s.Namespace, s.Name, s.Spec.ClusterIP, s.Spec.Ports = "shop", name, address, ports
	w.services = append(w.services, s)
	return s
}

// endpoints are "ADDRESS", "ADDRESS=HOST", or one of these with "!" if it is not ready.
func (w *world) endpoints(of, port string, number int32, all ...string) {
	tcp := corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &port, Protocol: &tcp, Port: &number}}}
	s.Namespace, s.Labels = "shop", map[string]string{discoveryv1.LabelServiceName: of}
	for _, text := range all {
		text, unready := strings.CutSuffix(text, "!")
		ready := !unready
		address, host, named := strings.Cut(text, "=")
		e := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
		if named {
			e.Hostname = &host
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	w.slices = append(w.slices, s)
}

func newWorld() *world {
	w := &world{}
	w.service("web", "10.96.0.10", corev1.ServicePort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP})
	w.endpoints("web", "http", 8080, "10.244.1.9")
	w.service("db", corev1.ClusterIPNone, corev1.ServicePort{Name: "pg", Port: 5432, Protocol: corev1.ProtocolTCP})
	w.endpoints("db", "pg", 5432, "10.244.2.3", "10.244.1.2=db-0", "10.244.1.4=db-2!")
	out := w.service("out", "")
	out.Spec.Type, out.Spec.ExternalName = corev1.ServiceTypeExternalName, "Example.com"
	inside := w.service("inside", "")
	inside.Spec.Type, inside.Spec.ExternalName = corev1.ServiceTypeExternalName, "web.shop.svc.cluster.local"
	round := w.service("round", "")
	round.Spec.Type, round.Spec.ExternalName = corev1.ServiceTypeExternalName, "round.shop.svc.cluster.local"
	return w
}

var types = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "SRV": dnsmessage.TypeSRV, "CNAME": dnsmessage.TypeCNAME, "PTR": dnsmessage.TypePTR,
	"TXT": dnsmessage.TypeTXT, "SOA": dnsmessage.TypeSOA, "ALL": dnsmessage.TypeALL,
}

func text(r Record) string {
	switch b := r.Body.(type) {
	case *dnsmessage.AResource:
		return r.Name + " A " + netip.AddrFrom4(b.A).String()
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%s SRV %d %d %d %v", r.Name, b.Priority, b.Weight, b.Port, b.Target)
	case *dnsmessage.CNAMEResource:
		return r.Name + " CNAME " + b.CNAME.String()
	case *dnsmessage.PTRResource:
		return r.Name + " PTR " + b.PTR.String()
	case *dnsmessage.SOAResource:
		return r.Name + " SOA"
	case *dnsmessage.TXTResource:
		return r.Name + " TXT " + strings.Join(b.TXT, " ")
	}
	return fmt.Sprintf("%s %T", r.Name, r.Body)
}

func TestNamesOfACluster(t *testing.T) {
	z := Zone{"cluster.local", newWorld()}
	golden.Script(t, "testdata/zone.txt", func(c golden.Command) string {
		a := z.Ask(c.Args[0].Key, types[c.Args[1].Key])
		var lines []string
		switch {
		case !a.Ours:
			return "not ours"
		case !a.Exists:
			return "no such name"
		case len(a.Records) == 0:
			return "nothing of this type"
		}
		for _, r := range a.Records {
			lines = append(lines, text(r))
		}
		for _, r := range a.More {
			lines = append(lines, "  and "+text(r))
		}
		if a.Alias != "" {
			lines = append(lines, "  goes on at "+a.Alias)
		}
		return strings.Join(lines, "\n")
	})
}

// outside is a resolver that knows example.com and a name with very many addresses.
type outside struct {
	udp   net.PacketConn
	tcp   net.Listener
	asked atomic.Int32
	mu    sync.Mutex
	code  dnsmessage.RCode
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{}
	var err error
	for range 100 { // A port that is free for both.
		if o.tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if o.udp, err = net.ListenPacket("udp4", o.tcp.Addr().String()); err == nil {
			break
		}
		o.tcp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.udp.Close(); o.tcp.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := o.udp.ReadFrom(b)
			if err != nil {
				return
			}
			o.udp.WriteTo([]byte("nonsense"), from) // Somebody who guesses.
			o.udp.WriteTo(o.say(b[:n], true), from)
		}
	}()
	go func() {
		for {
			c, err := o.tcp.Accept()
			if err != nil {
				return
			}
			if b, err := readFramed(c); err == nil {
				writeFramed(c, o.say(b, false))
			}
			c.Close()
		}
	}()
	return o
}

func (o *outside) say(b []byte, short bool) []byte {
	o.asked.Add(1)
	var m dnsmessage.Message
	if m.Unpack(b) != nil {
		return nil
	}
	m.Response, m.RecursionAvailable = true, true
	o.mu.Lock()
	m.RCode = o.code
	o.mu.Unlock()
	count := map[string]int{"example.com.": 1, "many.example.com.": 200}[strings.ToLower(m.Questions[0].Name.String())]
	if count == 0 && m.RCode == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	if short && count > 20 {
		m.Truncated, count = true, 0
	}
	for i := range count {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 20},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(i)}},
		})
	}
	out, _ := m.Pack()
	return out
}

// resolvers are these, whenever they are asked for.
func resolvers(all ...netip.AddrPort) func() []netip.AddrPort {
	return func() []netip.AddrPort { return all }
}

func (o *outside) addr() netip.AddrPort { return netip.MustParseAddrPort(o.tcp.Addr().String()) }

// start serves on loopback until the test ends.
func start(t *testing.T, view View, change func(*Config)) (*Server, *net.Resolver) {
	t.Helper()
	cfg := Config{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), View: view, Synced: func() bool { return true }, Random: rand.Uint64, Logger: hclog.NewNullLogger(),
	}
	if change != nil {
		change(&cfg)
	}
	var s *Server
	var err error
	for range 100 {
		if s, err = Open(cfg); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	g := task.New(context.Background())
	g.Go("dns", s.Serve)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Addr().String())
	}}
}

func TestClientsFindServicesAndTheWorld(t *testing.T) {
	leak.Check(t)
	o := newOutside(t)
	_, r := start(t, newWorld(), func(c *Config) { c.Resolvers = resolvers(o.addr()) })
	lookup := func(name, want string) {
		t.Helper()
		got, err := r.LookupHost(t.Context(), name)
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v; want %s", name, got, err, want)
		}
	}
	lookup("web.shop.svc.cluster.local.", "10.96.0.10")
	lookup("WEB.Shop.svc.cluster.local.", "10.96.0.10")
	lookup("db.shop.svc.cluster.local.", "10.244.1.2 10.244.2.3")
	lookup("db-0.db.shop.svc.cluster.local.", "10.244.1.2")
	lookup("inside.shop.svc.cluster.local.", "10.96.0.10")
	lookup("out.shop.svc.cluster.local.", "192.0.2.0")
	lookup("example.com.", "192.0.2.0")
	if many, err := r.LookupHost(t.Context(), "many.example.com."); err != nil || len(many) != 200 { // By TCP, on both sides.
		t.Errorf("%d addresses, %v", len(many), err)
	}
	if _, all, err := r.LookupSRV(t.Context(), "pg", "tcp", "db.shop.svc.cluster.local."); err != nil || len(all) != 2 || all[0].Port != 5432 {
		t.Errorf("%v, %v", all, err)
	}
	if names, err := r.LookupAddr(t.Context(), "10.96.0.10"); err != nil || len(names) != 1 || names[0] != "web.shop.svc.cluster.local." {
		t.Errorf("%v, %v", names, err)
	}
	for _, name := range []string{"none.shop.svc.cluster.local.", "none.example.com."} {
		var e *net.DNSError
		if _, err := r.LookupHost(t.Context(), name); !errors.As(err, &e) || !e.IsNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// asking sends a question over UDP, without EDNS, and reads the answer.
func asking(t *testing.T, s *Server, name string, kind dnsmessage.Type) *dnsmessage.Message {
	t.Helper()
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}}
	m.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	b = make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if n > datagramPlain {
		t.Errorf("%d bytes for who takes %d", n, datagramPlain)
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(b[:n]); err != nil || answer.ID != 7 {
		t.Fatal(answer.ID, err)
	}
	return &answer
}

func TestAnAnswerIsNoLongerThanItsReaderTakes(t *testing.T) {
	leak.Check(t)
	w := newWorld()
	w.service("wide", corev1.ClusterIPNone)
	var all []string
	for i := range 250 {
		all = append(all, fmt.Sprintf("10.244.9.%d", i))
	}
	w.endpoints("wide", "", 80, all...)
	s, r := start(t, w, nil)
	m := asking(t, s, "wide.shop.svc.cluster.local.", dnsmessage.TypeA)
	if !m.Truncated || len(m.Answers) == 0 {
		t.Errorf("truncated %v, %d answers", m.Truncated, len(m.Answers))
	}
	if got, err := r.LookupHost(t.Context(), "wide.shop.svc.cluster.local."); err != nil || len(got) != 250 {
		t.Errorf("%d addresses, %v", len(got), err)
	}
	first := map[string]bool{}
	for range 20 {
		m := asking(t, s, "db.shop.svc.cluster.local.", dnsmessage.TypeA)
		first[fmt.Sprint(m.Answers[0].Body.(*dnsmessage.AResource).A)] = true
	}
	if len(first) != 2 {
		t.Errorf("the first address is always %v", first)
	}
}

func TestWhatIsNotKnownIsAFailureAndNotAnAbsence(t *testing.T) {
	leak.Check(t)
	o, dead := newOutside(t), newOutside(t)
	dead.udp.Close()
	dead.tcp.Close()
	var synced atomic.Bool
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Synced = synced.Load
		c.Resolvers = resolvers(dead.addr(), o.addr())
	})
	if m := asking(t, s, "none.shop.svc.cluster.local.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("before everything is known: %v", m.RCode)
	}
	synced.Store(true)
	m := asking(t, s, "none.shop.svc.cluster.local.", dnsmessage.TypeA)
	if m.RCode != dnsmessage.RCodeNameError || len(m.Authorities) != 1 {
		t.Errorf("%v, %v", m.RCode, m.Authorities)
	}
	if m := asking(t, s, "example.com.", dnsmessage.TypeA); m.RCode != 0 || len(m.Answers) != 1 { // The second resolver.
		t.Errorf("%v, %v", m.RCode, m.Answers)
	}
	o.mu.Lock()
	o.code = dnsmessage.RCodeServerFailure
	o.mu.Unlock()
	if m := asking(t, s, "other.example.com.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("a resolver that fails: %v", m.RCode)
	}
	if m := asking(t, s, "round.shop.svc.cluster.local.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("a name that leads to itself: %v", m.RCode)
	}
	lonely, _ := start(t, newWorld(), nil)
	if m := asking(t, lonely, "example.com.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeRefused {
		t.Errorf("without resolvers: %v", m.RCode)
	}
}

func TestAnswersFromOutsideAreRememberedForAsLongAsTheySay(t *testing.T) {
	leak.Check(t)
	o := newOutside(t)
	fake := clocktest.New()
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers, c.Clock = resolvers(o.addr()), mono{clock.Real(), fake}
	})
	for i, want := range []struct {
		wait  time.Duration
		asked int32
		ttl   uint32
	}{{0, 1, 20}, {7 * time.Second, 1, 13}, {14 * time.Second, 2, 20}} {
		fake.Advance(want.wait)
		m := asking(t, s, "Example.com.", dnsmessage.TypeA)
		if o.asked.Load() != want.asked || len(m.Answers) != 1 || m.Answers[0].Header.TTL != want.ttl {
			t.Errorf("%d: asked %d times, %v", i, o.asked.Load(), m.Answers)
		}
	}
}

// mono is the machine's clock, but for how time passes.
type mono struct {
	clock.Clock
	fake *clocktest.Fake
}

func (m mono) Mono() time.Duration { return m.fake.Mono() }

func TestTheCacheKeepsWithinItsBounds(t *testing.T) {
	fake := clocktest.New()
	c := cache{clock: fake}
	c.mu.entries = map[cacheKey]cached{}
	m := &dnsmessage.Message{Answers: []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("a.example."), TTL: 3600}, Body: &dnsmessage.AResource{}}}}
	for i := range 3 * cacheEntriesMax {
		c.put(cacheKey{name: fmt.Sprint(i)}, m)
		if len(c.mu.entries) > cacheEntriesMax {
			t.Fatalf("%d entries", len(c.mu.entries))
		}
	}
	last := cacheKey{name: fmt.Sprint(3*cacheEntriesMax - 1)}
	if _, ok := c.get(last); !ok {
		t.Error("the last is not kept")
	}
	fake.Advance(cacheTTLMax)
	if _, ok := c.get(last); ok {
		t.Error("kept for longer than it may be")
	}
	long := &dnsmessage.Message{}
	for range 200 { // Whoever has a domain of his own answers with as much as he likes.
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("a.example."), TTL: 3600}
		long.Answers = append(long.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 255)}}})
	}
	c.put(cacheKey{name: "long"}, long)
	if _, ok := c.get(cacheKey{name: "long"}); ok {
		t.Error("answers of fifty kilobytes are kept, four thousand of them")
	}
}

func TestPodsAskAsTheirPolicySays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# a comment\nnameserver 192.0.2.53\nnameserver 10.244.1.1\nsearch old.example\nsearch corp.example\noptions rotate ndots:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenNodeFile(vfs.OS(), file, clock.Real())
	if err != nil {
		t.Fatal(err)
	}
	node := f.Settings()
	own := netip.MustParseAddr("10.244.1.1")
	if got := fmt.Sprint(Resolvers(node, own)); got != "[192.0.2.53:53]" {
		t.Errorf("resolvers %s", got)
	}
	if none, err := OpenNodeFile(vfs.OS(), file+".none", clock.Real()); err != nil || len(none.Settings().Servers) != 0 {
		t.Error(none, err)
	}
	one := "1"
	config := &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.99"}, Searches: []string{"more.example"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &one}, {Name: "edns0"}}}
	for _, c := range []struct {
		policy corev1.DNSPolicy
		host   bool
		server netip.Addr
		config *corev1.PodDNSConfig
		want   runtime.DNS
	}{
		{"", false, own, nil, runtime.DNS{Servers: []string{"10.244.1.1"}, Searches: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"}, Options: []string{"ndots:5"}}},
		{corev1.DNSClusterFirst, true, own, nil, node},
		{corev1.DNSClusterFirst, false, netip.Addr{}, nil, node},
		{corev1.DNSClusterFirstWithHostNet, true, own, config, runtime.DNS{
			Servers: []string{"10.244.1.1", "192.0.2.99"}, Searches: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "more.example"},
			Options: []string{"ndots:1", "edns0"},
		}},
		{corev1.DNSDefault, false, own, nil, node},
		{corev1.DNSNone, false, own, config, runtime.DNS{Servers: []string{"192.0.2.99"}, Searches: []string{"more.example"}, Options: []string{"ndots:1", "edns0"}}},
	} {
		pod := &corev1.Pod{}
		pod.Namespace, pod.Spec.DNSPolicy, pod.Spec.HostNetwork, pod.Spec.DNSConfig = "shop", c.policy, c.host, c.config
		if got := ForPod(pod, c.server, "cluster.local", node); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s, host network %v:\n%v\nwant\n%v", c.policy, c.host, got, c.want)
		}
	}
}

// packet is a question in wire form.
func packet(name string, kind dnsmessage.Type, change func(*dnsmessage.Message)) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}}
	m.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}
	if change != nil {
		change(&m)
	}
	b, _ := m.Pack()
	return b
}

// FuzzPackets: whatever comes, the answer is one to it, can be read, and is no longer
// than it may be.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{})
	f.Add(packet("web.shop.svc.cluster.local.", dnsmessage.TypeA, nil))
	f.Add(packet("_pg._tcp.db.shop.svc.cluster.local.", dnsmessage.TypeSRV, func(m *dnsmessage.Message) { m.Additionals = []dnsmessage.Resource{options(0, true)} }))
	f.Add(packet("out.shop.svc.cluster.local.", dnsmessage.TypeALL, func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }))
	f.Add(packet("2.1.244.10.in-addr.arpa.", dnsmessage.TypePTR, func(m *dnsmessage.Message) { m.OpCode = 4 }))
	f.Add(packet("example.com.", dnsmessage.TypeTXT, func(m *dnsmessage.Message) { m.Response = true }))
	f.Add(packet(strings.Repeat("a.", 120), dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }))
	s, err := newServer(Config{View: newWorld(), Synced: func() bool { return true }, Random: rand.Uint64, Logger: hclog.NewNullLogger()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, stream := range []bool{false, true} {
			q, out := parse(b, stream)
			limit := messageMax
			if q != nil {
				limit = q.limit
				out = q.pack(s.resolve(t.Context(), q))
				if out == nil {
					t.Fatal("a question without an answer")
				}
			}
			if out == nil {
				continue
			}
			var m dnsmessage.Message
			if err := m.Unpack(out); err != nil {
				t.Fatalf("the answer cannot be read: %v", err)
			}
			if len(out) > limit || !m.Response || m.ID != uint16(b[0])<<8|uint16(b[1]) {
				t.Fatalf("%d bytes of %d, %+v", len(out), limit, m.Header)
			}
			// Nobody here asks others: an answer, read as one of a resolver, must not break either.
			if q != nil {
				read(out, q.id, q.Question)
			}
		}
		read(b, 1, dnsmessage.Question{})
	})
}

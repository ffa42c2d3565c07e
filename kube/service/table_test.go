package service_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/service"
)

var (
	podRange     = netip.MustParsePrefix("10.244.0.0/16")
	serviceRange = netip.MustParsePrefix("10.96.0.0/16")
)

// node is a machine with pods, and with services in its kernel.
type node struct {
	*networktest.Space
	t       testing.TB
	name    string
	address netip.Addr
	cidr    netip.Prefix
	net     *network.Network
	table   *service.Table
}

func newNode(t testing.TB, lab *networktest.Lab, number int) *node {
	t.Helper()
	n := &node{
		t: t, name: fmt.Sprintf("node-%d", number), address: netip.AddrFrom4([4]byte{192, 0, 2, byte(number)}),
		cidr: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(number), 0}), 24),
	}
	n.Space = lab.Machine(netip.PrefixFrom(n.address, 24))
	n.Do(func() (err error) {
		n.net, err = network.Open(network.Config{
			Node: n.name, PodCIDR: n.cidr, PodRange: podRange, ServiceRange: serviceRange, Backend: network.HostGateway, Address: n.address,
			Dir: t.TempDir(), Logger: hclog.NewNullLogger(),
		})
		return err
	})
	t.Cleanup(func() { n.net.Close() })
	n.openTable()
	return n
}

func (n *node) openTable() {
	n.t.Helper()
	n.Do(func() (err error) {
		n.table, err = service.OpenTable(service.TableConfig{
			Node: n.name, PodCIDR: n.cidr, PodRange: podRange, ServiceRange: serviceRange, Logger: hclog.NewNullLogger(),
		})
		return err
	})
	table := n.table
	n.t.Cleanup(func() { table.Close() })
}

func (n *node) replace(p service.Plan) {
	n.t.Helper()
	if err := n.table.Replace(p); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) update(p service.Plan) {
	n.t.Helper()
	if err := n.table.Update(p); err != nil {
		n.t.Fatal(err)
	}
}

// cluster is nodes that know each other.
func cluster(t testing.TB, count int) (*networktest.Lab, []*node) {
	t.Helper()
	lab := networktest.New(t)
	var nodes []*node
	var peers []network.Peer
	for i := range count {
		n := newNode(t, lab, i+1)
		nodes = append(nodes, n)
		peers = append(peers, network.Peer{Node: n.name, Address: n.address, PodCIDR: n.cidr})
	}
	for i, n := range nodes {
		others := append(append([]network.Peer{}, peers[:i]...), peers[i+1:]...)
		if err := n.net.SetPeers(others); err != nil {
			t.Fatal(err)
		}
	}
	return lab, nodes
}

// pod is one that echoes its name at port 80.
type pod struct {
	*networktest.Space
	name string
	at   netip.AddrPort
}

func (n *node) pod(name string) *pod {
	n.t.Helper()
	s := networktest.NewSpace(n.t)
	a, err := n.net.Connect(n.t.Context(), name, s.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	s.Echo(80, name)
	return &pod{s, name, netip.AddrPortFrom(a, 80)}
}

var vip = netip.MustParseAddr("10.96.0.10")

// web is a port of a service at the VIP.
func web(p service.Protocol, fronts []service.Front, pods ...*pod) *service.Port {
	port := &service.Port{Name: fmt.Sprintf("default/web/%v/80", p), Protocol: p, Fronts: append([]service.Front{{Address: vip, Port: 80}}, fronts...)}
	for _, pod := range pods {
		port.Endpoints = append(port.Endpoints, pod.at)
	}
	return port
}

func planOf(ports ...*service.Port) service.Plan {
	p := service.Plan{}
	for _, port := range ports {
		p[port.Name] = port
	}
	return p
}

func TestConnectionsAreSpreadEvenlyAndRefusedWhereThereIsNothing(t *testing.T) {
	_, nodes := cluster(t, 3)
	client := nodes[0].pod("client")
	pods := []*pod{nodes[0].pod("a"), nodes[1].pod("b"), nodes[2].pod("c")}
	plan := planOf(web(service.TCP, nil, pods...))
	nodes[0].replace(plan)
	counts := map[string]int{}
	const asked = 600
	for range asked {
		name, saw, err := client.Ask("10.96.0.10:80")
		if err != nil {
			t.Fatal(err)
		}
		if saw != client.at.Addr().String() {
			t.Fatalf("%s saw %s, the client is %v", name, saw, client.at)
		}
		counts[name]++
	}
	even(t, counts, asked, 3)
	// The node reaches services too, from its own address among pods.
	if _, saw, err := nodes[0].Ask("10.96.0.10:80"); err != nil || saw != nodes[0].net.Gateway().String() {
		t.Errorf("from the node: saw %s, %v", saw, err)
	}
	for _, from := range []*networktest.Space{client.Space, nodes[0].Space} {
		for _, to := range []string{"10.96.0.10:81", "10.96.9.9:80"} {
			refused(t, from, to)
		}
	}
	nodes[0].update(planOf(web(service.TCP, nil)))
	refused(t, client.Space, "10.96.0.10:80")
	nodes[0].update(plan)
	if _, _, err := client.Ask("10.96.0.10:80"); err != nil {
		t.Error(err)
	}
	nodes[0].update(service.Plan{"default/web/tcp/80": nil})
	refused(t, client.Space, "10.96.0.10:80")
}

// even fails the test if counts are hardly those of equal chances: chi-square at one in
// a hundred thousand.
func even(t *testing.T, counts map[string]int, total, names int) {
	t.Helper()
	want := float64(total) / float64(names)
	sum := float64(names-len(counts)) * want
	for _, n := range counts {
		sum += math.Pow(float64(n)-want, 2) / want
	}
	if bound := map[int]float64{3: 23.03, 5: 28.5}[names]; sum > bound {
		t.Errorf("%v: chi-square %.1f, more than %.1f", counts, sum, bound)
	}
}

func refused(t *testing.T, from *networktest.Space, to string) {
	t.Helper()
	networktest.AtOnce(t, func() error {
		c, err := from.Dial("tcp4", to)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%s is not refused: %v", to, err)
		}
		return nil
	})
}

func TestAPodMeetsItselfThroughAService(t *testing.T) {
	_, nodes := cluster(t, 1)
	a := nodes[0].pod("a")
	nodes[0].replace(planOf(web(service.TCP, nil, a)))
	name, saw, err := a.Ask("10.96.0.10:80")
	if err != nil || name != "a" || saw != nodes[0].net.Gateway().String() {
		t.Errorf("%s saw %s, %v", name, saw, err)
	}
	// Another pod of the node is seen as itself.
	b := nodes[0].pod("b")
	if _, saw, err := b.Ask("10.96.0.10:80"); err != nil || saw != b.at.Addr().String() {
		t.Errorf("saw %s, %v", saw, err)
	}
}

func TestPortsOfANodeAreReachedFromOutside(t *testing.T) {
	lab, nodes := cluster(t, 2)
	outside := lab.Machine(netip.MustParsePrefix("192.0.2.99/24"))
	local, remote := nodes[0].pod("local"), nodes[1].pod("remote")
	fronts := []service.Front{{Port: 30080}}
	for _, c := range []struct {
		pod *pod
		saw string
	}{
		{local, "192.0.2.99"}, // It answers through its node, which knows how to translate back.
		{remote, nodes[0].address.String()},
	} {
		nodes[0].replace(planOf(web(service.TCP, fronts, c.pod)))
		name, saw, err := outside.Ask("192.0.2.1:30080")
		if err != nil || name != c.pod.name || saw != c.saw {
			t.Errorf("%s saw %s, %v; want %s to see %s", name, saw, err, c.pod.name, c.saw)
		}
		for _, from := range []*networktest.Space{nodes[0].Space, local.Space} {
			if name, _, err := from.Ask("192.0.2.1:30080"); err != nil || name != c.pod.name {
				t.Errorf("from within: %s, %v", name, err)
			}
		}
	}
	// A port of a pod, at one address of the node only. One at IPv6 hinders nobody.
	host := service.MakeHostPorts("uid", []service.HostPort{
		{Protocol: service.TCP, Address: nodes[0].address, Port: 8080, To: local.at},
		{Protocol: service.TCP, Address: netip.MustParseAddr("fd00::1"), Port: 8082, To: local.at},
	})
	nodes[0].update(host)
	if name, saw, err := outside.Ask("192.0.2.1:8080"); err != nil || name != "local" || saw != "192.0.2.99" {
		t.Errorf("%s saw %s, %v", name, saw, err)
	}
	if _, err := outside.Dial("tcp4", "192.0.2.1:8081"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that nobody has: %v", err)
	}
}

func TestAClientSticksToItsEndpointWhileThatIsReady(t *testing.T) {
	_, nodes := cluster(t, 1)
	n := nodes[0]
	client := n.pod("client")
	pods := []*pod{n.pod("a"), n.pod("b"), n.pod("c"), n.pod("d")}
	sticky := func(d time.Duration, pods ...*pod) service.Plan {
		p := web(service.TCP, nil, pods...)
		p.Sticky = d
		return planOf(p)
	}
	ask := func() string {
		t.Helper()
		name, _, err := client.Ask("10.96.0.10:80")
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	n.replace(sticky(time.Hour, pods[:3]...))
	first := ask()
	for range 20 {
		if name := ask(); name != first {
			t.Fatalf("%s, then %s", first, name)
		}
	}
	n.update(sticky(time.Hour, pods...)) // One that comes changes nothing for who is there.
	for range 20 {
		if name := ask(); name != first {
			t.Fatalf("with one more: %s, then %s", first, name)
		}
	}
	var others []*pod
	for _, p := range pods {
		if p.name != first {
			others = append(others, p)
		}
	}
	n.update(sticky(time.Hour, others...))
	second := ask()
	if second == first {
		t.Fatal("it sticks to one that is gone")
	}
	n.update(sticky(time.Hour, pods...))
	for range 20 {
		if name := ask(); name != second {
			t.Fatalf("after the first came back: %s, then %s", second, name)
		}
	}
	// A short time ends, if the client is silent for so long.
	n.update(sticky(20*time.Millisecond, pods...))
	seen := map[string]bool{}
	networktest.Eventually(t, func() error {
		seen[ask()] = true
		<-time.After(30 * time.Millisecond)
		if len(seen) < 2 {
			return fmt.Errorf("always %v", seen)
		}
		return nil
	})
}

func TestNoConnectionFailsWhileEndpointsRoll(t *testing.T) {
	_, nodes := cluster(t, 2)
	client := nodes[0].pod("client")
	pods := []*pod{nodes[0].pod("a"), nodes[1].pod("b"), nodes[0].pod("c"), nodes[1].pod("d"), nodes[0].pod("e")}
	nodes[0].replace(planOf(web(service.TCP, nil, pods[:3]...)))
	long, err := client.Dial("tcp4", "10.96.0.10:80")
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	reads(t, long)
	var stop atomic.Bool
	var asked, failed atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			asked.Add(1)
			if _, _, err := client.Ask("10.96.0.10:80"); err != nil {
				failed.Add(1)
				t.Error(err)
			}
		}
	}()
	for i := range 200 {
		var now []*pod
		for j := range 3 {
			now = append(now, pods[(i+j)%len(pods)])
		}
		nodes[0].update(planOf(web(service.TCP, nil, now...)))
		if i == 100 { // As a new kubelet does.
			nodes[0].table.Close()
			nodes[0].openTable()
			nodes[0].replace(planOf(web(service.TCP, nil, now...)))
		}
		seen := asked.Load()
		for asked.Load() == seen && failed.Load() == 0 { // Someone connects to each of these.
			<-time.After(100 * time.Microsecond)
		}
	}
	stop.Store(true)
	<-done
	t.Logf("%d connections, %d failed", asked.Load(), failed.Load())
	// Who was connected when all this began still is.
	if _, err := long.Write([]byte("still\n")); err != nil {
		t.Fatal(err)
	}
	reads(t, long)
	if tables := tablesOf(t, nodes[0].Space, "services"); len(tables) != 1 {
		t.Errorf("tables %v", tables)
	}
}

func reads(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 64)); n == 0 {
		t.Fatal(err)
	}
}

func tablesOf(t *testing.T, s *networktest.Space, what string) []string {
	t.Helper()
	var names []string
	s.Do(func() error {
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := nft.ListTables()
		for _, table := range tables {
			if strings.HasSuffix(table.Name, what) {
				names = append(names, table.Name)
			}
		}
		return err
	})
	return names
}

func TestAFlowOfDatagramsDoesNotGoOnToAnEndpointThatIsGone(t *testing.T) {
	_, nodes := cluster(t, 1)
	n := nodes[0]
	client := n.pod("client")
	a, b := n.pod("a"), n.pod("b")
	n.replace(planOf(web(service.UDP, []service.Front{{Port: 30053}}, a)))
	var flow, outer net.Conn
	client.Do(func() (err error) {
		if flow, err = net.Dial("udp4", "10.96.0.10:80"); err != nil {
			return err
		}
		outer, err = net.Dial("udp4", n.address.String()+":30053")
		return err
	})
	defer flow.Close()
	defer outer.Close()
	answers := func(c net.Conn, want string) {
		t.Helper()
		networktest.Eventually(t, func() error {
			c.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
			got := make([]byte, 64)
			k, err := c.Read(got)
			if name, _, _ := strings.Cut(string(got[:k]), " "); err == nil && name != want {
				return fmt.Errorf("%s answers, not %s", name, want)
			}
			return err
		})
	}
	answers(flow, "a")
	answers(outer, "a")
	draining := web(service.UDP, []service.Front{{Port: 30053}}, b)
	draining.Draining = []netip.AddrPort{a.at}
	n.update(planOf(draining))
	answers(flow, "a") // It may finish what it began.
	n.update(planOf(web(service.UDP, []service.Front{{Port: 30053}}, b)))
	answers(flow, "b")
	answers(outer, "b")
	// With none, then with one again: whoever went on sending is heard.
	n.update(planOf(web(service.UDP, []service.Front{{Port: 30053}})))
	flow.Write([]byte("?"))
	outer.Write([]byte("?"))
	n.update(planOf(web(service.UDP, []service.Front{{Port: 30053}}, a)))
	answers(flow, "a")
	answers(outer, "a")
	// Who sends to a port of the node before it is one arrives once it is, and at one that it
	// was nobody any more.
	var early net.Conn
	client.Do(func() (err error) {
		early, err = net.Dial("udp4", n.address.String()+":30054")
		return err
	})
	defer early.Close()
	early.Write([]byte("?"))
	n.update(planOf(web(service.UDP, []service.Front{{Port: 30054}}, a)))
	answers(early, "a")
	networktest.Eventually(t, func() error {
		outer.SetDeadline(time.Now().Add(200 * time.Millisecond))
		outer.Write([]byte("?")) // Or hears of the one before.
		if _, err := outer.Read(make([]byte, 64)); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("the port that it was: %v", err)
		}
		return nil
	})
}

func TestTwoNodesOnOneMachineHaveTheirOwnTables(t *testing.T) {
	_, nodes := cluster(t, 1)
	a := nodes[0].pod("a")
	nodes[0].replace(planOf(web(service.TCP, nil, a)))
	other := &node{Space: nodes[0].Space, t: t, name: "other", cidr: netip.MustParsePrefix("10.244.7.0/24")}
	other.openTable()
	other.replace(planOf(web(service.TCP, nil, a)))
	if tables := tablesOf(t, nodes[0].Space, "services"); len(tables) != 2 {
		t.Errorf("tables %v", tables)
	}
	if err := other.table.Purge(); err != nil {
		t.Fatal(err)
	}
	if name, _, err := nodes[0].Ask("10.96.0.10:80"); err != nil || name != "a" {
		t.Error(name, err)
	}
	if err := nodes[0].table.Purge(); err != nil {
		t.Fatal(err)
	}
	if tables := tablesOf(t, nodes[0].Space, "services"); len(tables) != 0 {
		t.Errorf("tables that are left: %v", tables)
	}
}

// processor is the time that this process used: on a busy machine it tells more than the
// clock.
func processor(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// heap is what is in use, in bytes.
func heap() int64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// many is a plan of services, each with some endpoints.
func many(services, endpoints int) service.Plan {
	p := service.Plan{}
	for i := range services {
		port := &service.Port{
			Name: fmt.Sprintf("default/svc-%d/tcp/80", i), Protocol: service.TCP,
			Fronts: []service.Front{{Address: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80}},
		}
		for j := range endpoints {
			port.Endpoints = append(port.Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), byte(j)}), 80))
		}
		p[port.Name] = port
	}
	return p
}

// How long does it take until the kernel knows a thousand services, and one change?
func BenchmarkTable(b *testing.B) {
	n := &node{Space: networktest.NewSpace(b), t: b, name: "bench", cidr: netip.MustParsePrefix("10.244.1.0/24")}
	n.openTable()
	plan := many(1000, 3)
	b.Run("replace 1000 services", func(b *testing.B) {
		b.ReportAllocs()
		before := processor(b)
		for b.Loop() {
			n.replace(plan)
		}
		b.ReportMetric(float64((processor(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	})
	b.Run("replace 1000 services whose clients stick", func(b *testing.B) {
		sticky := service.Plan{}
		for name, p := range plan {
			q := *p
			q.Sticky = time.Hour
			sticky[name] = &q
		}
		for b.Loop() {
			n.replace(sticky)
		}
	})
	b.Run("replace 1000 services of 10 endpoints", func(b *testing.B) {
		plan := many(1000, 10)
		n.replace(service.Plan{})
		before := heap()
		for b.Loop() {
			n.replace(plan)
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MB-kept")
	})
	n.replace(plan)
	name := "default/svc-500/tcp/80"
	fewer := *plan[name]
	fewer.Endpoints = fewer.Endpoints[:2]
	b.Run("one endpoint goes, one comes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n.update(service.Plan{name: &fewer})
			n.update(service.Plan{name: plan[name]})
		}
	})
}

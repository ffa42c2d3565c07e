package network_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
)

var (
	podRange     = netip.MustParsePrefix("10.244.0.0/16")
	serviceRange = netip.MustParsePrefix("10.96.0.0/16")
)

// node is a machine of a lab with the network of a node.
type node struct {
	*networktest.Space
	t       *testing.T
	number  int
	address netip.Addr
	dir     string
	backend network.Backend
	net     *network.Network
}

func newNode(t *testing.T, lab *networktest.Lab, number int, backend network.Backend) *node {
	t.Helper()
	address := netip.AddrFrom4([4]byte{192, 0, 2, byte(number)})
	n := &node{Space: lab.Machine(netip.PrefixFrom(address, 24)), t: t, number: number, address: address, dir: t.TempDir(), backend: backend}
	n.open()
	return n
}

func (n *node) name() string { return fmt.Sprintf("node-%d", n.number) }

func (n *node) cidr() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n.number), 0}), 24)
}

func (n *node) config() network.Config {
	return network.Config{
		Node: n.name(), PodCIDR: n.cidr(), PodRange: podRange, ServiceRange: serviceRange, Backend: n.backend, Address: n.address,
		Dir: n.dir, Logger: hclog.NewNullLogger(),
	}
}

// open opens the network, or opens it again as after a crash.
func (n *node) open() {
	n.t.Helper()
	n.Do(func() (err error) {
		n.net, err = network.Open(n.config())
		return err
	})
	opened := n.net
	n.t.Cleanup(func() { opened.Close() })
}

// pod connects a pod that echoes its name at port 80.
func (n *node) pod(uid string) (*networktest.Space, netip.Addr) {
	n.t.Helper()
	s := networktest.NewSpace(n.t)
	a, err := n.net.Connect(n.t.Context(), uid, s.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	s.Echo(80, uid)
	return s, a
}

// object is what the cluster knows of the node.
func (n *node) object() *corev1.Node {
	o := &corev1.Node{}
	o.Name, o.Spec.PodCIDR = n.name(), n.cidr().String()
	o.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.name()}, {Type: corev1.NodeInternalIP, Address: n.address.String()}}
	return o
}

func meet(t *testing.T, nodes ...*node) {
	t.Helper()
	var objects []*corev1.Node
	for _, n := range nodes {
		objects = append(objects, n.object())
	}
	for _, n := range nodes {
		if err := n.net.SetPeers(network.Peers(objects, n.name(), n.address)); err != nil {
			t.Fatal(err)
		}
	}
}

// hears checks that somebody reaches an echo that sees who it is.
func hears(t *testing.T, from *networktest.Space, to netip.Addr, name, saw string) {
	t.Helper()
	networktest.Eventually(t, func() error { // The first packets meet interfaces that have just come up.
		gotName, gotSaw, err := from.Ask(to.String() + ":80")
		if err == nil && (gotName != name || gotSaw != saw) {
			err = fmt.Errorf("%v is %s and saw %s, want %s and %s", to, gotName, gotSaw, name, saw)
		}
		return err
	})
}

func TestPodsReachEachOtherOnThreeNodes(t *testing.T) {
	for _, backend := range []network.Backend{network.HostGateway, network.VXLAN} {
		t.Run(string(backend), func(t *testing.T) {
			lab := networktest.New(t)
			var nodes []*node
			for i := 1; i <= 3; i++ {
				nodes = append(nodes, newNode(t, lab, i, backend))
			}
			meet(t, nodes...)
			type pod struct {
				*networktest.Space
				uid string
				a   netip.Addr
			}
			var pods []pod
			for _, n := range nodes {
				for i := range 2 {
					uid := fmt.Sprintf("%s-pod-%d", n.name(), i)
					s, a := n.pod(uid)
					pods = append(pods, pod{s, uid, a})
				}
			}
			for _, from := range pods {
				for _, to := range pods {
					hears(t, from.Space, to.a, to.uid, from.a.String()) // As themselves: nobody is disguised within the range.
				}
				if err := ping(from.Space, nodes[0].net.Gateway()); err != nil {
					t.Errorf("%s: %v", from.uid, err)
				}
			}
			// Large packets fit, whatever the tunnel takes of them.
			large(t, pods[0].Space, pods[5].a)

			// A node that goes takes its routes along; its pods are still there for the others.
			meet(t, nodes[0], nodes[1])
			if _, _, err := pods[0].Ask(pods[5].a.String() + ":80"); err == nil {
				t.Error("a pod of a node that is gone is still reached")
			}
			hears(t, pods[0].Space, pods[3].a, pods[3].uid, pods[0].a.String())
		})
	}
}

// ping waits for an answer to an echo request.
func ping(from *networktest.Space, to netip.Addr) error {
	return from.In(func() error {
		c, err := net.Dial("ip4:icmp", to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		request := []byte{8, 0, 0, 0, 0, 1, 0, 1}
		sum := ^(uint16(8)<<8 + 1 + 1)
		request[2], request[3] = byte(sum>>8), byte(sum)
		if _, err := c.Write(request); err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		answer := make([]byte, 64)
		n, err := c.Read(answer)
		if err != nil || n < 8 || answer[n-8] != 0 { // Type 0, after the header.
			return fmt.Errorf("%v does not answer to ping: % x, %v", to, answer[:n], err)
		}
		return nil
	})
}

// large sends more than fits into a packet and reads it back.
func large(t *testing.T, from *networktest.Space, to netip.Addr) {
	t.Helper()
	c, err := from.Dial("tcp4", to.String()+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := strings.Repeat("holdfast", 1<<13)
	go c.Write([]byte(sent))
	var got strings.Builder
	b := make([]byte, 1<<16)
	for got.Len() < len(sent) {
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("after %d bytes: %v", got.Len(), err)
		}
		got.Write(b[:n])
	}
	if !strings.Contains(got.String(), strings.Repeat("holdfast", 100)) {
		t.Error("what came back is something else")
	}
}

func TestWhatLeavesTheRangeOfPodsHasTheNodesAddress(t *testing.T) {
	lab := networktest.New(t)
	n := newNode(t, lab, 1, network.HostGateway)
	outside := lab.Machine(netip.MustParsePrefix("192.0.2.99/24"))
	outside.Echo(80, "outside")
	pod, a := n.pod("p")
	hears(t, pod, netip.MustParseAddr("192.0.2.99"), "outside", n.address.String())
	// The node itself talks to its pods from the gateway address.
	hears(t, n.Space, a, "p", n.net.Gateway().String())
}

func TestTwoNodesOnOneMachineDoNotMeet(t *testing.T) {
	lab := networktest.New(t)
	first := newNode(t, lab, 1, network.HostGateway)
	second := &node{Space: first.Space, t: t, number: 2, address: first.address, dir: t.TempDir(), backend: network.HostGateway}
	second.open()
	meet(t, first, second)
	p1, a1 := first.pod("p")
	p2, a2 := second.pod("p") // The same UID: nothing of the names may be the same.
	hears(t, p1, a2, "p", a1.String())
	hears(t, p2, a1, "p", a2.String())
	if err := first.net.Purge(); err != nil {
		t.Fatal(err)
	}
	hears(t, first.Space, a2, "p", second.net.Gateway().String())
	if left := strings.Join(links(first.Space), " "); strings.Count(left, "hf") != 3 {
		t.Errorf("interfaces that are left: %s", left)
	}
	if err := second.net.Purge(); err != nil {
		t.Fatal(err)
	}
	if left := strings.Join(links(first.Space), " "); strings.Contains(left, "hf") {
		t.Errorf("interfaces that are left: %s", left)
	}
	first.Netlink(func(h *netlink.Handle) error {
		routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: 104}, netlink.RT_FILTER_PROTOCOL)
		if len(routes) > 0 {
			t.Errorf("routes that are left: %v", routes)
		}
		return err
	})
	first.Do(func() error {
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := nft.ListTables()
		if len(tables) > 0 {
			t.Errorf("tables that are left: %v", tables[0].Name)
		}
		return err
	})
}

func links(s *networktest.Space) []string {
	var names []string
	s.Netlink(func(h *netlink.Handle) error {
		all, err := h.LinkList()
		for _, l := range all {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	return names
}

func TestAfterACrashPodsKeepTheirAddressesAndHalfMadeThingsGo(t *testing.T) {
	lab := networktest.New(t)
	n := newNode(t, lab, 1, network.HostGateway)
	p, a := n.pod("stays")
	_, b := n.pod("goes")
	n.net.Close()
	n.Netlink(func(h *netlink.Handle) error { // What a crash leaves between two calls to the kernel.
		name := ""
		for _, l := range links(n.Space) {
			if strings.HasPrefix(l, "hf") && strings.HasSuffix(l, "-n") {
				name = strings.TrimSuffix(l, "-n") + "abcdefgh"
			}
		}
		half := netlink.NewVeth(netlink.LinkAttrs{Name: name})
		half.PeerName = "loose"
		return h.LinkAdd(half)
	})
	if err := os.WriteFile(filepath.Join(n.dir, "addresses"), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.open()
	if left := strings.Join(links(n.Space), " "); strings.Contains(left, "loose") {
		t.Errorf("what was half made is there: %s", left)
	}
	hears(t, n.Space, a, "stays", n.net.Gateway().String())
	if again, err := n.net.Connect(t.Context(), "stays", p.Path()); err != nil || again != a {
		t.Errorf("connected again: %v, %v; before %v", again, err, a)
	}
	if err := n.net.Retain(t.Context(), []string{"stays"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.Ask(b.String() + ":80"); err == nil {
		t.Error("a pod that is not to be retained is reached")
	}
	hears(t, n.Space, a, "stays", n.net.Gateway().String())
	// Another sandbox of the same pod gets the same address.
	s := networktest.NewSpace(t)
	if again, err := n.net.Connect(t.Context(), "stays", s.Path()); err != nil || again != a {
		t.Errorf("another sandbox: %v, %v; before %v", again, err, a)
	}
	s.Echo(80, "anew")
	hears(t, n.Space, a, "anew", n.net.Gateway().String())
	for range 2 {
		if err := n.net.Disconnect(t.Context(), "stays"); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := n.Ask(a.String() + ":80"); err == nil {
		t.Error("a pod that is disconnected is reached")
	}
}

func TestAChangeOfTheBackendLeavesNothingOfTheOtherBehind(t *testing.T) {
	lab := networktest.New(t)
	nodes := []*node{newNode(t, lab, 1, network.VXLAN), newNode(t, lab, 2, network.VXLAN)}
	meet(t, nodes...)
	p, a := nodes[0].pod("one")
	_, b := nodes[1].pod("two")
	hears(t, p, b, "two", a.String())
	for _, backend := range []network.Backend{network.HostGateway, network.VXLAN} {
		for _, n := range nodes {
			n.net.Close()
			n.backend = backend
			n.open()
		}
		meet(t, nodes...)
		hears(t, p, b, "two", a.String())
		if has := strings.Contains(strings.Join(links(nodes[0].Space), " "), "-v"); has != (backend == network.VXLAN) {
			t.Errorf("%s: a tunnel is there: %v", backend, has)
		}
	}
}

func TestANodeThatIsNotOnTheWireDoesNotKeepOthersFromTheirRoutes(t *testing.T) {
	lab := networktest.New(t)
	nodes := []*node{newNode(t, lab, 1, network.HostGateway), newNode(t, lab, 2, network.HostGateway)}
	far := network.Peer{Node: "far", Address: netip.MustParseAddr("203.0.113.1"), PodCIDR: netip.MustParsePrefix("10.244.9.0/24")}
	err := nodes[0].net.SetPeers(append([]network.Peer{far}, network.Peers([]*corev1.Node{nodes[1].object()}, "node-1", nodes[0].address)...))
	if err == nil || !strings.Contains(err.Error(), "use backend vxlan") {
		t.Errorf("a node that is not on the wire: %v", err)
	}
	if err := nodes[1].net.SetPeers(network.Peers([]*corev1.Node{nodes[0].object()}, "node-2", nodes[1].address)); err != nil {
		t.Fatal(err)
	}
	p, a := nodes[0].pod("one")
	_, b := nodes[1].pod("two")
	hears(t, p, b, "two", a.String())
}

func TestAPodThatIsNotThereIsSaidNotToBe(t *testing.T) {
	lab := networktest.New(t)
	n := newNode(t, lab, 1, network.HostGateway)
	p, _ := n.pod("p")
	networktest.AtOnce(t, func() error {
		if _, err := p.Dial("tcp4", "10.244.1.200:80"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("it is not said: %v", err)
		}
		return nil
	})
}

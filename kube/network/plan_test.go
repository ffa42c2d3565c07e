package network

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

func nodeObject(name, address, cidr string) *corev1.Node {
	n := &corev1.Node{}
	n.Name, n.Spec.PodCIDR = name, cidr
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: address}}
	return n
}

func TestRoutesFollowFromTheNodes(t *testing.T) {
	nodes := []*corev1.Node{
		nodeObject("self", "192.0.2.1", "10.244.1.0/24"),
		nodeObject("d", "192.0.2.4", "10.244.2.0/24"), // Claims what b has.
		nodeObject("c", "192.0.2.3", "10.244.1.0/24"), // Claims what this node has.
		nodeObject("b", "192.0.2.2", "10.244.2.0/24"),
		nodeObject("same-machine", "192.0.2.1", "10.244.5.0/24"),
		nodeObject("no-address", "", "10.244.6.0/24"),
		nodeObject("no-range", "192.0.2.7", ""),
		nodeObject("v6", "fd00::1", "fd00:1::/64"),
		nodeObject("e", "192.0.2.5", "10.244.255.0/24"),
	}
	peers := Peers(nodes, "self", netip.MustParseAddr("192.0.2.1"))
	for backend, want := range map[Backend]string{
		HostGateway: "10.244.2.0/24 via 192.0.2.2; 10.244.255.0/24 via 192.0.2.5",
		VXLAN: "10.244.2.0/24 via 10.244.2.0, at 0a:58:0a:f4:02:00, sent to 192.0.2.2; " +
			"10.244.255.0/24 via 10.244.255.0, at 0a:58:0a:f4:ff:00, sent to 192.0.2.5",
		None: "",
	} {
		var got []string
		for _, r := range planRoutes(backend, netip.MustParsePrefix("10.244.1.0/24"), peers) {
			got = append(got, r.String())
		}
		if text := strings.Join(got, "; "); text != want {
			t.Errorf("%s:\n%s\nwant\n%s", backend, text, want)
		}
	}
}

func openTestPool(t *testing.T, dir, cidr string) *pool {
	t.Helper()
	p, damage, err := openPool(vfs.OS(), filepath.Join(dir, "addresses"), netip.MustParsePrefix(cidr))
	if err != nil || damage != nil {
		t.Fatal(err, damage)
	}
	return p
}

func TestAddressesAreGivenInTurnAndSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	p := openTestPool(t, dir, "10.0.0.0/29")
	take := func(uid, want string) {
		t.Helper()
		if a, err := p.take(uid); err != nil || a.String() != want {
			t.Errorf("%s got %v, %v; want %s", uid, a, err, want)
		}
	}
	take("a", "10.0.0.2") // Neither the network nor the gateway.
	take("b", "10.0.0.3")
	take("a", "10.0.0.2")
	if err := p.release("a"); err != nil {
		t.Fatal(err)
	}
	take("c", "10.0.0.4") // Not the one that has just become free.
	p = openTestPool(t, dir, "10.0.0.0/29")
	take("c", "10.0.0.4")
	take("d", "10.0.0.5")
	take("e", "10.0.0.6")
	take("f", "10.0.0.2")
	if _, err := p.take("g"); !errors.Is(err, ErrFull) { // Nor the last, which is everybody.
		t.Errorf("more than there are: %v", err)
	}
	if p.adopt("h", netip.MustParseAddr("10.0.0.3")) || p.adopt("h", netip.MustParseAddr("10.0.0.1")) || p.adopt("h", netip.Addr{}) {
		t.Error("adopted an address of another, or none for pods")
	}
	if !p.adopt("b", netip.MustParseAddr("10.0.0.3")) {
		t.Error("not adopted what it has")
	}
	p = openTestPool(t, dir, "10.0.1.0/29") // Another range: the node was made anew.
	take("a", "10.0.1.2")
}

func TestAConfigurationThatCannotBeIsRefusedWhole(t *testing.T) {
	cfg := Config{
		PodCIDR: netip.MustParsePrefix("10.244.0.0/30"), PodRange: netip.MustParsePrefix("10.96.0.0/16"), ServiceRange: netip.MustParsePrefix("10.96.0.0/12"),
		Backend: HostGateway,
	}
	err := cfg.setDefaults()
	for _, want := range []string{"no Node", "no Dir", "no Logger", "at most /29", "does not contain", "overlap", "needs the node's IPv4 address"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	cfg = Config{Node: "n", PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), Dir: "d", Logger: hclog.NewNullLogger(), Backend: "ipip"}
	if err := cfg.setDefaults(); err == nil || !strings.Contains(err.Error(), `there is no "ipip"`) {
		t.Error(err)
	}
}

func TestNamesFitAndTellNodesAndPodsApart(t *testing.T) {
	seen := map[string]string{}
	for i := range 50 {
		n := namesOf(fmt.Sprintf("node-%d", i))
		for _, name := range []string{n.own, n.peer, n.vxlan, n.pod("a"), n.pod("b")} {
			if len(name) > 15 || seen[name] != "" {
				t.Errorf("%s of %s and %s", name, n.node, seen[name])
			}
			seen[name] = n.node
		}
		if !n.ours(n.pod("a")) || n.ours(n.own) || n.uid(n.alias("a")) != "a" || n.uid("holdfast other a") != "" {
			t.Errorf("%+v", n)
		}
	}
}

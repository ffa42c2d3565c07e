package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Peer is another node.
type Peer struct {
	Node    string
	Address netip.Addr
	PodCIDR netip.Prefix
}

// Peers are the other nodes of which enough is known, sorted by name. One with the
// address of this node is on this machine, and needs no route. Two that claim the same
// addresses for their pods cannot both have them: the one whose name comes first.
func Peers(nodes []*corev1.Node, own string, address netip.Addr) []Peer {
	var peers []Peer
	for _, n := range nodes {
		p := Peer{Node: n.Name, Address: AddressOf(n), PodCIDR: podCIDR(n)}
		if n.Name != own && p.Address.Is4() && p.Address != address && p.PodCIDR.IsValid() {
			peers = append(peers, p)
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })
	var kept []Peer
	for _, p := range peers {
		if !slices.ContainsFunc(kept, func(k Peer) bool { return k.PodCIDR.Overlaps(p.PodCIDR) }) {
			kept = append(kept, p)
		}
	}
	return kept
}

// AddressOf is where other nodes reach a node. Zero: it does not say.
func AddressOf(n *corev1.Node) netip.Addr {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() {
				return ip
			}
		}
	}
	return netip.Addr{}
}

func podCIDR(n *corev1.Node) netip.Prefix {
	p, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}
	}
	return p.Masked()
}

// route is the way to the pods of a peer.
type route struct {
	to      netip.Prefix
	gateway netip.Addr
	tunnel  bool             // Through the tunnel, whose neighbours are the two below.
	mac     net.HardwareAddr // Of the gateway.
	remote  netip.Addr       // Where frames for it go.
}

func (r route) String() string {
	if r.tunnel {
		return fmt.Sprintf("%v via %v, at %v, sent to %v", r.to, r.gateway, r.mac, r.remote)
	}
	return fmt.Sprintf("%v via %v", r.to, r.gateway)
}

// planRoutes says what has to be there for some peers.
func planRoutes(b Backend, own netip.Prefix, peers []Peer) []route {
	var routes []route
	for _, p := range peers {
		if p.PodCIDR.Overlaps(own) {
			continue // Nobody takes away the addresses of this node's pods.
		}
		switch b {
		case HostGateway:
			routes = append(routes, route{to: p.PodCIDR, gateway: p.Address})
		case VXLAN:
			routes = append(routes, route{to: p.PodCIDR, gateway: p.PodCIDR.Addr(), tunnel: true, mac: tunnelMAC(p.PodCIDR), remote: p.Address})
		}
	}
	return routes
}

// tunnelMAC is the hardware address of a node's end of the tunnel. All nodes know it
// from the range of its pods, so nobody has to ask or to learn.
func tunnelMAC(cidr netip.Prefix) net.HardwareAddr {
	a := cidr.Addr().As4()
	return net.HardwareAddr{0x0a, 0x58, a[0], a[1], a[2], a[3]} // Locally administered.
}

package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks routes as ours, among those of others on the machine.
const routeProtocol = netlink.RouteProtocol(104)

// Metrics of routes whose range another node on the same machine may have too: the
// hash of the node's name is added.
const metricBase = 1 << 16

func (n *Network) metric() int {
	sum := 0
	for _, c := range n.names.links {
		sum = (sum*31 + int(c)) % metricBase
	}
	return metricBase + sum
}

// findUplink finds the interface that has the node's address.
func (n *Network) findUplink() error {
	n.mtu = n.cfg.MTU
	if n.mtu == 0 {
		n.mtu = mtuDefault
	}
	if !n.cfg.Address.IsValid() {
		return nil
	}
	links, err := n.kernel.LinkList()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	for _, link := range links {
		addresses, err := n.kernel.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			continue // It has gone meanwhile.
		}
		for i := range addresses {
			if prefixOf(addresses[i].IPNet).Addr() == n.cfg.Address {
				n.uplink = link
			}
		}
	}
	if n.uplink == nil {
		if n.cfg.Backend == None {
			return nil // The address is for people: nothing is routed.
		}
		return fmt.Errorf("no interface has the node's address %v: set it, or use another that the machine has", n.cfg.Address)
	}
	if n.cfg.MTU == 0 && n.uplink.Attrs().Flags&net.FlagLoopback == 0 {
		n.mtu = n.uplink.Attrs().MTU
		if n.cfg.Backend == VXLAN {
			n.mtu -= vxlanOverhead
		}
	}
	return n.forward(n.uplink.Attrs().Name)
}

// ownRoutes are those that do not depend on peers: pods that are not there are said
// not to be, and services are found. Their metric says that they are this node's.
func (n *Network) ownRoutes() error {
	metric := n.metric()
	var wanted []*netlink.Route
	if !n.cfg.Foreign {
		wanted = append(wanted, unreachable(n.cfg.PodCIDR, metric))
	}
	if n.cfg.ServiceRange.IsValid() {
		wanted = append(wanted, &netlink.Route{
			LinkIndex: n.own.Attrs().Index, Dst: rangeOf(n.cfg.ServiceRange.Masked()), Scope: netlink.SCOPE_LINK, Protocol: routeProtocol,
			Src: n.gateway.AsSlice(), Priority: metric,
		})
	}
	for _, r := range wanted {
		if err := n.kernel.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %v: %w", r.Dst, err)
		}
	}
	have, err := n.kernel.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for i := range have {
		h := &have[i]
		same := func(w *netlink.Route) bool { return prefixOf(w.Dst) == prefixOf(h.Dst) }
		if h.Priority != metric || slices.ContainsFunc(wanted, same) {
			continue
		}
		if err := n.kernel.RouteDel(h); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove old route to %v: %w", h.Dst, err)
		}
	}
	return nil
}

func unreachable(to netip.Prefix, metric int) *netlink.Route {
	return &netlink.Route{Dst: rangeOf(to), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol, Priority: metric}
}

// makeTunnel makes the interface for VXLAN, or removes the one of another backend.
func (n *Network) makeTunnel() error {
	link, err := n.find(n.names.vxlan)
	if err != nil {
		return err
	}
	if link != nil && (n.cfg.Backend != VXLAN || !n.suits(link)) {
		if err := n.remove(link); err != nil {
			return err
		}
		link = nil
	}
	if n.cfg.Backend != VXLAN {
		return nil
	}
	if link == nil {
		made := &netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: n.names.vxlan, MTU: n.mtu, HardwareAddr: tunnelMAC(n.cfg.PodCIDR)},
			VxlanId:   n.cfg.VNI, VtepDevIndex: n.uplink.Attrs().Index, SrcAddr: n.cfg.Address.AsSlice(), Port: n.cfg.Port,
		}
		if err := n.kernel.LinkAdd(made); err != nil {
			return fmt.Errorf("make interface %s (it takes vxlan in the kernel, and a machine can have one of VNI %d at port %d): %w", n.names.vxlan, n.cfg.VNI, n.cfg.Port, err)
		}
		if link, err = n.kernel.LinkByName(n.names.vxlan); err != nil {
			return fmt.Errorf("interface %s: %w", n.names.vxlan, err)
		}
	}
	n.tunnel = link
	if err := n.setAddress(link, n.cfg.PodCIDR.Addr()); err != nil {
		return err
	}
	if err := n.forward(n.names.vxlan); err != nil {
		return err
	}
	if err := n.kernel.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", n.names.vxlan, err)
	}
	return nil
}

// suits reports whether a tunnel that is there is as it should be.
func (n *Network) suits(link netlink.Link) bool {
	v, ok := link.(*netlink.Vxlan)
	return ok && v.VxlanId == n.cfg.VNI && v.Port == n.cfg.Port && !v.Learning && v.VtepDevIndex == n.uplink.Attrs().Index &&
		v.SrcAddr.Equal(n.cfg.Address.AsSlice()) && v.MTU == n.mtu && bytes.Equal(v.HardwareAddr, tunnelMAC(n.cfg.PodCIDR))
}

// SetPeers makes the routes to the pods of other nodes, and removes those to nodes
// that are gone. One call at a time. A node that cannot be routed to does not keep
// others from it; it is tried again with the next call.
func (n *Network) SetPeers(peers []Peer) error {
	wanted := planRoutes(n.cfg.Backend, n.cfg.PodCIDR, peers)
	var errs []error
	for _, r := range wanted {
		if err := n.makeRoute(r); err != nil {
			errs = append(errs, fmt.Errorf("route %v: %w", r, err))
		}
	}
	errs = append(errs, n.removeRoutes(wanted), n.removeNeighbours(wanted))
	return errors.Join(errs...)
}

func (n *Network) makeRoute(r route) error {
	if !r.tunnel {
		err := n.kernel.RouteReplace(&netlink.Route{LinkIndex: n.uplink.Attrs().Index, Dst: rangeOf(r.to), Gw: r.gateway.AsSlice(), Protocol: routeProtocol})
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("the node is not on the wire of %s, use backend %s: %w", n.uplink.Attrs().Name, VXLAN, err)
		}
		return err
	}
	index := n.tunnel.Attrs().Index
	for _, neighbour := range []*netlink.Neigh{
		{LinkIndex: index, Family: unix.AF_INET, State: unix.NUD_PERMANENT, IP: r.gateway.AsSlice(), HardwareAddr: r.mac},
		{LinkIndex: index, Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF, IP: r.remote.AsSlice(), HardwareAddr: r.mac},
	} {
		if err := n.kernel.NeighSet(neighbour); err != nil {
			return err
		}
	}
	return n.kernel.RouteReplace(&netlink.Route{
		LinkIndex: index, Dst: rangeOf(r.to), Gw: r.gateway.AsSlice(), Src: n.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Protocol: routeProtocol,
	})
}

// peerLinks are the interfaces through which routes to peers go.
func (n *Network) peerLinks() map[int]bool {
	links := map[int]bool{}
	if n.uplink != nil {
		links[n.uplink.Attrs().Index] = true
	}
	if n.tunnel != nil {
		links[n.tunnel.Attrs().Index] = true
	}
	return links
}

func (n *Network) removeRoutes(wanted []route) error {
	have, err := n.kernel.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	links := n.peerLinks()
	for i := range have {
		h := &have[i]
		to := prefixOf(h.Dst)
		if !links[h.LinkIndex] || h.Gw == nil || !n.cfg.PodRange.Contains(to.Addr()) || wants(wanted, to, n.tunnel != nil && h.LinkIndex == n.tunnel.Attrs().Index) {
			continue
		}
		if err := n.kernel.RouteDel(h); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %v: %w", to, err)
		}
	}
	return nil
}

func wants(wanted []route, to netip.Prefix, tunnel bool) bool {
	for _, r := range wanted {
		if r.to == to && r.tunnel == tunnel {
			return true
		}
	}
	return false
}

// removeNeighbours removes those of the tunnel that lead to nodes that are gone, or
// to where one no longer is.
func (n *Network) removeNeighbours(wanted []route) error {
	if n.tunnel == nil {
		return nil
	}
	for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
		have, err := n.kernel.NeighList(n.tunnel.Attrs().Index, family)
		if err != nil {
			return fmt.Errorf("neighbours: %w", err)
		}
		for i := range have {
			h := &have[i]
			if h.State&unix.NUD_PERMANENT == 0 || wantsNeighbour(wanted, h, family) {
				continue
			}
			h.Family = family
			if family == unix.AF_BRIDGE {
				h.Flags = unix.NTF_SELF
			}
			if err := n.kernel.NeighDel(h); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove neighbour %v: %w", h, err)
			}
		}
	}
	return nil
}

func wantsNeighbour(wanted []route, have *netlink.Neigh, family int) bool {
	at, _ := netip.AddrFromSlice(have.IP)
	for _, r := range wanted {
		where := r.gateway
		if family == unix.AF_BRIDGE {
			where = r.remote
		}
		if where == at.Unmap() && bytes.Equal(r.mac, have.HardwareAddr) {
			return true
		}
	}
	return false
}

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// podLink is the interface inside of pods.
const podLink = "eth0"

// wire connects a pod, or finds that it is connected.
func (n *Network) wire(uid string, a netip.Addr, space netns.NsHandle, inside *netlink.Handle) error {
	name := n.names.pod(uid)
	host, err := n.find(name)
	if err != nil {
		return err
	}
	if host != nil && (host.Attrs().Alias != n.names.alias(uid) || !joined(host, inside)) {
		// Half made, or of a sandbox of the pod before this one.
		if err := n.remove(host); err != nil {
			return err
		}
		host = nil
	}
	if host == nil {
		if host, err = n.makePair(uid, name, space); err != nil {
			return err
		}
	}
	if err := n.wireHost(host, a); err != nil {
		return err
	}
	if err := n.wirePod(inside, a); err != nil {
		return err
	}
	return n.awaitCarrier(name, inside)
}

// awaitCarrier waits until both ends carry packets. The kernel sees to that a moment
// after it has brought them up; a packet in between is lost, and sent again only
// after a second.
func (n *Network) awaitCarrier(name string, inside *netlink.Handle) error {
	for range carrierTries {
		ends := 0
		for _, end := range []struct {
			kernel *netlink.Handle
			name   string
		}{{n.kernel, name}, {inside, podLink}} {
			link, err := end.kernel.LinkByName(end.name)
			if err != nil {
				return fmt.Errorf("interface %s: %w", end.name, err)
			}
			if link.Attrs().OperState == netlink.OperUp {
				ends++
			}
		}
		if ends == 2 {
			return nil
		}
		<-n.cfg.Clock.After(carrierPause)
	}
	n.log.Warn("an interface does not say that it carries packets, going on", "interface", name)
	return nil
}

// joined reports whether an interface ends in a pod's namespace.
func joined(host netlink.Link, inside *netlink.Handle) bool {
	pod, err := inside.LinkByName(podLink)
	return err == nil && pod.Type() == "veth" && pod.Attrs().Index == host.Attrs().ParentIndex && pod.Attrs().ParentIndex == host.Attrs().Index
}

func (n *Network) makePair(uid, name string, space netns.NsHandle) (netlink.Link, error) {
	pair := netlink.NewVeth(netlink.LinkAttrs{Name: name, MTU: n.mtu})
	pair.PeerName, pair.PeerMTU, pair.PeerNamespace = podLink, uint32(n.mtu), netlink.NsFd(space)
	if err := n.kernel.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("make interface %s and %s of the pod: %w", name, podLink, err)
	}
	host, err := n.kernel.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if err := n.kernel.LinkSetAlias(host, n.names.alias(uid)); err != nil {
		return nil, fmt.Errorf("alias of %s: %w", name, err)
	}
	return host, nil
}

func (n *Network) wireHost(host netlink.Link, a netip.Addr) error {
	name := host.Attrs().Name
	if err := n.kernel.AddrReplace(host, &netlink.Addr{IPNet: single(n.gateway)}); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	if err := n.forward(name); err != nil {
		return err
	}
	if err := n.kernel.LinkSetUp(host); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	route := &netlink.Route{LinkIndex: host.Attrs().Index, Dst: single(a), Scope: netlink.SCOPE_LINK, Protocol: routeProtocol, Src: n.gateway.AsSlice()}
	if err := n.kernel.RouteReplace(route); err != nil {
		return fmt.Errorf("route to %v: %w", a, err)
	}
	return nil
}

// wirePod does the other end: the address, and the node as the way to everything else.
func (n *Network) wirePod(inside *netlink.Handle, a netip.Addr) error {
	lo, err := inside.LinkByName("lo")
	if err == nil {
		err = inside.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback of the pod: %w", err)
	}
	pod, err := inside.LinkByName(podLink)
	if err != nil {
		return fmt.Errorf("%s of the pod: %w", podLink, err)
	}
	if err := inside.AddrReplace(pod, &netlink.Addr{IPNet: single(a)}); err != nil {
		return fmt.Errorf("address of the pod: %w", err)
	}
	if err := inside.LinkSetUp(pod); err != nil {
		return fmt.Errorf("bring up %s of the pod: %w", podLink, err)
	}
	index := pod.Attrs().Index
	for _, r := range []*netlink.Route{
		{LinkIndex: index, Dst: single(n.gateway), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: n.gateway.AsSlice(), Src: a.AsSlice()},
	} {
		if err := inside.RouteReplace(r); err != nil {
			return fmt.Errorf("route of the pod to %v: %w", r.Dst, err)
		}
	}
	return nil
}

// unwire removes the interfaces of a pod, and with them its route.
func (n *Network) unwire(uid string) error {
	host, err := n.find(n.names.pod(uid))
	if err != nil || host == nil {
		return err
	}
	return n.remove(host)
}

// find returns an interface, nil if there is none of that name.
func (n *Network) find(name string) (netlink.Link, error) {
	link, err := n.kernel.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return link, nil
}

func (n *Network) remove(link netlink.Link) error {
	err := n.kernel.LinkDel(link)
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove interface %s: %w", link.Attrs().Name, err)
	}
	if err != nil { // The end in a namespace that dies takes this one along.
		if again, found := n.find(link.Attrs().Name); found != nil || again != nil && again.Attrs().Index == link.Attrs().Index {
			return fmt.Errorf("remove interface %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// adopt takes over what an earlier kubelet made, and removes what is half made.
func (n *Network) adopt() error {
	links, err := n.kernel.LinkList()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	for _, link := range links {
		at := link.Attrs()
		if !n.names.ours(at.Name) {
			continue
		}
		uid := n.names.uid(at.Alias)
		if uid != "" && n.names.pod(uid) == at.Name && n.pool.adopt(uid, n.routed(link)) {
			if err := n.forward(at.Name); err != nil {
				return err
			}
			continue
		}
		n.log.Info("removing an interface that was only half made", "interface", at.Name, "uid", uid)
		if err := n.remove(link); err != nil {
			return err
		}
	}
	return nil
}

// routed is the address that is routed to an interface.
func (n *Network) routed(link netlink.Link) netip.Addr {
	routes, err := n.kernel.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return netip.Addr{}
	}
	for i := range routes {
		if p := prefixOf(routes[i].Dst); p.IsValid() && p.Bits() == 32 {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// makeOwn makes the pair of interfaces that carries the gateway address while no pod
// has an end, and through which the node finds services: one end is enough, and a
// kernel that has no veth could not connect pods either. What is sent to it is not
// meant to arrive anywhere.
func (n *Network) makeOwn() error {
	link, err := n.find(n.names.own)
	if err != nil {
		return err
	}
	if link == nil {
		pair := netlink.NewVeth(netlink.LinkAttrs{Name: n.names.own, MTU: n.mtu})
		pair.PeerName, pair.PeerMTU = n.names.peer, uint32(n.mtu)
		if err := n.kernel.LinkAdd(pair); err != nil {
			return fmt.Errorf("make interface %s (it takes root and veth in the kernel): %w", n.names.own, err)
		}
		if link, err = n.kernel.LinkByName(n.names.own); err != nil {
			return fmt.Errorf("interface %s: %w", n.names.own, err)
		}
	}
	n.own = link
	peer, err := n.kernel.LinkByName(n.names.peer)
	if err != nil {
		return fmt.Errorf("interface %s: %w", n.names.peer, err)
	}
	if err := n.setAddress(link, n.gateway); err != nil {
		return err
	}
	for _, l := range []netlink.Link{link, peer} {
		if err := n.kernel.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring up %s: %w", l.Attrs().Name, err)
		}
	}
	return n.ownRoutes()
}

// setAddress makes an address the only one of an interface.
func (n *Network) setAddress(link netlink.Link, a netip.Addr) error {
	name := link.Attrs().Name
	have, err := n.kernel.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	for i := range have {
		if prefixOf(have[i].IPNet).Addr() != a {
			if err := n.kernel.AddrDel(link, &have[i]); err != nil {
				return fmt.Errorf("old address of %s: %w", name, err)
			}
		}
	}
	if err := n.kernel.AddrReplace(link, &netlink.Addr{IPNet: single(a)}); err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	return nil
}

// forward lets packets that come in through an interface go on.
func (n *Network) forward(name string) error {
	return n.inside(func() error {
		file := filepath.Join("/proc/sys/net/ipv4/conf", strings.ReplaceAll(name, "/", "."), "forwarding")
		err := writeSetting(n.cfg.FS, file, "1")
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			if now, readErr := readSetting(n.cfg.FS, file); readErr == nil && now == "1" {
				return nil // Somebody else may set it.
			}
		}
		if err != nil {
			return fmt.Errorf("forwarding of %s: %w", name, err)
		}
		return nil
	})
}

func writeSetting(fsys vfs.FS, file, value string) error {
	f, err := fsys.OpenWrite(file)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(value), 0)
	return errors.Join(err, f.Close())
}

func readSetting(fsys vfs.FS, file string) (string, error) {
	f, err := fsys.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 16)
	n, err := f.ReadAt(b, 0)
	if n == 0 && err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// inside calls f in the network's namespace: settings are those of the thread that
// asks.
func (n *Network) inside(f func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("namespace of this thread: %w", err)
	}
	defer before.Close()
	if before.Equal(n.space) {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := netns.Set(n.space); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("namespace of the network: %w", err)
	}
	err = f()
	if back := netns.Set(before); back != nil {
		return errors.Join(err, fmt.Errorf("back to the namespace before: %w", back)) // The thread stays locked, and ends with its goroutine.
	}
	runtime.UnlockOSThread()
	return err
}

func single(a netip.Addr) *net.IPNet { return rangeOf(netip.PrefixFrom(a, a.BitLen())) }

func rangeOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the range that the kernel names; invalid for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a.Unmap(), ones)
}

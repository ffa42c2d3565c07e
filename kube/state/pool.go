package state

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// pool is a set of things of which each is given to one owner at a time: a key for
// each that is given, whose value is the owner. Two who want the same compare the same
// key.
type pool struct {
	what   string
	prefix string // Of the keys.
	size   uint32
	at     func(i uint32) string // The i-th, as it is in keys.
}

func (s *Service) serviceAddresses() pool {
	base, size := s.cfg.ServiceRange.Masked(), uint32(1)<<(32-s.cfg.ServiceRange.Bits())
	// Neither the first, which is the network, nor the last, which is everybody.
	return pool{"address", "/holdfast/ip/service/", size - 2, func(i uint32) string { return addressAt(base.Addr(), i+1, 0) }}
}

func (s *Service) nodeSubnets() pool {
	base, size := s.cfg.PodRange.Masked(), uint32(1)<<(s.cfg.SubnetBits-s.cfg.PodRange.Bits())
	shift := 32 - s.cfg.SubnetBits
	return pool{"subnet", "/holdfast/subnet/", size, func(i uint32) string { return addressAt(base.Addr(), i, shift) }}
}

func nodePorts() pool {
	return pool{"node port", "/holdfast/port/service/", nodePortMax - nodePortMin + 1, func(i uint32) string {
		return strconv.Itoa(nodePortMin + int(i))
	}}
}

func addressAt(base netip.Addr, i uint32, shift int) string {
	b := base.As4()
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], binary.BigEndian.Uint32(b[:])+i<<shift)
	return netip.AddrFrom4(sum).String()
}

// give gives an owner one that is free.
func (a *attempt) give(p pool, owner string) (string, error) {
	var b [4]byte
	if err := a.draw(b[:]); err != nil {
		return "", err
	}
	start := binary.BigEndian.Uint32(b[:]) % p.size
	for i := range p.size {
		which := p.at(uint32((uint64(start) + uint64(i)) % uint64(p.size)))
		if a.service.cache.lookup(p.prefix+which) != nil || a.has(p.prefix+which) {
			continue
		}
		if a.read(p.prefix+which) == nil {
			a.putPlain(p.prefix+which, []byte(owner), 0)
			return which, nil
		}
	}
	return "", fmt.Errorf("all %d %ss are given, %w for %s", p.size, p.what, errFull, owner)
}

// has reports whether this write gives it already.
func (a *attempt) has(key string) bool {
	return slices.ContainsFunc(a.written, func(w wrote) bool { return w.key == key })
}

// reserve gives an owner a certain one.
func (a *attempt) reserve(p pool, which, owner string) error {
	key := p.prefix + which
	if kv := a.read(key); kv != nil && string(kv.Value) != owner || a.has(key) {
		return invalid("%s %s is given already", p.what, which)
	}
	a.putPlain(key, []byte(owner), 0)
	return nil
}

// release takes one back, if it is the owner's.
func (a *attempt) release(p pool, which, owner string) {
	key := p.prefix + which
	if kv := a.read(key); kv != nil && string(kv.Value) == owner && !a.has(key) {
		a.delete(key)
	}
}

// address gives a service its address and ports of the node, and takes back what it
// no longer has. Old is nil for a new service, now for one that goes.
func (a *attempt) address(old, now *corev1.Service) error {
	owner := ownerOf(old, now)
	addresses := a.service.serviceAddresses()
	had, want := "", ""
	if old != nil && hasAddress(old) {
		had = old.Spec.ClusterIP
	}
	if now != nil {
		var err error
		if want, err = a.wantedAddress(now, had); err != nil {
			return err
		}
		if want == "" && hasAddress(now) {
			if want, err = a.give(addresses, owner); err != nil {
				return err
			}
		} else if want != "" && want != had {
			if err := a.reserve(addresses, want, owner); err != nil {
				return err
			}
		}
		setAddress(now, want)
	}
	if had != "" && had != want {
		a.release(addresses, had, owner)
	}
	return a.ports(old, now, owner)
}

func ownerOf(old, now *corev1.Service) string {
	if now == nil {
		now = old
	}
	return now.Namespace + "/" + now.Name
}

// hasAddress reports whether a service is one with an address.
func hasAddress(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != corev1.ClusterIPNone
}

// wantedAddress is the one that a service asks for or had. Empty: any, or none.
func (a *attempt) wantedAddress(s *corev1.Service, had string) (string, error) {
	if !hasAddress(s) {
		return "", nil
	}
	asked := s.Spec.ClusterIP
	if asked == "" && len(s.Spec.ClusterIPs) > 0 {
		asked = s.Spec.ClusterIPs[0]
	}
	if asked == "" {
		return had, nil
	}
	if had != "" && asked != had {
		return "", invalid("spec.clusterIP: %s cannot become %s; delete the service and create it anew", had, shorten(asked))
	}
	ip, err := netip.ParseAddr(asked)
	in := a.service.cfg.ServiceRange.Masked()
	if err != nil || ip.String() != asked || !in.Contains(ip) || ip == in.Addr() || ip == lastOf(in) {
		return "", invalid("spec.clusterIP: %q is no address of %v to be given", shorten(asked), in)
	}
	return asked, nil
}

func lastOf(p netip.Prefix) netip.Addr {
	a, _ := netip.ParseAddr(addressAt(p.Addr(), uint32(1)<<(32-p.Bits())-1, 0)) // It is one.
	return a
}

func setAddress(s *corev1.Service, ip string) {
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		s.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	default:
		s.Spec.ClusterIP, s.Spec.ClusterIPs = ip, []string{ip}
	}
}

// ports does the same for ports of the node.
func (a *attempt) ports(old, now *corev1.Service, owner string) error {
	pool := nodePorts()
	had, kept := portsOf(old), map[int32]bool{}
	if now != nil && hasPorts(now) {
		for i := range now.Spec.Ports {
			p := &now.Spec.Ports[i]
			if p.NodePort == 0 {
				p.NodePort = sameNodePort(old, p)
			}
			if p.NodePort == 0 {
				given, err := a.give(pool, owner)
				if err != nil {
					return err
				}
				n, _ := strconv.Atoi(given) // It is one.
				p.NodePort = int32(n)
			} else if p.NodePort < nodePortMin || p.NodePort > nodePortMax {
				return invalid("spec.ports[%d].nodePort: %d is not between %d and %d", i, p.NodePort, nodePortMin, nodePortMax)
			} else if !slices.Contains(had, p.NodePort) && !kept[p.NodePort] {
				if err := a.reserve(pool, strconv.Itoa(int(p.NodePort)), owner); err != nil {
					return err
				}
			}
			kept[p.NodePort] = true
		}
	}
	for _, n := range had {
		if !kept[n] {
			a.release(pool, strconv.Itoa(int(n)), owner)
		}
	}
	return nil
}

func hasPorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

func portsOf(s *corev1.Service) []int32 {
	var all []int32
	if s != nil {
		for i := range s.Spec.Ports {
			if n := s.Spec.Ports[i].NodePort; n != 0 && !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	return all
}

// sameNodePort is what the port had before: who applies a manifest again names none.
func sameNodePort(old *corev1.Service, p *corev1.ServicePort) int32 {
	if old == nil {
		return 0
	}
	for i := range old.Spec.Ports {
		if q := &old.Spec.Ports[i]; q.Port == p.Port && q.Protocol == p.Protocol {
			return q.NodePort
		}
	}
	return 0
}

// subnet gives a node the addresses of its pods, for as long as its object is there.
// Old is nil for a new node, now for one that goes.
func (a *attempt) subnet(old, now *corev1.Node) error {
	subnets := a.service.nodeSubnets()
	if old != nil && old.Spec.PodCIDR != "" {
		return a.keepSubnet(subnets, old, now)
	}
	if now == nil || gone(now) {
		return nil
	}
	which, err := a.askedSubnet(now)
	if err != nil {
		return err
	}
	if which != "" {
		err = a.reserve(subnets, which, now.Name)
	} else {
		which, err = a.give(subnets, now.Name)
	}
	if err != nil {
		return err
	}
	now.Spec.PodCIDR = which + "/" + strconv.Itoa(a.service.cfg.SubnetBits)
	now.Spec.PodCIDRs = []string{now.Spec.PodCIDR}
	return nil
}

// keepSubnet leaves a node the one that it has, until it goes.
func (a *attempt) keepSubnet(subnets pool, old, now *corev1.Node) error {
	switch {
	case now == nil:
		if p, err := netip.ParsePrefix(old.Spec.PodCIDR); err == nil {
			a.release(subnets, p.Addr().String(), old.Name)
		}
	case now.Spec.PodCIDR == "":
		now.Spec.PodCIDR, now.Spec.PodCIDRs = old.Spec.PodCIDR, old.Spec.PodCIDRs
	case now.Spec.PodCIDR != old.Spec.PodCIDR:
		return invalid("spec.podCIDR: %s cannot become %s", old.Spec.PodCIDR, shorten(now.Spec.PodCIDR))
	}
	return nil
}

// askedSubnet is the one that a new node names. Empty: any.
func (a *attempt) askedSubnet(n *corev1.Node) (string, error) {
	asked, cfg := n.Spec.PodCIDR, &a.service.cfg
	if asked == "" {
		return "", nil
	}
	p, err := netip.ParsePrefix(asked)
	if err != nil || p.Bits() != cfg.SubnetBits || p.Masked() != p || !cfg.PodRange.Contains(p.Addr()) {
		return "", invalid("spec.podCIDR: %q is no /%d of %v", shorten(asked), cfg.SubnetBits, cfg.PodRange)
	}
	return p.Addr().String(), nil
}

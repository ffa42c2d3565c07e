package service

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Protocol is that of a port: its number in IP headers.
type Protocol uint8

// Protocols.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}

// protocolOf reads the name in objects.
func protocolOf(p corev1.Protocol) (Protocol, bool) {
	switch cmp.Or(p, corev1.ProtocolTCP) {
	case corev1.ProtocolTCP:
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	}
	return 0, false
}

// Front is where clients connect.
type Front struct {
	Address netip.Addr // Zero: any of the node's.
	Port    uint16
}

func (f Front) String() string {
	if !f.Address.IsValid() {
		return fmt.Sprintf("*:%d", f.Port)
	}
	return netip.AddrPortFrom(f.Address, f.Port).String()
}

// Port is one port of a service. It is not written to once it is made.
type Port struct {
	Name     string // "default/web/tcp/80": unique.
	Protocol Protocol
	Fronts   []Front
	// Sticky is how long a client that connected gets the same endpoint again. 0: no
	// longer than it is connected.
	Sticky time.Duration

	Endpoints []netip.AddrPort // Get new connections. Sorted.
	Draining  []netip.AddrPort // Keep what they have. Sorted.
}

// Plan is what there is to be, by name. As a change: nil is what is no longer to be.
type Plan map[string]*Port

// String is the plan for people and tests.
func (p Plan) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		port := p[name]
		if port == nil {
			fmt.Fprintf(&b, "%s gone\n", name)
			continue
		}
		b.WriteString(name)
		line(&b, " at", port.Fronts)
		if port.Sticky > 0 {
			fmt.Fprintf(&b, ", sticky for %v", port.Sticky)
		}
		line(&b, "\n  to", port.Endpoints)
		line(&b, "\n  until they end", port.Draining)
		b.WriteString("\n")
	}
	return b.String()
}

func line[T fmt.Stringer](b *strings.Builder, what string, all []T) {
	if len(all) == 0 {
		return
	}
	b.WriteString(what)
	for _, a := range all {
		b.WriteString(" " + a.String())
	}
}

func (p *Port) same(q *Port) bool {
	return p.Protocol == q.Protocol && p.Sticky == q.Sticky && slices.Equal(p.Fronts, q.Fronts) &&
		slices.Equal(p.Endpoints, q.Endpoints) && slices.Equal(p.Draining, q.Draining)
}

// Make plans one Service. One without an address, headless or a name only, has no
// ports: clients find the endpoints themselves.
func Make(s *corev1.Service, parts []*discoveryv1.EndpointSlice) Plan {
	plan := Plan{}
	address, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil || !address.Is4() || s.Spec.Type == corev1.ServiceTypeExternalName {
		return plan
	}
	for i := range s.Spec.Ports {
		spec := &s.Spec.Ports[i]
		protocol, ok := protocolOf(spec.Protocol)
		if !ok {
			continue
		}
		p := &Port{
			Name:     fmt.Sprintf("%s/%s/%v/%d", s.Namespace, s.Name, protocol, spec.Port),
			Protocol: protocol, Fronts: []Front{{address, uint16(spec.Port)}}, Sticky: stickyOf(s),
		}
		if spec.NodePort != 0 {
			p.Fronts = append(p.Fronts, Front{Port: uint16(spec.NodePort)})
		}
		p.Endpoints, p.Draining = endpoints(spec.Name, protocol, parts)
		if len(p.Endpoints) == 0 {
			// Better one that may end soon than none.
			p.Endpoints, p.Draining = p.Draining, nil
		}
		plan[p.Name] = p
	}
	return plan
}

func stickyOf(s *corev1.Service) time.Duration {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return stickyDefault
}

// endpoints are those of one port, from all slices of a service. While a slice
// replaces another an endpoint may be in both: then the better news counts.
func endpoints(name string, protocol Protocol, parts []*discoveryv1.EndpointSlice) (ready, draining []netip.AddrPort) {
	for _, part := range parts {
		if part.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		port := portOf(name, protocol, part)
		if port == 0 {
			continue
		}
		for i := range part.Endpoints {
			e := &part.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			a, err := netip.ParseAddr(e.Addresses[0]) // All of one endpoint are of one pod.
			if err != nil || !a.Is4() {
				continue
			}
			switch c := e.Conditions; {
			case c.Ready == nil || *c.Ready:
				ready = append(ready, netip.AddrPortFrom(a, port))
			case c.Terminating != nil && *c.Terminating && (c.Serving == nil || *c.Serving):
				draining = append(draining, netip.AddrPortFrom(a, port))
			}
		}
	}
	ready, draining = sorted(ready), sorted(draining)
	draining = slices.DeleteFunc(draining, func(a netip.AddrPort) bool { return slices.Contains(ready, a) })
	return ready, draining
}

func portOf(name string, protocol Protocol, part *discoveryv1.EndpointSlice) uint16 {
	for _, p := range part.Ports {
		has := ""
		if p.Name != nil {
			has = *p.Name
		}
		is := corev1.ProtocolTCP
		if p.Protocol != nil {
			is = *p.Protocol
		}
		if number, ok := protocolOf(is); ok && has == name && number == protocol && p.Port != nil {
			return uint16(*p.Port)
		}
	}
	return 0
}

func sorted(all []netip.AddrPort) []netip.AddrPort {
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// HostPort publishes a port of a pod at a port of its node.
type HostPort struct {
	Protocol Protocol
	Address  netip.Addr // Of the node. Zero: all of them.
	Port     uint16
	To       netip.AddrPort
}

// MakeHostPorts plans those of one pod. Their names cannot be those of services, whose
// namespaces are in lower case. An IPv6 address has no ports: one that the kernel's table
// has no keys for would keep all services out of it.
func MakeHostPorts(uid string, ports []HostPort) Plan {
	plan := Plan{}
	for _, h := range ports {
		if h.Address = h.Address.Unmap(); h.Address.IsValid() && !h.Address.Is4() {
			continue
		}
		p := &Port{
			Name: fmt.Sprintf("Pod/%s/%v/%d", uid, h.Protocol, h.Port), Protocol: h.Protocol,
			Fronts: []Front{{h.Address, h.Port}}, Endpoints: []netip.AddrPort{h.To},
		}
		if h.Address.IsValid() { // Another one may have the same port.
			p.Name += "/" + h.Address.String()
		}
		plan[p.Name] = p
	}
	return plan
}

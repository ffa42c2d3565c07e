package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// View is what a Zone asks of the objects.
type View interface {
	Service(namespace, name string) (*corev1.Service, bool)
	// Any reports whether a namespace has a service.
	Any(namespace string) bool
	Slices(namespace, service string) []*discoveryv1.EndpointSlice
	// At are the services that have an address, and those whose slices do.
	At(a netip.Addr) (services []*corev1.Service, parts []*discoveryv1.EndpointSlice)
}

// Zone are the names of a cluster.
type Zone struct {
	Domain string // "cluster.local", in lower case, without dots around it.
	View   View
}

// Record is an answer: one of a type that dnsmessage knows.
type Record struct {
	Name string // With the dot at its end.
	Body dnsmessage.ResourceBody
}

// Answer is what a Zone says to a question.
type Answer struct {
	Ours    bool // Else somebody else is to be asked.
	Exists  bool // There is such a name, of whatever type.
	Records []Record
	More    []Record // That save the client another question.
	Alias   string   // Where the answer goes on, "" if it does not.
}

// version of the rules by which names are made.
const version = "1.1.0"

// Ask answers a question: a name in lower case, with the dot at its end.
func (z *Zone) Ask(name string, t dnsmessage.Type) Answer {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		return z.reverse(name, rest, t)
	}
	rest, ok := strings.CutSuffix(name, "."+z.Domain+".")
	if !ok {
		if name == z.Domain+"." {
			return z.found(t, Record{name, z.start()})
		}
		return Answer{}
	}
	labels := strings.Split(rest, ".")
	slices.Reverse(labels) // svc, NAMESPACE, SERVICE, ...
	switch {
	case rest == "dns-version":
		return z.found(t, Record{name, &dnsmessage.TXTResource{TXT: []string{version}}})
	case labels[0] == "pod":
		return z.pod(name, labels[1:], t)
	case labels[0] != "svc":
		return Answer{Ours: true}
	case len(labels) == 1:
		return Answer{Ours: true, Exists: true}
	case len(labels) == 2:
		return Answer{Ours: true, Exists: z.View.Any(labels[1])}
	}
	s, ok := z.View.Service(labels[1], labels[2])
	if !ok {
		return Answer{Ours: true}
	}
	switch len(labels) {
	case 3:
		return z.service(name, s, t)
	case 4:
		return z.host(name, s, labels[3], t)
	case 5:
		return z.port(name, s, labels[4], labels[3], t)
	}
	return Answer{Ours: true}
}

// found answers with those of the records that are of a type.
func (z *Zone) found(t dnsmessage.Type, records ...Record) Answer {
	a := Answer{Ours: true, Exists: true}
	for _, r := range records {
		if t == dnsmessage.TypeALL || typeOf(r.Body) == t {
			a.Records = append(a.Records, r)
		}
	}
	return a
}

func typeOf(b dnsmessage.ResourceBody) dnsmessage.Type {
	switch b.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME
	case *dnsmessage.PTRResource:
		return dnsmessage.TypePTR
	case *dnsmessage.TXTResource:
		return dnsmessage.TypeTXT
	case *dnsmessage.SOAResource:
		return dnsmessage.TypeSOA
	}
	return 0
}

// pod answers for the names that addresses have: "10-244-1-5.NAMESPACE.pod". Whether
// there is such a pod is not asked, as in Kubernetes: nodes do not know all pods.
func (z *Zone) pod(name string, labels []string, t dnsmessage.Type) Answer {
	if len(labels) < 2 {
		return Answer{Ours: true, Exists: true}
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(labels[1], "-", "."))
	if len(labels) > 2 || err != nil || !a.Is4() || labelOf(&discoveryv1.Endpoint{}, a) != labels[1] {
		return Answer{Ours: true}
	}
	return z.found(t, addressRecord(name, a))
}

func headless(s *corev1.Service) bool { return s.Spec.ClusterIP == corev1.ClusterIPNone }

// nameOf is the name of a service.
func (z *Zone) nameOf(s *corev1.Service) string {
	return fmt.Sprintf("%s.%s.svc.%s.", s.Name, s.Namespace, z.Domain)
}

// service answers for the name of a service: its address, those of all endpoints, or
// another name.
func (z *Zone) service(name string, s *corev1.Service, t dnsmessage.Type) Answer {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		to := strings.ToLower(strings.TrimSuffix(s.Spec.ExternalName, ".")) + "."
		target, err := dnsmessage.NewName(to)
		if err != nil {
			return Answer{Ours: true, Exists: true} // Longer than a name can be.
		}
		a := Answer{Ours: true, Exists: true, Records: []Record{{name, &dnsmessage.CNAMEResource{CNAME: target}}}}
		if t != dnsmessage.TypeCNAME {
			a.Alias = to
		}
		return a
	}
	var records []Record
	if headless(s) {
		for _, h := range z.hosts(s) {
			records = append(records, addressRecord(name, h.address))
		}
	} else if a, err := netip.ParseAddr(s.Spec.ClusterIP); err == nil {
		records = append(records, addressRecord(name, a))
	}
	return z.found(t, slices.CompactFunc(records, sameAddress)...)
}

func sameAddress(a, b Record) bool {
	x, ok := a.Body.(*dnsmessage.AResource)
	y, is := b.Body.(*dnsmessage.AResource)
	return ok && is && *x == *y
}

func addressRecord(name string, a netip.Addr) Record {
	if a.Is4() {
		return Record{name, &dnsmessage.AResource{A: a.As4()}}
	}
	return Record{name, &dnsmessage.AAAAResource{AAAA: a.As16()}}
}

// host is an endpoint that has a name of its own.
type host struct {
	label   string // Its host name, or its address.
	address netip.Addr
	port    uint16 // By the port asked for.
}

// hosts are the endpoints of a headless service, sorted by address: those that are
// ready. The controller says so of all where a service publishes them before.
func (z *Zone) hosts(s *corev1.Service) []host { return z.hostsOf(s, nil) }

func (z *Zone) hostsOf(s *corev1.Service, port func(*discoveryv1.EndpointPort) bool) []host {
	var hosts []host
	for _, part := range z.View.Slices(s.Namespace, s.Name) {
		number := uint16(0)
		if port != nil {
			i := slices.IndexFunc(part.Ports, func(p discoveryv1.EndpointPort) bool { return port(&p) })
			if i < 0 || part.Ports[i].Port == nil {
				continue
			}
			number = uint16(*part.Ports[i].Port)
		}
		for i := range part.Endpoints {
			e := &part.Endpoints[i]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					hosts = append(hosts, host{labelOf(e, a), a, number})
				}
			}
		}
	}
	slices.SortFunc(hosts, func(a, b host) int { return a.address.Compare(b.address) })
	return slices.Compact(hosts)
}

func labelOf(e *discoveryv1.Endpoint, a netip.Addr) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return strings.ToLower(*e.Hostname)
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
}

// host answers for a pod of a headless service. Between a service and the names of its
// ports there is the protocol, which has no records.
func (z *Zone) host(name string, s *corev1.Service, label string, t dnsmessage.Type) Answer {
	if strings.HasPrefix(label, "_") {
		return Answer{Ours: true, Exists: slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name != "" && protocolLabel(p.Protocol) == label })}
	}
	if !headless(s) {
		return Answer{Ours: true}
	}
	var records []Record
	for _, h := range z.hosts(s) {
		if h.label == label {
			records = append(records, addressRecord(name, h.address))
		}
	}
	if len(records) == 0 {
		return Answer{Ours: true}
	}
	return z.found(t, records...)
}

// port answers for "_PORT._PROTOCOL.SERVICE...": where it is, and at which number.
func (z *Zone) port(name string, s *corev1.Service, port, protocol string, t dnsmessage.Type) Answer {
	none := Answer{Ours: true}
	if !strings.HasPrefix(port, "_") || s.Spec.Type == corev1.ServiceTypeExternalName {
		return none
	}
	is := func(n string, p corev1.Protocol) bool { return n == port[1:] && protocolLabel(p) == protocol }
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name != "" && is(p.Name, p.Protocol) })
	if i < 0 {
		return none
	}
	own := z.nameOf(s)
	if !headless(s) {
		a := z.found(t, srvRecord(name, own, uint16(s.Spec.Ports[i].Port)))
		if len(a.Records) > 0 {
			a.More = z.service(own, s, dnsmessage.TypeA).Records
		}
		return a
	}
	var records, more []Record
	for _, h := range z.hostsOf(s, func(p *discoveryv1.EndpointPort) bool {
		number := corev1.ProtocolTCP
		if p.Protocol != nil {
			number = *p.Protocol
		}
		return p.Name != nil && is(*p.Name, number)
	}) {
		target := h.label + "." + own
		records = append(records, srvRecord(name, target, h.port))
		more = append(more, addressRecord(target, h.address))
	}
	a := z.found(t, records...)
	if len(a.Records) > 0 {
		a.More = more
	}
	return a
}

func protocolLabel(p corev1.Protocol) string {
	return "_" + strings.ToLower(string(cmp.Or(p, corev1.ProtocolTCP)))
}

func srvRecord(name, target string, port uint16) Record {
	to, err := dnsmessage.NewName(target)
	if err != nil {
		to = dnsmessage.MustNewName(".") // Longer than a name can be: there is no such service.
	}
	return Record{name, &dnsmessage.SRVResource{Priority: 0, Weight: 100, Port: port, Target: to}}
}

// reverse answers what has an address: the service, or the endpoint of a headless one.
func (z *Zone) reverse(name, rest string, t dnsmessage.Type) Answer {
	parts := strings.Split(rest, ".")
	slices.Reverse(parts)
	a, err := netip.ParseAddr(strings.Join(parts, "."))
	if err != nil || len(parts) != 4 {
		return Answer{}
	}
	services, slicesAt := z.View.At(a)
	var names []string
	for _, s := range services {
		names = append(names, z.nameOf(s))
	}
	for _, part := range slicesAt {
		s, ok := z.View.Service(part.Namespace, part.Labels[discoveryv1.LabelServiceName])
		if !ok || !headless(s) {
			continue
		}
		for _, h := range z.hosts(s) {
			if h.address == a {
				names = append(names, h.label+"."+z.nameOf(s))
			}
		}
	}
	if len(names) == 0 {
		return Answer{} // Not of the cluster: its neighbours may be known elsewhere.
	}
	slices.Sort(names)
	var records []Record
	for _, n := range slices.Compact(names) {
		if to, err := dnsmessage.NewName(n); err == nil {
			records = append(records, Record{name, &dnsmessage.PTRResource{PTR: to}})
		}
	}
	return z.found(t, records...)
}

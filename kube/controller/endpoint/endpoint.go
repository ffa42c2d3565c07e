// Package endpoint decides which pods a Service sends its traffic to.
//
// It is a pure function from a Service and its pods to EndpointSlices: per address
// family and set of ports one list of at most SliceMax addresses a slice. Slices keep
// their names and their addresses where they can, so that one pod that changes is one
// write, and a proxy sees one change.
//
// Always true: an address is ready only while its pod is, its node is not silent and
// it is not on its way out; one on its way out serves while it is ready.
package endpoint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// SliceMax is how many addresses a slice holds: a change of one is a write of all.
const SliceMax = 100

// ManagedBy is who wrote a slice: those of others are left alone.
const ManagedBy = "endpointslice-controller.holdfast.dev"

// Facts are what a plan is made from.
type Facts struct {
	Service *corev1.Service
	Pods    []*corev1.Pod // Of its namespace.
	Nodes   map[string]*corev1.Node
	Slices  []*discoveryv1.EndpointSlice // Of this Service.
}

// Plan is what to write.
type Plan struct {
	Create []*discoveryv1.EndpointSlice
	Update []*discoveryv1.EndpointSlice
	Delete []*discoveryv1.EndpointSlice
}

// Make plans the slices of one Service. One without a selector has those that
// somebody else writes.
func Make(f Facts) Plan {
	var p Plan
	var mine []*discoveryv1.EndpointSlice
	for _, s := range f.Slices {
		if s.Labels[discoveryv1.LabelManagedBy] == ManagedBy {
			mine = append(mine, s)
		}
	}
	if len(f.Service.Spec.Selector) == 0 || f.Service.Spec.Type == corev1.ServiceTypeExternalName || f.Service.DeletionTimestamp != nil {
		p.Delete = mine
		return p
	}
	groups := f.groups()
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		g := groups[key]
		var have []*discoveryv1.EndpointSlice
		mine = slices.DeleteFunc(mine, func(s *discoveryv1.EndpointSlice) bool {
			same := s.AddressType == g.family && equality.Semantic.DeepEqual(s.Ports, g.ports)
			if same {
				have = append(have, s)
			}
			return same
		})
		f.fill(&p, g, have)
	}
	p.Delete = append(p.Delete, mine...)
	return p
}

// group are the endpoints that share address family and ports.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

func (f Facts) groups() map[string]*group {
	groups := map[string]*group{}
	selector := labels.SelectorFromSet(f.Service.Spec.Selector)
	for _, pod := range f.Pods {
		if pod.Status.PodIP == "" || replica.Finished(pod) || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		for _, family := range families(f.Service) {
			address := addressOf(pod, family)
			if address == "" {
				continue
			}
			g := &group{family: family, ports: portsOf(f.Service, pod)}
			key := fmt.Sprint(family, keyOf(g.ports))
			if groups[key] == nil {
				groups[key] = g
			}
			groups[key].endpoints = append(groups[key].endpoints, f.endpoint(pod, address))
		}
	}
	return groups
}

func families(s *corev1.Service) []discoveryv1.AddressType {
	if len(s.Spec.IPFamilies) == 0 {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
	}
	var all []discoveryv1.AddressType
	for _, f := range s.Spec.IPFamilies {
		all = append(all, discoveryv1.AddressType(f))
	}
	return all
}

func addressOf(pod *corev1.Pod, family discoveryv1.AddressType) string {
	all := []string{pod.Status.PodIP}
	for _, ip := range pod.Status.PodIPs {
		all = append(all, ip.IP)
	}
	for _, ip := range all {
		v6 := slices.Contains([]byte(ip), ':')
		if v6 == (family == discoveryv1.AddressTypeIPv6) {
			return ip
		}
	}
	return ""
}

// portsOf resolves the ports of a Service in one pod: a name may stand for different
// numbers in different pods.
func portsOf(s *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for _, p := range s.Spec.Ports {
		number, ok := target(p, pod)
		if !ok {
			continue
		}
		name, protocol := p.Name, cmp.Or(p.Protocol, corev1.ProtocolTCP)
		ports = append(ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number, AppProtocol: p.AppProtocol})
	}
	return ports
}

func target(p corev1.ServicePort, pod *corev1.Pod) (int32, bool) {
	switch {
	case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal > 0:
		return p.TargetPort.IntVal, true
	case p.TargetPort.Type == intstr.Int:
		return p.Port, true
	}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == p.TargetPort.StrVal && cmp.Or(port.Protocol, corev1.ProtocolTCP) == cmp.Or(p.Protocol, corev1.ProtocolTCP) {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}

func keyOf(ports []discoveryv1.EndpointPort) string {
	key := ""
	for _, p := range ports {
		key += fmt.Sprintf("/%s:%s:%d", *p.Name, *p.Protocol, *p.Port)
	}
	return key
}

func (f Facts) endpoint(pod *corev1.Pod, address string) discoveryv1.Endpoint {
	_, serving := replica.Ready(pod)
	node := f.Nodes[pod.Spec.NodeName]
	serving = serving && !silent(node)
	terminating := pod.DeletionTimestamp != nil
	ready := serving && !terminating || f.Service.Spec.PublishNotReadyAddresses
	e := discoveryv1.Endpoint{
		Addresses:  []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = &pod.Spec.NodeName
	}
	if node != nil {
		if zone := node.Labels[corev1.LabelTopologyZone]; zone != "" {
			e.Zone = &zone
		}
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == f.Service.Name {
		e.Hostname = &pod.Spec.Hostname
	}
	return e
}

// silent reports whether nobody knows how a node is. One that there is no object of
// is not asked.
func silent(n *corev1.Node) bool {
	if n == nil {
		return false
	}
	c := api.NodeReady(n)
	return c != nil && c.Status == corev1.ConditionUnknown
}

// fill puts the endpoints of a group into slices: each stays where it is; new ones
// take what is free.
func (f Facts) fill(p *Plan, g *group, have []*discoveryv1.EndpointSlice) {
	slices.SortFunc(g.endpoints, func(a, b discoveryv1.Endpoint) int { return cmp.Compare(a.TargetRef.Name, b.TargetRef.Name) })
	wanted := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		wanted[string(e.TargetRef.UID)] = e
	}
	next := make([]*discoveryv1.EndpointSlice, len(have))
	for i, s := range have {
		next[i] = s.DeepCopy()
		next[i].Labels, next[i].Endpoints = f.labels(), []discoveryv1.Endpoint{}
		for _, e := range s.Endpoints {
			if e.TargetRef == nil {
				continue
			}
			if now, ok := wanted[string(e.TargetRef.UID)]; ok {
				next[i].Endpoints = append(next[i].Endpoints, now)
				delete(wanted, string(e.TargetRef.UID))
			}
		}
	}
	for _, e := range g.endpoints {
		if _, ok := wanted[string(e.TargetRef.UID)]; !ok {
			continue
		}
		i := slices.IndexFunc(next, func(s *discoveryv1.EndpointSlice) bool { return len(s.Endpoints) < SliceMax })
		if i < 0 {
			i = len(next)
			next = append(next, f.slice(g, i))
		}
		next[i].Endpoints = append(next[i].Endpoints, e)
	}
	for i, s := range next {
		switch {
		case i >= len(have):
			p.Create = append(p.Create, s)
		case len(s.Endpoints) == 0:
			p.Delete = append(p.Delete, have[i])
		case !equality.Semantic.DeepEqual(s, have[i]):
			p.Update = append(p.Update, s)
		}
	}
}

func (f Facts) labels() map[string]string {
	l := maps.Clone(f.Service.Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[discoveryv1.LabelServiceName], l[discoveryv1.LabelManagedBy] = f.Service.Name, ManagedBy
	return l
}

// slice makes a new one. Its name follows from what is there: who plans the same
// meets it.
func (f Facts) slice(g *group, number int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: g.family, Ports: g.ports}
	s.Namespace, s.Labels = f.Service.Namespace, f.labels()
	s.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(f.Service, corev1.SchemeGroupVersion.WithKind("Service"))}
	for salt := number; ; salt++ {
		s.Name = f.Service.Name + "-" + replica.Word(5, string(f.Service.UID), string(g.family), keyOf(g.ports), fmt.Sprint(salt))
		if !slices.ContainsFunc(f.Slices, func(other *discoveryv1.EndpointSlice) bool { return other.Name == s.Name }) {
			return s
		}
	}
}

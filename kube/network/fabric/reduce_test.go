package fabric

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/dns"
	"github.com/holdfast-db/holdfast/kube/service"
)

// one is a view of one service.
type one struct {
	service *corev1.Service
	slice   *discoveryv1.EndpointSlice
}

func (o one) Service(namespace, name string) (*corev1.Service, bool) {
	return o.service, namespace == o.service.Namespace && name == o.service.Name
}
func (o one) Any(string) bool { return true }
func (o one) Slices(string, string) []*discoveryv1.EndpointSlice {
	return []*discoveryv1.EndpointSlice{o.slice}
}
func (o one) At(netip.Addr) ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	return nil, []*discoveryv1.EndpointSlice{o.slice}
}

// TestReducedObjectsSayTheSame: to the proxy, and to the names.
func TestReducedObjectsSayTheSame(t *testing.T) {
	pointer := func(b bool) *bool { return &b }
	make := func(address string, kind corev1.ServiceType) one {
		name, host, port, timeout, tcp := "http", "Zero", int32(8080), int32(60), corev1.ProtocolTCP
		meta := metav1.ObjectMeta{
			Namespace: "default", Name: "web", ResourceVersion: "7", UID: "u", Generation: 3,
			Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
			Labels: map[string]string{discoveryv1.LabelServiceName: "web", "app": "web"},
		}
		s := &corev1.Service{ObjectMeta: meta}
		s.Spec = corev1.ServiceSpec{
			Type: kind, ClusterIP: address, ClusterIPs: []string{address}, ExternalName: "example.org", Selector: map[string]string{"app": "web"},
			Ports:           []corev1.ServicePort{{Name: name, Port: 80, NodePort: 30080, Protocol: tcp}},
			SessionAffinity: corev1.ServiceAffinityClientIP, SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}},
		}
		part := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4}
		part.Ports = []discoveryv1.EndpointPort{{Name: &name, Protocol: &tcp, Port: &port}}
		for i, c := range []discoveryv1.EndpointConditions{
			{}, {Ready: pointer(true)}, {Ready: pointer(true), Serving: pointer(true)}, {Ready: pointer(false)},
			{Ready: pointer(false), Serving: pointer(true), Terminating: pointer(true)}, {Ready: pointer(false), Serving: pointer(false), Terminating: pointer(true)},
		} {
			a := netip.AddrFrom4([4]byte{10, 244, 0, byte(2 + i)}).String()
			e := discoveryv1.Endpoint{Addresses: []string{a}, Conditions: c, NodeName: &host, TargetRef: &corev1.ObjectReference{Name: "p"}}
			if i == 1 {
				e.Hostname, e.Addresses = &host, append(e.Addresses, "10.244.1.1")
			}
			part.Endpoints = append(part.Endpoints, e)
		}
		return one{s, part}
	}
	for _, c := range []struct {
		address string
		kind    corev1.ServiceType
	}{
		{"10.96.0.10", corev1.ServiceTypeNodePort}, {corev1.ClusterIPNone, corev1.ServiceTypeClusterIP}, {"", corev1.ServiceTypeExternalName},
	} {
		said := func(o one) map[string]any {
			z := &dns.Zone{Domain: "cluster.local", View: o}
			all := map[string]any{"plan": service.Make(o.service, []*discoveryv1.EndpointSlice{o.slice}).String()}
			for name, kind := range map[string]dnsmessage.Type{
				"web.default.svc.cluster.local.": dnsmessage.TypeA, "zero.web.default.svc.cluster.local.": dnsmessage.TypeA,
				"_http._tcp.web.default.svc.cluster.local.": dnsmessage.TypeSRV, "3.0.244.10.in-addr.arpa.": dnsmessage.TypePTR,
			} {
				all[name] = z.Ask(name, kind)
			}
			return all
		}
		whole, reduced := make(c.address, c.kind), make(c.address, c.kind)
		reduceService(reduced.service)
		reduceSlice(reduced.slice)
		wholeSays, reducedSays := said(whole), said(reduced)
		if !reflect.DeepEqual(wholeSays, reducedSays) {
			t.Errorf("%s %s: reduced they say\n%v\nwhole\n%v", c.kind, c.address, reducedSays, wholeSays)
		}
		if c.kind == corev1.ServiceTypeNodePort && !strings.Contains(wholeSays["plan"].(string), "until they end") {
			t.Errorf("the plan has not all there can be:\n%s", wholeSays["plan"])
		}
		e := reduced.slice.Endpoints
		if reduced.service.Labels != nil || len(reduced.slice.Labels) != 1 || e[0].TargetRef != nil || e[1].Conditions.Ready != e[2].Conditions.Ready {
			t.Errorf("%s %s: they are not reduced", c.kind, c.address)
		}
	}
}

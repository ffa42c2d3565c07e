package dns

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// Objects is the View over informers.
type Objects struct {
	services *objects.Informer[*corev1.Service]
	slices   *objects.Informer[*discoveryv1.EndpointSlice]
}

// Names of the indexes.
const (
	byAddress = "dns address"
	byService = "service" // As in package service: who has both keeps one.
)

// NewObjects returns a view of what informers have. They must not run yet.
func NewObjects(services *objects.Informer[*corev1.Service], slices *objects.Informer[*discoveryv1.EndpointSlice]) *Objects {
	services.AddIndex(byAddress, func(s *corev1.Service) []string { return []string{s.Spec.ClusterIP} })
	slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
	})
	slices.AddIndex(byAddress, func(s *discoveryv1.EndpointSlice) []string {
		var all []string
		for i := range s.Endpoints {
			all = append(all, s.Endpoints[i].Addresses...)
		}
		return all
	})
	return &Objects{services, slices}
}

// Service implements View.
func (o *Objects) Service(namespace, name string) (*corev1.Service, bool) {
	return o.services.Get(namespace, name)
}

// Any implements View.
func (o *Objects) Any(namespace string) bool {
	return namespace != "" && len(o.services.List(namespace)) > 0
}

// Slices implements View.
func (o *Objects) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	return o.slices.ByIndex(byService, namespace+"/"+service)
}

// At implements View.
func (o *Objects) At(a netip.Addr) ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	return o.services.ByIndex(byAddress, a.String()), o.slices.ByIndex(byAddress, a.String())
}

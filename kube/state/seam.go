package state

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type hostPort struct {
	IP, Protocol string
	Port         int32
}

type resources struct {
	MilliCPU, Memory, EphemeralStorage, Pods int64
	HostPorts                                []hostPort
	Extended                                 map[string]int64
}

func podRequests(spec *corev1.PodSpec) resources {
	r := resources{Pods: 1}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		r.add(c.Resources.Requests)
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				r.HostPorts = append(r.HostPorts, hostPort{p.HostIP, string(p.Protocol), p.HostPort})
			}
		}
	}
	return r
}

func (r *resources) add(l corev1.ResourceList) {
	for name, q := range l { //tidy:ordered sums
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU += q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory += q.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage += q.Value()
		case corev1.ResourcePods:
			r.Pods += q.Value()
		default:
			if r.Extended == nil {
				r.Extended = map[string]int64{}
			}
			r.Extended[string(name)] += q.Value()
		}
	}
}

func nodeResources(n *corev1.Node) resources {
	var r resources
	r.add(n.Status.Allocatable)
	return r
}

func setDefaults(api.Object)               {}
func validate(api.Object) error            { return nil }
func validateUpdate(_, _ api.Object) error { return nil }
func warnings(api.Object) []string         { return nil }

func decodeJSON(k *api.Kind, text []byte) (api.Object, error) {
	o := k.New()
	if err := json.Unmarshal(text, o); err != nil {
		return nil, err
	}
	return o, nil
}

func patchObject(k *api.Kind, current, patch []byte, _ kubepb.PatchRequest_Type) (api.Object, error) {
	var a, b any
	if err := json.Unmarshal(current, &a); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(patch, &b); err != nil {
		return nil, err
	}
	merged, err := json.Marshal(merge(a, b))
	if err != nil {
		return nil, err
	}
	return decodeJSON(k, merged)
}

func merge(a, b any) any {
	pb, ok := b.(map[string]any)
	if !ok {
		return b
	}
	pa, ok := a.(map[string]any)
	if !ok {
		pa = map[string]any{}
	}
	for k, v := range pb { //tidy:ordered keys are independent
		if v == nil {
			delete(pa, k)
		} else {
			pa[k] = merge(pa[k], v)
		}
	}
	return pa
}

var _ = resource.Quantity{}

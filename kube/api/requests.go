package api

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources are what a pod takes from a node, or what a node has.
type Resources struct {
	MilliCPU         int64
	Memory           int64 // Bytes.
	EphemeralStorage int64 // Bytes.
	Pods             int64
	HostPorts        []HostPort
	Extended         map[string]int64 // By their full names; hugepages are among them, in bytes.
}

// HostPort is a port of a node. An IP of "" is every address.
type HostPort struct {
	IP       string
	Protocol string
	Port     int32
}

// Conflicts reports whether two ports cannot be held at once.
func (p HostPort) Conflicts(q HostPort) bool {
	return p.Port == q.Port && p.Protocol == q.Protocol && (p.IP == "" || q.IP == "" || p.IP == q.IP)
}

// PodRequests is what a pod is counted as: what its containers and sidecars ask
// for together, or what an init container asks for beside the sidecars that were
// started before it, where that is more; and the overhead. A container that names
// a limit only asks for that much.
func PodRequests(spec *corev1.PodSpec) Resources {
	sum := Resources{Pods: 1}
	for i := range spec.Containers {
		sum.Add(requestsOf(&spec.Containers[i].Resources))
	}
	var sidecars, peak Resources
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		asks := requestsOf(&c.Resources)
		if Sidecar(c) {
			sidecars.Add(asks)
			sum.Add(asks)
			asks = Resources{}
		}
		asks.Add(sidecars)
		peak.atLeast(asks)
	}
	sum.atLeast(peak)
	sum.Add(fromList(spec.Overhead))
	sum.HostPorts = hostPorts(spec)
	return sum
}

// Sidecar reports whether an init container goes on beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// NodeResources is what a node gives to pods: its allocatable.
func NodeResources(node *corev1.Node) Resources { return fromList(node.Status.Allocatable) }

// Add counts other in. Sums stay at the largest number instead of passing it.
func (r *Resources) Add(other Resources) {
	r.MilliCPU = plus(r.MilliCPU, other.MilliCPU)
	r.Memory = plus(r.Memory, other.Memory)
	r.EphemeralStorage = plus(r.EphemeralStorage, other.EphemeralStorage)
	r.Pods = plus(r.Pods, other.Pods)
	r.HostPorts = append(slices.Clip(r.HostPorts), other.HostPorts...)
	if r.Extended == nil {
		r.Extended = maps.Clone(other.Extended)
		return
	}
	for name, n := range other.Extended {
		r.Extended[name] = plus(r.Extended[name], n)
	}
}

func (r *Resources) atLeast(other Resources) {
	r.MilliCPU = max(r.MilliCPU, other.MilliCPU)
	r.Memory = max(r.Memory, other.Memory)
	r.EphemeralStorage = max(r.EphemeralStorage, other.EphemeralStorage)
	for name, n := range other.Extended {
		if r.Extended == nil {
			r.Extended = make(map[string]int64, len(other.Extended))
		}
		r.Extended[name] = max(r.Extended[name], n)
	}
}

func plus(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func requestsOf(r *corev1.ResourceRequirements) Resources {
	if len(r.Limits) == 0 {
		return fromList(r.Requests)
	}
	asks := maps.Clone(r.Limits)
	maps.Copy(asks, r.Requests)
	return fromList(asks)
}

func fromList(list corev1.ResourceList) Resources {
	var r Resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = milli(q)
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage = q.Value()
		case corev1.ResourcePods:
			r.Pods = q.Value()
		default:
			if r.Extended == nil {
				r.Extended = map[string]int64{}
			}
			r.Extended[string(name)] = q.Value()
		}
	}
	return r
}

// milli is a quantity in thousandths, rounded up; one that has too many for an
// int64 is the largest number there is, where the library's would wrap.
func milli(q resource.Quantity) int64 {
	if q.CmpInt64(math.MaxInt64/1000) > 0 {
		return math.MaxInt64
	}
	return q.MilliValue()
}

func hostPorts(spec *corev1.PodSpec) []HostPort {
	var ports []HostPort
	take := func(c *corev1.Container) {
		for _, p := range c.Ports {
			port := p.HostPort
			if spec.HostNetwork {
				port = p.ContainerPort
			}
			if port == 0 {
				continue
			}
			protocol := p.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			ip := p.HostIP
			if ip == "0.0.0.0" || ip == "::" {
				ip = ""
			}
			ports = append(ports, HostPort{IP: ip, Protocol: string(protocol), Port: port})
		}
	}
	for i := range spec.Containers {
		take(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; Sidecar(c) {
			take(c)
		}
	}
	return ports
}

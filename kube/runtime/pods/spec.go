package pods

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// podSpec is what the engine makes for all containers of a pod.
func (r *Runtime) podSpec(o *corev1.Pod) *runtime.PodSpec {
	s := &runtime.PodSpec{
		UID: string(o.UID), Namespace: o.Namespace, Name: o.Name,
		Hostname: hostname(o), HostNetwork: o.Spec.HostNetwork, Dir: r.dir(o.UID),
		Class: runtime.Class(api.QOSClass(&o.Spec)), Resources: podResources(&o.Spec), DNS: r.cfg.Wires.DNS(o),
	}
	for _, a := range o.Spec.HostAliases {
		s.Hosts = append(s.Hosts, runtime.Host{IP: a.IP, Names: a.Hostnames})
	}
	return s
}

// hostname of a pod is what it says, or its name as far as that is one.
func hostname(o *corev1.Pod) string {
	name := o.Spec.Hostname
	if name == "" {
		name = o.Name
	}
	if i := strings.IndexByte(name, '.'); i > 0 {
		name = name[:i]
	}
	return api.ClipName(name, hostnameBytesMax)
}

const hostnameBytesMax = 63 // Of the kernel and of DNS.

func resourcesOf(r *corev1.ResourceRequirements) runtime.Resources {
	return runtime.Resources{
		RequestMilliCPU: milliCPU(r.Requests.Cpu()), LimitMilliCPU: milliCPU(r.Limits.Cpu()), LimitMemoryBytes: r.Limits.Memory().Value(),
	}
}

// milliCPU are thousandths of a processor, of a million of them at most: kernels count
// what a limit is of a second, and refuse more than they can count.
func milliCPU(q *resource.Quantity) int64 {
	if q.CmpInt64(processorsMax) > 0 {
		return processorsMax * 1000
	}
	return q.MilliValue()
}

const processorsMax = 1_000_000

// podResources are the sums, with limits where all containers have one.
func podResources(s *corev1.PodSpec) runtime.Resources {
	sum := runtime.Resources{RequestMilliCPU: api.PodRequests(s).MilliCPU, LimitPIDs: podPIDs}
	cpu, memory := true, true
	add := func(c *corev1.Container) {
		limits := resourcesOf(&c.Resources)
		cpu, memory = cpu && limits.LimitMilliCPU > 0, memory && limits.LimitMemoryBytes > 0
		sum.LimitMilliCPU += limits.LimitMilliCPU
		sum.LimitMemoryBytes += limits.LimitMemoryBytes
	}
	for i := range s.Containers {
		add(&s.Containers[i])
	}
	var first runtime.Resources // The largest that runs to its end before the others.
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		if api.Sidecar(c) {
			add(c)
			continue
		}
		limits := resourcesOf(&c.Resources)
		cpu, memory = cpu && limits.LimitMilliCPU > 0, memory && limits.LimitMemoryBytes > 0
		first.LimitMilliCPU, first.LimitMemoryBytes = max(first.LimitMilliCPU, limits.LimitMilliCPU), max(first.LimitMemoryBytes, limits.LimitMemoryBytes)
	}
	sum.LimitMilliCPU, sum.LimitMemoryBytes = max(sum.LimitMilliCPU, first.LimitMilliCPU), max(sum.LimitMemoryBytes, first.LimitMemoryBytes)
	if !cpu {
		sum.LimitMilliCPU = 0
	}
	if !memory {
		sum.LimitMemoryBytes = 0
	}
	return sum
}

// oomScoreAdj says whom the kernel ends first, as Kubernetes does: the less of the
// machine's memory a container requests, the earlier.
func oomScoreAdj(o *corev1.Pod, c *corev1.Container, capacity int64) int {
	switch runtime.Class(api.QOSClass(&o.Spec)) {
	case runtime.Guaranteed:
		return -997
	case runtime.BestEffort:
		return 1000
	}
	if capacity <= 0 {
		return 999
	}
	share := float64(c.Resources.Requests.Memory().Value()) / float64(capacity)
	return min(max(int(math.Round(1000-1000*share)), 3), 999)
}

// securityOf is what a container may do: what it says itself, else what its pod says.
func securityOf(o *corev1.Pod, c *corev1.Container) runtime.Security {
	s := runtime.Security{MayGainPrivileges: true}
	if p := o.Spec.SecurityContext; p != nil {
		s.User, s.Group, s.Groups = p.RunAsUser, p.RunAsGroup, append([]int64(nil), p.SupplementalGroups...)
		if p.FSGroup != nil {
			s.Groups = append(s.Groups, *p.FSGroup)
		}
		s.NonRoot = truth(p.RunAsNonRoot)
		s.UnfilteredSyscalls = unconfined(p.SeccompProfile)
	}
	x := c.SecurityContext
	if x == nil {
		return s
	}
	if x.RunAsUser != nil {
		s.User = x.RunAsUser
	}
	if x.RunAsGroup != nil {
		s.Group = x.RunAsGroup
	}
	if x.RunAsNonRoot != nil {
		s.NonRoot = *x.RunAsNonRoot
	}
	if x.SeccompProfile != nil {
		s.UnfilteredSyscalls = unconfined(x.SeccompProfile)
	}
	s.ReadOnlyRoot = truth(x.ReadOnlyRootFilesystem)
	s.MayGainPrivileges = x.AllowPrivilegeEscalation == nil || *x.AllowPrivilegeEscalation
	if caps := x.Capabilities; caps != nil {
		s.AddCapabilities, s.DropCapabilities = texts(caps.Add), texts(caps.Drop)
	}
	return s
}

func truth(b *bool) bool { return b != nil && *b }

func unconfined(p *corev1.SeccompProfile) bool {
	return p != nil && p.Type == corev1.SeccompProfileTypeUnconfined
}

func texts(list []corev1.Capability) []string {
	var all []string
	for _, c := range list {
		all = append(all, string(c))
	}
	return all
}

// checkUser refuses root where the pod says that nobody shall be. A user who has a name
// alone is for the engine to look up.
func checkUser(o *corev1.Pod, c *corev1.Container, image *runtime.Image) error {
	s := securityOf(o, c)
	if !s.NonRoot {
		return nil
	}
	name, _, _ := strings.Cut(image.User, ":")
	user, err := strconv.ParseInt(name, 10, 64)
	switch {
	case s.User != nil:
		user = *s.User
	case name == "" || name == "root":
		user = 0
	case err != nil:
		return nil
	}
	if user == 0 {
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", o.Name, c.Name)
	}
	return nil
}

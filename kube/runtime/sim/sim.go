package sim

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Config says for which node a Runtime is.
type Config struct {
	Clock   clock.Clock
	Subnet  string              // Of the addresses of pods, as 10.244.3.0/24. Empty or wrong: they get none.
	Changed func(uid types.UID) // Hears that something became of a pod.
}

// Runtime implements kubelet.Runtime and kubelet.Meter.
type Runtime struct {
	cfg    Config
	subnet netip.Prefix

	mu struct {
		sync.Mutex
		pods   map[types.UID]*pod
		taken  map[netip.Addr]bool
		ended  map[types.UID]map[string]kubelet.ContainerState // How those did of which nothing is left.
		starts int                                             // Tells containers apart that were started at one time.
	}
}

// pod is one of them, from its first start until its end.
type pod struct {
	ip         netip.Addr
	containers map[string]*container
	end        clock.Timer // Armed by Stop.
	endsAt     time.Duration
}

// container is one start of a container.
type container struct {
	state kubelet.ContainerState
	timer clock.Timer
}

// New returns a runtime in which nothing runs.
func New(cfg Config) *Runtime {
	r := &Runtime{cfg: cfg}
	r.subnet, _ = netip.ParsePrefix(cfg.Subnet) // The zero prefix has no addresses.
	r.mu.pods, r.mu.taken = map[types.UID]*pod{}, map[netip.Addr]bool{}
	r.mu.ended = map[types.UID]map[string]kubelet.ContainerState{}
	return r
}

// NodeChanged implements kubelet.NodeFollower: the node may have its subnet only now.
func (r *Runtime) NodeChanged(node *corev1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if subnet, err := netip.ParsePrefix(node.Spec.PodCIDR); err == nil {
		r.subnet = subnet
	}
}

// idPrefix of the containers here.
const idPrefix = "sim://"

// Adopt implements kubelet.Runtime.
func (r *Runtime) Adopt(pods []*corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range pods {
		p := &pod{containers: map[string]*container{}}
		for _, list := range [][]corev1.ContainerStatus{o.Status.InitContainerStatuses, o.Status.ContainerStatuses} {
			for i := range list {
				if c := r.found(o, &list[i]); c != nil {
					p.containers[list[i].Name] = c
				}
			}
		}
		if len(p.containers) == 0 || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
			continue
		}
		var err error
		if p.ip, err = netip.ParseAddr(o.Status.PodIP); err == nil { // It may have none.
			r.mu.taken[p.ip] = true
		}
		r.mu.pods[o.UID] = p
		for name, c := range p.containers {
			if c.state.Phase == kubelet.Running {
				r.runLocked(o, p, name, c)
			}
		}
	}
}

// found is a container that a status tells of.
func (r *Runtime) found(o *corev1.Pod, s *corev1.ContainerStatus) *container {
	switch run, end := s.State.Running, s.State.Terminated; {
	case run != nil && strings.HasPrefix(s.ContainerID, idPrefix):
		return &container{state: kubelet.ContainerState{ID: s.ContainerID, Phase: kubelet.Running, Started: run.StartedAt.Time}}
	case end != nil && strings.HasPrefix(end.ContainerID, idPrefix):
		return &container{state: kubelet.ContainerState{
			ID: end.ContainerID, Phase: kubelet.Exited, Started: end.StartedAt.Time, Finished: end.FinishedAt.Time, ExitCode: end.ExitCode, Reason: end.Reason,
		}}
	}
	return nil
}

// Start implements kubelet.Runtime.
func (r *Runtime) Start(o *corev1.Pod, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.ended, o.UID)
	p := r.mu.pods[o.UID]
	if p == nil {
		p = &pod{ip: r.addressLocked(), containers: map[string]*container{}}
		r.mu.pods[o.UID] = p
	}
	if p.end != nil {
		return // It is being stopped.
	}
	if c := p.containers[name]; c != nil && (c.state.Phase == kubelet.Running || c.state.Phase == kubelet.Creating) {
		return
	}
	r.mu.starts++
	c := &container{state: kubelet.ContainerState{
		ID: fmt.Sprintf("%s%s/%s/%x-%d", idPrefix, o.UID, name, r.cfg.Clock.Wall().UnixNano(), r.mu.starts), Phase: kubelet.Creating,
	}}
	p.containers[name] = c
	s, err := scriptOf(o, name)
	if err != nil {
		c.state.Phase, c.state.Reason, c.state.Message = kubelet.Refused, "CreateContainerConfigError", err.Error()
		return
	}
	r.laterLocked(o.UID, c, s.start, func() { r.startedLocked(o, p, name, c, &s) })
}

// laterLocked has something become of a container after a while, unless the
// container is another then.
func (r *Runtime) laterLocked(uid types.UID, c *container, after time.Duration, f func()) {
	if after <= 0 {
		f()
		return
	}
	var mine clock.Timer
	mine = r.cfg.Clock.AfterFunc(after, func() {
		r.mu.Lock()
		valid := c.timer == mine
		if valid {
			c.timer = nil
			f()
		}
		r.mu.Unlock()
		if valid {
			r.cfg.Changed(uid)
		}
	})
	c.timer = mine
}

func (r *Runtime) startedLocked(o *corev1.Pod, p *pod, name string, c *container, s *script) {
	if s.fail != "" {
		c.state.Phase, c.state.Reason = kubelet.Refused, s.fail
		c.state.Message = "the annotation " + Prefix + "fail says so"
		return
	}
	c.state.Phase, c.state.Started = kubelet.Running, r.cfg.Clock.Wall()
	r.runLocked(o, p, name, c)
}

// runLocked arms what becomes of a container that runs: ready, then ended.
func (r *Runtime) runLocked(o *corev1.Pod, p *pod, name string, c *container) {
	s, _ := scriptOf(o, name) // What is wrong now was right when it started.
	ran := r.cfg.Clock.Wall().Sub(c.state.Started)
	exit := func() {
		c.state.Phase, c.state.Ready, c.state.ExitCode, c.state.Finished = kubelet.Exited, false, s.exitCode, r.cfg.Clock.Wall()
	}
	if s.exits && s.exitAfter <= s.readyAfter {
		r.laterLocked(o.UID, c, s.exitAfter-ran, exit)
		return
	}
	r.laterLocked(o.UID, c, s.readyAfter-ran, func() {
		c.state.Ready = true
		if s.exits {
			r.laterLocked(o.UID, c, s.exitAfter-max(ran, s.readyAfter), exit)
		}
	})
}

// addressLocked draws an address. The first is the network's, the next the node's.
func (r *Runtime) addressLocked() netip.Addr {
	if !r.subnet.IsValid() {
		return netip.Addr{}
	}
	for a := r.subnet.Addr().Next().Next(); r.subnet.Contains(a); a = a.Next() {
		if !r.mu.taken[a] {
			r.mu.taken[a] = true
			return a
		}
	}
	return netip.Addr{}
}

// Stop implements kubelet.Runtime.
func (r *Runtime) Stop(o *corev1.Pod, grace time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil {
		return
	}
	var takes time.Duration
	for name, c := range p.containers {
		if s, err := scriptOf(o, name); err == nil && c.state.Phase == kubelet.Running {
			takes = max(takes, s.stop)
		}
	}
	ends := r.cfg.Clock.Mono() + min(takes, grace)
	if p.end != nil {
		if ends >= p.endsAt || !p.end.Stop() {
			return
		}
	}
	p.endsAt = ends
	killed := takes > grace
	p.end = r.cfg.Clock.AfterFunc(min(takes, grace), func() {
		r.mu.Lock()
		r.mu.ended[o.UID] = r.endedLocked(p, killed)
		delete(r.mu.taken, p.ip)
		delete(r.mu.pods, o.UID)
		r.mu.Unlock()
		r.cfg.Changed(o.UID)
	})
}

// endedLocked ends the containers of a pod, and returns how they did.
func (r *Runtime) endedLocked(p *pod, killed bool) map[string]kubelet.ContainerState {
	states := map[string]kubelet.ContainerState{}
	for name, c := range p.containers {
		if c.timer != nil {
			c.timer.Stop()
		}
		c.timer = nil
		s := c.state
		if s.Phase == kubelet.Running {
			s.Phase, s.Ready, s.Finished = kubelet.Exited, false, r.cfg.Clock.Wall()
			if killed {
				s.ExitCode = 137
			}
		}
		states[name] = s
	}
	return states
}

// Forget implements kubelet.Runtime.
func (r *Runtime) Forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.ended, uid)
}

// Status implements kubelet.Runtime.
func (r *Runtime) Status(o *corev1.Pod) kubelet.PodState {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil {
		return kubelet.PodState{Containers: r.mu.ended[o.UID]}
	}
	s := kubelet.PodState{Exists: true, Containers: make(map[string]kubelet.ContainerState, len(p.containers))}
	if p.ip.IsValid() {
		s.IP = p.ip.String()
	}
	for name, c := range p.containers {
		s.Containers[name] = c.state
	}
	return s
}

// Usage implements kubelet.Meter.
func (r *Runtime) Usage(o *corev1.Pod) map[string]*kubepb.Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil {
		return nil
	}
	use := map[string]*kubepb.Use{}
	for name, c := range p.containers {
		if c.state.Phase == kubelet.Running {
			from := reader{pod: o, container: name}
			cpu, memory := wanted(o, name)
			cpu, memory = from.quantity("cpu", cpu), from.quantity("memory", memory)
			use[name] = &kubepb.Use{CpuMillis: cpu.MilliValue(), MemoryBytes: memory.Value()}
		}
	}
	return use
}

// wanted is what a container requests, and next to nothing of what it does not.
func wanted(o *corev1.Pod, name string) (cpu, memory resource.Quantity) {
	cpu, memory = resource.MustParse("1m"), resource.MustParse("1Mi")
	for _, list := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
		for i := range list {
			if list[i].Name != name {
				continue
			}
			if q, ok := list[i].Resources.Requests[corev1.ResourceCPU]; ok {
				cpu = q
			}
			if q, ok := list[i].Resources.Requests[corev1.ResourceMemory]; ok {
				memory = q
			}
		}
	}
	return cpu, memory
}

// Close ends all timers. Nothing more becomes of any pod.
func (r *Runtime) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.mu.pods {
		if p.end != nil {
			p.end.Stop()
		}
		for _, c := range p.containers {
			if c.timer != nil {
				c.timer.Stop()
			}
			c.timer = nil
		}
	}
}

package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// pods are the workers of a node.
type pods struct {
	kubelet *Kubelet
	tasks   *task.Group   // Set by Run.
	moved   chan struct{} // Holds one: a pod came or went.

	mu struct {
		sync.Mutex
		begun   bool // The pods that were there at the start are taken in.
		stopped bool
		workers map[types.UID]*worker
	}
}

func newPods(k *Kubelet) *pods {
	p := &pods{kubelet: k, moved: make(chan struct{}, 1)}
	p.mu.workers = map[types.UID]*worker{}
	return p
}

// begin takes in what is there at the start: what runs already first, then by age.
func (p *pods) begin(informer *objects.Informer[*corev1.Pod]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := informer.List("")
	slices.SortStableFunc(all, func(a, b *corev1.Pod) int {
		if x, y := a.Status.StartTime != nil, b.Status.StartTime != nil; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.CreationTimestamp.Unix(), b.CreationTimestamp.Unix())
	})
	p.kubelet.runtime.Adopt(all)
	p.mu.begun = true
	for _, pod := range all {
		p.takeLocked(pod)
	}
}

// changed hears from the watch, in order.
func (p *pods) changed(old, now *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.begun {
		return
	}
	if old != nil && (now == nil || now.UID != old.UID) {
		if w := p.mu.workers[old.UID]; w != nil {
			w.pod, w.gone = old, true
			p.pokeLocked(w)
			p.tellMoved()
		}
	}
	if now != nil {
		p.takeLocked(now)
	}
}

// takeLocked gives a pod its worker, or its worker what is newest.
func (p *pods) takeLocked(pod *corev1.Pod) {
	w := p.mu.workers[pod.UID]
	if w == nil {
		w = newWorker(pod)
		if !finished(pod) && pod.Status.StartTime == nil {
			w.reject = p.admitLocked(pod)
		}
		p.mu.workers[pod.UID] = w
		p.tellMoved()
	}
	if newer(pod, w.pod) {
		w.pod = pod
	}
	p.pokeLocked(w)
}

func (p *pods) tellMoved() {
	select {
	case p.moved <- struct{}{}:
	default: // It is known already.
	}
}

func newer(a, b *corev1.Pod) bool {
	x, errA := api.ParseVersion(a.ResourceVersion)
	y, errB := api.ParseVersion(b.ResourceVersion)
	return errA == nil && errB == nil && x > y
}

// admitLocked checks whether there is room for a pod beside those that are here.
func (p *pods) admitLocked(pod *corev1.Pod) *rejection {
	asks, has := api.PodRequests(&pod.Spec), api.NodeResources(&corev1.Node{Status: corev1.NodeStatus{Allocatable: p.kubelet.allocatable()}})
	var used api.Resources
	for _, w := range p.mu.workers {
		if w.holds() {
			used.Add(api.PodRequests(&w.pod.Spec))
		}
	}
	short := func(what string, asks, used, has int64) *rejection {
		if asks == 0 || used+asks <= has {
			return nil
		}
		return &rejection{"OutOf" + what, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", what, asks, used, has)}
	}
	for _, r := range []*rejection{
		short("cpu", asks.MilliCPU, used.MilliCPU, has.MilliCPU), short("memory", asks.Memory, used.Memory, has.Memory),
		short("ephemeral-storage", asks.EphemeralStorage, used.EphemeralStorage, has.EphemeralStorage), short("pods", asks.Pods, used.Pods, has.Pods),
	} {
		if r != nil {
			return r
		}
	}
	for _, name := range slices.Sorted(keys(asks.Extended)) {
		if r := short(name, asks.Extended[name], used.Extended[name], has.Extended[name]); r != nil {
			return r
		}
	}
	for _, port := range asks.HostPorts {
		if slices.ContainsFunc(used.HostPorts, port.Conflicts) {
			return &rejection{"NodePorts", fmt.Sprintf("port %d of the node is taken", port.Port)}
		}
	}
	return nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// poke has the worker of a pod look.
func (p *pods) poke(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.mu.workers[uid]; w != nil {
		p.pokeLocked(w)
	}
}

func (p *pods) pokeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.mu.workers {
		p.pokeLocked(w)
	}
}

func (p *pods) pokeLocked(w *worker) {
	w.again = true
	if w.busy || p.mu.stopped {
		return
	}
	w.busy = p.tasks.Go("pod worker", func(ctx context.Context) error {
		p.work(ctx, w)
		return nil
	})
}

// stop ends timers, when the tasks have ended.
func (p *pods) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.stopped = true
	for _, w := range p.mu.workers {
		if w.timer != nil {
			w.timer.Stop()
		}
	}
}

// wakeLocked has a worker look again after a while.
func (p *pods) wakeLocked(w *worker, d time.Duration) {
	if p.mu.stopped {
		return
	}
	if w.timer == nil {
		uid := w.pod.UID
		w.timer = p.kubelet.clock.AfterFunc(d, func() { p.poke(uid) })
		return
	}
	w.timer.Reset(d)
}

// list is what is known of the pods, for samples.
func (p *pods) list() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*corev1.Pod, 0, len(p.mu.workers))
	for _, w := range p.mu.workers {
		all = append(all, w.pod)
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}

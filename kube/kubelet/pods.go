package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// pods are the workers of a node.
type pods struct {
	kubelet  *Kubelet
	tasks    *task.Group                    // Set by Run.
	informer *objects.Informer[*corev1.Pod] // Set by join, before it runs.
	saved    []*corev1.Pod                  // Of before, until they have workers.
	unread   []types.UID                    // Of before too: no file tells what they are.
	moved    chan struct{}                  // Holds one: a pod came or went.
	statics  chan struct{}                  // Holds one: static pods are to be looked at.

	mu struct {
		sync.Mutex
		adopted bool // The runtime has been told which pods there are.
		begun   bool // The pods that the control plane listed at the start are taken in.
		stopped bool
		workers map[types.UID]*worker
		strays  map[types.UID]*corev1.Pod // Mirrors of static pods that are not here.
	}
}

func newPods(k *Kubelet) *pods {
	p := &pods{kubelet: k, moved: make(chan struct{}, 1), statics: make(chan struct{}, 1)}
	p.mu.workers, p.mu.strays = map[types.UID]*worker{}, map[types.UID]*corev1.Pod{}
	return p
}

// begin takes in what the control plane lists at the start: what runs already first,
// then by age.
func (p *pods) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.informer.List("")
	p.adoptLocked(all)
	slices.SortStableFunc(all, older)
	listed := map[types.UID]bool{}
	for _, pod := range all {
		listed[pod.UID] = true
		p.takeLocked(pod)
	}
	for uid, w := range p.mu.workers {
		if w.static != nil {
			p.pokeLocked(w) // Its mirror may be missing.
		} else if !listed[uid] {
			p.unlistedLocked(w)
		}
	}
	p.mu.begun = true
}

// older puts pods that run before others, then by age.
func older(a, b *corev1.Pod) int {
	if x, y := a.Status.StartTime != nil, b.Status.StartTime != nil; x != y {
		if x {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.CreationTimestamp.Unix(), b.CreationTimestamp.Unix())
}

func byAge(workers map[types.UID]*worker) []*worker {
	return slices.SortedFunc(maps.Values(workers), func(a, b *worker) int {
		return cmp.Or(older(a.pod, b.pod), cmp.Compare(a.pod.UID, b.pod.UID))
	})
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
			p.unlistedLocked(w)
		} else if api.IsMirror(old) {
			p.mirroredLocked(old, false)
		}
	}
	if now != nil {
		p.takeLocked(now)
	}
}

// takeLocked gives a pod its worker, or its worker what is newest.
func (p *pods) takeLocked(pod *corev1.Pod) {
	if api.IsMirror(pod) {
		p.mirroredLocked(pod, true)
		return
	}
	w := p.mu.workers[pod.UID]
	if w == nil {
		w = newWorker(pod)
		p.judgeLocked(w)
		p.mu.workers[pod.UID] = w
		p.tellMoved()
	}
	w.kept, w.gone, w.freed = false, false, false
	if newer(pod, w.pod) {
		w.pod = pod
	}
	p.pokeLocked(w)
}

// judgeLocked decides, once, whether a pod is taken in. While the node starts nothing
// that waits: there may be more room, or less, when it does.
func (p *pods) judgeLocked(w *worker) {
	if w.judged || p.kubelet.hold.level() == kubepb.Hold_HOLD_ALL {
		return
	}
	w.judged = true
	if !finished(w.pod) && w.pod.Status.StartTime == nil {
		w.reject = p.admitLocked(w.pod)
	}
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
		if w.pod.UID != pod.UID && w.holds() {
			used.Add(api.PodRequests(&w.pod.Spec))
		}
	}
	short := func(what string, asks, used, has int64) *rejection {
		if asks == 0 || used+asks <= has {
			return nil
		}
		return &rejection{"OutOf" + what, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", what, asks, used, has)}
	}
	if p.kubelet.disk.pressed.Load() {
		return &rejection{"Evicted", "Pod was rejected: The node had condition: [DiskPressure]"}
	}
	for _, r := range []*rejection{
		short("cpu", asks.MilliCPU, used.MilliCPU, has.MilliCPU), short("memory", asks.Memory, used.Memory, has.Memory),
		short("ephemeral-storage", asks.EphemeralStorage, used.EphemeralStorage, has.EphemeralStorage), short("pods", asks.Pods, used.Pods, has.Pods),
	} {
		if r != nil {
			return r
		}
	}
	for _, name := range slices.Sorted(maps.Keys(asks.Extended)) {
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

package scheduler

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
)

func keyOf(o *corev1.Pod) placement.Key { return placement.Key{Namespace: o.Namespace, Name: o.Name} }

// versionOf is the revision of an object. What the server says is a number.
func versionOf(o api.Object) int64 {
	n, err := api.ParseVersion(o.GetResourceVersion())
	if err != nil {
		return 0
	}
	return n
}

func ended(o *corev1.Pod) bool {
	return o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
}

// read keeps what was read beside the informers, until they have come as far.
type read struct {
	pods  map[placement.Key]int64
	nodes map[string]int64
}

// behind reports whether a version that the informer tells is older than what was
// read. When it has caught up there is nothing to remember.
func behind[K comparable](read map[K]int64, k K, version int64) bool {
	if version < read[k] {
		return true
	}
	delete(read, k)
	return false
}

func (t *term) podChanged(old, now *corev1.Pod) {
	if now == nil {
		delete(t.read.pods, keyOf(old))
		t.podGone(keyOf(old))
		return
	}
	if !behind(t.read.pods, keyOf(now), versionOf(now)) {
		t.podIs(now)
	}
}

func (t *term) nodeChanged(old, now *corev1.Node) {
	if now == nil {
		delete(t.read.nodes, old.Name)
		t.nodeGone(old.Name)
		return
	}
	if !behind(t.read.nodes, now.Name, versionOf(now)) {
		t.changed(now.Name, t.snapshot.SetNode(now))
	}
}

// nodeGone forgets a node: a domain may be gone with it, and the fewest be more.
func (t *term) nodeGone(name string) {
	t.snapshot.RemoveNode(name)
	t.changed("", placement.Plugins(placement.PodTopologySpread))
}

// podIs takes in a pod as it is now.
func (t *term) podIs(o *corev1.Pod) {
	switch {
	case ended(o):
		t.podGone(keyOf(o))
	case o.Spec.NodeName != "":
		t.podPlaced(o)
	default:
		t.podWaits(o)
	}
}

func (t *term) podGone(k placement.Key) {
	t.leave(k)
	t.dequeue(k)
	t.reports.forget(k)
}

// leave takes a pod off the node that it is on, or was assumed to be on.
func (t *term) leave(k placement.Key) {
	delete(t.assumed, k)
	if node := t.snapshot.RemovePod(k); node != "" {
		t.changed(node, placement.Freed)
	}
}

func (t *term) dequeue(k placement.Key) {
	if w := t.queue.pods[k]; w != nil {
		t.queue.remove(w)
	}
}

// podPlaced takes in a pod that has a node, whoever gave it.
func (t *term) podPlaced(o *corev1.Pod) {
	k := keyOf(o)
	delete(t.assumed, k)
	t.dequeue(k)
	t.reports.forget(k)
	p, err := placement.NewPod(o)
	if err != nil { // Somebody else understood it. What it takes counts.
		t.log.Debug("rules of a placed pod are not understood", "pod", k, "error", err)
	}
	t.changed(o.Spec.NodeName, t.snapshot.SetPod(p, o.Spec.NodeName))
}

// podWaits takes in a pod that has no node.
func (t *term) podWaits(o *corev1.Pod) {
	k := keyOf(o)
	if b := t.assumed[k]; b != nil && b.pod.object.UID == o.UID {
		b.changed = o // Should the bind fail.
		return
	}
	t.leave(k)
	if _, ours := t.profileOf(o); !ours || o.DeletionTimestamp != nil || len(o.Spec.SchedulingGates) > 0 {
		t.dequeue(k)
		return
	}
	w := t.queue.pods[k]
	if w != nil && w.object.UID == o.UID && sameWishes(w.object, o) {
		w.object = o
		return
	}
	t.dequeue(k)
	p, err := placement.NewPod(o)
	if err != nil {
		t.journal.add(p, t.clock.Wall(), placement.Decision{})
		t.journal.note(k, err.Error())
		t.reports.unschedulable(o, err.Error())
		return
	}
	if w == nil || w.object.UID != o.UID {
		t.queue.add(&waiting{pod: p, object: o, since: t.clock.Mono()})
		return
	}
	w.pod, w.object = p, o
	t.queue.wait(w, t.clock.Mono())
}

// sameWishes reports whether two states of a pod ask for the same.
func sameWishes(a, b *corev1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && equality.Semantic.DeepEqual(&a.Spec, &b.Spec)
}

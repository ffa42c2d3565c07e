package scheduler

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// binding is a decision on its way into the store.
type binding struct {
	pod     *waiting // Of decideAll.
	node    string
	changed *corev1.Pod         // As the pod has become since. Nil: as it was. Of decideAll.
	request *kubepb.BindRequest // Of who binds.
}

func newBinding(w *waiting, node string, fence *kubepb.Fence) *binding {
	return &binding{pod: w, node: node, request: &kubepb.BindRequest{
		Pod:    &kubepb.Ref{Kind: api.Pod.Name, Namespace: w.object.Namespace, Name: w.object.Name},
		PodUid: string(w.object.UID), PodResourceVersion: versionOf(w.object), Node: node, Fence: fence,
	}}
}

// bindAll binds one pod after the other. Many of it run.
func (t *term) bindAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-t.binds:
			err := t.bind(ctx, b)
			var f *facts
			if refused(err) && !errors.Is(err, objects.ErrFenced) {
				f = t.look(ctx, b, err)
			}
			t.inbox.put(func() { t.bound(b, err, f) })
		}
	}
}

func (t *term) bind(ctx context.Context, b *binding) error {
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	_, err := t.client.Bind(ctx, b.request)
	return err
}

// refused reports whether a bind was decided by a view that is not the store's.
func refused(err error) bool {
	return errors.Is(err, objects.ErrConflict) || errors.Is(err, objects.ErrFull) || errors.Is(err, objects.ErrGuard) || errors.Is(err, objects.ErrNotFound)
}

// facts are what was read after a bind was refused.
type facts struct {
	pod  *corev1.Pod // Nil: it is gone.
	node *nodeFacts  // Nil: not read, the pod alone explained it.
	err  error       // Of the reading: nothing is known.
}

// nodeFacts are a node and all its pods.
type nodeFacts struct {
	node     *corev1.Node
	pods     []*corev1.Pod
	revision int64 // Of the list of pods.
}

// look reads what could have been wrong: the pod, and if it is as it was believed to
// be, that one node with its pods.
func (t *term) look(ctx context.Context, b *binding, cause error) *facts {
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	f := &facts{}
	f.pod, f.err = objects.Get[*corev1.Pod](ctx, t.client, b.request.Pod.Namespace, b.request.Pod.Name)
	if errors.Is(f.err, objects.ErrNotFound) {
		f.pod, f.err = nil, nil
		return f
	}
	if f.err != nil || f.pod.Spec.NodeName != "" || errors.Is(cause, objects.ErrConflict) {
		return f
	}
	n := &nodeFacts{}
	if n.node, f.err = objects.Get[*corev1.Node](ctx, t.client, "", b.node); f.err != nil {
		return f
	}
	n.pods, n.revision, f.err = objects.List[*corev1.Pod](ctx, t.client, objects.ListOptions{Fields: "spec.nodeName=" + b.node})
	f.node = n
	return f
}

// bound is told how a bind ended.
func (t *term) bound(b *binding, err error, f *facts) {
	t.inFlight--
	w := b.pod
	k := w.pod.Key
	if err == nil {
		t.reports.scheduled(w.object, b.node)
		if t.onBound != nil {
			t.onBound(t.clock.Mono() - w.since)
		}
		return // Assumed until the informer tells it.
	}
	if errors.Is(err, objects.ErrFenced) {
		t.over = errFenced
		return
	}
	if t.assumed[k] != b {
		return // The informer has told what became of the pod.
	}
	t.leave(k)
	t.journal.note(k, fmt.Sprintf("bind to node %s: %v", b.node, err))
	now := t.clock.Mono()
	known := f != nil && f.err == nil
	if known {
		w.refusals++
	}
	if errors.Is(err, objects.ErrFull) {
		w.refusedFor(b.node)
	}
	if known && w.refusals%refusalsMax != 0 {
		t.queue.activate(w)
	} else {
		t.queue.retry(w, now)
	}
	if b.changed != nil { // It may ask for something else now, or for nothing.
		t.podWaits(b.changed)
	}
	if !known {
		t.log.Warn("bind failed", "pod", k, "node", b.node, "error", err)
		return
	}
	t.log.Debug("bind refused", "pod", k, "node", b.node, "error", err)
	t.learn(k, b.node, f)
}

// learn takes in what was read. The informers may have come further meanwhile, or
// tell older things later.
func (t *term) learn(k placement.Key, node string, f *facts) {
	if f.pod == nil {
		t.podGone(k)
	} else {
		t.podRead(f.pod)
	}
	if f.node == nil {
		return
	}
	v := versionOf(f.node.node)
	if known, ok := t.nodes.Get("", node); v > t.read.nodes[node] && newer(f.node.node, known, ok, t.nodes.Revision()) {
		t.read.nodes[node] = v
		t.changed(node, t.snapshot.SetNode(f.node.node))
	}
	there := map[placement.Key]bool{}
	for _, o := range f.node.pods {
		there[keyOf(o)] = true
		t.podRead(o)
	}
	for _, p := range t.snapshot.PodsOn(node) {
		if there[p.Key] || t.assumed[p.Key] != nil || t.read.pods[p.Key] > f.node.revision {
			continue
		}
		if o, ok := t.pods.Get(p.Namespace, p.Name); !ok || versionOf(o) <= f.node.revision {
			t.leave(p.Key)
		}
	}
}

// podRead takes in a pod that was read, unless the informer knows a newer one, or one
// was read: reads come back in any order.
func (t *term) podRead(o *corev1.Pod) {
	k, v := keyOf(o), versionOf(o)
	if known, ok := t.pods.Get(o.Namespace, o.Name); v > t.read.pods[k] && newer(o, known, ok, t.pods.Revision()) {
		t.read.pods[k] = v
		t.podIs(o)
	}
}

// newer reports whether an object that was read is newer than the one that an
// informer, which has come to a revision, knows. If it knows none there, it was told
// of its end, or has not heard of it yet.
func newer[T api.Object](o, known T, ok bool, revision int64) bool {
	if ok {
		return versionOf(o) > versionOf(known)
	}
	return versionOf(o) > revision
}

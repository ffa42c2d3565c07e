package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
)

// load reads what a kubelet before this one kept. Nil: nothing is kept here.
func (k *Kubelet) load() (*checkpoint.Saved, error) {
	if k.cfg.Dir == "" {
		return nil, nil
	}
	var err error
	if k.folder, err = checkpoint.Open(k.cfg.FS, filepath.Join(k.cfg.Dir, "checkpoints")); err != nil {
		return nil, err
	}
	saved, err := k.folder.Load()
	if err != nil {
		return nil, err
	}
	for _, d := range saved.Damaged {
		k.log.Error("a checkpoint cannot be read, and is put aside: the version before it, or the control plane, tells what its pod is",
			"file", d.File, "pod", d.Pod, "error", d.Err)
	}
	for _, uid := range saved.Lost {
		k.log.Error("nothing on disk tells what a pod is: what there is of it goes on until the control plane does, or an operator decides after a restore", "pod", uid)
	}
	k.hold.mu.settled = saved.History
	return saved, nil
}

// tellDamaged has people hear of files that could not be read.
func (k *Kubelet) tellDamaged(saved *checkpoint.Saved) {
	if saved == nil {
		return
	}
	for _, d := range saved.Damaged {
		k.noteNode(note{corev1.EventTypeWarning, "DamagedCheckpoint", fmt.Sprintf("%s: %v", d.File, d.Err)})
	}
	for _, uid := range saved.Lost {
		k.noteNode(note{corev1.EventTypeWarning, "LostCheckpoint", fmt.Sprintf("pod %s: no file tells what it is", uid)})
	}
}

// resume goes on with the pods of before. Where no file tells what one of them is, the
// control plane is asked first, since a runtime is told of its pods once; but for no
// longer than the lease stands: singletons must not go on without it.
func (p *pods) resume(ctx context.Context, saved *checkpoint.Saved) error {
	if saved == nil {
		return nil
	}
	p.saved, p.unread = saved.Pods, saved.Lost
	k := p.kubelet
	if saved.Node == nil {
		return nil
	}
	if len(saved.Lost) > 0 {
		node, err := k.registerWithin(ctx, cmp.Or(k.lease.left(k), aloneAfter))
		if node != nil || err != nil {
			return err
		}
	}
	if err := k.start(ctx, saved.Node); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adoptLocked(nil)
	return nil
}

// registerWithin returns no node if nobody answers in that time.
func (k *Kubelet) registerWithin(ctx context.Context, d time.Duration) (*corev1.Node, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	late := k.clock.AfterFunc(d, cancel)
	defer late.Stop()
	node, err := k.register(waiting)
	if ctx.Err() == nil && waiting.Err() != nil {
		return nil, nil
	}
	return node, err
}

// alone starts the runtime of a node that has never seen a control plane, if it has
// static pods and none comes.
func (k *Kubelet) alone(ctx context.Context, saved *checkpoint.Saved) error {
	if k.cfg.StaticDir == "" || k.runtime != nil || saved != nil && len(saved.Lost) > 0 {
		return nil
	}
	node, err := k.registerWithin(ctx, aloneAfter)
	if err != nil {
		return err
	}
	if node == nil {
		node = &corev1.Node{}
		node.Name, node.Labels = k.cfg.Node, k.labels()
		k.describe(&node.Status, false)
		k.log.Warn("no control plane answers: static pods are started without one")
	}
	if err := k.start(ctx, node); err != nil {
		return err
	}
	k.pods.mu.Lock()
	defer k.pods.mu.Unlock()
	k.pods.adoptLocked(nil)
	return nil
}

// start makes the runtime.
func (k *Kubelet) start(ctx context.Context, node *corev1.Node) error {
	if k.runtime != nil {
		if f, ok := k.runtime.(NodeFollower); ok {
			f.NodeChanged(node)
		}
		return nil
	}
	var err error
	if k.runtime, err = k.cfg.NewRuntime(ctx, node, k.pods.poke); err != nil {
		return err
	}
	k.started.Store(true)
	return nil
}

// keepNode has the disk know the node as it is registered.
func (k *Kubelet) keepNode(node *corev1.Node) {
	if k.folder == nil {
		return
	}
	if err := k.folder.PutNode(node); err != nil {
		k.log.Warn("the node is not kept on disk: without a control plane this kubelet cannot start again", "error", err)
	}
}

// adoptLocked tells the runtime which pods there are, once, and gives each of those
// that ran before its worker.
func (p *pods) adoptLocked(listed []*corev1.Pod) {
	if p.mu.adopted {
		return
	}
	p.mu.adopted = true
	p.findStaticLocked()
	all := append([]*corev1.Pod(nil), p.saved...)
	known := map[string]bool{}
	for _, pod := range all {
		known[string(pod.UID)] = true
	}
	for _, pod := range listed {
		if !known[string(pod.UID)] {
			known[string(pod.UID)] = true
			all = append(all, pod)
		}
	}
	for _, uid := range p.unread {
		if known[string(uid)] {
			continue
		}
		pod := p.kubelet.unreadable(uid)
		all = append(all, pod)
		w := newWorker(pod)
		w.here, w.judged, w.unread = true, true, true
		p.mu.workers[uid] = w
	}
	p.kubelet.runtime.Adopt(all)
	for _, pod := range p.saved {
		w := newWorker(pod)
		w.here, w.judged, w.saved = true, true, pod
		if finished(pod) && pod.DeletionTimestamp == nil {
			w.verdict = &pod.Status // It may not be told yet.
		}
		if isStatic(pod) {
			w.static = &static{}
		}
		p.mu.workers[pod.UID] = w
		p.pokeLocked(w)
	}
	for _, uid := range p.unread {
		if w := p.mu.workers[uid]; w != nil {
			p.pokeLocked(w)
		}
	}
	p.saved, p.unread = nil, nil
}

// findStaticLocked looks among the manifests of static pods for those of which no
// checkpoint can be read.
func (p *pods) findStaticLocked() {
	if len(p.unread) == 0 || p.kubelet.cfg.StaticDir == "" {
		return
	}
	m, err := p.kubelet.readStatic()
	if err != nil {
		return // Whoever reads them next says so.
	}
	p.unread = slices.DeleteFunc(p.unread, func(uid types.UID) bool {
		pod := m.pods[uid]
		if pod != nil {
			p.saved = append(p.saved, pod)
		}
		return pod != nil
	})
}

// unreadable stands for a pod of which only the uid is known. It may be a singleton, and
// is treated as one.
func (k *Kubelet) unreadable(uid types.UID) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = metav1.NamespaceSystem, "unreadable-"+string(uid), uid
	pod.Annotations = map[string]string{api.Unreadable: "checkpoint", api.Singleton: "true"}
	pod.Spec.NodeName = k.cfg.Node
	return pod
}

// keep writes a pod to disk as it is now, unless it is there so already. Before
// anything of a pod is started, it must have succeeded.
func (k *Kubelet) keep(w *worker, pod *corev1.Pod, status *corev1.PodStatus) error {
	if k.folder == nil || w.unread {
		return nil
	}
	is := pod
	if status != nil {
		is = pod.DeepCopy()
		is.Status = *status
	}
	if w.saved != nil && sameButVersion(w.saved, is) {
		return nil
	}
	if err := k.folder.PutPod(is); err != nil {
		return err
	}
	w.saved = is
	return nil
}

func sameButVersion(a, b *corev1.Pod) bool {
	x, y := *a, *b // Shallow: only what differs by itself is changed.
	x.ResourceVersion, y.ResourceVersion = "", ""
	x.TypeMeta = y.TypeMeta
	return equality.Semantic.DeepEqual(&x, &y)
}

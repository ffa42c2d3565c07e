package controller

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// deletesAtOnce are pods of one set that are deleted at the same time.
const deletesAtOnce = 16

// replicaSets makes and deletes pods.
type replicaSets struct {
	term   *term
	loop   *loop
	memory memory[setMemory]
}

// setMemory is what has to be seen before the next plan, and why the last attempt
// failed.
type setMemory struct {
	uid     types.UID
	pods    int64              // Revision of the last pod that was made or adopted.
	set     int64              // Resource version of the set's own last write.
	gone    map[types.UID]bool // Pods whose deletion was confirmed.
	asked   map[types.UID]bool // Pods whose deletion may have been done: no answer came.
	failure string

	// unsettled is the resource version of the set at which pods were to be made of which
	// nobody knows whether they were. 0: there are none.
	unsettled int64
}

// behind reports whether a view of pods that has come to a revision does not show yet what
// was done for a set. At the version at which it is not known what was made, pods that are
// made again have the same names; at a later one those that were made are older than that
// version, since they depend on the one before.
func (m *setMemory) behind(set *appsv1.ReplicaSet, pods int64) bool {
	version := versionOf(set)
	if version < m.set || pods < m.pods {
		return true
	}
	if m.unsettled == 0 || m.unsettled == version {
		return false
	}
	if pods < version {
		return true
	}
	m.unsettled = 0
	return false
}

func newReplicaSets(t *term) {
	c := &replicaSets{term: t}
	c.loop = t.loop("replicasets", c.sync)
	c.loop.waits = true
	t.views.sets.OnChange(func(old, set *appsv1.ReplicaSet) { c.loop.queue.Add(keyOf(either(old, set))) })
	t.views.pods.OnChange(func(old, pod *corev1.Pod) {
		for _, p := range []*corev1.Pod{old, pod} {
			if p != nil {
				c.ownerOf(p)
			}
		}
	})
}

// either is the newer of two states that is there.
func either[T api.Object](old, new T) T {
	if orNil(new) == nil {
		return old
	}
	return new
}

// ownerOf adds the set that has a pod; those that may want one that has none.
func (c *replicaSets) ownerOf(pod *corev1.Pod) {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		if owner.Kind == api.ReplicaSet.Name {
			c.loop.queue.Add(key{pod.Namespace, owner.Name})
		}
		return
	}
	for _, set := range c.term.views.sets.List(pod.Namespace) {
		if s, err := api.Selector(set.Spec.Selector); err == nil && s.Matches(labelsOf(pod)) {
			c.loop.queue.Add(keyOf(set))
		}
	}
}

func (c *replicaSets) sync(ctx context.Context, k key) (time.Duration, error) {
	v := c.term.views
	set, ok := v.sets.Get(k.namespace, k.name)
	if !ok {
		c.memory.drop(k)
		return 0, nil
	}
	m := c.memory.get(k)
	if m.uid != set.UID {
		m = setMemory{uid: set.UID}
	}
	if m.behind(set, v.pods.Revision()) {
		return time.Second, nil // The view lags behind our own writes; its next event wakes us.
	}
	f := c.facts(set, &m)
	p, err := replica.Make(f)
	if err != nil {
		c.term.recorder.note(set, true, "InvalidSelector", err.Error())
		return 0, err
	}
	acted := c.act(ctx, set, p, &m)
	c.memory.set(k, m)
	f.Gone, f.Failure = m.gone, m.failure
	after, err := replica.Make(f)
	if err != nil {
		return 0, err
	}
	if stale(acted) {
		return 0, acted // Nothing is told by what was not the newest.
	}
	if replica.Changed(set.Status, after.Status) {
		next := set.DeepCopy()
		next.Status = after.Status
		written, err := objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
		if err != nil {
			return 0, errors.Join(acted, wrap(err, "status of", set))
		}
		m.set = versionOf(written)
		c.memory.set(k, m)
	}
	return p.Again, acted
}

// facts gathers what a plan needs.
func (c *replicaSets) facts(set *appsv1.ReplicaSet, m *setMemory) replica.Facts {
	v := c.term.views
	pods := v.pods.ByIndex(byOwner, string(set.UID))
	selector, err := api.Selector(set.Spec.Selector)
	if err == nil {
		for _, pod := range v.pods.ByIndex(orphans, set.Namespace) {
			if selector.Matches(labelsOf(pod)) {
				pods = append(pods, pod)
			}
		}
	}
	gone, asked := map[types.UID]bool{}, map[types.UID]bool{}
	for _, pod := range pods {
		switch {
		case pod.DeletionTimestamp != nil:
		case m.gone[pod.UID]:
			gone[pod.UID] = true
		case m.asked[pod.UID]:
			asked[pod.UID] = true
		}
	}
	m.gone, m.asked = gone, asked
	return replica.Facts{Set: set, Pods: pods, Gone: gone, Asked: asked, Crowd: c.crowd(set), Failure: m.failure, Now: c.term.clock.Wall()}
}

// crowd counts the pods of all sets that have the same owner.
func (c *replicaSets) crowd(set *appsv1.ReplicaSet) map[string]int {
	related := []*appsv1.ReplicaSet{set}
	if owner := metav1.GetControllerOf(set); owner != nil {
		related = c.term.views.sets.ByIndex(byOwner, string(owner.UID))
	}
	crowd := map[string]int{}
	for _, s := range related {
		for _, pod := range c.term.views.pods.ByIndex(byOwner, string(s.UID)) {
			if replica.Active(pod) {
				crowd[pod.Spec.NodeName]++
			}
		}
	}
	return crowd
}

// act carries a plan out, and remembers what it has to see before the next.
func (c *replicaSets) act(ctx context.Context, set *appsv1.ReplicaSet, p replica.Plan, m *setMemory) error {
	for _, pod := range p.Adopt {
		next := pod.DeepCopy()
		next.OwnerReferences = append(next.OwnerReferences, api.ControlledBy(set))
		if err := c.own(ctx, set, next, m); err != nil {
			return err
		}
	}
	for _, pod := range p.Release {
		next := pod.DeepCopy()
		next.OwnerReferences = slices.DeleteFunc(next.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == set.UID })
		if err := c.own(ctx, set, next, m); err != nil {
			return err
		}
	}
	err := c.create(ctx, set, p.Create, m)
	if err == nil {
		err = c.delete(ctx, set, p.Delete, m)
	}
	switch {
	case err == nil:
		m.failure = ""
	case !stale(err):
		m.failure = api.Clip(err.Error(), eventTextMax) // Of hundreds at once each may say something.
		c.term.recorder.note(set, true, "FailedCreate", m.failure)
	}
	return err
}

// own writes a pod's owners.
func (c *replicaSets) own(ctx context.Context, set *appsv1.ReplicaSet, pod *corev1.Pod, m *setMemory) error {
	written, err := objects.Update(ctx, c.term.client, pod, c.term.fenced(), guard(set))
	if err != nil {
		return wrap(err, "owner of", pod)
	}
	m.pods = max(m.pods, versionOf(written))
	return nil
}

// create makes pods in batches that grow, and stops with the first that fails.
func (c *replicaSets) create(ctx context.Context, set *appsv1.ReplicaSet, n int, m *setMemory) error {
	chosen, next := map[string]bool{}, 0
	taken := func(name string) bool {
		_, ok := c.term.views.pods.Get(set.Namespace, name)
		return ok || chosen[name]
	}
	for _, size := range replica.Batches(n) {
		pods := make([]*corev1.Pod, size)
		for i := range pods {
			pods[i], next = replica.New(set, next, taken)
			chosen[pods[i].Name] = true
		}
		var mu sync.Mutex // Guards m.
		err := c.each(ctx, size, func(ctx context.Context, i int) error {
			pod, err := objects.Create(ctx, c.term.client, pods[i], c.term.fenced(), guard(set))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				m.pods = max(m.pods, versionOf(pod))
			case unknown(err):
				m.unsettled = versionOf(set)
			}
			return err
		})
		if err != nil {
			return wrap(err, "pods of", set)
		}
	}
	return nil
}

// each runs f for 0 to n-1 at once, all of them to their end.
func (c *replicaSets) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	errs := make([]error, n)
	g := task.New(ctx)
	for i := range n {
		g.Go("pod", func(ctx context.Context) error {
			errs[i] = f(ctx, i)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (c *replicaSets) delete(ctx context.Context, set *appsv1.ReplicaSet, pods []*corev1.Pod, m *setMemory) error {
	for some := range slices.Chunk(pods, deletesAtOnce) {
		var mu sync.Mutex // Guards m.
		err := c.each(ctx, len(some), func(ctx context.Context, i int) error {
			err := objects.Delete[*corev1.Pod](ctx, c.term.client, some[i].Namespace, some[i].Name, c.term.fenced(), guard(set), same(some[i]))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil, errors.Is(err, objects.ErrNotFound):
				m.gone[some[i].UID] = true
				return nil
			case unknown(err):
				m.asked[some[i].UID] = true
			}
			return err
		})
		if err != nil {
			return wrap(err, "pods of", set)
		}
	}
	return nil
}

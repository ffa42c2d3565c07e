package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/collect"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// sweepEach is how often ended pods and pods of vanished nodes are looked for.
const sweepEach = 20 * time.Second

// collector deletes what nobody owns any more.
type collector struct {
	term  *term
	loops map[*api.Kind]*loop
}

func newCollector(t *term) {
	c := &collector{t, map[*api.Kind]*loop{}}
	for k, s := range t.views.shelves {
		l := t.loop("garbage "+k.Resource, func(ctx context.Context, at key) (time.Duration, error) { return 0, c.sync(ctx, k, at) })
		l.workers, l.waits = 1, true
		c.loops[k] = l
		s.watch(func(old, o api.Object) { c.changed(k, old, o) })
	}
	t.tasks = append(t.tasks, background{"sweep", c.sweep})
}

func (c *collector) changed(k *api.Kind, old, o api.Object) {
	if old != nil && o != nil && old.GetUID() != o.GetUID() { // A list told of both at once: one went, and another has its name.
		c.changed(k, old, nil)
		c.changed(k, nil, o)
		return
	}
	if o == nil { // What it owned is looked at, and what waited for it to go.
		c.owns(old)
		c.owners(old)
		return
	}
	if o.GetDeletionTimestamp() != nil || len(o.GetOwnerReferences()) > 0 && (old == nil || !slices.Equal(ownersOf(old), ownersOf(o))) {
		c.loops[k].queue.Add(keyOf(o))
	}
	if old != nil && len(old.GetOwnerReferences()) > 0 && len(o.GetOwnerReferences()) < len(old.GetOwnerReferences()) {
		c.owners(old)
	}
	if o.GetDeletionTimestamp() != nil {
		c.owns(o)
	}
}

// owns looks at what an object owns.
func (c *collector) owns(o api.Object) {
	for k, s := range c.term.views.shelves {
		for _, d := range s.byOwner(string(o.GetUID())) {
			c.loops[k].queue.Add(keyOf(d))
		}
	}
}

// owners looks at who may have waited for an object.
func (c *collector) owners(o api.Object) {
	for _, r := range o.GetOwnerReferences() {
		if k, err := api.ByName(r.Kind); err == nil && c.loops[k] != nil {
			c.loops[k].queue.Add(place(k, o.GetNamespace(), r.Name))
		}
	}
}

// place is where an owner is: in the same namespace, if its kind has one.
func place(k *api.Kind, namespace, name string) key {
	if !k.Namespaced {
		namespace = ""
	}
	return key{namespace, name}
}

// sync looks at one object, as it is in the store: a view that lags deletes nothing.
func (c *collector) sync(ctx context.Context, k *api.Kind, at key) error {
	s := c.term.views.shelves[k]
	if o, ok := s.get(at.namespace, at.name); ok && o.GetDeletionTimestamp() == nil && c.stand(o) {
		return nil
	}
	o, err := s.live(ctx, at.namespace, at.name)
	if errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.GetDeletionTimestamp() != nil {
		return c.part(ctx, k, o)
	}
	owners, err := c.find(ctx, o)
	if err != nil {
		return err
	}
	switch v := collect.Judge(owners, len(c.dependents(o)) > 0); {
	case v.Delete:
		option := exactly(o)
		option.Fence = c.term.fence
		if v.Foreground {
			option.Propagation = kubepb.DeleteRequest_FOREGROUND
		}
		return wrap(unlessGone(s.delete(ctx, at.namespace, at.name, option)), "collect", o)
	case len(v.Drop) > 0:
		o.SetOwnerReferences(slices.DeleteFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return slices.Contains(v.Drop, r.UID) }))
		return wrap(s.update(ctx, o, c.term.fenced()), "free", o)
	}
	return nil
}

// stand reports whether the views show all owners of an object, and none that ends.
func (c *collector) stand(o api.Object) bool {
	for _, r := range o.GetOwnerReferences() {
		k, err := api.ByName(r.Kind)
		if err != nil || c.loops[k] == nil {
			continue
		}
		at := place(k, o.GetNamespace(), r.Name)
		owner, ok := c.term.views.shelves[k].get(at.namespace, at.name)
		if !ok || owner.GetUID() != r.UID || owner.GetDeletionTimestamp() != nil {
			return false
		}
	}
	return true
}

func unlessGone(err error) error {
	if errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	return err
}

// find looks up the owners of an object in the store. One of a kind that is none of
// ours stands: nobody here knows better.
func (c *collector) find(ctx context.Context, o api.Object) ([]collect.Owner, error) {
	var owners []collect.Owner
	for _, r := range o.GetOwnerReferences() {
		owner := collect.Owner{Ref: r}
		if k, err := api.ByName(r.Kind); err == nil && c.loops[k] != nil && k.APIVersion == r.APIVersion {
			at := place(k, o.GetNamespace(), r.Name)
			is, err := c.term.views.shelves[k].live(ctx, at.namespace, at.name)
			switch {
			case errors.Is(err, objects.ErrNotFound), err == nil && is.GetUID() != r.UID:
				owner.Gone = true
			case err != nil:
				return nil, err
			default:
				owner.Waits = is.GetDeletionTimestamp() != nil && slices.Contains(is.GetFinalizers(), metav1.FinalizerDeleteDependents)
			}
		}
		owners = append(owners, owner)
	}
	return owners, nil
}

func (c *collector) dependents(o api.Object) []api.Object {
	var all []api.Object
	for _, s := range c.term.views.shelves {
		all = append(all, s.byOwner(string(o.GetUID()))...)
	}
	return all
}

// owned are the dependents of an owner that goes without them, as the store has them.
// One that the views do not show yet would be garbage once its owner is gone.
func (c *collector) owned(ctx context.Context, o api.Object) ([]api.Object, error) {
	var all []api.Object
	for k, s := range c.term.views.shelves {
		if o.GetNamespace() != "" && !k.Namespaced {
			continue // It has no owner that is in a namespace.
		}
		list, err := s.stored(ctx, o.GetNamespace())
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			if slices.Contains(ownersOf(d), string(o.GetUID())) {
				all = append(all, d)
			}
		}
	}
	return all, nil
}

// part brings an owner that is being deleted further. Nothing new is made for it since
// its deletion began.
func (c *collector) part(ctx context.Context, k *api.Kind, o api.Object) error {
	all := c.dependents(o)
	if slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents) {
		var err error
		if all, err = c.owned(ctx, o); err != nil {
			return wrap(err, "dependents of", o)
		}
	}
	var dependents []metav1.Object
	for _, d := range all {
		dependents = append(dependents, d)
	}
	p := collect.Part(o, dependents)
	for _, d := range p.Delete {
		d := d.(api.Object)
		option := same(d)
		option.Fence, option.Propagation = c.term.fence, kubepb.DeleteRequest_FOREGROUND
		if len(c.dependents(d)) == 0 {
			option.Propagation = kubepb.DeleteRequest_BACKGROUND
		}
		err := c.term.views.shelves[api.KindOf(d)].delete(ctx, d.GetNamespace(), d.GetName(), option)
		if err := unlessGone(err); err != nil {
			return wrap(err, "collect", d)
		}
	}
	for _, d := range p.Orphan {
		next := d.(api.Object).DeepCopyObject().(api.Object)
		next.SetOwnerReferences(slices.DeleteFunc(next.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == o.GetUID() }))
		err := c.term.views.shelves[api.KindOf(next)].update(ctx, next, c.term.fenced())
		if err := unlessGone(err); err != nil {
			return wrap(err, "free", next)
		}
	}
	if len(p.Orphan) > 0 {
		return c.part(ctx, k, o) // None is left.
	}
	if p.Done == "" {
		return nil
	}
	o.SetFinalizers(slices.DeleteFunc(o.GetFinalizers(), func(f string) bool { return f == p.Done }))
	return wrap(c.term.views.shelves[k].update(ctx, o, c.term.fenced()), "let go", o)
}

// sweep deletes pods that have ended, beyond a bound, and pods of nodes that are no
// more.
func (c *collector) sweep(ctx context.Context) error {
	missing := map[string]bool{} // Nodes that were no more the last time either.
	for {
		pods := c.term.views.pods.List("")
		if c.term.recovery.held() {
			pods = nil
		}
		for _, pod := range collect.Finished(pods, c.term.cfg.Finished) {
			c.remove(ctx, pod, "ended, and there are too many that have", same(pod))
		}
		missing = c.sweepNodes(ctx, pods, missing)
		select {
		case <-c.term.clock.After(sweepEach):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sweepNodes deletes the pods of nodes that are no more, and were no more the last time.
// It returns which are no more.
func (c *collector) sweepNodes(ctx context.Context, pods []*corev1.Pod, before map[string]bool) map[string]bool {
	vanished := map[string]bool{} // All that were asked for.
	for _, pod := range pods {
		node := pod.Spec.NodeName
		if _, ok := c.term.views.nodes.Get("", node); node == "" || ok {
			continue
		}
		is, known := vanished[node]
		if !known {
			is = c.vanished(ctx, node)
			vanished[node] = is
		}
		if is && before[node] {
			option := same(pod)
			option.Guards = []*kubepb.Guard{{Object: &kubepb.Ref{Kind: api.Node.Name, Name: node}}} // It has not come back.
			c.remove(ctx, pod, "its node is no more", option)
		}
	}
	return vanished
}

// vanished reports whether a node has neither object nor lease. A kubelet whose lease
// stands may run what it ran, whoever deleted the object; it stops singletons when the
// lease ends.
func (c *collector) vanished(ctx context.Context, node string) bool {
	if _, err := objects.Get[*corev1.Node](ctx, c.term.client, "", node); !errors.Is(err, objects.ErrNotFound) {
		return false
	}
	beats, err := c.term.cfg.Store.Get(ctx, client.Get{Range: client.One(state.HeartbeatPrefix + node), CountOnly: true})
	return err == nil && beats.Count == 0
}

func (c *collector) remove(ctx context.Context, pod *corev1.Pod, why string, option objects.Option) {
	now := int64(0)
	option.Fence, option.Grace = c.term.fence, &now
	if err := unlessGone(objects.Delete[*corev1.Pod](ctx, c.term.client, pod.Namespace, pod.Name, option)); err != nil {
		if ctx.Err() == nil {
			c.term.log.Warn("cannot collect a pod, trying again", "pod", keyOf(pod), "error", err)
		}
		return
	}
	c.term.log.Info("pod collected", "pod", keyOf(pod), "why", why)
}

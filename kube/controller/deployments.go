package controller

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/rollout"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func labelsOf(o metav1.Object) labels.Set { return o.GetLabels() }

// deployments sizes sets.
type deployments struct {
	term   *term
	loop   *loop
	memory memory[map[string]int64] // Resource versions of own last writes, by set; "": of the Deployment.
}

func newDeployments(t *term) {
	c := &deployments{term: t}
	c.loop = t.loop("deployments", c.sync)
	c.loop.waits = true
	t.views.deployments.OnChange(func(old, d *appsv1.Deployment) { c.loop.queue.Add(keyOf(either(old, d))) })
	t.views.sets.OnChange(func(old, set *appsv1.ReplicaSet) {
		for _, s := range []*appsv1.ReplicaSet{old, set} {
			if s != nil {
				c.ownerOf(s)
			}
		}
	})
}

func (c *deployments) ownerOf(set *appsv1.ReplicaSet) {
	if owner := metav1.GetControllerOf(set); owner != nil {
		if owner.Kind == api.Deployment.Name {
			c.loop.queue.Add(key{set.Namespace, owner.Name})
		}
		return
	}
	for _, d := range c.term.views.deployments.List(set.Namespace) {
		if s, err := api.Selector(d.Spec.Selector); err == nil && s.Matches(labelsOf(set)) {
			c.loop.queue.Add(keyOf(d))
		}
	}
}

func (c *deployments) sync(ctx context.Context, k key) (time.Duration, error) {
	d, ok := c.term.views.deployments.Get(k.namespace, k.name)
	if !ok {
		c.memory.drop(k)
		return 0, nil
	}
	seen := c.memory.get(k)
	if seen == nil {
		seen = map[string]int64{}
	}
	if !c.current(d, seen) {
		return time.Second, nil // The view lags behind our own writes; its next event wakes us.
	}
	sets, err := c.sets(ctx, d, seen)
	if err != nil {
		return 0, err
	}
	p, err := rollout.Make(rollout.Facts{Deployment: d, Sets: sets, Now: c.term.clock.Wall()})
	if err != nil {
		c.term.recorder.note(d, true, "InvalidSpec", err.Error())
		return 0, err
	}
	err = c.act(ctx, d, p, seen)
	c.memory.set(k, seen)
	if err != nil {
		return 0, err
	}
	for _, n := range p.Notes {
		c.term.recorder.note(d, n.Warning, n.Reason, n.Message)
	}
	return p.Again, nil
}

// current reports whether the view shows what was written last.
func (c *deployments) current(d *appsv1.Deployment, seen map[string]int64) bool {
	if versionOf(d) < seen[""] {
		return false
	}
	for name, version := range seen {
		if name == "" {
			continue
		}
		set, ok := c.term.views.sets.Get(d.Namespace, name)
		switch {
		case ok && versionOf(set) < version, !ok && c.term.views.sets.Revision() < version:
			return false
		case !ok:
			delete(seen, name)
		}
	}
	return true
}

// sets are those that the Deployment owns, after it took in those without an owner.
func (c *deployments) sets(ctx context.Context, d *appsv1.Deployment, seen map[string]int64) ([]*appsv1.ReplicaSet, error) {
	var mine []*appsv1.ReplicaSet
	selector, err := api.Selector(d.Spec.Selector)
	if err != nil {
		return nil, err
	}
	v := c.term.views
	for _, set := range append(v.sets.ByIndex(byOwner, string(d.UID)), v.sets.ByIndex(orphans, d.Namespace)...) {
		owner := metav1.GetControllerOf(set)
		switch {
		case set.DeletionTimestamp != nil:
		case owner != nil && owner.UID == d.UID:
			mine = append(mine, set)
		case owner == nil && d.DeletionTimestamp == nil && selector.Matches(labelsOf(set)):
			next := set.DeepCopy()
			next.OwnerReferences = append(next.OwnerReferences, api.ControlledBy(d))
			if next, err = objects.Update(ctx, c.term.client, next, c.term.fenced(), guard(d)); err != nil {
				return nil, wrap(err, "owner of", set)
			}
			seen[set.Name] = versionOf(next)
			mine = append(mine, next)
		}
	}
	return mine, nil
}

func (c *deployments) act(ctx context.Context, d *appsv1.Deployment, p rollout.Plan, seen map[string]int64) error {
	if p.Undo != nil {
		next, err := objects.Update(ctx, c.term.client, p.Undo, c.term.fenced())
		if err != nil {
			return wrap(err, "undo of", d)
		}
		seen[""] = versionOf(next)
		return nil
	}
	for _, set := range p.Update {
		if err := c.write(ctx, d, set, seen); err != nil {
			return err
		}
	}
	if p.Create != nil {
		if created, err := c.create(ctx, d, p.Create, seen); err != nil || !created {
			return err
		}
	}
	for _, z := range p.Sizes {
		set, err := rollout.Sized(d, z)
		if err != nil {
			return err
		}
		if err := c.write(ctx, d, set, seen); err != nil {
			return err
		}
	}
	for _, set := range p.Delete {
		err := objects.Delete[*appsv1.ReplicaSet](ctx, c.term.client, set.Namespace, set.Name, c.term.fenced(), exactly(set))
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			return wrap(err, "delete", set)
		}
	}
	return c.tell(ctx, d, p, seen)
}

// write changes a set, unless it or the Deployment is not as it was seen.
func (c *deployments) write(ctx context.Context, d *appsv1.Deployment, set *appsv1.ReplicaSet, seen map[string]int64) error {
	written, err := objects.Update(ctx, c.term.client, set, c.term.fenced(), guard(d))
	if err != nil {
		return wrap(err, "update", set)
	}
	seen[set.Name] = versionOf(written)
	return nil
}

// create makes a set. Where its name is taken by a set of another template, the next
// attempt has another name.
func (c *deployments) create(ctx context.Context, d *appsv1.Deployment, set *appsv1.ReplicaSet, seen map[string]int64) (bool, error) {
	made, err := objects.Create(ctx, c.term.client, set, c.term.fenced(), guard(d))
	if err == nil {
		seen[made.Name] = versionOf(made)
		return true, nil
	}
	if !errors.Is(err, objects.ErrExists) {
		return false, wrap(err, "create", set)
	}
	there, err := objects.Get[*appsv1.ReplicaSet](ctx, c.term.client, set.Namespace, set.Name)
	if err != nil {
		return false, wrap(err, "read", set)
	}
	if owner := metav1.GetControllerOf(there); owner != nil && owner.UID == d.UID && there.DeletionTimestamp == nil && sameImages(there, set) {
		seen[there.Name] = versionOf(there) // It is ours, and the view lags.
		return false, nil
	}
	next := d.DeepCopy()
	collisions := int32(1)
	if n := d.Status.CollisionCount; n != nil {
		collisions = *n + 1
	}
	next.Status.CollisionCount = &collisions
	next, err = objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
	if err != nil {
		return false, wrap(err, "status of", d)
	}
	seen[""] = versionOf(next)
	return false, nil
}

// sameImages tells a set that we made from one that only has its name.
func sameImages(a, b *appsv1.ReplicaSet) bool {
	return rollout.Hash(&a.Spec.Template, nil) == rollout.Hash(&b.Spec.Template, nil)
}

// tell writes the revision and the status.
func (c *deployments) tell(ctx context.Context, d *appsv1.Deployment, p rollout.Plan, seen map[string]int64) error {
	if p.Revision != "" && d.Annotations[rollout.Revision] != p.Revision {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{rollout.Revision: p.Revision}}})
		if err != nil {
			return err
		}
		next, err := objects.Patch[*appsv1.Deployment](ctx, c.term.client, d.Namespace, d.Name, kubepb.PatchRequest_MERGE, patch, c.term.fenced(), exactly(d))
		if err != nil {
			return wrap(err, "revision of", d)
		}
		d, seen[""] = next, versionOf(next)
	}
	if !rollout.Changed(d.Status, p.Status) {
		return nil
	}
	next := d.DeepCopy()
	next.Status = p.Status
	next, err := objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
	if err != nil {
		return wrap(err, "status of", d)
	}
	seen[""] = versionOf(next)
	return nil
}

// podsOfSets are the pods of some sets.
func podsOfSets(v *views, sets []*appsv1.ReplicaSet) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, set := range sets {
		pods = append(pods, v.pods.ByIndex(byOwner, string(set.UID))...)
	}
	return pods
}

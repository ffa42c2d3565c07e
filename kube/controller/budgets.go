package controller

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/budget"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// budgets counts allowed disruptions.
type budgets struct {
	term *term
	loop *loop
}

func newBudgets(t *term) {
	c := &budgets{term: t}
	c.loop = t.loop("budgets", c.sync)
	t.views.budgets.OnChange(func(old, b *policyv1.PodDisruptionBudget) { c.loop.queue.Add(keyOf(either(old, b))) })
	t.views.pods.OnChange(func(old, pod *corev1.Pod) {
		for _, p := range []*corev1.Pod{old, pod} {
			if p == nil {
				continue
			}
			for _, b := range t.views.budgets.List(p.Namespace) {
				if s, err := api.Selector(b.Spec.Selector); err == nil && s.Matches(labelsOf(p)) {
					c.loop.queue.Add(keyOf(b))
				}
			}
		}
	})
}

func (c *budgets) sync(ctx context.Context, k key) (time.Duration, error) {
	v := c.term.views
	b, ok := v.budgets.Get(k.namespace, k.name)
	if !ok {
		return 0, nil
	}
	status, again, err := budget.Status(budget.Facts{Budget: b, Pods: v.pods.List(k.namespace), Wanted: c.wanted(k.namespace), Now: c.term.clock.Wall()})
	if err != nil {
		c.term.recorder.note(b, true, "InvalidSpec", err.Error())
		return 0, err
	}
	if !budget.Changed(b.Status, status) {
		return again, nil
	}
	next := b.DeepCopy()
	next.Status = status // With its resource version: an eviction meanwhile counts.
	_, err = objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
	return again, wrap(err, "status of", b)
}

// wanted is how many pods the sets of a namespace belong to.
func (c *budgets) wanted(namespace string) map[types.UID]budget.Scale {
	all := map[types.UID]budget.Scale{}
	for _, set := range c.term.views.sets.List(namespace) {
		scale := budget.Scale{Owner: set.UID, Replicas: 1}
		replicas := set.Spec.Replicas
		if owner := metav1.GetControllerOf(set); owner != nil {
			if d, ok := c.term.views.deployments.Get(namespace, owner.Name); ok && d.UID == owner.UID {
				scale.Owner, replicas = d.UID, d.Spec.Replicas
			}
		}
		if replicas != nil {
			scale.Replicas = *replicas
		}
		all[set.UID] = scale
	}
	return all
}

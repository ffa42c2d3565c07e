package controller

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// emptyAgain is how soon a namespace that ends is looked at without a change: what
// is in it ends at its own pace.
const emptyAgain = 2 * time.Second

// namespaces empties those that end.
type namespaces struct {
	term *term
	loop *loop
}

func newNamespaces(t *term) {
	c := &namespaces{term: t}
	c.loop = t.loop("namespaces", c.sync)
	c.loop.waits = true
	t.views.namespaces.OnChange(func(_, ns *corev1.Namespace) {
		if ns != nil && ns.DeletionTimestamp != nil {
			c.loop.queue.Add(keyOf(ns))
		}
	})
	for k, s := range t.views.shelves {
		if !k.Namespaced {
			continue
		}
		s.watch(func(old, o api.Object) {
			if o != nil {
				return
			}
			if ns, ok := t.views.namespaces.Get("", old.GetNamespace()); ok && ns.DeletionTimestamp != nil {
				c.loop.queue.Add(keyOf(ns))
			}
		})
	}
}

// sync deletes what is in a namespace that ends, and lets it go once the store says
// that it is empty. The server takes nothing into it any more.
func (c *namespaces) sync(ctx context.Context, k key) (time.Duration, error) {
	ns, ok := c.term.views.namespaces.Get("", k.name)
	if !ok || ns.DeletionTimestamp == nil || len(ns.Spec.Finalizers) == 0 {
		return 0, nil
	}
	left, err := c.empty(ctx, k.name)
	if err == nil && left == 0 {
		left, err = c.rest(ctx, k.name)
	}
	if err != nil {
		return 0, err
	}
	if left > 0 {
		return emptyAgain, nil
	}
	next := ns.DeepCopy()
	next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err = objects.Update(ctx, c.term.client, next, c.term.fenced())
	return 0, wrap(unlessGone(err), "let go", ns)
}

// empty deletes what the views show, and counts what is left.
func (c *namespaces) empty(ctx context.Context, namespace string) (left int, err error) {
	for kind, s := range c.term.views.shelves {
		if !kind.Namespaced {
			continue
		}
		for _, o := range s.list(namespace) {
			left++
			if o.GetDeletionTimestamp() != nil {
				continue
			}
			option := same(o)
			option.Fence = c.term.fence
			if err := unlessGone(s.delete(ctx, o.GetNamespace(), o.GetName(), option)); err != nil {
				return left, wrap(err, "empty the namespace of", o)
			}
		}
	}
	return left, nil
}

// rest asks the store what is left, and deletes events, of which there is no view.
func (c *namespaces) rest(ctx context.Context, namespace string) (left int, err error) {
	for _, kind := range api.Kinds {
		if !kind.Namespaced {
			continue
		}
		rest, err := c.term.client.RPC().List(ctx, &kubepb.ListRequest{Kind: kind.Name, Namespace: namespace})
		if err != nil {
			return left, err
		}
		left += len(rest.Items)
		if kind != api.Event {
			continue // The view will show it.
		}
		for _, o := range rest.Items {
			if err := objects.Delete[*corev1.Event](ctx, c.term.client, o.Namespace, o.Name, c.term.fenced()); unlessGone(err) != nil {
				return left, err
			}
		}
	}
	return left, nil
}

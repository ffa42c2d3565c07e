package controller

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/endpoint"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// endpoints writes which pods a Service sends to.
type endpoints struct {
	term   *term
	loop   *loop
	memory memory[int64] // Revision of the last slice that was written.
}

func newEndpoints(t *term) {
	c := &endpoints{term: t}
	c.loop = t.loop("endpoints", c.sync)
	v := t.views
	v.services.OnChange(func(old, s *corev1.Service) { c.loop.queue.Add(keyOf(either(old, s))) })
	v.slices.OnChange(func(old, s *discoveryv1.EndpointSlice) {
		e := either(old, s)
		if name := e.Labels[discoveryv1.LabelServiceName]; name != "" {
			c.loop.queue.Add(key{e.Namespace, name})
		}
	})
	v.pods.OnChange(func(old, pod *corev1.Pod) { c.podChanged(old, pod) })
	v.nodes.OnChange(func(old, n *corev1.Node) {
		if old != nil && n != nil && equality.Semantic.DeepEqual(old.Labels, n.Labels) && readiness(old) == readiness(n) {
			return
		}
		for _, pod := range v.pods.ByIndex(byNode, either(old, n).Name) {
			c.podChanged(nil, pod)
		}
	})
}

func readiness(n *corev1.Node) corev1.ConditionStatus {
	if c := api.NodeReady(n); c != nil {
		return c.Status
	}
	return ""
}

func (c *endpoints) podChanged(old, pod *corev1.Pod) {
	for _, p := range []*corev1.Pod{old, pod} {
		if p == nil {
			continue
		}
		for _, s := range c.term.views.services.List(p.Namespace) {
			if selects(s, p) {
				c.loop.queue.Add(keyOf(s))
			}
		}
	}
}

func selects(s *corev1.Service, p *corev1.Pod) bool {
	for k, v := range s.Spec.Selector {
		if p.Labels[k] != v {
			return false
		}
	}
	return len(s.Spec.Selector) > 0
}

func (c *endpoints) sync(ctx context.Context, k key) (time.Duration, error) {
	v := c.term.views
	s, ok := v.services.Get(k.namespace, k.name)
	if !ok {
		c.memory.drop(k) // Its slices are owned by it: garbage collection takes them.
		return 0, nil
	}
	if v.slices.Revision() < c.memory.get(k) {
		return time.Second, nil
	}
	f := endpoint.Facts{Service: s, Pods: v.pods.List(k.namespace), Nodes: map[string]*corev1.Node{}}
	for _, pod := range f.Pods {
		if n, ok := v.nodes.Get("", pod.Spec.NodeName); ok {
			f.Nodes[n.Name] = n
		}
	}
	for _, e := range v.slices.List(k.namespace) {
		if e.Labels[discoveryv1.LabelServiceName] == k.name {
			f.Slices = append(f.Slices, e)
		}
	}
	p := endpoint.Make(f)
	for _, e := range p.Create {
		made, err := objects.Create(ctx, c.term.client, e, c.term.fenced())
		if err != nil {
			return 0, wrap(err, "create", e)
		}
		c.memory.set(k, versionOf(made))
	}
	for _, e := range p.Update {
		written, err := objects.Update(ctx, c.term.client, e, c.term.fenced())
		if err != nil {
			return 0, wrap(err, "update", e)
		}
		c.memory.set(k, versionOf(written))
	}
	for _, e := range p.Delete {
		err := objects.Delete[*discoveryv1.EndpointSlice](ctx, c.term.client, e.Namespace, e.Name, c.term.fenced(), exactly(e))
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			return 0, wrap(err, "delete", e)
		}
	}
	return 0, nil
}

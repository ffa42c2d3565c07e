package controller

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/autoscale"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// scaleEach is how often an autoscaler looks: kubelets measure about as often.
const scaleEach = 15 * time.Second

// autoscalers changes sizes by load.
type autoscalers struct {
	term   *term
	loop   *loop
	memory memory[scalerMemory]
}

type scalerMemory struct {
	uid types.UID
	autoscale.Memory
}

func newAutoscalers(t *term) {
	c := &autoscalers{term: t}
	c.loop = t.loop("autoscalers", c.sync)
	c.loop.waits = true
	t.views.scalers.OnChange(func(old, s *autoscalingv2.HorizontalPodAutoscaler) {
		if old != nil && s != nil && equality.Semantic.DeepEqual(old.Spec, s.Spec) {
			return
		}
		c.loop.queue.Add(keyOf(either(old, s)))
	})
}

func (c *autoscalers) sync(ctx context.Context, k key) (time.Duration, error) {
	s, ok := c.term.views.scalers.Get(k.namespace, k.name)
	if !ok {
		c.memory.drop(k)
		return 0, nil
	}
	current, pods, err := c.target(s)
	if err != nil {
		c.term.recorder.note(s, true, "FailedGetScale", err.Error())
		return scaleEach, nil
	}
	use, err := c.use(ctx, k.namespace)
	if err != nil {
		return 0, err
	}
	m := c.memory.get(k)
	if m.uid != s.UID {
		m = scalerMemory{uid: s.UID}
	}
	d := autoscale.Make(autoscale.Facts{Scaler: s, Current: current, Pods: pods, Use: use, Memory: m.Memory, Now: c.term.clock.Wall()})
	if d.Replicas != current {
		_, err := c.term.client.Scale(ctx, &kubepb.ScaleRequest{
			Object:   &kubepb.Ref{Kind: s.Spec.ScaleTargetRef.Kind, Namespace: s.Namespace, Name: s.Spec.ScaleTargetRef.Name},
			Replicas: d.Replicas, Preconditions: &kubepb.Preconditions{Fence: c.term.fence, Guards: guard(s).Guards},
		})
		if err != nil {
			return 0, wrap(err, "scale the target of", s)
		}
		c.term.recorder.note(s, false, "SuccessfulRescale", fmt.Sprintf("%d instead of %d copies: %s", d.Replicas, current, d.Reason))
	}
	m.Memory = d.Memory
	c.memory.set(k, m)
	if !equality.Semantic.DeepEqual(s.Status, d.Status) {
		next := s.DeepCopy()
		next.Status = d.Status
		if _, err := objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced()); err != nil {
			return 0, wrap(err, "status of", s)
		}
	}
	return scaleEach, nil
}

// target finds the size and the pods of what an autoscaler scales.
func (c *autoscalers) target(s *autoscalingv2.HorizontalPodAutoscaler) (int32, []*corev1.Pod, error) {
	v, ref := c.term.views, s.Spec.ScaleTargetRef
	size := func(n *int32) int32 {
		if n == nil {
			return 1
		}
		return *n
	}
	switch ref.Kind {
	case api.Deployment.Name:
		if d, ok := v.deployments.Get(s.Namespace, ref.Name); ok {
			return size(d.Spec.Replicas), podsOfSets(v, v.sets.ByIndex(byOwner, string(d.UID))), nil
		}
	case api.ReplicaSet.Name:
		if set, ok := v.sets.Get(s.Namespace, ref.Name); ok {
			return size(set.Spec.Replicas), podsOfSets(v, []*appsv1.ReplicaSet{set}), nil
		}
	default:
		return 0, nil, fmt.Errorf("spec.scaleTargetRef: a %s has no size; there are Deployment and ReplicaSet", ref.Kind)
	}
	return 0, nil, fmt.Errorf("spec.scaleTargetRef: there is no %s %s", ref.Kind, ref.Name)
}

// use is what the pods of a namespace used, by name.
func (c *autoscalers) use(ctx context.Context, namespace string) (map[string]autoscale.Use, error) {
	answer, err := c.term.client.Usage(ctx, &kubepb.UsageRequest{Namespace: namespace})
	if err != nil {
		return nil, err
	}
	all := map[string]autoscale.Use{}
	for _, p := range answer.Pods {
		if pod, ok := c.term.views.pods.Get(namespace, p.Name); !ok || string(pod.UID) != p.Uid {
			continue // Of one that had the name before.
		}
		u := autoscale.Use{}
		for name, m := range p.Containers {
			u[name] = struct{ CPU, Memory int64 }{m.GetCpuMillis(), m.GetMemoryBytes()}
		}
		all[p.Name] = u
	}
	return all, nil
}

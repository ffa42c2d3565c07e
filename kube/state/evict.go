package state

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Evict implements kubepb.ClusterStateServer.
func (s *Service) Evict(ctx context.Context, r *kubepb.EvictRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.evict(ctx, r)
	return answer, toWire(err)
}

func (s *Service) evict(ctx context.Context, r *kubepb.EvictRequest) (*kubepb.WriteResponse, error) {
	ref := r.GetPod()
	if ref.GetKind() != "" && ref.GetKind() != api.Pod.Name {
		return nil, invalid("pod: a %q cannot be evicted", shorten(ref.GetKind()))
	}
	if err := checkPlace(api.Pod, ref.GetNamespace(), ref.GetName()); err != nil {
		return nil, err
	}
	grace, err := checkGrace(r.GraceSet, r.GraceSeconds)
	if err != nil {
		return nil, err
	}
	if _, err := s.fresh(ctx); err != nil { // A budget that was made just now counts.
		return nil, err
	}
	var last api.Object
	revision, a, err := s.write(ctx, r.Preconditions, r.DryRun, func(a *attempt) error {
		old, at, err := a.object(api.Pod, ref.Namespace, ref.Name)
		if err != nil {
			return err
		}
		request := &auth.Request{Verb: auth.Evict, Kind: api.Pod, Namespace: ref.Namespace, Name: ref.Name, Old: old}
		if old == nil {
			return a.absent(request)
		}
		if err := a.authorize(request); err != nil {
			return err
		}
		if err := hold(r.Preconditions, api.Pod, old, at); err != nil {
			return err
		}
		p := old.(*corev1.Pod)
		if disrupts(p) {
			if err := a.spend(p); err != nil {
				return err
			}
		}
		last, err = a.end(api.Pod, old, ending{grace: grace})
		return err
	})
	if err != nil {
		return nil, err
	}
	return respond(api.Pod, last, revision, kubepb.Encoding_PROTOBUF, a)
}

// disrupts reports whether anybody misses a pod that goes. One that has not started yet
// serves nobody, and else would hold up for good who empties the node that it cannot start on.
func disrupts(p *corev1.Pod) bool {
	return p.Spec.NodeName != "" && p.Status.Phase != corev1.PodPending && !ended(p) && p.DeletionTimestamp == nil
}

// spend takes one disruption from the budget that protects a pod.
func (a *attempt) spend(p *corev1.Pod) error {
	names := a.service.cache.budgetsFor(p)
	if len(names) > budgetsMax {
		return fmt.Errorf("pod %s: %d disruption budgets select it, that one does %w", full(p.Namespace, p.Name), len(names), errGuard)
	}
	for _, name := range names {
		o, _, err := a.object(api.Budget, p.Namespace, name)
		if err != nil {
			return err
		}
		b, ok := o.(*policyv1.PodDisruptionBudget)
		if !ok {
			continue // It was deleted meanwhile.
		}
		if b.Status.ObservedGeneration < b.Generation {
			return fmt.Errorf("disruption budget %s: the controllers have not seen its newest change yet, %w for an eviction", name, errFull)
		}
		if !api.IsReady(p) && b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0 {
			continue // It is none of those that are healthy, and there are enough of them.
		}
		if b.Status.DisruptionsAllowed <= 0 {
			return fmt.Errorf("disruption budget %s allows none now: %d of %d wanted pods are healthy; %w for an eviction",
				name, b.Status.CurrentHealthy, b.Status.DesiredHealthy, errFull)
		}
		b.Status.DisruptionsAllowed--
		if b.Status.DisruptedPods == nil {
			b.Status.DisruptedPods = map[string]metav1.Time{}
		}
		b.Status.DisruptedPods[p.Name] = metav1.NewTime(a.now.UTC().Truncate(1e9))
		b.ResourceVersion = ""
		if err := a.put(api.Budget, b, 0); err != nil {
			return err
		}
	}
	return nil
}

// budgetsFor names the budgets that select a pod.
func (c *cache) budgetsFor(p *corev1.Pod) []string {
	var names []string
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, e := range c.mu.shelves[api.Budget].find(&pick{kind: api.Budget, namespace: p.Namespace, labels: labels.Everything(), fields: everything}, "") {
		b, ok := e.object.(*policyv1.PodDisruptionBudget)
		if !ok || b.Spec.Selector == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && selector.Matches(labels.Set(p.Labels)) {
			names = append(names, e.name)
		}
	}
	return names
}

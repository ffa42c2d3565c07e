package state

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// adopt records a pod that runs as its node told of it: with its uid, its node and its
// status, in one transaction with the ledger, which has counted it already.
func (s *Service) adopt(ctx context.Context, p *kubepb.Preconditions, r *kubepb.RecoverRequest) (*kubepb.RecoverResponse, error) {
	answer := &kubepb.RecoverResponse{}
	_, _, err := s.write(ctx, p, false, func(a *attempt) error {
		a.recovers = true
		answer.Warnings = nil
		t, err := a.toldOf(r.Node, r.Uid)
		if err != nil {
			return err
		}
		what := "pod " + full(t.pod.Namespace, t.pod.Name)
		if api.IsUnreadable(t.pod) {
			return fmt.Errorf("node %s has lost what pod %s is, and it goes on until --prune lets it end: that it is recorded %w", r.Node, r.Uid, errGuard)
		}
		if ended(t.pod) {
			return fmt.Errorf("%s has ended, that it is recorded %w", what, errGuard)
		}
		if err := a.inNamespace(api.Pod, t.pod.Namespace); err != nil {
			return fmt.Errorf("%s: %w: create the namespace first", what, err)
		}
		if err := a.oneOnly(t); err != nil {
			return err
		}
		old, _, err := a.object(api.Pod, t.pod.Namespace, t.pod.Name)
		if err != nil {
			return err
		}
		var before *corev1.Pod
		if old != nil {
			before = old.(*corev1.Pod)
			done, err := a.replaceable(before, t)
			if err != nil || done {
				return err
			}
		}
		if err := a.believe(r, t, before); err != nil {
			return err
		}
		now := t.pod.DeepCopy()
		answer.Warnings, err = a.ownersLeft(now)
		if err != nil {
			return err
		}
		return a.record(r, t, before, now)
	})
	return answer, err
}

// believe refuses what is not plausible, or what only the node of a pod says of it, unless
// the operator says so too. Its priority is that of its class in any case.
func (a *attempt) believe(r *kubepb.RecoverRequest, t *told, record *corev1.Pod) error {
	if record != nil && record.UID != t.pod.UID {
		record = nil
	}
	v, err := a.service.claims()
	if err != nil {
		return err
	}
	if owner := metav1.GetControllerOf(t.pod); owner != nil && owner.Kind == api.ReplicaSet.Name {
		o, _, err := a.object(api.ReplicaSet, t.pod.Namespace, owner.Name)
		if err != nil {
			return err
		}
		if o != nil {
			v.sets[string(o.GetUID())] = o.(*appsv1.ReplicaSet)
		}
	}
	doubt := v.doubt(r.Node, t, record)
	if doubt == "" {
		t.pod.Spec.Priority, t.pod.Spec.PreemptionPolicy = nil, nil
		return a.prioritize(t.pod)
	}
	if r.AsTold {
		return nil
	}
	shown := &kubepb.RecoveredPod{}
	show(shown, t.pod)
	return fmt.Errorf("pod %s of node %s: %s; it has the labels %v and may read %v: that it is recorded without --as-told %w",
		full(t.pod.Namespace, t.pod.Name), r.Node, doubt, shown.Labels, shown.Names, errGuard)
}

// record writes the pod, and moves what was reserved for it to it.
func (a *attempt) record(r *kubepb.RecoverRequest, t *told, before, now *corev1.Pod) error {
	api.Default(now)
	if err := allInvalid(api.Validate(now)); err != nil {
		return fmt.Errorf("pod %s as node %s tells of it: %w", full(now.Namespace, now.Name), r.Node, err)
	}
	same := charged(before) && before.Spec.NodeName == r.Node
	if charged(before) && !same {
		if err := a.settle(before, nil); err != nil {
			return err
		}
	}
	if same || !t.entry.Reserved {
		l, err := a.ledger(r.Node)
		if err != nil {
			return err
		}
		if same {
			less := api.PodRequests(&before.Spec)
			subtract(l, &less)
		}
		if !t.entry.Reserved {
			more := api.PodRequests(&now.Spec)
			add(l, &more)
		}
		if err := a.putLedger(LedgerPrefix+r.Node, l); err != nil {
			return err
		}
	}
	t.entry.Reserved, t.entry.Pruned = false, false
	if err := a.putEntry(inventoryKey(r.Node, r.Uid), t.entry); err != nil {
		return err
	}
	return a.put(api.Pod, now, 0)
}

// replaceable looks at what is recorded under the name of a pod to be adopted. Done:
// it is that pod.
func (a *attempt) replaceable(before *corev1.Pod, t *told) (done bool, err error) {
	what, node := "pod "+full(before.Namespace, before.Name), before.Spec.NodeName
	if before.UID == t.pod.UID {
		if node != "" && node != t.pod.Spec.NodeName {
			return false, fmt.Errorf("%s is recorded on node %s, that it is on %s %w", what, node, t.pod.Spec.NodeName, errGuard)
		}
		return node != "", nil
	}
	if node == "" || ended(before) {
		return false, nil // Nothing of it runs.
	}
	is, err := a.service.stands()
	if err != nil {
		return false, err
	}
	if !a.service.cache.reported(node, is.history()) && !is.givenUp(node) {
		return false, fmt.Errorf("another %s is recorded on node %s, which has not told yet whether it runs it; that it does not %w", what, node, errGuard)
	}
	if a.read(inventoryKey(node, string(before.UID))) != nil {
		return false, fmt.Errorf("another %s runs on node %s; that there is one %w", what, node, errGuard)
	}
	return false, nil
}

// oneOnly refuses to record a singleton that does not run beside another one.
func (a *attempt) oneOnly(t *told) error {
	owner := metav1.GetControllerOf(t.pod)
	if !api.IsSingleton(t.pod) || t.entry.Running || owner == nil {
		return nil
	}
	v, err := a.service.compare()
	if err != nil {
		return err
	}
	others := v.pods
	for _, entries := range v.entries { //tidy:ordered one is enough
		for _, o := range entries { //tidy:ordered one is enough
			if o.entry.Running {
				others = append(others, o.pod)
			}
		}
	}
	for _, p := range others {
		if o := metav1.GetControllerOf(p); o != nil && o.UID == owner.UID && p.UID != t.pod.UID {
			return fmt.Errorf("pod %s does not run, and pod %s of the same %s is there: that there is one of this singleton %w",
				full(t.pod.Namespace, t.pod.Name), full(p.Namespace, p.Name), owner.Kind, errGuard)
		}
	}
	return nil
}

// ownersLeft takes out owners that are not recorded: garbage collection would end the
// pod because of them. A ReplicaSet that selects it makes it its own again.
func (a *attempt) ownersLeft(p *corev1.Pod) (warnings []string, err error) {
	var left []metav1.OwnerReference
	for _, r := range p.OwnerReferences {
		k, err := api.ByName(r.Kind)
		if err != nil || k.APIVersion != r.APIVersion {
			left = append(left, r) // Nobody here knows better.
			continue
		}
		namespace := p.Namespace
		if !k.Namespaced {
			namespace = ""
		}
		o, _, err := a.object(k, namespace, r.Name)
		if err != nil {
			return nil, err
		}
		if o == nil || o.GetUID() != r.UID {
			warnings = append(warnings, fmt.Sprintf("pod %s: its owner, %s %s, is not recorded: it has none now", full(p.Namespace, p.Name), r.Kind, r.Name))
			continue
		}
		left = append(left, r)
	}
	p.OwnerReferences = left
	return warnings, nil
}

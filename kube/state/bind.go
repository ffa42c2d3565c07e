package state

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Bind implements kubepb.ClusterStateServer. It is one transaction of the store: what
// it is decided by comes from the cache, and is compared there.
func (s *Service) Bind(ctx context.Context, r *kubepb.BindRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.bind(ctx, r)
	return answer, toWire(err)
}

func (s *Service) bind(ctx context.Context, r *kubepb.BindRequest) (*kubepb.WriteResponse, error) {
	ref := r.GetPod()
	if ref.GetKind() != "" && ref.GetKind() != api.Pod.Name {
		return nil, invalid("pod: %q cannot be bound", shorten(ref.GetKind()))
	}
	if err := checkPlace(api.Pod, ref.GetNamespace(), ref.GetName()); err != nil {
		return nil, err
	}
	if err := checkName("node", r.Node); err != nil {
		return nil, err
	}
	if r.PodResourceVersion < 0 || r.LedgerRevision < 0 {
		return nil, invalid("pod_resource_version and ledger_revision: they cannot be negative")
	}
	if err := checkFence(r.Fence); err != nil {
		return nil, err
	}
	var bound *corev1.Pod
	revision, a, err := s.write(ctx, nil, false, func(a *attempt) (err error) {
		bound, err = a.bind(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return respond(api.Pod, bound, revision, kubepb.Encoding_PROTOBUF, a)
}

// bind decides a binding.
func (a *attempt) bind(r *kubepb.BindRequest) (*corev1.Pod, error) {
	ns, name := r.Pod.Namespace, r.Pod.Name
	request := &auth.Request{Verb: auth.Bind, Kind: api.Pod, Namespace: ns, Name: name, NodeName: r.Node}
	if err := a.authorize(request); err != nil {
		return nil, err
	}
	o, at, err := a.shared(api.Pod, ns, name)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, missing(api.Pod, ns, name)
	}
	old := o.(*corev1.Pod)
	if err := bindable(old, at, r); err != nil {
		return nil, err
	}
	if err := a.fence(r.Fence); err != nil {
		return nil, err
	}
	if r.LedgerRevision != 0 {
		if at := a.read(LedgerPrefix + r.Node).GetModRevision(); at != r.LedgerRevision {
			return nil, fmt.Errorf("the ledger of node %s is at %d, that it is at %d %w", r.Node, at, r.LedgerRevision, errGuard)
		}
	}
	p := old.DeepCopy()
	p.Spec.NodeName = r.Node
	p.Status.NominatedNodeName = ""
	setScheduled(p, metav1.NewTime(a.now.UTC().Truncate(1e9)))
	p.ResourceVersion = ""
	if err := a.settle(old, p); err != nil {
		return nil, err
	}
	return p, a.put(api.Pod, p, 0)
}

// setScheduled has the pod's conditions say that it has a node.
func setScheduled(p *corev1.Pod, now metav1.Time) {
	c := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == c.Type {
			p.Status.Conditions[i] = c
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}

// bindable reports whether a pod can be given a node.
func bindable(old *corev1.Pod, at int64, r *kubepb.BindRequest) error {
	what := "Pod " + full(old.Namespace, old.Name)
	switch {
	case r.PodUid != "" && r.PodUid != string(old.UID):
		return fmt.Errorf("%s has uid %s, not %s: %w", what, old.UID, shorten(r.PodUid), errConflict)
	case old.Spec.NodeName != "":
		return fmt.Errorf("%s is bound to node %s, that it be unbound %w", what, old.Spec.NodeName, errGuard)
	case r.PodResourceVersion != 0 && r.PodResourceVersion != at:
		return conflict(what, r.PodResourceVersion, at)
	case old.DeletionTimestamp != nil:
		return fmt.Errorf("%s is being deleted, that it stays %w", what, errGuard)
	case ended(old):
		return fmt.Errorf("%s has ended, that it shall run %w", what, errGuard)
	case len(old.Spec.SchedulingGates) > 0:
		return fmt.Errorf("%s has scheduling gates, that it has none %w", what, errGuard)
	}
	return nil
}

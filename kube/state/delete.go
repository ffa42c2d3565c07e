package state

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Delete implements kubepb.ClusterStateServer.
func (s *Service) Delete(ctx context.Context, r *kubepb.DeleteRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.delete(ctx, r)
	return answer, toWire(err)
}

// ending is how an object shall be deleted.
type ending struct {
	propagation kubepb.DeleteRequest_Propagation
	grace       *int64 // Seconds. Nil: the pod's own.
}

func (s *Service) delete(ctx context.Context, r *kubepb.DeleteRequest) (*kubepb.WriteResponse, error) {
	k, err := checkRef(r.GetObject())
	if err != nil {
		return nil, err
	}
	e := ending{propagation: r.Propagation}
	if e.grace, err = checkGrace(r.GraceSet, r.GraceSeconds); err != nil {
		return nil, err
	}
	if _, ok := kubepb.DeleteRequest_Propagation_name[int32(r.Propagation)]; !ok {
		return nil, invalid("propagation: there is no %d", r.Propagation)
	}
	var last api.Object
	revision, a, err := s.write(ctx, r.Preconditions, r.DryRun, func(a *attempt) error {
		old, at, err := a.object(k, r.Object.Namespace, r.Object.Name)
		if err != nil {
			return err
		}
		request := &auth.Request{Verb: auth.Delete, Kind: k, Namespace: r.Object.Namespace, Name: r.Object.Name}
		if old == nil {
			return a.absent(request)
		}
		request.Old = old
		if err := a.authorize(request); err != nil {
			return err
		}
		if err := hold(r.Preconditions, k, old, at); err != nil {
			return err
		}
		if k == api.Namespace && slices.Contains(firstNamespaces, r.Object.Name) {
			return fmt.Errorf("namespace %s belongs to every cluster, that it goes %w", r.Object.Name, errGuard)
		}
		last, err = a.end(k, old, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return respond(k, last, revision, kubepb.Encoding_PROTOBUF, a)
}

func checkGrace(set bool, seconds int64) (*int64, error) {
	if !set {
		return nil, nil
	}
	if seconds < 0 || seconds > api.SecondsMax {
		return nil, invalid("grace_seconds: %d is not between 0 and %d", seconds, api.SecondsMax)
	}
	return &seconds, nil
}

// end deletes an object, or has it begin to end: it waits for finalizers, and a pod
// for its node. It returns the object as it is then.
func (a *attempt) end(k *api.Kind, old api.Object, e ending) (api.Object, error) {
	if p, ok := old.(*corev1.Pod); ok {
		if err := a.mayEnd(p); err != nil {
			return nil, err
		}
	}
	o := old.DeepCopyObject().(api.Object)
	finalizers := o.GetFinalizers()
	finalizers = without(without(finalizers, metav1.FinalizerDeleteDependents), metav1.FinalizerOrphanDependents)
	switch e.propagation {
	case kubepb.DeleteRequest_FOREGROUND:
		finalizers = append(finalizers, metav1.FinalizerDeleteDependents)
	case kubepb.DeleteRequest_ORPHAN:
		finalizers = append(finalizers, metav1.FinalizerOrphanDependents)
	}
	o.SetFinalizers(finalizers)
	a.mark(o, e.grace)
	if gone(o) {
		return old, a.remove(k, old)
	}
	if slices.Equal(o.GetFinalizers(), old.GetFinalizers()) && sameEnd(o, old) {
		return old, nil // It ends already, and not later than this asks for.
	}
	o.SetResourceVersion("")
	return o, a.put(k, o, 0)
}

// mark says on an object that it ends, and when. An end only comes nearer.
func (a *attempt) mark(o api.Object, grace *int64) {
	var seconds int64
	if p, ok := o.(*corev1.Pod); ok {
		seconds = graceOf(p, grace)
	}
	at := metav1.NewTime(a.now.UTC().Truncate(time.Second).Add(time.Duration(seconds) * time.Second))
	if was := o.GetDeletionTimestamp(); was == nil || at.Before(was) {
		if was == nil {
			o.SetGeneration(o.GetGeneration() + 1)
		}
		o.SetDeletionTimestamp(&at)
	}
	if was := o.GetDeletionGracePeriodSeconds(); was == nil || seconds < *was {
		o.SetDeletionGracePeriodSeconds(&seconds)
	}
	if n, ok := o.(*corev1.Namespace); ok {
		n.Status.Phase = corev1.NamespaceTerminating
	}
}

// graceOf is how long a pod may take to end. One that no node has, or that has ended,
// has nothing to wait for.
func graceOf(p *corev1.Pod, asked *int64) int64 {
	switch {
	case p.Spec.NodeName == "" || ended(p):
		return 0
	case asked != nil:
		return *asked
	case p.Spec.TerminationGracePeriodSeconds != nil:
		return min(max(*p.Spec.TerminationGracePeriodSeconds, 1), api.SecondsMax)
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func sameEnd(a, b api.Object) bool {
	x, y := a.GetDeletionTimestamp(), b.GetDeletionTimestamp()
	g, h := a.GetDeletionGracePeriodSeconds(), b.GetDeletionGracePeriodSeconds()
	return x.Equal(y) && (g == h || g != nil && h != nil && *g == *h)
}

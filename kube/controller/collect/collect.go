// Package collect decides what is garbage: objects whose owners are gone, and what
// stands in the way of an owner that goes.
//
// It is pure. Owners are told apart by uid: one of the same name is another one.
//
// Always true: an object with an owner that stands is not deleted.
package collect

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// Owner is what a reference leads to.
type Owner struct {
	Ref   metav1.OwnerReference
	Gone  bool // No object of this uid is there.
	Waits bool // It is deleted in the foreground: it goes after what blocks it.
}

// Verdict is what to do with an object.
type Verdict struct {
	Delete     bool
	Foreground bool        // It has dependents of its own, which go first.
	Drop       []types.UID // References to take out: others hold the object.
}

// Judge decides about an object by its owners.
func Judge(owners []Owner, hasDependents bool) Verdict {
	var v Verdict
	solid, waits := 0, false
	for _, o := range owners {
		if !o.Gone && !o.Waits {
			solid++
			continue
		}
		waits = waits || o.Waits
		v.Drop = append(v.Drop, o.Ref.UID)
	}
	if solid > 0 || len(owners) == 0 {
		return v
	}
	return Verdict{Delete: true, Foreground: waits && hasDependents}
}

// Parting is what an owner that is being deleted waits for.
type Parting struct {
	Delete []metav1.Object // Dependents to delete.
	Orphan []metav1.Object // Dependents to free.
	Done   string          // The finalizer to take off: nothing is left to wait for.
}

// Part plans the next step of an owner that is being deleted.
func Part(owner metav1.Object, dependents []metav1.Object) Parting {
	var p Parting
	if owner.GetDeletionTimestamp() == nil {
		return p
	}
	switch finalizers := owner.GetFinalizers(); {
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		p.Orphan = dependents
		if len(dependents) == 0 {
			p.Done = metav1.FinalizerOrphanDependents
		}
	case slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		blocked := false
		for _, d := range dependents {
			blocked = blocked || blocks(owner, d)
			if d.GetDeletionTimestamp() == nil {
				p.Delete = append(p.Delete, d)
			}
		}
		if !blocked {
			p.Done = metav1.FinalizerDeleteDependents
		}
	}
	return p
}

func blocks(owner, dependent metav1.Object) bool {
	return slices.ContainsFunc(dependent.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
		return r.UID == owner.GetUID() && r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
	})
}

// Finished are the pods to delete so that at most keep are left that have ended: the
// oldest.
func Finished(pods []*corev1.Pod, keep int) []*corev1.Pod {
	ended := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool {
		return !replica.Finished(pod) || pod.DeletionTimestamp != nil
	})
	slices.SortStableFunc(ended, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return ended[:max(0, len(ended)-keep)]
}

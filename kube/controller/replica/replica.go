// Package replica decides what a ReplicaSet lacks and has too many of.
//
// It is a pure function from facts to a plan. The controller beside it carries the
// plan out: each creation guarded by the set's own resource version, so that it
// fails once anybody changed the set.
//
// Always true: a plan never creates while the set has as many active pods as it
// wants, and of a singleton the old pod is gone from the store, or stopped by its
// own report, before there is another.
package replica

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
)

// Singleton is the annotation of a pod, and of a template, of which there must
// never run two: "true".
const Singleton = api.Singleton

// IsSingleton reports whether annotations ask for at most one running copy.
func IsSingleton(annotations map[string]string) bool { return annotations[Singleton] == "true" }

// Facts are what a plan is made from.
type Facts struct {
	Set  *appsv1.ReplicaSet
	Pods []*corev1.Pod // Of its namespace: those it owns, and those without an owner that match.

	// Gone are pods whose deletion the store has confirmed and the list does not show
	// yet. An entry is dropped once the list shows it.
	Gone map[types.UID]bool

	// Asked are pods of whose deletion no answer came: they may be on their way out. They go
	// before any other, as that costs none.
	Asked map[types.UID]bool

	// Crowd counts for each node the active pods of all sets of the same owner: pods on
	// full nodes go first.
	Crowd map[string]int

	Failure string // Why the last attempt to create or delete failed.
	Now     time.Time
}

// Plan is what to do, in this order: adopt, release, create or delete. The status to
// write is that of a plan made after deletions: a set that says that it has observed
// its size has no more pods available than it will keep.
type Plan struct {
	Adopt   []*corev1.Pod // Match, and have no owner.
	Release []*corev1.Pod // Are owned, and match no more.
	Create  int
	Delete  []*corev1.Pod
	Status  appsv1.ReplicaSetStatus
	Again   time.Duration // Until a pod counts as available. 0: nothing to wait for.
}

// Make plans for one set.
func Make(f Facts) (Plan, error) {
	selector, err := selectorOf(f.Set.Spec.Selector)
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	var mine []*corev1.Pod
	for _, pod := range f.Pods {
		owner := metav1.GetControllerOf(pod)
		matches := selector.Matches(labelSet(pod.Labels))
		switch {
		case owner != nil && owner.UID == f.Set.UID:
			if !matches && f.Set.DeletionTimestamp == nil {
				p.Release = append(p.Release, pod)
			} else {
				mine = append(mine, pod)
			}
		case owner == nil && matches && f.Set.DeletionTimestamp == nil && pod.DeletionTimestamp == nil && !Finished(pod):
			p.Adopt = append(p.Adopt, pod)
			mine = append(mine, pod)
		}
	}
	active, terminating := split(f, mine)
	if f.Set.DeletionTimestamp == nil {
		count := len(active)
		if IsSingleton(f.Set.Spec.Template.Annotations) {
			count += terminating
		}
		p.Create = max(0, want(f.Set)-count)
		if extra := len(active) - want(f.Set); extra > 0 {
			order := DeletionOrder(active, f.Crowd, f.Set.Spec.MinReadySeconds, f.Now)
			slices.SortStableFunc(order, func(a, b *corev1.Pod) int { return less(!f.Asked[a.UID], !f.Asked[b.UID]) })
			p.Delete = order[:extra]
		}
	}
	p.Status, p.Again = statusOf(f, active, terminating)
	p.slow(pause(f, mine))
	return p, nil
}

// slow has nothing made before a pause is over.
func (p *Plan) slow(wait time.Duration) {
	if p.Create == 0 || wait <= 0 {
		return
	}
	p.Create = 0
	if p.Again == 0 || wait < p.Again {
		p.Again = wait
	}
}

// Pods that fail as soon as they are made, since their node rejects them for one, are
// made again after longer and longer pauses: nothing else slows a set down that would
// make hundreds a second. Each copy has failuresFree tries.
const (
	failuresFree   = 4
	failuresWindow = 10 * time.Minute
	pauseMin       = time.Second
	pauseDoublings = 6
)

// pause is how long nothing is to be made after pods that have failed lately.
func pause(f Facts, mine []*corev1.Pod) time.Duration {
	failed, newest := 0, time.Time{}
	for _, pod := range mine {
		if at := pod.CreationTimestamp.Time; pod.Status.Phase == corev1.PodFailed && f.Now.Sub(at) < failuresWindow {
			failed++
			if at.After(newest) {
				newest = at
			}
		}
	}
	rounds := failed / max(1, want(f.Set))
	if rounds < failuresFree {
		return 0
	}
	after := pauseMin << min(rounds-failuresFree, pauseDoublings)
	return min(after, newest.Add(after).Sub(f.Now)) // Whose clock wrote it may be ahead.
}

func want(s *appsv1.ReplicaSet) int {
	if s.Spec.Replicas == nil {
		return 1
	}
	return int(*s.Spec.Replicas)
}

// split separates the pods that count from those on their way out. A pod that has
// finished by its own report is neither: its containers have stopped.
func split(f Facts, mine []*corev1.Pod) (active []*corev1.Pod, terminating int) {
	for _, pod := range mine {
		switch {
		case Finished(pod):
		case f.Gone[pod.UID], pod.DeletionTimestamp != nil:
			terminating++
		default:
			active = append(active, pod)
		}
	}
	return active, terminating
}

// Finished reports whether a pod has ended and will not run again.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Active reports whether a pod counts: it is neither finished nor on its way out.
func Active(pod *corev1.Pod) bool { return !Finished(pod) && pod.DeletionTimestamp == nil }

// Ready reports whether a pod is ready, and since when.
func Ready(pod *corev1.Pod) (since time.Time, ready bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, false
}

// Available reports whether a pod has been ready for so many seconds, and if it is
// ready only, how long it still has to be.
func Available(pod *corev1.Pod, minReady int32, now time.Time) (available bool, wait time.Duration) {
	since, ready := Ready(pod)
	if !ready {
		return false, 0
	}
	if wait = since.Add(time.Duration(minReady) * time.Second).Sub(now); minReady > 0 && wait > 0 {
		return false, wait
	}
	return true, 0
}

func statusOf(f Facts, active []*corev1.Pod, terminating int) (appsv1.ReplicaSetStatus, time.Duration) {
	s := *f.Set.Status.DeepCopy()
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = int32(len(active)), 0, 0, 0
	s.ObservedGeneration = f.Set.Generation
	leaving := int32(terminating)
	s.TerminatingReplicas = &leaving
	var again time.Duration
	for _, pod := range active {
		if within(f.Set.Spec.Template.Labels, pod.Labels) {
			s.FullyLabeledReplicas++
		}
		if _, ready := Ready(pod); ready {
			s.ReadyReplicas++
		}
		available, wait := Available(pod, f.Set.Spec.MinReadySeconds, f.Now)
		if available {
			s.AvailableReplicas++
		} else if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	s.Conditions = failureCondition(s.Conditions, f.Failure, f.Now)
	return s, again
}

func failureCondition(have []appsv1.ReplicaSetCondition, failure string, now time.Time) []appsv1.ReplicaSetCondition {
	i := slices.IndexFunc(have, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case failure == "" && i >= 0:
		return slices.Delete(have, i, i+1)
	case failure == "" || i >= 0 && have[i].Message == failure:
		return have
	case i >= 0:
		have = slices.Delete(have, i, i+1)
	}
	return append(have, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: failure, LastTransitionTime: metav1.NewTime(now),
	})
}

// Changed reports whether a status is worth a write.
func Changed(old, next appsv1.ReplicaSetStatus) bool { return !equality.Semantic.DeepEqual(old, next) }

// DeletionOrder sorts pods so that the first is missed least: unassigned before
// assigned, pending before running, not ready before ready, not yet available before
// available, cheap before dear (controller.kubernetes.io/pod-deletion-cost), on
// crowded nodes before alone, ready for a short time before long, restarted often
// before seldom, new before old.
func DeletionOrder(pods []*corev1.Pod, crowd map[string]int, minReady int32, now time.Time) []*corev1.Pod {
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		sinceA, readyA := Ready(a)
		sinceB, readyB := Ready(b)
		availableA, _ := Available(a, minReady, now)
		availableB, _ := Available(b, minReady, now)
		return cmp.Or(
			less(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			cmp.Compare(phaseRank(a), phaseRank(b)),
			less(readyA, readyB),
			less(availableA, availableB),
			cmp.Compare(cost(a), cost(b)),
			cmp.Compare(crowd[b.Spec.NodeName], crowd[a.Spec.NodeName]),
			sinceB.Compare(sinceA),
			cmp.Compare(restarts(b), restarts(a)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return sorted
}

// less puts false first.
func less(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

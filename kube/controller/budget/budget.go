// Package budget counts how many pods of a disruption budget may be missing.
//
// It is a pure function from a PodDisruptionBudget, its pods and the sizes of what
// owns them to a status. Whoever evicts takes from disruptionsAllowed and writes the
// pod down in the status, in one transaction with the eviction.
//
// Always true: a pod that was evicted and is still there counts as missing, so that
// the allowance never says more than may go.
package budget

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// forgetAfter is how long an eviction that nothing came of is remembered.
const forgetAfter = 2 * time.Minute

// Facts are what a status is made from.
type Facts struct {
	Budget *policyv1.PodDisruptionBudget
	Pods   []*corev1.Pod // Of its namespace.
	// Wanted is how many pods the owner of a pod wants in all, by the uid of the set that
	// made it, and who that is: sets of one Deployment count once.
	Wanted map[types.UID]Scale
	Now    time.Time
}

// Scale is a size that somebody asked for.
type Scale struct {
	Owner    types.UID
	Replicas int32
}

// Status counts. Again is when an eviction is forgotten; 0: there is none.
func Status(f Facts) (status policyv1.PodDisruptionBudgetStatus, again time.Duration, err error) {
	selector, err := metav1.LabelSelectorAsSelector(f.Budget.Spec.Selector)
	if err != nil {
		return status, 0, fmt.Errorf("spec.selector: %w", err)
	}
	var pods []*corev1.Pod
	for _, pod := range f.Pods {
		if selector.Matches(labels.Set(pod.Labels)) && !replica.Finished(pod) {
			pods = append(pods, pod)
		}
	}
	status = *f.Budget.Status.DeepCopy()
	status.ObservedGeneration = f.Budget.Generation
	status.ExpectedPods = f.expected(pods)
	if status.DesiredHealthy, err = desired(f.Budget, status.ExpectedPods); err != nil {
		return status, 0, err
	}
	status.DisruptedPods, again = f.disrupted(pods)
	status.CurrentHealthy = 0
	for _, pod := range pods {
		_, evicted := status.DisruptedPods[pod.Name]
		if _, ready := replica.Ready(pod); ready && pod.DeletionTimestamp == nil && !evicted {
			status.CurrentHealthy++
		}
	}
	status.DisruptionsAllowed = max(0, status.CurrentHealthy-status.DesiredHealthy)
	if status.ExpectedPods == 0 {
		status.DisruptionsAllowed = 0
	}
	f.condition(&status)
	return status, again, nil
}

// expected is how many pods there should be: what the owners want, and each pod
// without one.
func (f Facts) expected(pods []*corev1.Pod) int32 {
	n := int32(0)
	seen := map[types.UID]bool{}
	for _, pod := range pods {
		owner := metav1.GetControllerOf(pod)
		if owner == nil {
			n++
			continue
		}
		scale, ok := f.Wanted[owner.UID]
		switch {
		case !ok:
			n++
		case !seen[scale.Owner]:
			seen[scale.Owner] = true
			n += scale.Replicas
		}
	}
	return n
}

func desired(b *policyv1.PodDisruptionBudget, expected int32) (int32, error) {
	switch {
	case b.Spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(expected), true)
		if err != nil {
			return 0, fmt.Errorf("spec.maxUnavailable: %w", err)
		}
		return max(0, expected-int32(n)), nil
	case b.Spec.MinAvailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, int(expected), true)
		if err != nil {
			return 0, fmt.Errorf("spec.minAvailable: %w", err)
		}
		return int32(n), nil
	}
	return 0, nil
}

// disrupted keeps the evictions that are not seen yet.
func (f Facts) disrupted(pods []*corev1.Pod) (kept map[string]metav1.Time, again time.Duration) {
	for name, at := range f.Budget.Status.DisruptedPods {
		i := slices.IndexFunc(pods, func(pod *corev1.Pod) bool { return pod.Name == name })
		left := at.Add(forgetAfter).Sub(f.Now)
		if i < 0 || pods[i].DeletionTimestamp != nil || left <= 0 {
			continue
		}
		if kept == nil {
			kept = map[string]metav1.Time{}
		}
		kept[name] = at
		if again == 0 || left < again {
			again = left
		}
	}
	return kept, again
}

func (f Facts) condition(s *policyv1.PodDisruptionBudgetStatus) {
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, ObservedGeneration: f.Budget.Generation, LastTransitionTime: metav1.NewTime(f.Now)}
	c.Status, c.Reason = metav1.ConditionFalse, policyv1.InsufficientPodsReason
	if s.DisruptionsAllowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	i := slices.IndexFunc(s.Conditions, func(have metav1.Condition) bool { return have.Type == c.Type })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.LastTransitionTime = s.Conditions[i].LastTransitionTime
	}
	s.Conditions[i] = c
}

// Changed reports whether a status is worth a write.
func Changed(old, next policyv1.PodDisruptionBudgetStatus) bool {
	return !equality.Semantic.DeepEqual(old, next)
}

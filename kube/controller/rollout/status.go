package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the condition Progressing, in Kubernetes' words.
const (
	reasonCreated   = "NewReplicaSetCreated"
	reasonFound     = "FoundNewReplicaSet"
	reasonUpdated   = "ReplicaSetUpdated"
	reasonAvailable = "NewReplicaSetAvailable"
	reasonDeadline  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
	reasonResumed   = "DeploymentResumed"
)

// status sums up the sets.
func (s *state) status() {
	next := *s.Deployment.Status.DeepCopy()
	next.ObservedGeneration = s.Deployment.Generation
	next.Replicas, next.UpdatedReplicas, next.ReadyReplicas, next.AvailableReplicas = 0, 0, 0, 0
	for _, set := range s.all() {
		next.Replicas += set.Status.Replicas
		next.ReadyReplicas += set.Status.ReadyReplicas
		next.AvailableReplicas += set.Status.AvailableReplicas
	}
	if s.current != nil {
		next.UpdatedReplicas = s.current.Status.Replicas
	}
	next.UnavailableReplicas = max(0, max(next.Replicas, s.desired)-next.AvailableReplicas)
	leaving := s.leaving()
	next.TerminatingReplicas = &leaving
	s.plan.Status = next

	available, reason, message := corev1.ConditionFalse, "MinimumReplicasUnavailable", "fewer pods are available than there must be"
	if next.AvailableReplicas >= s.minimum {
		available, reason, message = corev1.ConditionTrue, "MinimumReplicasAvailable", "as many pods are available as there must be"
	}
	s.condition(appsv1.DeploymentAvailable, available, reason, message, false)
	s.failure()
	s.progress()
}

// failure says why a set cannot make its pods, the present one first: who waits for a
// rollout looks at the Deployment.
func (s *state) failure() {
	for _, set := range slices.Backward(s.all()) {
		for _, c := range set.Status.Conditions {
			if c.Type != appsv1.ReplicaSetReplicaFailure || c.Status != corev1.ConditionTrue {
				continue
			}
			have := find(s.plan.Status.Conditions, appsv1.DeploymentReplicaFailure)
			s.condition(appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message, have != nil && have.Message != c.Message)
			return
		}
	}
	s.plan.Status.Conditions = slices.DeleteFunc(s.plan.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentReplicaFailure
	})
}

// progress keeps the condition that tells whether a rollout gets on.
func (s *state) progress() {
	d, next := s.Deployment, &s.plan.Status
	have := find(d.Status.Conditions, appsv1.DeploymentProgressing)
	paused := have != nil && have.Reason == reasonPaused
	switch {
	case d.Spec.Paused:
		if !paused {
			s.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "the rollout is paused", true)
		}
	case paused:
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "the rollout is resumed", true)
	case s.plan.Create != nil:
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonCreated, "created "+s.plan.Create.Name, true)
	case s.current == nil:
	case have == nil || s.undone():
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonFound, "found "+s.current.Name, true)
	case have.Reason == reasonAvailable && next.Replicas == next.UpdatedReplicas: // Done; what fails later is no rollout.
	case s.complete():
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonAvailable, s.current.Name+" has progressed: all its pods are available", true)
	case s.advanced():
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, s.current.Name+" is progressing", true)
	case have.Reason == reasonAvailable: // A template came back whose set never went away.
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, s.current.Name+" is progressing", true)
	case s.late(have):
		s.condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonDeadline,
			fmt.Sprintf("%s has not progressed for %v", s.current.Name, s.deadline()), false)
	}
}

// undone reports whether the present template has just become an old set's.
func (s *state) undone() bool {
	return slices.ContainsFunc(s.plan.Update, func(set *appsv1.ReplicaSet) bool {
		return set.Name == s.current.Name && set.Annotations[Revision] != s.current.Annotations[Revision]
	})
}

// complete reports whether nothing is left to do.
func (s *state) complete() bool {
	n := s.plan.Status
	return s.current != nil && n.UpdatedReplicas == s.desired && n.Replicas == s.desired && n.AvailableReplicas == s.desired &&
		s.plan.Create == nil && len(s.plan.Sizes) == 0 && settled(s.current)
}

// advanced reports whether more is done than the last status says.
func (s *state) advanced() bool {
	was, is := s.Deployment.Status, s.plan.Status
	return is.UpdatedReplicas > was.UpdatedReplicas || is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas || is.AvailableReplicas > was.AvailableReplicas
}

func (s *state) deadline() time.Duration {
	seconds := int32(deadlineDefault)
	if n := s.Deployment.Spec.ProgressDeadlineSeconds; n != nil {
		seconds = *n
	}
	return time.Duration(seconds) * time.Second
}

// late reports whether the deadline has passed; if not, when to look again.
func (s *state) late(have *appsv1.DeploymentCondition) bool {
	if have.Reason == reasonDeadline {
		return true
	}
	left := have.LastUpdateTime.Add(s.deadline()).Sub(s.Now)
	if left > 0 {
		s.plan.Again = left
	}
	return left <= 0
}

// condition sets one. Its time of update changes only with touch or its status.
func (s *state) condition(kind appsv1.DeploymentConditionType, value corev1.ConditionStatus, reason, message string, touch bool) {
	now := metav1.NewTime(s.Now)
	c := appsv1.DeploymentCondition{Type: kind, Status: value, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
	conditions := s.plan.Status.Conditions
	if have := find(conditions, kind); have != nil {
		if have.Status == value {
			c.LastTransitionTime = have.LastTransitionTime
			if have.Reason == reason && !touch {
				return
			}
		}
		*have = c
		return
	}
	s.plan.Status.Conditions = append(conditions, c)
}

func find(conditions []appsv1.DeploymentCondition, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	i := slices.IndexFunc(conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == kind })
	if i < 0 {
		return nil
	}
	return &conditions[i]
}

// history removes the oldest sets that nothing runs of.
func (s *state) history() {
	keep := historyDefault
	if n := s.Deployment.Spec.RevisionHistoryLimit; n != nil {
		keep = int(*n)
	}
	var idle []*appsv1.ReplicaSet
	for _, set := range s.old {
		if wanted(set.Spec.Replicas) == 0 && set.Status.Replicas == 0 && wantedOr0(set.Status.TerminatingReplicas) == 0 && settled(set) {
			idle = append(idle, set)
		}
	}
	slices.SortStableFunc(idle, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(RevisionOf(a), RevisionOf(b)) })
	if extra := len(idle) - keep; extra > 0 {
		s.plan.Delete = idle[:extra]
	}
}

// deadlineMissed plans the undo that was asked for, once the status tells why.
func (s *state) deadlineMissed() {
	d := s.Deployment
	have := find(d.Status.Conditions, appsv1.DeploymentProgressing)
	if d.Annotations[RollbackOnDeadline] != "true" || have == nil || have.Reason != reasonDeadline || s.current == nil ||
		d.Spec.Paused || find(s.plan.Status.Conditions, appsv1.DeploymentProgressing).Reason != reasonDeadline {
		return
	}
	hash := s.current.Labels[HashLabel]
	if d.Annotations[RolledBack] == hash {
		return // This is where an undo went to. Further back there is no reason to hope.
	}
	undone, to, err := Undo(d, s.all(), 0)
	if err != nil {
		return
	}
	for _, set := range s.all() {
		if RevisionOf(set) == to {
			annotate(undone, RolledBack, set.Labels[HashLabel])
		}
	}
	*s.plan = Plan{Undo: undone}
	s.plan.note("DeadlineRollback", "%s missed its deadline of %v; back to revision %d", s.current.Name, s.deadline(), to)
}

// Changed reports whether a status is worth a write.
func Changed(old, next appsv1.DeploymentStatus) bool { return !equality.Semantic.DeepEqual(old, next) }

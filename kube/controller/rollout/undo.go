package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
)

var (
	// ErrPaused is that of an undo while a rollout is paused.
	ErrPaused = errors.New("the rollout is paused: resume it first")
	// ErrNoRevision is that of an undo to what is not in the history.
	ErrNoRevision = errors.New("no such revision")
	// ErrSame is that of an undo to what is there.
	ErrSame = errors.New("it has this template already")
)

// Undo returns a Deployment with the template of an earlier revision, and which it
// is. to is one of the revisions that History tells; 0: the one before the present.
// sets are those that the Deployment owns.
func Undo(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, to int64) (*appsv1.Deployment, int64, error) {
	if d.Spec.Paused {
		return nil, 0, fmt.Errorf("deployment %s/%s: %w", d.Namespace, d.Name, ErrPaused)
	}
	history := History(sets)
	i := slices.IndexFunc(history, func(set *appsv1.ReplicaSet) bool { return to != 0 && RevisionOf(set) == to })
	if to == 0 {
		i = len(history) - 2
	}
	if i < 0 {
		return nil, 0, fmt.Errorf("deployment %s/%s: %w; there are %s", d.Namespace, d.Name, ErrNoRevision, revisions(history))
	}
	set := history[i]
	undone := d.DeepCopy()
	if sameTemplate(&set.Spec.Template, &d.Spec.Template) {
		return nil, 0, fmt.Errorf("deployment %s/%s, revision %d: %w", d.Namespace, d.Name, RevisionOf(set), ErrSame)
	}
	undone.Spec.Template = *set.Spec.Template.DeepCopy()
	delete(undone.Spec.Template.Labels, HashLabel)
	kept := map[string]string{}
	for k, v := range d.Annotations {
		if slices.Contains(own, k) {
			kept[k] = v
		}
	}
	undone.Annotations = kept
	for k, v := range set.Annotations {
		if !slices.Contains(own, k) {
			kept[k] = v
		}
	}
	return undone, RevisionOf(set), nil
}

// History is the sets that have a revision, the oldest first.
func History(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var h []*appsv1.ReplicaSet
	for _, set := range sets {
		if RevisionOf(set) > 0 {
			h = append(h, set)
		}
	}
	slices.SortStableFunc(h, func(a, b *appsv1.ReplicaSet) int { return int(RevisionOf(a) - RevisionOf(b)) })
	return h
}

func revisions(history []*appsv1.ReplicaSet) string {
	var words []string
	for _, set := range history {
		words = append(words, strconv.FormatInt(RevisionOf(set), 10))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// undo does what the annotation asks for.
func (s *state) undo() (done bool, err error) {
	text, asked := s.Deployment.Annotations[RollbackTo]
	if !asked {
		return false, nil
	}
	to, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		err = fmt.Errorf("annotation %s=%q: it is the number of a revision", RollbackTo, text)
	}
	next, found := s.Deployment, int64(0)
	if err == nil {
		if next, found, err = Undo(s.Deployment, s.all(), to); err != nil {
			next = s.Deployment
		}
	}
	s.plan.Undo = next.DeepCopy()
	delete(s.plan.Undo.Annotations, RollbackTo)
	if err != nil {
		s.plan.Notes = append(s.plan.Notes, Note{Warning: true, Reason: "RollbackFailed", Message: err.Error()})
	} else {
		s.plan.note("Rollback", "back to revision %d", found)
	}
	return true, nil
}

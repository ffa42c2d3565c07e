package api

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// Selector is what a label selector of an object matches. None matches nothing,
// an empty one everything: Kubernetes has it so.
func Selector(l *metav1.LabelSelector) (labels.Selector, error) {
	s, err := metav1.LabelSelectorAsSelector(l)
	if err != nil {
		return nil, fmt.Errorf("label selector: %w: %w", ErrSelector, err)
	}
	return s, nil
}

// ParseSelector reads labels as people select by them: app=web,tier!=db,track in
// (a,b),!old. Empty: everything.
func ParseSelector(text string) (labels.Selector, error) {
	s, err := labels.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("label selector %q: %w: %w", text, ErrSelector, err)
	}
	return s, nil
}

// ParseFieldSelector reads what selects by fields: status.phase=Running. Which
// fields there are is the business of who answers.
func ParseFieldSelector(text string) (fields.Selector, error) {
	s, err := fields.ParseSelector(text)
	if err != nil {
		return nil, fmt.Errorf("field selector %q: %w: %w", text, ErrSelector, err)
	}
	return s, nil
}

// ControlledBy is the reference that makes an object one of its controller's: it
// is deleted after it, and, in the foreground, before it.
func ControlledBy(owner Object) metav1.OwnerReference {
	return *metav1.NewControllerRef(owner, schemaOf(KindOf(owner)))
}

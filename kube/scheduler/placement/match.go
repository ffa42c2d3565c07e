package placement

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// nodeMatch is a compiled node selector: one of its terms must hold, and the plain
// nodeSelector besides.
type nodeMatch struct {
	plain labels.Set
	terms []nodeTerm // Empty and not nil: nothing matches.
}

// nodeTerm holds where all of its parts do.
type nodeTerm struct {
	labels labels.Selector // nil: no expression.
	names  labels.Selector // Of metadata.name.
}

const nameField = "metadata.name"

func (m *nodeMatch) matches(n *Node) bool {
	if m == nil {
		return true
	}
	for k, v := range m.plain {
		if got, ok := n.labels[k]; !ok || got != v {
			return false
		}
	}
	if m.terms == nil {
		return true
	}
	return slices.ContainsFunc(m.terms, func(t nodeTerm) bool { return t.matches(n) })
}

func (t nodeTerm) matches(n *Node) bool {
	if t.labels == nil && t.names == nil { // An empty term selects nothing.
		return false
	}
	return (t.labels == nil || t.labels.Matches(n.labels)) && (t.names == nil || t.names.Matches(labels.Set{nameField: n.Name}))
}

func compileNodeTerm(t *corev1.NodeSelectorTerm) (nodeTerm, error) {
	fields, err := compileRequirements(t.MatchFields)
	if err != nil {
		return nodeTerm{}, err
	}
	exprs, err := compileRequirements(t.MatchExpressions)
	return nodeTerm{labels: exprs, names: fields}, err
}

var nodeOperators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn, corev1.NodeSelectorOpExists: selection.Exists,
	corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist, corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}

func compileRequirements(of []corev1.NodeSelectorRequirement) (labels.Selector, error) {
	if len(of) == 0 {
		return nil, nil
	}
	s := labels.NewSelector()
	for _, r := range of {
		op, ok := nodeOperators[r.Operator]
		if !ok {
			return nil, fmt.Errorf("node selector on %q: no operator %q", r.Key, r.Operator)
		}
		req, err := labels.NewRequirement(r.Key, op, r.Values)
		if err != nil {
			return nil, fmt.Errorf("node selector on %q: %w", r.Key, err)
		}
		s = s.Add(*req)
	}
	return s, nil
}

// compileNodeMatch is nil for a pod that goes anywhere.
func compileNodeMatch(spec *corev1.PodSpec) (*nodeMatch, error) {
	m := &nodeMatch{plain: spec.NodeSelector}
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		m.terms = []nodeTerm{}
		for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			compiled, err := compileNodeTerm(&t)
			if err != nil {
				return nil, err
			}
			m.terms = append(m.terms, compiled)
		}
	}
	if len(m.plain) == 0 && m.terms == nil {
		return nil, nil
	}
	return m, nil
}

// term selects pods, and the domains that they are in: the nodes that have the same
// value of the label key.
type term struct {
	id         string // Two terms with the same one mean the same.
	key        string
	namespaces []string // nil: all.
	selector   labels.Selector
	living     bool // Pods that are being deleted do not count.
}

func (t *term) matches(p *Pod) bool {
	if t.namespaces != nil && !slices.Contains(t.namespaces, p.Namespace) || t.living && p.terminating {
		return false
	}
	return t.selector.Matches(p.labels)
}

func newTerm(key string, namespaces []string, selector labels.Selector, living bool) *term {
	where := "*"
	if namespaces != nil {
		slices.Sort(namespaces)
		namespaces = slices.Compact(namespaces)
		where = strings.Join(namespaces, ",")
	}
	kind := "all"
	if living {
		kind = "living"
	}
	return &term{id: strings.Join([]string{kind, where, key, selector.String()}, "|"), key: key, namespaces: namespaces, selector: selector, living: living}
}

// nameLabel is on each namespace, with its name.
const nameLabel = "kubernetes.io/metadata.name"

// compileTerm reads a term of pod affinity of a pod in a namespace.
func compileTerm(t *corev1.PodAffinityTerm, namespace string, own labels.Set) (*term, error) {
	selector, err := withOwn(t.LabelSelector, t.MatchLabelKeys, t.MismatchLabelKeys, own)
	if err != nil {
		return nil, err
	}
	namespaces := slices.Clone(t.Namespaces)
	if s := t.NamespaceSelector; s != nil {
		if len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
			return newTerm(t.TopologyKey, nil, selector, false), nil
		}
		named, err := namedNamespaces(s)
		if err != nil {
			return nil, err
		}
		namespaces = append(namespaces, named...)
	} else if len(namespaces) == 0 {
		namespaces = []string{namespace}
	}
	if namespaces == nil {
		namespaces = []string{}
	}
	return newTerm(t.TopologyKey, namespaces, selector, false), nil
}

// namedNamespaces reads a namespace selector that goes by name: the labels of
// namespaces are not known here, but the one that each has.
func namedNamespaces(s *metav1.LabelSelector) ([]string, error) {
	if len(s.MatchExpressions) == 0 && len(s.MatchLabels) == 1 && s.MatchLabels[nameLabel] != "" {
		return []string{s.MatchLabels[nameLabel]}, nil
	}
	if len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 1 {
		if e := s.MatchExpressions[0]; e.Key == nameLabel && e.Operator == metav1.LabelSelectorOpIn {
			return e.Values, nil
		}
	}
	return nil, fmt.Errorf("namespaceSelector: only {} and %s with names are understood; list the namespaces instead", nameLabel)
}

// withOwn is a selector with the pod's own values of some labels demanded, and of
// some forbidden. No selector matches nothing.
func withOwn(s *metav1.LabelSelector, same, other []string, own labels.Set) (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return selector, nil
	}
	for i, key := range slices.Concat(same, other) {
		value, ok := own[key]
		if !ok {
			continue
		}
		op := selection.In
		if i >= len(same) {
			op = selection.NotIn
		}
		req, err := labels.NewRequirement(key, op, []string{value})
		if err != nil {
			return nil, err
		}
		selector = selector.Add(*req)
	}
	return selector, nil
}

func tolerates(all []corev1.Toleration, t *corev1.Taint) bool {
	return slices.ContainsFunc(all, func(x corev1.Toleration) bool {
		if x.Effect != "" && x.Effect != t.Effect || x.Key != "" && x.Key != t.Key {
			return false
		}
		switch x.Operator {
		case corev1.TolerationOpExists:
			return true
		case corev1.TolerationOpEqual, "":
			return x.Key != "" && x.Value == t.Value
		}
		return false // What we do not know permits nothing.
	})
}

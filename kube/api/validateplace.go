package api

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	valid "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// placement checks what says where a pod may run.
func (p *problems) placement(s *corev1.PodSpec, path *field.Path) {
	p.labels(path.Child("nodeSelector"), s.NodeSelector)
	for i := range s.Tolerations {
		p.toleration(&s.Tolerations[i], path.Child("tolerations").Index(i))
	}
	p.spread(s.TopologySpreadConstraints, path.Child("topologySpreadConstraints"))
	a, at := s.Affinity, path.Child("affinity")
	if a == nil {
		return
	}
	p.nodeAffinity(a.NodeAffinity, at.Child("nodeAffinity"))
	if x := a.PodAffinity; x != nil {
		p.podAffinity(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAffinity"))
	}
	if x := a.PodAntiAffinity; x != nil {
		p.podAffinity(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAntiAffinity"))
	}
}

const (
	requiredTerms  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferredTerms = "preferredDuringSchedulingIgnoredDuringExecution"
)

func (p *problems) nodeAffinity(a *corev1.NodeAffinity, path *field.Path) {
	if a == nil {
		return
	}
	if r := a.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		at := path.Child(requiredTerms, "nodeSelectorTerms")
		if len(r.NodeSelectorTerms) == 0 {
			p.add(field.Required(at, "without a term no node matches"))
		}
		for i := range r.NodeSelectorTerms {
			p.nodeTerm(&r.NodeSelectorTerms[i], at.Index(i))
		}
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		t, at := &a.PreferredDuringSchedulingIgnoredDuringExecution[i], path.Child(preferredTerms).Index(i)
		p.weight(t.Weight, at)
		p.nodeTerm(&t.Preference, at.Child("preference"))
	}
}

func (p *problems) weight(w int32, path *field.Path) {
	p.invalid(path.Child("weight"), w, valid.IsInRange(int(w), 1, 100))
}

func (p *problems) nodeTerm(t *corev1.NodeSelectorTerm, path *field.Path) {
	for i := range t.MatchExpressions {
		r, at := &t.MatchExpressions[i], path.Child("matchExpressions").Index(i)
		p.list = append(p.list, metavalidation.ValidateLabelName(r.Key, at.Child("key"))...)
		p.nodeRequirement(r, at)
	}
	for i := range t.MatchFields {
		r, at := &t.MatchFields[i], path.Child("matchFields").Index(i)
		oneOf(p, at.Child("key"), r.Key, metav1.ObjectNameField)
		oneOf(p, at.Child("operator"), r.Operator, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn)
		p.nodeRequirement(r, at)
	}
}

func (p *problems) nodeRequirement(r *corev1.NodeSelectorRequirement, path *field.Path) {
	at := path.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			p.add(field.Required(at, "operator "+string(r.Operator)+" compares with them"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			p.add(field.Forbidden(at, "operator "+string(r.Operator)+" compares with none"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			p.add(field.Required(at, "operator "+string(r.Operator)+" compares with one number"))
			return
		}
		if _, err := strconv.ParseInt(r.Values[0], 10, 64); err != nil {
			p.add(field.Invalid(at.Index(0), r.Values[0], "must be a whole number"))
		}
	default:
		oneOf(p, path.Child("operator"), r.Operator, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists,
			corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt)
	}
}

func (p *problems) podAffinity(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, path *field.Path) {
	for i := range required {
		p.podTerm(&required[i], path.Child(requiredTerms).Index(i))
	}
	for i := range preferred {
		at := path.Child(preferredTerms).Index(i)
		p.weight(preferred[i].Weight, at)
		p.podTerm(&preferred[i].PodAffinityTerm, at.Child("podAffinityTerm"))
	}
}

func (p *problems) podTerm(t *corev1.PodAffinityTerm, path *field.Path) {
	p.selector(path.Child("labelSelector"), t.LabelSelector)
	p.namespaces(path.Child("namespaceSelector"), t.NamespaceSelector)
	for i, ns := range t.Namespaces {
		p.invalid(path.Child("namespaces").Index(i), ns, valid.IsDNS1123Label(ns))
	}
	if p.required(path.Child("topologyKey"), t.TopologyKey, "the label of nodes that makes them one place") {
		p.list = append(p.list, metavalidation.ValidateLabelName(t.TopologyKey, path.Child("topologyKey"))...)
	}
}

// namespaces takes selectors that the scheduler understands: it does not follow the
// labels of namespaces, but each has that with its name.
func (p *problems) namespaces(path *field.Path, s *metav1.LabelSelector) {
	p.selector(path, s)
	if s == nil {
		return
	}
	const only = "only {} and " + corev1.LabelMetadataName + " In names are understood; list the namespaces instead"
	for i := range s.MatchExpressions {
		e, at := &s.MatchExpressions[i], path.Child("matchExpressions").Index(i)
		if e.Key != corev1.LabelMetadataName || e.Operator != metav1.LabelSelectorOpIn {
			p.add(field.Forbidden(at, only))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if k != corev1.LabelMetadataName || s.MatchLabels[k] == "" {
			p.add(field.Forbidden(path.Child("matchLabels").Key(k), only))
		}
	}
	if len(s.MatchExpressions)+len(s.MatchLabels) > 1 {
		p.add(field.Forbidden(path, "one requirement is understood, not several that must hold together; list the namespaces instead"))
	}
}

func (p *problems) toleration(t *corev1.Toleration, path *field.Path) {
	if t.Key != "" {
		p.list = append(p.list, metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	}
	if t.Key == "" && t.Operator != corev1.TolerationOpExists {
		p.add(field.Invalid(path.Child("operator"), t.Operator, "must be Exists when there is no key: then all taints are tolerated"))
	}
	optional(p, path.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
	if t.Operator == corev1.TolerationOpExists && t.Value != "" {
		p.add(field.Invalid(path.Child("value"), t.Value, "must be empty: operator Exists compares with none"))
	}
	optional(p, path.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		p.add(field.Invalid(path.Child("effect"), t.Effect, "must be NoExecute when there are tolerationSeconds"))
	}
}

func (p *problems) spread(constraints []corev1.TopologySpreadConstraint, path *field.Path) {
	pairs := unique{}
	for i := range constraints {
		c, at := &constraints[i], path.Index(i)
		atLeast(p, at.Child("maxSkew"), &c.MaxSkew, 1)
		if p.required(at.Child("topologyKey"), c.TopologyKey, "the label of nodes that makes them one place") {
			p.list = append(p.list, metavalidation.ValidateLabelName(c.TopologyKey, at.Child("topologyKey"))...)
		}
		oneOf(p, at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		pairs.check(p, at, fmt.Sprintf("%s, %s", c.TopologyKey, c.WhenUnsatisfiable))
		p.selector(at.Child("labelSelector"), c.LabelSelector)
		atLeast(p, at.Child("minDomains"), c.MinDomains, 1)
		if c.MinDomains != nil && c.WhenUnsatisfiable != corev1.DoNotSchedule {
			p.add(field.Invalid(at.Child("minDomains"), *c.MinDomains, "is for whenUnsatisfiable DoNotSchedule"))
		}
		if c.NodeAffinityPolicy != nil {
			oneOf(p, at.Child("nodeAffinityPolicy"), *c.NodeAffinityPolicy, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
		}
		if c.NodeTaintsPolicy != nil {
			oneOf(p, at.Child("nodeTaintsPolicy"), *c.NodeTaintsPolicy, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
		}
	}
}

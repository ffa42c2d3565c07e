package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	valid "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate checks an object whose defaults are filled in. It names every field that
// is wrong, and those that this layer refuses because it would not honour them.
func Validate(o Object) field.ErrorList {
	k := KindOf(o)
	if k == nil {
		return field.ErrorList{field.NotSupported(field.NewPath("kind"), fmt.Sprintf("%T", o), []string{kindNames()})}
	}
	p := problems{list: validation.ValidateObjectMetaAccessor(o, k.Namespaced, nameRule(k), field.NewPath("metadata"))}
	for _, f := range unsupported(o) {
		if f.is == Refused {
			p.add(field.Forbidden(f.path, f.note))
		}
	}
	p.kind(o)
	// Maps are walked on the way, and whoever reads this compares.
	slices.SortStableFunc(p.list, func(a, b *field.Error) int {
		return cmp.Or(strings.Compare(a.Field, b.Field), strings.Compare(a.Detail, b.Detail))
	})
	return p.list
}

// problems collects what is wrong.
type problems struct{ list field.ErrorList }

func (p *problems) add(errs ...*field.Error) { p.list = append(p.list, errs...) }

func (p *problems) kind(o Object) {
	spec := field.NewPath("spec")
	switch o := o.(type) {
	case *corev1.Pod:
		p.podSpec(&o.Spec, spec)
	case *appsv1.ReplicaSet:
		p.replicaSet(&o.Spec, spec)
	case *appsv1.Deployment:
		p.deployment(&o.Spec, spec)
	case *corev1.Service:
		p.service(&o.Spec, spec)
	case *discoveryv1.EndpointSlice:
		p.endpointSlice(o)
	case *corev1.ConfigMap:
		p.configMap(o)
	case *corev1.Secret:
		p.secret(o)
	case *corev1.Node:
		p.node(o)
	case *corev1.Event:
		p.event(o)
	case *coordinationv1.Lease:
		p.lease(&o.Spec, spec)
	case *autoscalingv2.HorizontalPodAutoscaler:
		p.autoscaler(&o.Spec, spec)
	case *policyv1.PodDisruptionBudget:
		p.budget(&o.Spec, spec)
	case *schedulingv1.PriorityClass:
		p.priorityClass(o)
	case *certificatesv1.CertificateSigningRequest:
		p.certRequest(&o.Spec, spec)
	}
}

// NameBytesMax is how many bytes the longest names have, of most kinds.
const NameBytesMax = valid.DNS1123SubdomainMaxLength

// NameMax is how many bytes a name of a kind may have.
func NameMax(k *Kind) int {
	switch k {
	case Namespace, Service:
		return valid.DNS1123LabelMaxLength
	}
	return NameBytesMax
}

func nameRule(k *Kind) validation.ValidateNameFunc {
	switch k {
	case Namespace:
		return validation.NameIsDNSLabel
	case Service:
		return validation.NameIsDNS1035Label
	}
	return validation.NameIsDNSSubdomain
}

// invalid adds one problem for each message of a check of the library.
func (p *problems) invalid(path *field.Path, value any, messages []string) {
	for _, m := range messages {
		p.add(field.Invalid(path, value, m))
	}
}

func (p *problems) required(path *field.Path, text, why string) bool {
	if text == "" {
		p.add(field.Required(path, why))
	}
	return text != ""
}

// oneOf checks a word against those that there are.
func oneOf[T ~string](p *problems, path *field.Path, word T, words ...T) {
	if !slices.Contains(words, word) {
		p.add(field.NotSupported(path, word, words))
	}
}

// optional is oneOf where the word may be left out.
func optional[T ~string](p *problems, path *field.Path, word T, words ...T) {
	if word != "" {
		oneOf(p, path, word, words...)
	}
}

func atLeast[N int32 | int64](p *problems, path *field.Path, n *N, least N) {
	if n != nil && *n < least {
		p.add(field.Invalid(path, *n, fmt.Sprintf("must be at least %d", least)))
	}
}

// one checks that exactly one alternative of several is there.
func (p *problems) one(path *field.Path, what string, there ...bool) {
	n := 0
	for _, t := range there {
		if t {
			n++
		}
	}
	switch {
	case n == 0:
		p.add(field.Required(path, "one of "+what+" must be there"))
	case n > 1:
		p.add(field.Forbidden(path, "only one of "+what+" may be there"))
	}
}

func (p *problems) absent(there bool, path *field.Path, why string) {
	if there {
		p.add(field.Forbidden(path, why))
	}
}

func (p *problems) port(path *field.Path, n int32) {
	p.invalid(path, n, valid.IsValidPortNum(int(n)))
}

// portOrName checks a port that may be the name of one.
func (p *problems) portOrName(path *field.Path, port intstr.IntOrString) {
	if port.Type == intstr.Int {
		p.port(path, port.IntVal)
		return
	}
	p.invalid(path, port.StrVal, valid.IsValidPortName(port.StrVal))
}

func (p *problems) labels(path *field.Path, labels map[string]string) {
	p.list = append(p.list, metavalidation.ValidateLabels(labels, path)...)
}

func (p *problems) selector(path *field.Path, s *metav1.LabelSelector) {
	p.list = append(p.list, metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)...)
}

func (p *problems) quantity(path *field.Path, q resource.Quantity) {
	if q.Sign() < 0 {
		p.add(field.Invalid(path, q.String(), "must not be negative"))
	}
}

// intOrPercent checks a count or a share, which is at most 100 % where bounded.
func (p *problems) intOrPercent(path *field.Path, v *intstr.IntOrString, bounded bool) {
	if v == nil {
		return
	}
	if v.Type == intstr.Int {
		atLeast(p, path, &v.IntVal, 0)
		return
	}
	if messages := valid.IsValidPercent(v.StrVal); len(messages) > 0 {
		p.invalid(path, v.StrVal, messages)
		return
	}
	if n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, false); err != nil || bounded && n > 100 {
		p.add(field.Invalid(path, v.StrVal, "must be at most 100%"))
	}
}

// unique tells of names that were there before.
type unique map[string]bool

func (u unique) check(p *problems, path *field.Path, name string) {
	if u[name] {
		p.add(field.Duplicate(path, name))
	}
	u[name] = true
}

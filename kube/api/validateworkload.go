package api

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (p *problems) replicaSet(s *appsv1.ReplicaSetSpec, path *field.Path) {
	atLeast(p, path.Child("replicas"), s.Replicas, 0)
	atLeast(p, path.Child("minReadySeconds"), &s.MinReadySeconds, 0)
	p.template(s.Selector, &s.Template, path)
}

func (p *problems) deployment(s *appsv1.DeploymentSpec, path *field.Path) {
	atLeast(p, path.Child("replicas"), s.Replicas, 0)
	atLeast(p, path.Child("minReadySeconds"), &s.MinReadySeconds, 0)
	atLeast(p, path.Child("revisionHistoryLimit"), s.RevisionHistoryLimit, 0)
	if d := s.ProgressDeadlineSeconds; d != nil && *d <= s.MinReadySeconds {
		p.add(field.Invalid(path.Child("progressDeadlineSeconds"), *d, "must be more than minReadySeconds"))
	}
	at := path.Child("strategy")
	oneOf(p, at.Child("type"), s.Strategy.Type, appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType)
	if r := s.Strategy.RollingUpdate; r != nil {
		at := at.Child("rollingUpdate")
		p.absent(s.Strategy.Type == appsv1.RecreateDeploymentStrategyType, at, "is for type RollingUpdate")
		p.intOrPercent(at.Child("maxUnavailable"), r.MaxUnavailable, true)
		p.intOrPercent(at.Child("maxSurge"), r.MaxSurge, false)
		if isNothing(r.MaxUnavailable) && isNothing(r.MaxSurge) {
			p.add(field.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "must not be 0 when maxSurge is: nothing could ever change"))
		}
	}
	p.template(s.Selector, &s.Template, path)
}

func isNothing(v *intstr.IntOrString) bool {
	if v == nil {
		return false
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true)
	return err == nil && n == 0
}

func (p *problems) template(s *metav1.LabelSelector, t *corev1.PodTemplateSpec, path *field.Path) {
	at := path.Child("selector")
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		p.add(field.Required(at, "the labels by which its pods are found"))
	} else {
		p.selector(at, s)
		if sel, err := metav1.LabelSelectorAsSelector(s); err == nil && !sel.Matches(labels.Set(t.Labels)) {
			p.add(field.Invalid(path.Child("template", "metadata", "labels"), t.Labels, "must be matched by the selector"))
		}
	}
	path = path.Child("template")
	p.labels(path.Child("metadata", "labels"), t.Labels)
	p.list = append(p.list, validation.ValidateAnnotations(t.Annotations, path.Child("metadata", "annotations"))...)
	if r := t.Spec.RestartPolicy; r != corev1.RestartPolicyAlways {
		p.add(field.NotSupported(path.Child("spec", "restartPolicy"), r, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	p.podSpec(&t.Spec, path.Child("spec"))
}

func (p *problems) budget(s *policyv1.PodDisruptionBudgetSpec, path *field.Path) {
	p.one(path, "minAvailable, maxUnavailable", s.MinAvailable != nil, s.MaxUnavailable != nil)
	p.intOrPercent(path.Child("minAvailable"), s.MinAvailable, true)
	p.intOrPercent(path.Child("maxUnavailable"), s.MaxUnavailable, true)
	p.selector(path.Child("selector"), s.Selector)
	if u := s.UnhealthyPodEvictionPolicy; u != nil {
		oneOf(p, path.Child("unhealthyPodEvictionPolicy"), *u, policyv1.IfHealthyBudget, policyv1.AlwaysAllow)
	}
}

// priorityMax is for what users name; the two classes of the system stand above.
const priorityMax = 1_000_000_000

func (p *problems) priorityClass(o *schedulingv1.PriorityClass) {
	if o.Value > priorityMax && o.Name != "system-cluster-critical" && o.Name != "system-node-critical" {
		p.add(field.Invalid(field.NewPath("value"), o.Value, fmt.Sprintf("must be at most %d", priorityMax)))
	}
	if o.PreemptionPolicy != nil {
		oneOf(p, field.NewPath("preemptionPolicy"), *o.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
}

func (p *problems) autoscaler(s *autoscalingv2.HorizontalPodAutoscalerSpec, path *field.Path) {
	atLeast(p, path.Child("minReplicas"), s.MinReplicas, 1)
	atLeast(p, path.Child("maxReplicas"), &s.MaxReplicas, 1)
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		p.add(field.Invalid(path.Child("maxReplicas"), s.MaxReplicas, "must be at least minReplicas"))
	}
	at := path.Child("scaleTargetRef")
	oneOf(p, at.Child("kind"), s.ScaleTargetRef.Kind, Deployment.Name, ReplicaSet.Name)
	p.required(at.Child("name"), s.ScaleTargetRef.Name, "what is scaled")
	optional(p, at.Child("apiVersion"), s.ScaleTargetRef.APIVersion, Deployment.APIVersion)
	for i := range s.Metrics {
		m, at := &s.Metrics[i], path.Child("metrics").Index(i)
		oneOf(p, at.Child("type"), m.Type, autoscalingv2.ResourceMetricSourceType, autoscalingv2.ContainerResourceMetricSourceType,
			autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType, autoscalingv2.ExternalMetricSourceType)
		p.metric(m, at)
	}
	if b := s.Behavior; b != nil {
		p.rules(b.ScaleUp, path.Child("behavior", "scaleUp"))
		p.rules(b.ScaleDown, path.Child("behavior", "scaleDown"))
	}
}

func (p *problems) metric(m *autoscalingv2.MetricSpec, path *field.Path) {
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		p.measured(m.Resource.Name, &m.Resource.Target, path.Child("resource"))
	case m.Type == autoscalingv2.ResourceMetricSourceType:
		p.add(field.Required(path.Child("resource"), "as type is Resource"))
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		at := path.Child("containerResource")
		p.required(at.Child("container"), m.ContainerResource.Container, "whose use is measured")
		p.measured(m.ContainerResource.Name, &m.ContainerResource.Target, at)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType:
		p.add(field.Required(path.Child("containerResource"), "as type is ContainerResource"))
	}
}

func (p *problems) measured(name corev1.ResourceName, t *autoscalingv2.MetricTarget, path *field.Path) {
	oneOf(p, path.Child("name"), name, corev1.ResourceCPU, corev1.ResourceMemory)
	at := path.Child("target")
	switch t.Type {
	case autoscalingv2.UtilizationMetricType:
		if t.AverageUtilization == nil {
			p.add(field.Required(at.Child("averageUtilization"), "percent of what pods ask for, as type is Utilization"))
		}
		atLeast(p, at.Child("averageUtilization"), t.AverageUtilization, 1)
	case autoscalingv2.AverageValueMetricType:
		if t.AverageValue == nil || t.AverageValue.Sign() <= 0 {
			p.add(field.Required(at.Child("averageValue"), "more than 0, as type is AverageValue"))
		}
	default:
		oneOf(p, at.Child("type"), t.Type, autoscalingv2.UtilizationMetricType, autoscalingv2.AverageValueMetricType)
	}
}

// scaleWindowSecondsMax is the longest time that a recommendation counts: an hour.
const scaleWindowSecondsMax = 3600

func (p *problems) rules(r *autoscalingv2.HPAScalingRules, path *field.Path) {
	if r == nil {
		return
	}
	if w := r.StabilizationWindowSeconds; w != nil && (*w < 0 || *w > scaleWindowSecondsMax) {
		p.add(field.Invalid(path.Child("stabilizationWindowSeconds"), *w, fmt.Sprintf("must be from 0 to %d", scaleWindowSecondsMax)))
	}
	if r.SelectPolicy != nil {
		oneOf(p, path.Child("selectPolicy"), *r.SelectPolicy, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect)
	}
	for i, policy := range r.Policies {
		at := path.Child("policies").Index(i)
		oneOf(p, at.Child("type"), policy.Type, autoscalingv2.PodsScalingPolicy, autoscalingv2.PercentScalingPolicy)
		atLeast(p, at.Child("value"), &policy.Value, 1)
		atLeast(p, at.Child("periodSeconds"), &policy.PeriodSeconds, 1)
	}
}

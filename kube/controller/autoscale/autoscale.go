// Package autoscale decides how many copies a load needs.
//
// It is a pure function from an autoscaler, its pods, what they use and what was
// decided before to a size. What was decided before is the leader's memory: after a
// change of leaders nothing shrinks before a whole window of stabilization.
//
// Always true: the size is between minReplicas and maxReplicas, and never changes
// because of samples that are missing alone.
package autoscale

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

const (
	tolerance  = 0.1
	downWindow = 300 * time.Second
)

// Use is what a pod used: thousandths of a core and bytes, by container.
type Use map[string]struct{ CPU, Memory int64 }

// Mark is a decision or a change at a time.
type Mark struct {
	At       time.Time
	Replicas int32
}

// Memory is what one autoscaler remembers.
type Memory struct {
	Since   time.Time // When it began.
	Advised []Mark
	Sizes   []Mark // The size before each change that was made.
}

// Facts are what a decision is made from.
type Facts struct {
	Scaler  *autoscalingv2.HorizontalPodAutoscaler
	Current int32         // What the target wants to have now.
	Pods    []*corev1.Pod // That it has.
	Use     map[string]Use
	Memory  Memory
	Now     time.Time
}

// Decision is what to do.
type Decision struct {
	Replicas int32
	Reason   string // Why it is not what it was.
	Status   autoscalingv2.HorizontalPodAutoscalerStatus
	Memory   Memory
}

// Make decides.
func Make(f Facts) Decision {
	d := Decision{Replicas: f.Current, Memory: f.Memory}
	if d.Memory.Since.IsZero() {
		d.Memory.Since = f.Now
	}
	d.Status = *f.Scaler.Status.DeepCopy()
	generation := f.Scaler.Generation
	d.Status.ObservedGeneration, d.Status.CurrentReplicas, d.Status.CurrentMetrics = &generation, f.Current, nil
	low, high := bounds(f.Scaler)
	if f.Current == 0 {
		f.condition(&d, autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "the target has no copies: it is switched off")
		d.Status.DesiredReplicas = 0
		return d
	}
	advice, because, problem := f.advice(&d)
	if problem != "" {
		f.condition(&d, autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetMetrics", problem)
	} else {
		f.condition(&d, autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the size follows "+because)
	}
	stable := f.stabilize(&d, advice)
	limited := f.limit(stable, d.Memory.Sizes)
	d.Replicas = min(max(limited, low), high)
	f.explain(&d, advice, stable, because)
	if d.Replicas != f.Current {
		d.Memory.Sizes = append(d.Memory.Sizes, Mark{f.Now, f.Current})
		at := metav1.NewTime(f.Now)
		d.Status.LastScaleTime = &at
	}
	d.Memory.Sizes = since(d.Memory.Sizes, f.Now.Add(-time.Hour))
	d.Status.DesiredReplicas = d.Replicas
	return d
}

func bounds(s *autoscalingv2.HorizontalPodAutoscaler) (low, high int32) {
	low = 1
	if s.Spec.MinReplicas != nil {
		low = *s.Spec.MinReplicas
	}
	return low, max(low, s.Spec.MaxReplicas)
}

// advice is the largest size that any metric asks for. Where one cannot be had, the
// others only make it larger.
func (f Facts) advice(d *Decision) (replicas int32, because, problem string) {
	valid := false
	for _, m := range f.Scaler.Spec.Metrics {
		n, status, word, err := f.metric(m)
		if err != nil {
			problem = err.Error()
			continue
		}
		d.Status.CurrentMetrics = append(d.Status.CurrentMetrics, status)
		if !valid || n > replicas {
			replicas, because = n, word
		}
		valid = true
	}
	if !valid || problem != "" && replicas < f.Current {
		return f.Current, because, cmp.Or(problem, "no metric is given")
	}
	return replicas, because, ""
}

// limit applies the policies: how much may change within a period.
func (f Facts) limit(wanted int32, sizes []Mark) int32 {
	up, down := rules(f.Scaler)
	switch {
	case wanted > f.Current:
		return min(wanted, f.allowed(up, sizes, +1))
	case wanted < f.Current:
		return max(wanted, f.allowed(down, sizes, -1))
	}
	return wanted
}

// rules are the behavior, with Kubernetes' defaults.
func rules(s *autoscalingv2.HorizontalPodAutoscaler) (up, down autoscalingv2.HPAScalingRules) {
	up.Policies = []autoscalingv2.HPAScalingPolicy{
		{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}, {Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
	}
	down.Policies = []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}
	if s.Spec.Behavior != nil {
		up, down = over(up, s.Spec.Behavior.ScaleUp), over(down, s.Spec.Behavior.ScaleDown)
	}
	return up, down
}

func over(base autoscalingv2.HPAScalingRules, given *autoscalingv2.HPAScalingRules) autoscalingv2.HPAScalingRules {
	if given == nil {
		return base
	}
	g := *given.DeepCopy()
	if len(g.Policies) == 0 {
		g.Policies = base.Policies
	}
	return g
}

// allowed is how far the policies let the size go in one direction.
func (f Facts) allowed(r autoscalingv2.HPAScalingRules, sizes []Mark, sign int32) int32 {
	selects := autoscalingv2.MaxChangePolicySelect
	if r.SelectPolicy != nil {
		selects = *r.SelectPolicy
	}
	if selects == autoscalingv2.DisabledPolicySelect {
		return f.Current
	}
	change := int64(-1) // Policies may name numbers that no size can have.
	for _, p := range r.Policies {
		began := f.Current // The size at the begin of the period.
		if in := since(sizes, f.Now.Add(-time.Duration(p.PeriodSeconds)*time.Second)); len(in) > 0 {
			began = in[0].Replicas
		}
		n := int64(p.Value)
		if p.Type == autoscalingv2.PercentScalingPolicy {
			n = int64(math.Ceil(float64(began) * float64(p.Value) / 100))
		}
		n = max(0, n-int64(sign)*(int64(f.Current)-int64(began))) // What is left of it.
		if change < 0 || selects == autoscalingv2.MaxChangePolicySelect && n > change || selects == autoscalingv2.MinChangePolicySelect && n < change {
			change = n
		}
	}
	return int32(min(max(int64(f.Current)+int64(sign)*max(0, change), 0), math.MaxInt32))
}

func since(marks []Mark, at time.Time) []Mark {
	i := slices.IndexFunc(marks, func(m Mark) bool { return m.At.After(at) })
	if i < 0 {
		return nil
	}
	return marks[i:]
}

// stabilize takes the largest advice of the window before it shrinks, the smallest
// before it grows.
func (f Facts) stabilize(d *Decision, advice int32) int32 {
	up, down := time.Duration(0), downWindow
	if b := f.Scaler.Spec.Behavior; b != nil {
		up, down = window(b.ScaleUp, up), window(b.ScaleDown, down)
	}
	d.Memory.Advised = append(since(d.Memory.Advised, f.Now.Add(-max(up, down))), Mark{f.Now, advice})
	most, least := advice, advice
	for _, m := range d.Memory.Advised {
		if f.Now.Sub(m.At) < down {
			most = max(most, m.Replicas)
		}
		if f.Now.Sub(m.At) < up {
			least = min(least, m.Replicas)
		}
	}
	if f.Now.Sub(d.Memory.Since) < down { // What was advised before is not known.
		most = max(most, f.Current)
	}
	switch {
	case advice < f.Current:
		return min(f.Current, most)
	case advice > f.Current:
		return max(f.Current, least)
	}
	return advice
}

func window(r *autoscalingv2.HPAScalingRules, base time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return base
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

func (f Facts) explain(d *Decision, advice, stable int32, because string) {
	f.condition(d, autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "the size can be changed")
	if stable != advice {
		f.condition(d, autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleDownStabilized", "other advice of the last minutes is waited for")
	}
	low, high := bounds(f.Scaler)
	switch {
	case stable > high:
		f.condition(d, autoscalingv2.ScalingLimited, corev1.ConditionTrue, "TooManyReplicas", fmt.Sprintf("%d are wanted, maxReplicas is %d", stable, high))
	case stable < low:
		f.condition(d, autoscalingv2.ScalingLimited, corev1.ConditionTrue, "TooFewReplicas", fmt.Sprintf("%d are wanted, minReplicas is %d", stable, low))
	default:
		f.condition(d, autoscalingv2.ScalingLimited, corev1.ConditionFalse, "DesiredWithinRange", "the size is within its range")
	}
	d.Reason = because
	if because == "" || d.Replicas == low && f.Current < low || d.Replicas == high && f.Current > high {
		d.Reason = "the range of sizes"
	}
}

func (f Facts) condition(d *Decision, kind autoscalingv2.HorizontalPodAutoscalerConditionType, value corev1.ConditionStatus, reason, message string) {
	c := autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: value, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(f.Now)}
	i := slices.IndexFunc(d.Status.Conditions, func(have autoscalingv2.HorizontalPodAutoscalerCondition) bool { return have.Type == kind })
	if i < 0 {
		d.Status.Conditions = append(d.Status.Conditions, c)
		return
	}
	if d.Status.Conditions[i].Status == value {
		c.LastTransitionTime = d.Status.Conditions[i].LastTransitionTime
	}
	d.Status.Conditions[i] = c
}

// counted reports whether a pod's use says anything.
func counted(pod *corev1.Pod) bool {
	return replica.Active(pod) && pod.Status.Phase == corev1.PodRunning
}

package autoscale

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// story is an autoscaler through time; what it decides is done.
type story struct {
	t       *testing.T
	scaler  *autoscalingv2.HorizontalPodAutoscaler
	current int32
	memory  Memory
	now     time.Time
}

func (s *story) number(text string) int32 {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		s.t.Fatal(err)
	}
	return int32(n)
}

func (s *story) run(c golden.Command) string {
	switch c.Name {
	case "scaler":
		s.new(c)
		return ""
	case "policy":
		s.policy(c)
		return ""
	case "load":
		return s.load(c)
	}
	s.t.Fatalf("unknown command %q", c.Name)
	return ""
}

func (s *story) new(c golden.Command) {
	low := s.number(c.Arg("min"))
	s.scaler = &autoscalingv2.HorizontalPodAutoscaler{}
	s.scaler.Spec.MinReplicas, s.scaler.Spec.MaxReplicas = &low, s.number(c.Arg("max"))
	s.current, s.memory, s.now = s.number(c.Arg("size")), Memory{}, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	if c.Has("old") { // It has looked for longer than a window.
		s.memory.Since = s.now.Add(-time.Hour)
	}
	for _, a := range c.Args {
		m := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceName(a.Key)}}
		switch a.Key {
		case "cpu":
			n := s.number(a.Value)
			m.Resource.Target = autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &n}
		case "memory":
			q := resource.MustParse(a.Value)
			m.Resource.Target = autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &q}
		default:
			continue
		}
		s.scaler.Spec.Metrics = append(s.scaler.Spec.Metrics, m)
	}
}

func (s *story) policy(c golden.Command) {
	if s.scaler.Spec.Behavior == nil {
		s.scaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	}
	r := &autoscalingv2.HPAScalingRules{}
	if text := c.Arg("window"); text != "" {
		n := s.number(text)
		r.StabilizationWindowSeconds = &n
	}
	if c.Has("disabled") {
		disabled := autoscalingv2.DisabledPolicySelect
		r.SelectPolicy = &disabled
	}
	for _, a := range c.Args {
		if a.Key == "Pods" || a.Key == "Percent" {
			value, period, _ := strings.Cut(a.Value, "/")
			r.Policies = append(r.Policies, autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.HPAScalingPolicyType(a.Key), Value: s.number(value), PeriodSeconds: s.number(period)})
		}
	}
	if c.Args[0].Key == "up" {
		s.scaler.Spec.Behavior.ScaleUp = r
	} else {
		s.scaler.Spec.Behavior.ScaleDown = r
	}
}

// load measures all pods, but the last missing ones, and decides.
func (s *story) load(c golden.Command) string {
	if text := c.Arg("after"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
	}
	missing := int32(0)
	if text := c.Arg("missing"); text != "" {
		missing = s.number(text)
	}
	f := Facts{Scaler: s.scaler, Current: s.current, Use: map[string]Use{}, Memory: s.memory, Now: s.now}
	for i := range s.current {
		p := &corev1.Pod{}
		p.Name = "p" + strconv.Itoa(int(i))
		p.Status.Phase = corev1.PodRunning
		replica.SetReady(&p.Status, true, "", s.now)
		p.Spec.Containers = []corev1.Container{{Name: "c"}}
		if !c.Has("no-requests") {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")}
		}
		f.Pods = append(f.Pods, p)
		if i >= s.current-missing {
			continue
		}
		u := struct{ CPU, Memory int64 }{}
		if text := c.Arg("cpu"); text != "" {
			u.CPU = int64(s.number(text))
		}
		if text := c.Arg("memory"); text != "" {
			q := resource.MustParse(text)
			u.Memory = q.Value()
		}
		f.Use[p.Name] = Use{"c": u}
	}
	d := Make(f)
	var b strings.Builder
	fmt.Fprintf(&b, "%d -> %d", s.current, d.Replicas)
	if d.Replicas != s.current {
		fmt.Fprintf(&b, " (%s)", d.Reason)
	}
	b.WriteString("\n")
	for _, x := range d.Status.Conditions {
		if x.Status == corev1.ConditionFalse && x.Type != autoscalingv2.ScalingLimited || x.Status == corev1.ConditionTrue && x.Type == autoscalingv2.ScalingLimited || x.Reason == "ScaleDownStabilized" {
			fmt.Fprintf(&b, "%s=%s %s: %s\n", x.Type, x.Status, x.Reason, x.Message)
		}
	}
	s.current, s.memory, s.scaler.Status = d.Replicas, d.Memory, d.Status
	return b.String()
}

func TestStories(t *testing.T) {
	s := &story{t: t}
	golden.Script(t, "testdata/stories", s.run)
}

// TestAContainerThatWasNotMeasuredHasNotUsedNothing: nothing shrinks because of it.
func TestAContainerThatWasNotMeasuredHasNotUsedNothing(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	goal := resource.MustParse("100m")
	target := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &goal}
	whole := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU, Target: target}}
	part := func(container string) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{
			Type:              autoscalingv2.ContainerResourceMetricSourceType,
			ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: corev1.ResourceCPU, Container: container, Target: target},
		}
	}
	for _, c := range []struct {
		name   string
		metric autoscalingv2.MetricSpec
		use    Use // Of each of two pods.
		want   int32
		says   string
	}{
		{"both were measured", whole, Use{"app": {CPU: 20}, "helper": {CPU: 20}}, 1, ""},
		{"one was started again just now", whole, Use{"helper": {CPU: 20}}, 2, "no pod that is ready has been measured"},
		{"the one that is meant", part("app"), Use{"app": {CPU: 20}}, 1, ""},
		{"the one that is meant was not measured", part("app"), Use{"helper": {CPU: 20}}, 2, "no pod that is ready has been measured"},
		{"there is none of that name", part("aap"), Use{"app": {CPU: 20}, "helper": {CPU: 20}}, 2, "has no container aap"},
	} {
		low := int32(1)
		scaler := &autoscalingv2.HorizontalPodAutoscaler{}
		scaler.Spec.MinReplicas, scaler.Spec.MaxReplicas, scaler.Spec.Metrics = &low, 10, []autoscalingv2.MetricSpec{c.metric}
		f := Facts{Scaler: scaler, Current: 2, Use: map[string]Use{"p0": c.use, "p1": c.use}, Memory: Memory{Since: now.Add(-time.Hour)}, Now: now}
		for _, name := range []string{"p0", "p1"} {
			p := &corev1.Pod{}
			p.Name, p.Status.Phase = name, corev1.PodRunning
			p.Spec.Containers = []corev1.Container{{Name: "app"}, {Name: "helper"}}
			replica.SetReady(&p.Status, true, "", now)
			f.Pods = append(f.Pods, p)
		}
		d := Make(f)
		text := ""
		for _, x := range d.Status.Conditions {
			if x.Type == autoscalingv2.ScalingActive && x.Status == corev1.ConditionFalse {
				text = x.Message
			}
		}
		if d.Replicas != c.want || c.says == "" && text != "" || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d copies, want %d; %q, want %q", c.name, d.Replicas, c.want, text, c.says)
		}
	}
}

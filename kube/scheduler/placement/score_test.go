package placement

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestASoftSpreadHoldsForThousandsOfPodsToo: two zones have 2,000 pods each, the third
// has ten.
func TestASoftSpreadHoldsForThousandsOfPodsToo(t *testing.T) {
	app := map[string]string{"app": "web"}
	pod := func(name string) *Pod {
		o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: app}}
		o.Spec.Containers = []corev1.Container{{Name: "c"}}
		o.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: app},
		}}
		p, err := NewPod(o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	s := New()
	for zone, pods := range map[string]int{"z1": 2000, "z2": 2000, "z3": 10} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "in-" + zone, Labels: map[string]string{"zone": zone}}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourcePods: resource.MustParse("9000")}
		s.SetNode(n)
		for i := range pods {
			s.SetPod(pod(fmt.Sprintf("%s-%d", zone, i)), n.Name)
		}
	}
	d := NewCore(1).Decide(s, pod("next"), Spread)
	for _, part := range d.Scores[0].Plugins {
		if part.Plugin == PodTopologySpread && part.Points > 0 {
			return
		}
	}
	t.Errorf("the zones are all the same to it: %+v", d.Scores)
}

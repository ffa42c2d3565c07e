package placement

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	benchNodes = 5000
	benchPods  = 10000
)

func benchCluster(b *testing.B) *Snapshot {
	s := New()
	for i := range benchNodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%04d", i), Labels: map[string]string{
			corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%10), "size": fmt.Sprint(i % 3)}}}
		n.Labels[corev1.LabelHostname] = n.Name
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		n.Status.Allocatable = corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}
		s.SetNode(n)
	}
	return s
}

// benchPod is a copy of one of 100 sets.
func benchPod(b *testing.B, i int, change func(*corev1.Pod, string)) *Pod {
	app := fmt.Sprintf("app-%d", i%100)
	yes := true
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: fmt.Sprintf("ns-%d", i%100%10), Name: fmt.Sprintf("pod-%d", i), Labels: map[string]string{"app": app},
		OwnerReferences: []metav1.OwnerReference{{UID: types.UID(app), Controller: &yes}},
	}}
	o.Spec.Containers = []corev1.Container{{Image: "builtin/demo", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("500Mi")}}}}
	if change != nil {
		change(o, app)
	}
	p, err := NewPod(o)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func spreadBy(key string) func(*corev1.Pod, string) {
	return func(o *corev1.Pod, app string) {
		o.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
	}
}

// BenchmarkPlace: how many pods a second does one core place on 5,000 nodes that have
// 10,000 pods, with what it takes to read the pod and to keep the snapshot true?
func BenchmarkPlace(b *testing.B) {
	for _, mode := range []struct {
		name   string
		change func(*corev1.Pod, string)
	}{
		{"plain", nil},
		{"selector", func(o *corev1.Pod, _ string) { o.Spec.NodeSelector = map[string]string{"size": "1"} }},
		{"spread-zone", spreadBy(corev1.LabelTopologyZone)},
		{"spread-host", spreadBy(corev1.LabelHostname)},
		{"spread-zone-selector", func(o *corev1.Pod, app string) {
			spreadBy(corev1.LabelTopologyZone)(o, app)
			o.Spec.NodeSelector = map[string]string{"size": "1"}
		}},
		{"apart", func(o *corev1.Pod, app string) {
			o.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}}}
		}},
		{"nowhere", func(o *corev1.Pod, _ string) {
			o.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("64")
		}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			s, c := benchCluster(b), NewCore(1)
			var ring [benchPods]Key
			place := func(i int) {
				p := benchPod(b, i, mode.change)
				if d := c.Decide(s, p, Spread); d.Node != "" {
					s.RemovePod(ring[i%benchPods])
					s.SetPod(p, d.Node)
					ring[i%benchPods] = p.Key
				}
			}
			for i := range benchPods {
				place(i)
			}
			b.ReportAllocs()
			i := benchPods
			for b.Loop() {
				place(i)
				i++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

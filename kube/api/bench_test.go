package api

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// BenchmarkValidate: what does it take to look at each field of a pod that is written?
func BenchmarkValidate(b *testing.B) {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.Labels = "default", "web-1", map[string]string{"app": "web"}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
	}}}
	Default(p)
	b.ReportAllocs()
	for b.Loop() {
		if errs := Validate(p); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}

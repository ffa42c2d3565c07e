package api

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestTheClassOfAPodFollowsFromWhatItsContainersAskFor(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	container := func(requests, limits corev1.ResourceList) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
	}
	whole := container(list("1", "1Gi"), list("1000m", "1024Mi"))
	for _, c := range []struct {
		is         corev1.PodQOSClass
		containers []corev1.Container
	}{
		{corev1.PodQOSBestEffort, []corev1.Container{container(nil, nil)}},
		{corev1.PodQOSBestEffort, []corev1.Container{container(list("0", ""), nil)}},
		{corev1.PodQOSGuaranteed, []corev1.Container{whole}},
		{corev1.PodQOSGuaranteed, []corev1.Container{container(nil, list("1", "1Gi"))}},
		{corev1.PodQOSBurstable, []corev1.Container{whole, container(nil, nil)}},
		{corev1.PodQOSBurstable, []corev1.Container{container(list("1", "1Gi"), nil)}},
		{corev1.PodQOSBurstable, []corev1.Container{container(list("1", "1Gi"), list("2", "1Gi"))}},
		{corev1.PodQOSBurstable, []corev1.Container{container(nil, list("1", ""))}},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: c.containers}}
		Default(p)
		if p.Status.QOSClass != c.is {
			t.Errorf("%+v: %s, want %s", c.containers, p.Status.QOSClass, c.is)
		}
	}
}

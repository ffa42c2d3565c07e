package api

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOSClass is how far a pod is from being ended where memory runs short: Guaranteed, if
// each container has limits of CPU and memory that it requests whole; BestEffort, if
// none asks for any; else Burstable.
func QOSClass(s *corev1.PodSpec) corev1.PodQOSClass {
	guaranteed, any := true, false
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			r := &list[i].Resources
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				request, limit := r.Requests[name], r.Limits[name]
				any = any || !request.IsZero() || !limit.IsZero()
				guaranteed = guaranteed && whole(r, name, request, limit)
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// whole reports whether a limit is requested whole. A limit alone is requested.
func whole(r *corev1.ResourceRequirements, name corev1.ResourceName, request, limit resource.Quantity) bool {
	_, asked := r.Requests[name]
	return !limit.IsZero() && (!asked || request.Cmp(limit) == 0)
}

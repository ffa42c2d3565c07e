package autoscale

import (
	"fmt"
	"math"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// metric is the size that one metric asks for: ceil(pods × use ÷ target), unless that
// is within the tolerance.
func (f Facts) metric(m autoscalingv2.MetricSpec) (int32, autoscalingv2.MetricStatus, string, error) {
	name, container, target, err := source(m)
	if err != nil {
		return 0, autoscalingv2.MetricStatus{}, "", err
	}
	sum, requests, ready, missing, err := f.sum(name, container, target.Type == autoscalingv2.UtilizationMetricType)
	if err != nil {
		return 0, autoscalingv2.MetricStatus{}, "", err
	}
	if ready == 0 {
		return 0, autoscalingv2.MetricStatus{}, "", fmt.Errorf("%s: no pod that is ready has been measured", name)
	}
	average := float64(sum) / float64(ready)
	value := autoscalingv2.MetricValueStatus{AverageValue: quantity(name, int64(average))}
	var ratio float64
	word := ""
	if target.Type == autoscalingv2.UtilizationMetricType {
		percent := int32(min(100*float64(sum)/float64(requests), math.MaxInt32))
		value.AverageUtilization = &percent
		ratio = 100 * float64(sum) / float64(requests) / float64(*target.AverageUtilization)
		word = fmt.Sprintf("%s: %d %% of what is requested, target %d %%", name, percent, *target.AverageUtilization)
	} else {
		goal := amount(name, *target.AverageValue)
		ratio = average / float64(goal)
		word = fmt.Sprintf("%s: %s a pod, target %s", name, value.AverageValue, target.AverageValue)
	}
	return f.size(ratio, ready, missing), status(name, container, value), word, nil
}

// size follows the ratio. A pod without a sample counts as one that makes no change
// larger: with no use when it grows, with exactly the target when it shrinks.
func (f Facts) size(ratio float64, ready, missing int32) int32 {
	if math.Abs(ratio-1) <= tolerance {
		return f.Current
	}
	all := float64(ready + missing)
	if missing > 0 {
		damped := ratio * float64(ready) / all
		if ratio < 1 {
			damped = (ratio*float64(ready) + float64(missing)) / all
		}
		if math.Abs(damped-1) <= tolerance || (damped > 1) != (ratio > 1) {
			return f.Current
		}
		ratio = damped
	}
	wanted := math.Ceil(all*ratio - 1e-9)
	n := int32(min(wanted, math.MaxInt32/2))
	if ratio > 1 && n < f.Current || ratio < 1 && n > f.Current {
		return f.Current // Pods that are on their way would be counted twice.
	}
	return n
}

func source(m autoscalingv2.MetricSpec) (corev1.ResourceName, string, autoscalingv2.MetricTarget, error) {
	var name corev1.ResourceName
	var container string
	var target autoscalingv2.MetricTarget
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		name, target = m.Resource.Name, m.Resource.Target
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		name, container, target = m.ContainerResource.Name, m.ContainerResource.Container, m.ContainerResource.Target
	default:
		return "", "", target, fmt.Errorf("metric of type %s: there are Resource and ContainerResource", m.Type)
	}
	if name != corev1.ResourceCPU && name != corev1.ResourceMemory {
		return "", "", target, fmt.Errorf("metric %s: there are cpu and memory", name)
	}
	switch {
	case target.Type == autoscalingv2.UtilizationMetricType && target.AverageUtilization != nil && *target.AverageUtilization > 0:
	case target.Type == autoscalingv2.AverageValueMetricType && target.AverageValue != nil && amount(name, *target.AverageValue) > 0:
	default:
		return "", "", target, fmt.Errorf("metric %s: its target is neither a utilization nor an average value above 0", name)
	}
	return name, container, target, nil
}

// sum adds up what the pods use and what they request.
func (f Facts) sum(name corev1.ResourceName, container string, needRequests bool) (use, requests int64, ready, missing int32, err error) {
	for _, pod := range f.Pods {
		if !replica.Active(pod) {
			continue
		}
		meant := containers(pod, container)
		if len(meant) == 0 {
			return 0, 0, 0, 0, fmt.Errorf("%s: pod %s has no container %s", name, pod.Name, container)
		}
		measured := f.Use[pod.Name]
		_, isReady := replica.Ready(pod)
		if !isReady || !counted(pod) || !measured.has(meant) {
			missing++
			continue
		}
		ready++
		for _, c := range meant {
			request, ok := c.Resources.Requests[name]
			if !ok && needRequests {
				return 0, 0, 0, 0, fmt.Errorf("%s: container %s of pod %s requests none, so that there is no utilization", name, c.Name, pod.Name)
			}
			requests += amount(name, request)
			if name == corev1.ResourceCPU {
				use += measured[c.Name].CPU
			} else {
				use += measured[c.Name].Memory
			}
		}
	}
	if needRequests && ready > 0 && requests == 0 {
		return 0, 0, 0, 0, fmt.Errorf("%s: nothing is requested, so that there is no utilization", name)
	}
	return use, requests, ready, missing, nil
}

// containers are those of a pod that are meant: the one of a name, or all.
func containers(pod *corev1.Pod, name string) []corev1.Container {
	if name == "" {
		return pod.Spec.Containers
	}
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return pod.Spec.Containers[i : i+1]
}

// has reports whether all of some containers were measured. One that was not has not
// used nothing: it has just been started again, for one.
func (u Use) has(all []corev1.Container) bool {
	return !slices.ContainsFunc(all, func(c corev1.Container) bool {
		_, ok := u[c.Name]
		return !ok
	})
}

func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func quantity(name corev1.ResourceName, n int64) *resource.Quantity {
	if name == corev1.ResourceCPU {
		return resource.NewMilliQuantity(n, resource.DecimalSI)
	}
	return resource.NewQuantity(n, resource.BinarySI)
}

func status(name corev1.ResourceName, container string, value autoscalingv2.MetricValueStatus) autoscalingv2.MetricStatus {
	if container != "" {
		return autoscalingv2.MetricStatus{
			Type:              autoscalingv2.ContainerResourceMetricSourceType,
			ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{Name: name, Container: container, Current: value},
		}
	}
	return autoscalingv2.MetricStatus{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricStatus{Name: name, Current: value}}
}

package environ

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Field is the value of a field of a pod, as a variable or a file shows it.
func Field(pod *corev1.Pod, path string, facts *Facts) (string, error) {
	if name, key, ok := strings.Cut(path, "['"); ok {
		m, there := mapsOf(pod)[name]
		if key, closed := strings.CutSuffix(key, "']"); there && closed {
			return m[key], nil
		}
		return "", fmt.Errorf("field %s of a pod: %w", path, ErrInvalid)
	}
	if m, there := mapsOf(pod)[path]; there {
		return lines(m), nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(facts.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(facts.HostIPs, ","), nil
	case "status.podIP":
		return first(facts.PodIPs), nil
	case "status.podIPs":
		return strings.Join(facts.PodIPs, ","), nil
	}
	return "", fmt.Errorf("field %s of a pod: %w", path, ErrInvalid)
}

func mapsOf(pod *corev1.Pod) map[string]map[string]string {
	return map[string]map[string]string{"metadata.labels": pod.Labels, "metadata.annotations": pod.Annotations}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// lines are a map's entries, sorted, the values quoted.
func lines(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+"="+strconv.Quote(m[name]))
	}
	return strings.Join(all, "\n")
}

// Resource is a request or a limit, in units of the divisor and rounded up. c is the
// container if the reference names none. A limit that there is not is what the node
// has for pods.
func Resource(pod *corev1.Pod, c *corev1.Container, r *corev1.ResourceFieldSelector, facts *Facts) (string, error) {
	if r.ContainerName != "" {
		if c = containerOf(&pod.Spec, r.ContainerName); c == nil {
			return "", fmt.Errorf("resource %s of container %s, which the pod does not have: %w", r.Resource, r.ContainerName, ErrInvalid)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %s of no container: %w", r.Resource, ErrInvalid)
	}
	kind, name, _ := strings.Cut(r.Resource, ".")
	quantity, known := corev1.ResourceName(name), true
	switch quantity {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
	default:
		known = strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
	}
	var q resource.Quantity
	switch {
	case known && kind == "limits":
		q = c.Resources.Limits[quantity]
		if q.IsZero() {
			q = facts.Allocatable[quantity]
		}
	case known && kind == "requests":
		q = c.Resources.Requests[quantity]
	default:
		return "", fmt.Errorf("resource %s: %w", r.Resource, ErrInvalid)
	}
	return divide(q, r.Divisor), nil
}

// powerMax of ten is more than there is of anything.
const powerMax = 64

// divide counts in thousandths and rounds up. Numbers of any size are exact.
func divide(q, divisor resource.Quantity) string {
	if divisor.Sign() <= 0 {
		divisor = resource.MustParse("1")
	}
	n, d := thousandths(q), thousandths(divisor)
	quotient, rest := new(big.Int).QuoRem(n, d, new(big.Int))
	if rest.Sign() > 0 {
		quotient.Add(quotient, big.NewInt(1))
	}
	return quotient.String()
}

func thousandths(q resource.Quantity) *big.Int {
	d := q.AsDec()
	n := new(big.Int).Set(d.UnscaledBig())
	ten := func(power int64) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(power), nil) }
	// The value is n / 10^(scale+3). One that is absurdly large, which is easily written
	// and takes for ever to work out, is another that is absurdly large.
	scale := max(int64(d.Scale())-3, -powerMax)
	if scale <= 0 {
		return n.Mul(n, ten(-scale))
	}
	quotient, rest := n.QuoRem(n, ten(scale), new(big.Int))
	if rest.Sign() > 0 {
		quotient.Add(quotient, big.NewInt(1))
	}
	return quotient
}

func containerOf(spec *corev1.PodSpec, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

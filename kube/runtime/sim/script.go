package sim

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/api"
)

// Prefix is that of the annotations.
const Prefix = "sim.holdfast.dev/"

// script is what one container does.
type script struct {
	start, readyAfter, stop time.Duration
	exits                   bool
	exitAfter               time.Duration
	exitCode                int32
	fail                    string
}

// scriptOf reads the annotations of a pod. What cannot be read is named.
func scriptOf(pod *corev1.Pod, container string) (script, error) {
	r := reader{pod: pod, container: container, init: isInit(pod, container)}
	s := script{start: r.duration("start"), readyAfter: r.duration("ready-after"), stop: r.duration("stop"), fail: r.text("fail")}
	s.exits = r.text("exit-after") != "" || r.text("exit-code") != "" || r.init
	s.exitAfter, s.exitCode = r.duration("exit-after"), r.code("exit-code")
	return s, r.err
}

// isInit reports whether a container ends before others begin.
func isInit(pod *corev1.Pod, container string) bool {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == container {
			return !api.Sidecar(c)
		}
	}
	return false
}

// reader keeps the first error.
type reader struct {
	pod       *corev1.Pod
	container string
	init      bool
	err       error
}

func (r *reader) text(key string) string {
	if v, ok := r.pod.Annotations[Prefix+key+"."+r.container]; ok {
		return v
	}
	if r.init {
		return ""
	}
	return r.pod.Annotations[Prefix+key]
}

func (r *reader) wrong(key, text, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("annotation %s%s is %q: it must be %s", Prefix, key, text, want)
	}
}

func (r *reader) duration(key string) time.Duration {
	text := r.text(key)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		r.wrong(key, text, "a duration like 200ms or 5s")
		return 0
	}
	return d
}

func (r *reader) code(key string) int32 {
	text := r.text(key)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		r.wrong(key, text, "an exit code from 0 to 255")
	}
	return int32(n)
}

// quantity is read leniently: a sample is no place to refuse anything.
func (r *reader) quantity(key string, otherwise resource.Quantity) resource.Quantity {
	if q, err := api.ParseQuantity(r.text(key)); err == nil && q.Sign() >= 0 {
		return q
	}
	return otherwise
}

package cluster

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestWhySaysThatTheSchedulerDoesNotLookAtAPod: else it seems to be late.
func TestWhySaysThatTheSchedulerDoesNotLookAtAPod(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *corev1.Pod)
		says   string // Empty: nothing.
	}{
		"plain":             {func(*corev1.Pod) {}, ""},
		"binpack":           {func(p *corev1.Pod) { p.Spec.SchedulerName = "binpack" }, ""},
		"another scheduler": {func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" }, "a scheduler called mine"},
		"gates": {func(p *corev1.Pod) {
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a/quota"}, {Name: "b/licence"}}
		}, "gates hold it, until somebody takes them out: a/quota, b/licence"},
		"on a node": {func(p *corev1.Pod) { p.Spec.SchedulerName, p.Spec.NodeName = "mine", "n1" }, ""},
	} {
		p := &corev1.Pod{}
		c.change(p)
		if text := strings.Join(troubles(p, time.Time{}), "\n"); c.says == "" && text != "" || !strings.Contains(text, c.says) {
			t.Errorf("%s: %q, want %q", name, text, c.says)
		}
	}
}

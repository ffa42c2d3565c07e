package kubelet

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

// graces are those with which a runtime was asked to stop pods.
type graces struct {
	Runtime
	all []time.Duration
}

func (g *graces) Stop(_ *corev1.Pod, grace time.Duration) { g.all = append(g.all, grace) }

// Whoever is asked to stop a pod sends its containers their signal, each time anew.
func TestAPodIsAskedToEndOnceAndAgainOnlyIfItHasToSooner(t *testing.T) {
	clk, runtime := clocktest.New(), &graces{}
	k := &Kubelet{clock: clk, runtime: runtime, events: make(chan event, eventsQueued)}
	p, pod := newPods(k), &corev1.Pod{}
	w := newWorker(pod)
	p.halt(w, pod, 30*time.Second)
	for range 10 { // It ends, and with each look less time is left.
		clk.Advance(2 * time.Second)
		p.halt(w, pod, 30*time.Second-clk.Mono())
	}
	p.halt(w, pod, 2*time.Second)
	clk.Advance(time.Second)
	p.halt(w, pod, time.Second)
	p.halt(w, pod, 0)
	if want := []time.Duration{30 * time.Second, 2 * time.Second}; !slices.Equal(runtime.all, want) {
		t.Errorf("it is asked to end with %v, want %v", runtime.all, want)
	}
	if len(k.events) != 1 {
		t.Errorf("%d events", len(k.events))
	}
}

package kubelet

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
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
	p.halt(w, pod, 30*time.Second, false)
	for range 10 { // It ends, and with each look less time is left.
		clk.Advance(2 * time.Second)
		p.halt(w, pod, 30*time.Second-clk.Mono(), false)
	}
	p.halt(w, pod, 2*time.Second, false)
	clk.Advance(time.Second)
	p.halt(w, pod, time.Second, false)
	p.halt(w, pod, 0, false)
	if want := []time.Duration{30 * time.Second, 2 * time.Second}; !slices.Equal(runtime.all, want) {
		t.Errorf("it is asked to end with %v, want %v", runtime.all, want)
	}
	if len(k.events) != 1 {
		t.Errorf("%d events", len(k.events))
	}
}

// silent is a control plane from which nothing comes.
type silent struct{ grpc.ClientConnInterface }

func (silent) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	<-ctx.Done()
	return ctx.Err()
}

// A worker that waits for an answer stops nothing. What the network swallows, it may swallow
// just before the lease ends.
func TestAWorkerOfASingletonWaitsForNoAnswerBeyondTheLease(t *testing.T) {
	clk := clocktest.New()
	k := &Kubelet{clock: clk, client: objects.New(silent{}, "test")}
	k.lease.stands(k, clk.Mono()+fenceMargin+50*time.Millisecond)
	t.Cleanup(k.lease.end)
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{api.Singleton: "true"}
	began := time.Now()
	err := newPods(k).write(t.Context(), newWorker(pod), pod, &plan{Status: &corev1.PodStatus{}})
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > callMax/2 {
		t.Errorf("it waited %v: %v", took, err)
	}
}

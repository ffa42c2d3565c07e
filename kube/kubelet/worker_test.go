package kubelet

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
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

// heard is a control plane that notes what it is asked for.
type heard struct {
	grpc.ClientConnInterface
	asked []any
}

func (h *heard) Invoke(_ context.Context, _ string, args, _ any, _ ...grpc.CallOption) error {
	h.asked = append(h.asked, args)
	return nil
}

// A pod that was deleted, and ends, may not be deleted in the store that was restored.
func TestWhatEndedBeforeARestoreIsNotToldOfThePodThatIsThere(t *testing.T) {
	h := &heard{}
	k := &Kubelet{clock: clocktest.New(), client: objects.New(h, "test")}
	p, pod := newPods(k), &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID, pod.ResourceVersion = "default", "p", "u", "7"
	pod.DeletionTimestamp = &metav1.Time{Time: noon}
	w := newWorker(pod)
	p.mu.workers[pod.UID] = w
	p.forgetVersions()
	ends := &plan{Status: &corev1.PodStatus{Phase: corev1.PodSucceeded}, Remove: true}
	if err := p.carryOut(t.Context(), w, &turn{pod: w.pod}, ends); err != nil || len(h.asked) > 0 {
		t.Errorf("before the store has told of it: %v, %v", h.asked, err)
	}
	ends.Status = nil // A turn that began before.
	if err := p.carryOut(t.Context(), w, &turn{pod: pod}, ends); err != nil || len(h.asked) != 1 {
		t.Fatalf("%v, %v", h.asked, err)
	}
	if d, ok := h.asked[0].(*kubepb.DeleteRequest); !ok || d.Preconditions.GetResourceVersion() != 7 || d.Preconditions.GetUid() != "u" {
		t.Errorf("it is removed whatever became of it: %v", h.asked[0])
	}
}

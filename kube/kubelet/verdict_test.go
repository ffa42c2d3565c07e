package kubelet

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// beside is a pod with a sidecar that runs, before the other containers.
func beside(t *testing.T, policy corev1.RestartPolicy, others ...string) *story {
	always := corev1.ContainerRestartPolicyAlways
	s := tell(t, policy, append([]string{"init:side"}, others...)...)
	s.f.Pod.Spec.InitContainers[0].RestartPolicy = &always
	s.plan("side")
	s.is("side", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	return s
}

// sided is a pod with a container and a sidecar, both of which run.
func sided(t *testing.T, policy corev1.RestartPolicy) *story {
	s := beside(t, policy, "c")
	s.plan("c")
	s.is("c", ContainerState{ID: "2", Phase: Running, Started: noon, Ready: true})
	s.plan()
	s.phase(corev1.PodRunning)
	return s
}

func (s *story) notReady() {
	s.t.Helper()
	for _, c := range s.f.Pod.Status.Conditions {
		if (c.Type == corev1.PodReady || c.Type == corev1.ContainersReady) && c.Status != corev1.ConditionFalse {
			s.t.Errorf("condition %+v", c)
		}
	}
}

// Whoever hears that a pod has ended gives its room, its ports and its name to others.
func TestAPodHasNotEndedBeforeAllOfItHas(t *testing.T) {
	s := sided(t, corev1.RestartPolicyNever)
	s.is("c", exited("2", 0, time.Second))
	if p := s.plan(); !p.Stop {
		t.Fatalf("the sidecar goes on: %+v", p)
	}
	s.phase(corev1.PodRunning)
	s.notReady()
	s.is("side", exited("1", 143, time.Second))
	s.plan()
	s.phase(corev1.PodSucceeded)

	s = sided(t, corev1.RestartPolicyAlways)
	s.f.State.Evicted = "too large"
	if p := s.plan(); !p.Stop {
		t.Fatalf("it stays: %+v", p)
	}
	s.phase(corev1.PodRunning)
	s.notReady()
	if s.f.Pod.Status.Reason != "" {
		t.Errorf("it is said why it ended, and it has not: %s", s.f.Pod.Status.Reason)
	}
	s.f.State.Evicted = "" // To end it has emptied it.
	s.is("c", exited("2", 0, time.Second))
	s.plan() // Nothing is started again.
	s.phase(corev1.PodRunning)
	s.is("side", exited("1", 0, time.Second))
	s.plan()
	s.phase(corev1.PodFailed)
	if is := s.f.Pod.Status; is.Reason != "Evicted" || is.Message != "too large" {
		t.Errorf("reason %s: %s", is.Reason, is.Message)
	}

	s = beside(t, corev1.RestartPolicyNever, "init:first", "c")
	s.plan("first")
	s.is("first", exited("2", 1, time.Second))
	if p := s.plan(); !p.Stop {
		t.Fatalf("a sidecar goes on beside nothing: %+v", p)
	}
	s.phase(corev1.PodPending)
	s.is("side", exited("1", 0, time.Second))
	s.plan()
	s.phase(corev1.PodFailed)
}

// restarted is the pod in the hands of the next kubelet, which has what was kept on disk.
func (s *story) restarted(kept *corev1.PodStatus) {
	s.f.State = PodState{}
	s.f.History = newWorker(s.f.Pod).history
	s.f.Verdict = nil
	s.f.Here = true
	if kept.Phase == corev1.PodSucceeded || kept.Phase == corev1.PodFailed {
		s.f.Verdict = kept
	}
}

// The control plane is away when a pod ends, and the kubelet is replaced before it is back.
func TestAPodThatHasEndedIsNotRunAgainByTheNextKubelet(t *testing.T) {
	s := sided(t, corev1.RestartPolicyNever)
	s.is("c", exited("2", 3, time.Second))
	told := s.f.Pod.Status.DeepCopy()
	p := s.plan()
	if p.Verdict == nil || p.Verdict.Phase != corev1.PodFailed {
		t.Fatalf("how it ends is not kept: %+v", p.Verdict)
	}
	s.f.Pod.Status = *told // The write was lost.
	s.restarted(p.Verdict)
	s.plan() // Nothing is started.
	s.phase(corev1.PodFailed)
	if is := s.f.Pod.Status.ContainerStatuses[0].State.Terminated; is == nil || is.ExitCode != 3 {
		t.Errorf("its container is told to be %+v", s.f.Pod.Status.ContainerStatuses[0])
	}
}

func TestWhatIsLeftOfAPodThatHasEndedGoesOnDuringAHold(t *testing.T) {
	s := sided(t, corev1.RestartPolicyNever)
	s.f.Hold, s.f.Here = kubepb.Hold_HOLD_ALL, true
	s.is("c", exited("2", 0, time.Second))
	for range 2 {
		if p := s.plan(); p.Stop {
			t.Errorf("the sidecar is stopped: %+v", p)
		}
	}
	s.f.Hold = kubepb.Hold_HOLD_NONE
	if p := s.plan(); !p.Stop {
		t.Errorf("the sidecar goes on: %+v", p)
	}
}

// What the store has may be from before it was asked for: it was saved then, or is not told yet.
func TestThatAPodWasDeletedConcludesNothingDuringAHold(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	s.plan()
	undeleted := s.f.Pod.DeepCopy()
	s.f.Pod.DeletionTimestamp, s.f.Hold, s.f.Here = &metav1.Time{Time: noon}, kubepb.Hold_HOLD_ALL, true
	s.is("c", exited("1", 0, time.Second))
	if p := s.plan(); p.Verdict != nil || p.Stop {
		t.Errorf("it ends: stop %t, concluded %t", p.Stop, p.Verdict != nil)
	}
	s.f.Pod, s.f.Hold = undeleted, kubepb.Hold_HOLD_NONE
	s.plan("c")
}

// Its replacement starts as soon as its lease and a short bound are over, however long it
// may take to end otherwise.
func TestASingletonThatEndsHasNoGraceOnceTheLeaseMayHaveEnded(t *testing.T) {
	grace := int64(300)
	for name, ends := range map[string]func(*story){
		"deleted": func(s *story) {
			s.f.Pod.DeletionTimestamp, s.f.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: noon.Add(300 * time.Second)}, &grace
		},
		"evicted":  func(s *story) { s.f.State.Evicted = "too large" },
		"has done": func(s *story) { s.is("c", exited("2", 0, time.Second)) },
	} {
		s := sided(t, corev1.RestartPolicyNever)
		s.f.Pod.Annotations = map[string]string{api.Singleton: "true"}
		s.f.Pod.Spec.TerminationGracePeriodSeconds = &grace
		ends(s)
		if p := s.plan(); !p.Stop || p.Grace != 300*time.Second {
			t.Fatalf("%s: %+v", name, p)
		}
		s.f.Fenced = true
		if p := s.plan(); !p.Stop || p.Grace != 0 {
			t.Errorf("%s, and nobody hears of the node: stop %t, within %v", name, p.Stop, p.Grace)
		}
	}
}

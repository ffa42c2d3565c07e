package kubelet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/api"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// story is one pod through time: what the runtime has, and what the plans said.
type story struct {
	t *testing.T
	f facts
}

func tell(t *testing.T, policy corev1.RestartPolicy, names ...string) *story {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = "default", "p", "u"
	pod.Spec.RestartPolicy = policy
	for _, n := range names {
		if init, ok := strings.CutPrefix(n, "init:"); ok {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: init})
			continue
		}
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: n})
	}
	return &story{t, facts{Pod: pod, State: PodState{Containers: map[string]ContainerState{}}, History: newWorker(pod).history, Now: noon}}
}

// is says what the runtime has of a container now.
func (s *story) is(name string, c ContainerState) {
	s.f.State.Exists = true
	s.f.State.Containers[name] = c
}

func (s *story) later(d time.Duration) {
	s.f.Mono += d
	s.f.Now = s.f.Now.Add(d)
}

// plan makes one, and takes its status as written and its verdict as kept.
func (s *story) plan(starts ...string) *plan {
	s.t.Helper()
	p := makePlan(&s.f)
	if got, want := strings.Join(p.Start, " "), strings.Join(starts, " "); got != want {
		s.t.Fatalf("at %v: starts %q, want %q", s.f.Mono, got, want)
	}
	if p.Status != nil {
		s.f.Pod.Status = *p.Status
	}
	if p.Verdict != nil {
		s.f.Verdict = p.Verdict
	}
	return p
}

func (s *story) phase(want corev1.PodPhase) {
	s.t.Helper()
	if got := s.f.Pod.Status.Phase; got != want {
		s.t.Fatalf("at %v: phase %s, want %s", s.f.Mono, got, want)
	}
}

func exited(id string, code int32, after time.Duration) ContainerState {
	return ContainerState{ID: id, Phase: Exited, ExitCode: code, Started: noon, Finished: noon.Add(after)}
}

func TestAnEndThatAnEarlierKubeletCountedIsNotCountedByAnotherFormOfItsID(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.is("c", exited("cri://u_c0ffee", 1, time.Second))
	s.plan("c")
	s.f.History = newWorker(s.f.Pod).history // Another kubelet.
	s.is("c", exited("containerd://c0ffee", 1, time.Second))
	s.plan("c")
	if h := s.f.History["c"]; h.delay != 0 || h.counted != "cri://u_c0ffee" {
		t.Errorf("it is counted again: %+v", h)
	}
	s.is("c", exited("containerd://decaf", 1, time.Second)) // The next one is.
	s.plan("c")
	if h := s.f.History["c"]; h.counted != "containerd://decaf" {
		t.Errorf("it is not counted: %+v", h)
	}
}

func TestAContainerThatFailsIsStartedAgainAfterLongerAndLongerWaits(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	waits := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300}
	for i, seconds := range waits {
		s.is("c", exited(string(rune('a'+i)), 1, time.Second))
		if seconds > 0 {
			p := s.plan()
			if p.Wake != seconds*time.Second {
				t.Fatalf("end %d: wakes after %v, want %ds", i+1, p.Wake, seconds)
			}
			s.later(p.Wake)
		}
		s.plan("c")
		s.phase(corev1.PodRunning)
	}
	if got := s.f.Pod.Status.ContainerStatuses[0]; got.RestartCount != int32(len(waits)) || got.State.Waiting == nil || got.LastTerminationState.Terminated.ExitCode != 1 {
		t.Errorf("status %+v", got)
	}
	s.is("c", exited("steady", 1, steadyRun))
	s.plan("c") // One that ran well for long begins anew.
}

func TestRestartPoliciesDecideHowAPodEnds(t *testing.T) {
	for _, c := range []struct {
		policy corev1.RestartPolicy
		code   int32
		ends   corev1.PodPhase // Empty: it goes on.
	}{
		{corev1.RestartPolicyNever, 0, corev1.PodSucceeded},
		{corev1.RestartPolicyNever, 1, corev1.PodFailed},
		{corev1.RestartPolicyOnFailure, 0, corev1.PodSucceeded},
		{corev1.RestartPolicyOnFailure, 1, ""},
		{corev1.RestartPolicyAlways, 0, ""},
	} {
		s := tell(t, c.policy, "c")
		s.plan("c")
		s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
		s.plan()
		s.phase(corev1.PodRunning)
		s.is("c", exited("1", c.code, time.Second))
		if c.ends == "" {
			s.plan("c")
			continue
		}
		s.plan()
		s.phase(c.ends)
		if p := s.plan(); !p.Stop {
			t.Errorf("%s, exit %d: what is left is not removed", c.policy, c.code)
		}
	}
}

func TestInitContainersRunOneAfterTheOtherBeforeTheRest(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "init:one", "init:two", "c")
	s.plan("one")
	s.is("one", ContainerState{ID: "1", Phase: Running, Started: noon})
	s.plan()
	s.phase(corev1.PodPending)
	s.is("one", exited("1", 0, time.Second))
	s.plan("two")
	s.is("two", exited("2", 1, time.Second))
	s.plan("two") // The first failure costs no wait.
	s.is("two", exited("3", 0, time.Second))
	s.plan("c")
	s.is("c", ContainerState{ID: "4", Phase: Running, Started: noon, Ready: true})
	s.plan()
	s.phase(corev1.PodRunning)
	for _, c := range s.f.Pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			t.Errorf("condition %s is %s", c.Type, c.Status)
		}
	}
}

func TestAnInitContainerThatFailsForGoodFailsThePod(t *testing.T) {
	s := tell(t, corev1.RestartPolicyNever, "init:one", "c")
	s.plan("one")
	s.is("one", exited("1", 3, time.Second))
	s.plan()
	s.phase(corev1.PodFailed)
}

func TestAnImageThatIsNotThereIsAskedForLessAndLess(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	for i, want := range []struct {
		reason string
		wake   time.Duration
	}{{"ErrImagePull", 10}, {"ImagePullBackOff", 20}, {"ImagePullBackOff", 40}} {
		s.is("c", ContainerState{ID: string(rune('a' + i)), Phase: Refused, Reason: "ErrImagePull", Message: "not found"})
		p := s.plan()
		if got := s.f.Pod.Status.ContainerStatuses[0]; got.State.Waiting.Reason != want.reason || p.Wake != want.wake*time.Second || got.RestartCount != 0 {
			t.Fatalf("refusal %d: %+v, wakes after %v", i+1, got, p.Wake)
		}
		if len(p.Events) != 1 || p.Events[0].kind != corev1.EventTypeWarning {
			t.Fatalf("refusal %d: events %v", i+1, p.Events)
		}
		s.phase(corev1.PodPending)
		s.later(p.Wake)
		s.plan("c")
	}
}

func TestWhatARegistrySaysFillsNoStatus(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	page := strings.Repeat("<p>é</p>", 10_000)
	s.is("c", ContainerState{ID: "a", Phase: Refused, Reason: "ErrImagePull", Message: page})
	s.plan()
	if got := s.f.Pod.Status.ContainerStatuses[0].State.Waiting.Message; len(got) > statusBytesMax || len(got) < statusBytesMax-4 || !strings.HasPrefix(page, got) {
		t.Errorf("a status has %d bytes of what was said", len(got))
	}
	k := &Kubelet{events: make(chan event, 1), clock: clocktest.New()}
	k.noteNode(note{corev1.EventTypeWarning, "Failed", page})
	if got := (<-k.events).note.message; len(got) > eventBytesMax {
		t.Errorf("an event has %d bytes of it", len(got))
	}
}

// The object that a container names may come at any time, and nobody tells the node.
func TestWhatIsNotThereYetIsLookedForEachSecondAndToldOnce(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	for i := range 20 {
		s.is("c", ContainerState{ID: fmt.Sprint(i), Phase: Refused, Reason: "CreateContainerConfigError", Message: "secret: not there", Missing: true})
		p := s.plan()
		if got := s.f.Pod.Status.ContainerStatuses[0]; got.State.Waiting.Reason != "CreateContainerConfigError" || p.Wake != time.Second || (len(p.Events) == 1) != (i == 0) || (p.Status != nil) != (i == 0) {
			t.Fatalf("refusal %d: %+v, wakes after %v, events %v, status %v", i+1, got, p.Wake, p.Events, p.Status)
		}
		s.later(p.Wake)
		s.plan("c")
		s.is("c", ContainerState{Phase: Creating})
		if p := s.plan(); p.Status != nil { // It would be written twice a second.
			t.Fatalf("attempt %d: status %+v", i+1, p.Status.ContainerStatuses)
		}
	}
}

func TestAPodThatIsDeletedIsStoppedFirstAndRemovedLast(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	s.plan()
	grace := int64(30)
	s.f.Pod.DeletionTimestamp, s.f.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: noon.Add(30 * time.Second)}, &grace
	if p := s.plan(); !p.Stop || p.Remove || p.Grace != 30*time.Second {
		t.Fatalf("plan %+v", p)
	}
	grace = 2 // Somebody is in a hurry.
	if p := s.plan(); !p.Stop || p.Remove || p.Grace != 2*time.Second {
		t.Fatalf("plan of one that has less time now %+v", p)
	}
	s.f.State = PodState{}
	if p := s.plan(); !p.Remove {
		t.Fatalf("plan of nothing %+v", p)
	}
}

// The time of a deletion is the control plane's. Where the node's clock is ahead, containers
// would be killed without a signal before.
func TestANodeWhoseClockIsAheadGivesTheGraceThatWasAskedFor(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, 20 * time.Second, time.Hour} {
		s := tell(t, corev1.RestartPolicyAlways, "c")
		s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
		s.plan()
		grace := int64(30)
		s.f.Pod.DeletionTimestamp, s.f.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: noon.Add(30 * time.Second)}, &grace
		s.f.Now = noon.Add(ahead)
		if p := s.plan(); !p.Stop || p.Grace != 30*time.Second {
			t.Errorf("a clock that is %v ahead: stop %t, within %v", ahead, p.Stop, p.Grace)
		}
	}
}

func TestASingletonStopsWhenTheLeaseMayHaveEndedAndOthersGoOn(t *testing.T) {
	for _, single := range []bool{true, false} {
		s := tell(t, corev1.RestartPolicyAlways, "c")
		if single {
			s.f.Pod.Annotations = map[string]string{api.Singleton: "true"}
		}
		s.plan("c")
		s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
		s.plan()
		s.f.Fenced = true
		if p := s.plan(); p.Stop != single {
			t.Errorf("singleton %t: stop %t", single, p.Stop)
		}
		if single {
			s.f.State = PodState{Containers: map[string]ContainerState{}}
			s.plan() // Nothing is started.
			s.f.Fenced = false
			s.plan("c")
		}
	}
}

func TestHowContainersEndedIsToldBeforeTheObjectGoes(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	s.plan()
	grace := int64(30)
	s.f.Pod.DeletionTimestamp, s.f.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: noon.Add(30 * time.Second)}, &grace
	if p := s.plan(); !p.Stop || p.Remove || p.Grace != 30*time.Second {
		t.Fatalf("a pod that is deleted: %+v", p)
	}
	s.is("c", exited("1", 143, time.Second))
	s.f.State.Exists = false
	p := s.plan()
	if !p.Remove || p.Status == nil {
		t.Fatalf("a pod that has ended: %+v", p)
	}
	if is := p.Status.ContainerStatuses[0].State.Terminated; is == nil || is.ExitCode != 143 || p.Status.ContainerStatuses[0].Ready {
		t.Errorf("status %+v", p.Status.ContainerStatuses[0])
	}
	if p := s.plan(); !p.Remove || p.Status != nil {
		t.Errorf("what is told already: %+v", p)
	}
}

func TestAPodThatCannotStayFailsAndIsStoppedWithItsGrace(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	grace := int64(7)
	s.f.Pod.Spec.TerminationGracePeriodSeconds = &grace
	s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	s.plan()
	s.f.State.Evicted = "too large"
	if p := s.plan(); !p.Stop || p.Grace != 7*time.Second {
		t.Errorf("%+v", p)
	}
	s.is("c", exited("1", 143, time.Second))
	p := s.plan()
	if !p.Stop || p.Status == nil || p.Status.Reason != "Evicted" || p.Status.Message != "too large" {
		t.Errorf("%+v, status %+v", p, p.Status)
	}
	s.phase(corev1.PodFailed)
	grace = 9_999_999_999 // Than a time can hold.
	if got := graceOf(s.f.Pod); got < 24*time.Hour {
		t.Errorf("a grace of %d seconds is %v", grace, got)
	}
}

func TestASidecarThatHasNotStartedYetHoldsUpTheOthers(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "init:side", "c")
	always := corev1.ContainerRestartPolicyAlways
	s.f.Pod.Spec.InitContainers[0].RestartPolicy = &always
	s.plan("side")
	s.is("side", ContainerState{ID: "1", Phase: Running, Started: noon, Starting: true})
	s.plan()
	if started := s.f.Pod.Status.InitContainerStatuses[0].Started; started == nil || *started {
		t.Error("it is said to have started")
	}
	s.is("side", ContainerState{ID: "1", Phase: Running, Started: noon})
	s.plan("c")
}

// A server refuses a status of another phase than that in which a pod has ended, and with it
// all that comes after: the object would stay for ever.
func TestAPodStaysInThePhaseInWhichItEnded(t *testing.T) {
	grace := int64(30)
	s := sided(t, corev1.RestartPolicyAlways)
	s.f.Pod.DeletionTimestamp, s.f.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: noon.Add(30 * time.Second)}, &grace
	s.is("c", exited("2", 0, time.Second))
	s.plan()
	s.phase(corev1.PodRunning)
	s.is("side", exited("1", 143, time.Second)) // It is told to end, and has no word for that.
	if p := s.plan(); p.Status == nil || p.Status.InitContainerStatuses[0].State.Terminated == nil {
		t.Errorf("plan %+v", p)
	}
	s.phase(corev1.PodSucceeded)
	s.f.State = PodState{Containers: map[string]ContainerState{"c": exited("2", 1, time.Second)}} // Whatever is thought later.
	s.plan()
	s.phase(corev1.PodSucceeded)

	s = tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	s.plan()
	s.f.State.Evicted = "too large"
	s.plan()
	s.is("c", exited("1", 0, time.Second))
	s.plan()
	s.phase(corev1.PodFailed)
	s.f.Pod.DeletionTimestamp, s.f.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: noon}, new(int64)
	s.plan()
	s.phase(corev1.PodFailed)
}

// What is stopped because the rest of its pod has ended would be said to run for as long as
// the object is there.
func TestHowTheRestOfAPodThatHasEndedDidIsTold(t *testing.T) {
	s := beside(t, corev1.RestartPolicyNever, "c")
	s.plan("c")
	s.is("c", exited("2", 0, time.Second))
	if p := s.plan(); !p.Stop {
		t.Fatalf("the sidecar goes on: %+v", p)
	}
	s.is("side", exited("1", 143, time.Second))
	s.f.State.Exists = false
	s.plan()
	s.phase(corev1.PodSucceeded)
	if is := s.f.Pod.Status.InitContainerStatuses[0]; is.State.Terminated == nil || is.State.Terminated.ExitCode != 143 || is.Ready {
		t.Errorf("the sidecar is told to be %+v", is)
	}
	for _, known := range []map[string]ContainerState{nil, {"c": exited("2", 0, time.Minute)}} { // To another kubelet.
		s.f.State = PodState{Containers: known}
		if p := s.plan(); p.Status != nil {
			t.Errorf("the runtime knows of %v, and the status is %+v", known, p.Status)
		}
	}
}

func TestAContainerWhosePodNamesAnotherImageIsStartedAgain(t *testing.T) {
	for policy, want := range map[corev1.RestartPolicy]string{corev1.RestartPolicyAlways: "[c]", corev1.RestartPolicyNever: "[]"} {
		s := tell(t, policy, "c")
		s.f.Pod.Spec.Containers[0].Image = "web:1"
		s.plan("c")
		s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Image: "web:1", Ready: true})
		if p := s.plan(); len(p.Renew) > 0 {
			t.Errorf("%s: it has the image, and is told to end: %v", policy, p.Renew)
		}
		s.f.Pod.Spec.Containers[0].Image = "web:2"
		if p := s.plan(); fmt.Sprint(p.Renew) != want {
			t.Errorf("%s: told to end: %v, want %s", policy, p.Renew, want)
		}
		if p := s.plan(); len(p.Renew) > 0 {
			t.Errorf("%s: told to end again: %v", policy, p.Renew)
		}
		if got := s.f.Pod.Status.ContainerStatuses[0].Image; got != "web:1" {
			t.Errorf("%s: it runs from %s", policy, got)
		}
		if policy == corev1.RestartPolicyNever {
			continue
		}
		s.is("c", exited("1", 0, time.Second))
		s.plan("c")
		s.is("c", ContainerState{ID: "2", Phase: Running, Started: noon, Image: "web:2"})
		if p := s.plan(); len(p.Renew) > 0 || s.f.Pod.Status.ContainerStatuses[0].Image != "web:2" {
			t.Errorf("then %+v", p)
		}
	}
}

func TestWhatRunsOfAPodThatHasFailedIsNotReady(t *testing.T) {
	s := tell(t, corev1.RestartPolicyAlways, "c")
	s.plan("c")
	s.is("c", ContainerState{ID: "1", Phase: Running, Started: noon, Ready: true})
	s.plan()
	s.f.State.Evicted = "too large"
	for range 2 {
		s.plan()
		s.notReady()
	}
}

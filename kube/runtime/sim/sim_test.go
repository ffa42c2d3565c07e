package sim

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/kubelet"
)

var (
	_ kubelet.Runtime = (*Runtime)(nil)
	_ kubelet.Meter   = (*Runtime)(nil)
)

// watched is a runtime, and a channel that holds something for each change.
type watched struct {
	*Runtime
	changed chan struct{}
}

func pair(t *testing.T, annotations map[string]string) (*clocktest.Fake, *watched, *corev1.Pod) {
	clk := clocktest.New()
	r := &watched{changed: make(chan struct{}, 100)}
	r.Runtime = New(Config{Clock: clk, Subnet: "10.1.2.0/24", Changed: func(types.UID) { r.changed <- struct{}{} }})
	t.Cleanup(r.Close)
	pod := &corev1.Pod{}
	pod.UID, pod.Annotations = "u", map[string]string{}
	for k, v := range annotations {
		pod.Annotations[Prefix+k] = v
	}
	pod.Spec.Containers = []corev1.Container{{Name: "c"}}
	return clk, r, pod
}

func TestAContainerDoesWhatItsAnnotationsSay(t *testing.T) {
	type at struct {
		after time.Duration
		phase kubelet.Phase
		ready bool
		code  int32
	}
	for _, c := range []struct {
		name        string
		annotations map[string]string
		story       []at
	}{
		{"nothing said", nil, []at{{0, kubelet.Running, true, 0}}},
		{"slow start", map[string]string{"start": "200ms"}, []at{{0, kubelet.Creating, false, 0}, {200 * time.Millisecond, kubelet.Running, true, 0}}},
		{"ready later", map[string]string{"ready-after": "2s"}, []at{{0, kubelet.Running, false, 0}, {2 * time.Second, kubelet.Running, true, 0}}},
		{"ends", map[string]string{"exit-after": "5s", "exit-code": "3", "ready-after": "1s"}, []at{
			{0, kubelet.Running, false, 0}, {time.Second, kubelet.Running, true, 0}, {4 * time.Second, kubelet.Exited, false, 3},
		}},
		{"ends at once", map[string]string{"exit-code": "1"}, []at{{0, kubelet.Exited, false, 1}}},
		{"is refused", map[string]string{"fail": "ErrImagePull"}, []at{{0, kubelet.Refused, false, 0}}},
		{"of another container", map[string]string{"exit-code.other": "1"}, []at{{0, kubelet.Running, true, 0}}},
		{"of this container", map[string]string{"exit-code.c": "1"}, []at{{0, kubelet.Exited, false, 1}}},
		{"nonsense", map[string]string{"start": "soon"}, []at{{0, kubelet.Refused, false, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk, r, pod := pair(t, c.annotations)
			r.Start(pod, "c")
			for _, want := range c.story {
				clk.Advance(want.after)
				r.until(t, pod, func(s kubelet.PodState) bool {
					got := s.Containers["c"]
					return got.Phase == want.phase && got.Ready == want.ready && got.ExitCode == want.code
				})
			}
		})
	}
}

// until waits for what a timer's own goroutine does.
func (r *watched) until(t *testing.T, pod *corev1.Pod, so func(kubelet.PodState) bool) {
	t.Helper()
	for !so(r.Status(pod)) {
		select {
		case <-r.changed:
		case <-time.After(time.Minute):
			t.Fatalf("it is %+v", r.Status(pod))
		}
	}
}

func TestAContainerUsesWhatItSaysOrElseWhatItRequests(t *testing.T) {
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	for _, c := range []struct {
		name        string
		annotations map[string]string
		requests    corev1.ResourceList
		milli, mebi int64
	}{
		{"says", map[string]string{"cpu": "120m", "memory": "8Mi"}, requests, 120, 8},
		{"requests", nil, requests, 200, 64},
		{"says one", map[string]string{"cpu": "120m"}, requests, 120, 64},
		{"neither", nil, nil, 1, 1},
		{"nonsense", map[string]string{"cpu": "much"}, requests, 200, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, r, pod := pair(t, c.annotations)
			pod.Spec.Containers[0].Resources.Requests = c.requests
			r.Start(pod, "c")
			use := r.Usage(pod)["c"]
			if use.GetCpuMillis() != c.milli || use.GetMemoryBytes() != c.mebi<<20 {
				t.Errorf("uses %v, want %dm and %dMi", use, c.milli, c.mebi)
			}
		})
	}
}

func TestAPodThatIsStoppedTakesItsTimeButNoMoreThanItIsGiven(t *testing.T) {
	clk, r, pod := pair(t, map[string]string{"stop": "1m"})
	r.Start(pod, "c")
	r.Stop(pod, 30*time.Second)
	clk.Advance(10 * time.Second)
	if !r.Status(pod).Exists {
		t.Fatal("it is gone already")
	}
	r.Stop(pod, time.Second) // Hurry.
	clk.Advance(time.Second)
	r.until(t, pod, func(s kubelet.PodState) bool { return !s.Exists })
}

func TestWhatAStatusTellsIsFoundAgain(t *testing.T) {
	clk, r, pod := pair(t, map[string]string{"exit-after": "60s"})
	pod.Status.Phase, pod.Status.PodIP = corev1.PodRunning, "10.1.2.2"
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: idPrefix + "u/c/1-1", State: corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(clk.Wall().Add(-20 * time.Second))},
	}}}
	r.Adopt([]*corev1.Pod{pod})
	got := r.Status(pod)
	if c := got.Containers["c"]; got.IP != "10.1.2.2" || c.Phase != kubelet.Running || c.ID != idPrefix+"u/c/1-1" || !c.Ready {
		t.Fatalf("found %+v", got)
	}
	other := pod.DeepCopy()
	other.UID = "v"
	r.Start(other, "c")
	if ip := r.Status(other).IP; ip != "10.1.2.3" {
		t.Errorf("the next address is %s", ip)
	}
	clk.Advance(40 * time.Second)
	r.until(t, pod, func(s kubelet.PodState) bool { return s.Containers["c"].Phase == kubelet.Exited })
}

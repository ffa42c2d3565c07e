package pods_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

func TestHooksRunAfterTheStartAndBeforeTheEnd(t *testing.T) {
	s := begin(t)
	var mu sync.Mutex
	var ran []string
	s.engine.Run = func(_ context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
		mu.Lock()
		defer mu.Unlock()
		ran = append(ran, strings.Join(spec.Command, " "))
		return 0, nil
	}
	o := podOf("c")
	hook := func(command string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{command}}}
	}
	o.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: hook("after"), PreStop: hook("before")}
	s.runs(o, "c")
	s.until("it is ready", func() bool { return s.state(o, "c").Ready })
	s.runtime.Stop(o, 10*time.Second)
	s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	if !slices.Equal(ran, []string{"after", "before"}) {
		t.Errorf("ran %q", ran)
	}
}

func TestAContainerWhoseFirstHookFailsIsEnded(t *testing.T) {
	s := begin(t)
	s.engine.Run = func(context.Context, string, *runtime.ExecSpec) (int32, error) { return 1, nil }
	o := podOf("c")
	o.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	s.runtime.Start(o, "c")
	s.until("it has ended", func() bool { return s.state(o, "c").Phase == kubelet.Exited && s.told("FailedPostStartHook") })
}

// A hook that never ends takes the grace, and no more than two seconds beside.
func TestAHookBeforeTheEndTakesFromTheGrace(t *testing.T) {
	s := begin(t)
	begun := make(chan struct{}, 1)
	s.engine.Run = func(ctx context.Context, _ string, _ *runtime.ExecSpec) (int32, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	}
	o := podOf("c")
	o.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	s.runs(o, "c")
	s.engine.Stubborn("u1", "c")
	s.runtime.Stop(o, 10*time.Second)
	<-begun
	s.clock.Advance(10*time.Second - 1)
	s.calls("open u1", "start c 0")
	s.within(1, "the grace is over", func() bool { return slices.Contains(s.engine.Calls(), "stop c 2s") })
	s.within(3*time.Second, "it is gone", func() bool { return !s.runtime.Status(o).Exists })
	s.until("the hook's failure is told", func() bool { return s.told("FailedPreStopHook") })
}

func TestAContainerThatFailsItsLivenessProbeIsEnded(t *testing.T) {
	s := begin(t)
	s.engine.Run = func(context.Context, string, *runtime.ExecSpec) (int32, error) { return 1, nil }
	o := podOf("c")
	grace := int64(3)
	o.Spec.Containers[0].LivenessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"alive"}}},
		PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 2, SuccessThreshold: 1, TerminationGracePeriodSeconds: &grace,
	}
	s.runs(o, "c")
	s.passes("it has ended", func() bool { return s.state(o, "c").Phase == kubelet.Exited })
	if !slices.Contains(s.engine.Calls(), "stop c 3s") || !s.told("Unhealthy") || !s.told("Killing") {
		t.Errorf("calls %q, events %q", s.engine.Calls(), s.events)
	}
	if !s.runtime.Status(o).Exists {
		t.Error("the pod ended with its container")
	}
}

func TestAContainerIsReadyWhenItsProbesSaySo(t *testing.T) {
	s := begin(t)
	var mu sync.Mutex
	answers := map[string]int32{"started": 1, "ready": 1}
	s.engine.Run = func(_ context.Context, _ string, spec *runtime.ExecSpec) (int32, error) {
		mu.Lock()
		defer mu.Unlock()
		return answers[spec.Command[0]], nil
	}
	set := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		answers[what] = 0
	}
	o := podOf("c")
	probe := func(command string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{command}}},
			PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 1000, SuccessThreshold: 1,
		}
	}
	o.Spec.Containers[0].StartupProbe, o.Spec.Containers[0].ReadinessProbe = probe("started"), probe("ready")
	s.runs(o, "c")
	if c := s.state(o, "c"); !c.Starting || c.Ready {
		t.Errorf("at first %+v", c)
	}
	set("started")
	s.passes("it has started", func() bool { return !s.state(o, "c").Starting })
	if s.state(o, "c").Ready {
		t.Error("it is ready before its probe says so")
	}
	set("ready")
	s.passes("it is ready", func() bool { return s.state(o, "c").Ready })
}

// That the kubelet starts anew is no reason to take a container from its service.
func TestAContainerThatWasReadyIsSoUntilItsProbeSaysOtherwise(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	o.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ready"}}},
		PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1, InitialDelaySeconds: 5,
	}
	s.runs(o, "c")
	s.passes("it is ready", func() bool { return s.state(o, "c").Ready })
	started := true
	id := strings.Replace(s.state(o, "c").ID, "fake://", "cri://u1_", 1) // As kubelets before wrote it.
	o.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: id, Ready: true, Started: &started}}
	s.engine.Run = func(context.Context, string, *runtime.ExecSpec) (int32, error) { return 1, nil }
	s.restart(o)
	if c := s.state(o, "c"); !c.Ready || c.Starting {
		t.Errorf("at first %+v", c)
	}
	if took := s.passes("it is not", func() bool { return !s.state(o, "c").Ready }); took < 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestUseOfTheProcessorIsTakenFromTwoLooks(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.runs(o, "c")
	s.clock.Advance(10 * time.Second)
	s.engine.Uses("u1", "c", runtime.Use{CPU: 5 * time.Second, MemoryBytes: 7})
	if u := s.runtime.Usage(o)["c"]; u.GetCpuMillis() != 500 || u.GetMemoryBytes() != 7 {
		t.Errorf("since the start: %v", u)
	}
	s.clock.Advance(10 * time.Second)
	s.engine.Uses("u1", "c", runtime.Use{CPU: 6 * time.Second, MemoryBytes: 8})
	if u := s.runtime.Usage(o)["c"]; u.GetCpuMillis() != 100 || u.GetMemoryBytes() != 8 {
		t.Errorf("since the last look: %v", u)
	}
	if u := s.runtime.Usage(podOf("x")); len(u) != 1 {
		t.Errorf("the containers are those that run: %v", u)
	}
}

func TestPrivateRegistriesGetTheLoginsThatAPodNames(t *testing.T) {
	s := begin(t)
	secret := &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"https://index.docker.io/v1/":{"username":"u","password":"p"}}}`)}}
	secret.Name = "login"
	s.objects.secrets["login"] = secret
	o := podOf("c")
	o.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "login"}, {Name: "missing"}}
	s.runs(o, "c")
	if got := s.images.logins; len(got) != 1 || got[0].Registry != "docker.io" || got[0].User != "u" {
		t.Errorf("logins %+v", got)
	}
	if !s.told("imagePullSecret missing") {
		t.Errorf("events %q", s.events)
	}
}

func TestAPortAtTheAddressOfAPodAloneIsReached(t *testing.T) {
	s := begin(t)
	node := &corev1.Node{}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	s.runtime.NodeChanged(node)
	o := podOf("c")
	o.Spec.HostNetwork = true
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	o.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}},
		PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1,
	}
	s.runs(o, "c") // Nobody listens on its localhost: the engine refuses all.
	s.passes("it is ready", func() bool { return s.state(o, "c").Ready })
	l.Close()
	s.passes("it is not", func() bool { return !s.state(o, "c").Ready })
}

// A node that starts with a hundred pods would else ask all of them in one moment, again and
// again.
func TestContainersThatAreFoundAreNotAllAskedAtOnce(t *testing.T) {
	s := begin(t)
	s.spread = func() float64 { return 0.5 }
	asked := make(chan struct{}, 100)
	s.engine.Run = func(context.Context, string, *runtime.ExecSpec) (int32, error) {
		asked <- struct{}{}
		return 0, nil
	}
	o := podOf("c")
	o.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ready"}}},
		PeriodSeconds: 10, TimeoutSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1,
	}
	s.runs(o, "c")
	s.until("it is asked when it has begun", func() bool { return len(asked) == 1 })
	s.restart(o)
	if took := s.passes("it is asked", func() bool { return len(asked) == 2 }); took < 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

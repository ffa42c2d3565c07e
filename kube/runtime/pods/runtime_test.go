package pods_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/pods"
	"github.com/holdfast-db/holdfast/kube/runtime/runtimetest"
	"github.com/holdfast-db/holdfast/kube/volume"
)

// patience is how long a test waits for what should happen at once.
const patience = 60 * time.Second

// scene is a node whose engine is in memory.
type scene struct {
	*testing.T
	dir     string
	clock   *clocktest.Fake
	engine  *runtimetest.Engine
	runtime *pods.Runtime
	images  *images
	objects *store
	spread  func() float64

	mu     sync.Mutex
	events []string
}

// wires lead nowhere.
type wires struct{}

func (wires) DNS(*corev1.Pod) runtime.DNS     { return runtime.DNS{Servers: []string{"192.0.2.53"}} }
func (wires) Publish(*corev1.Pod, netip.Addr) {}
func (wires) Unpublish(string)                {}

// images has every image, unless told otherwise.
type images struct {
	mu     sync.Mutex
	errs   map[string]error
	wait   chan struct{} // Nil: no image is waited for.
	logins image.Logins
}

func (i *images) Resolve(ctx context.Context, ref string, _ corev1.PullPolicy, logins image.Logins) (*runtime.Image, error) {
	i.mu.Lock()
	err, wait := i.errs[ref], i.wait
	i.logins = logins
	i.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return &runtime.Image{Ref: ref, ID: "sha256:" + ref}, nil
}

func (i *images) Collect(context.Context, map[string]bool) error { return nil }

func (i *images) List(context.Context) ([]image.Info, error) { return nil, nil }

func (i *images) fail(ref string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.errs[ref] = err
}

// store has objects that pods name.
type store struct {
	mu      sync.Mutex
	secrets map[string]*corev1.Secret
	maps    map[string]*corev1.ConfigMap
}

func (s *store) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.secrets[name]; o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("secret %s: %w", name, objects.ErrNotFound)
}

func (s *store) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.maps[name]; o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("config map %s: %w", name, objects.ErrNotFound)
}

func (s *store) add(name string, data map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &corev1.ConfigMap{Data: data}
	m.Name = name
	s.maps[name] = m
}

func begin(t *testing.T) *scene {
	leak.Check(t)
	s := &scene{T: t, dir: t.TempDir(), clock: clocktest.New(), images: &images{errs: map[string]error{}},
		objects: &store{secrets: map[string]*corev1.Secret{}, maps: map[string]*corev1.ConfigMap{}}}
	s.engine = runtimetest.New(s.clock, func(text string) { t.Error("misuse of the engine:", text) })
	s.open()
	t.Cleanup(func() {
		if err := s.runtime.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// open makes a runtime, as a kubelet that starts does.
func (s *scene) open() {
	s.Helper()
	node := &corev1.Node{}
	node.Name = "n"
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	node.Status.Capacity = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	volumes, err := volume.New(volume.Config{
		Dir: s.dir, Objects: s.objects, Allocatable: func() corev1.ResourceList { return node.Status.Capacity }, Clock: s.clock, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		s.Fatal(err)
	}
	s.runtime, err = pods.Open(s.Context(), pods.Config{
		NewEngine: func(_ context.Context, changed runtime.Changed) (runtime.Engine, error) {
			s.engine.Changed = changed
			return s.engine, nil
		},
		Images: s.images, Volumes: volumes, Objects: s.objects, Dir: s.dir, Node: node, Wires: wires{}, Changed: func(types.UID) {},
		Event: func(o *corev1.Pod, _, reason, message string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, reason+": "+message)
		},
		Spread: s.spread, Clock: s.clock, Logger: hclog.NewNullLogger(),
	})
	if err != nil {
		s.Fatal(err)
	}
}

// restart is the kubelet that ends and begins anew, with these pods on its node.
func (s *scene) restart(known ...*corev1.Pod) {
	s.Helper()
	if err := s.runtime.Close(); err != nil {
		s.Fatal(err)
	}
	s.open()
	s.runtime.Adopt(known)
}

func (s *scene) told(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.events, func(e string) bool { return strings.Contains(e, text) })
}

// until waits, while the clock stands still.
func (s *scene) until(what string, yes func() bool) {
	s.Helper()
	for began := time.Now(); !yes(); {
		if time.Since(began) > patience {
			s.Fatalf("not within %v: %s; calls %q, events %q", patience, what, s.engine.Calls(), s.events)
		}
		<-time.After(time.Millisecond)
	}
}

// passes lets time pass until something is so, and returns how much did.
func (s *scene) passes(what string, yes func() bool) time.Duration {
	s.Helper()
	began := s.clock.Mono()
	s.until(what, func() bool {
		if yes() {
			return true
		}
		s.clock.Advance(50 * time.Millisecond)
		return false
	})
	return s.clock.Mono() - began
}

// within lets no more time pass than there is until something is so: then the clock stands.
func (s *scene) within(limit time.Duration, what string, yes func() bool) {
	s.Helper()
	end := s.clock.Mono() + limit
	s.until(what, func() bool {
		if yes() {
			return true
		}
		s.clock.Advance(min(50*time.Millisecond, end-s.clock.Mono()))
		return false
	})
}

func (s *scene) state(o *corev1.Pod, name string) kubelet.ContainerState {
	return s.runtime.Status(o).Containers[name]
}

func (s *scene) runs(o *corev1.Pod, name string) {
	s.Helper()
	s.runtime.Start(o, name)
	s.until(name+" runs", func() bool { return s.state(o, name).Phase == kubelet.Running && s.told("Created container: "+name) })
}

func (s *scene) calls(want ...string) {
	s.Helper()
	if got := s.engine.Calls(); !slices.Equal(got, want) {
		s.Errorf("the engine was called\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func podOf(names ...string) *corev1.Pod {
	o := &corev1.Pod{}
	o.Namespace, o.Name, o.UID = "default", "web", "u1"
	grace := int64(10)
	o.Spec.TerminationGracePeriodSeconds = &grace
	for _, n := range names {
		c := corev1.Container{Name: n, Image: "image", TerminationMessagePolicy: corev1.TerminationMessageReadFile}
		if name, ok := strings.CutPrefix(n, "side:"); ok {
			always := corev1.ContainerRestartPolicyAlways
			c.Name, c.RestartPolicy = name, &always
			o.Spec.InitContainers = append(o.Spec.InitContainers, c)
			continue
		}
		o.Spec.Containers = append(o.Spec.Containers, c)
	}
	return o
}

func TestAPodRunsEndsAndLeavesNothing(t *testing.T) {
	s := begin(t)
	o := podOf("c", "d")
	s.runtime.Adopt(nil)
	if s.runtime.Status(o).Exists {
		t.Error("it exists before anything of it was started")
	}
	s.runtime.Start(o, "c")
	s.runtime.Start(o, "d")
	s.until("both run", func() bool {
		return s.state(o, "c").Phase == kubelet.Running && s.state(o, "d").Phase == kubelet.Running && s.state(o, "d").Ready
	})
	is := s.runtime.Status(o)
	if is.IP != "10.9.0.1" || !is.Exists || is.Containers["c"].ID != "fake://u1-c-0" || is.Containers["c"].ImageID != "sha256:image" || !is.Containers["c"].Ready {
		t.Errorf("status %+v", is)
	}
	s.runtime.Stop(o, 10*time.Second)
	s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	if c := s.state(o, "c"); c.Phase != kubelet.Exited || c.ExitCode != 143 {
		t.Errorf("how it ended is not told: %+v", c)
	}
	calls := s.engine.Calls()
	slices.Sort(calls[3:5]) // Both at the same time.
	if want := []string{"open u1", "start c 0", "start d 0", "stop c 10s", "stop d 10s", "close u1"}; !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
	s.runtime.Forget(o.UID)
	s.until("its folder is gone", func() bool {
		_, err := os.Stat(filepath.Join(s.dir, "u1"))
		return errors.Is(err, os.ErrNotExist) && s.runtime.Status(o).Containers == nil
	})
}

func TestAContainerThatEndedIsStartedAsTheNextAttempt(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.runs(o, "c")
	s.engine.Exit("u1", "c", 1, runtime.OOMKilled)
	s.until("its end is known", func() bool { return s.state(o, "c").Phase == kubelet.Exited })
	if c := s.state(o, "c"); c.Reason != "OOMKilled" || c.ExitCode != 1 || c.Ready {
		t.Errorf("state %+v", c)
	}
	s.runs(o, "c")
	if c := s.state(o, "c"); c.ID != "fake://u1-c-1" {
		t.Errorf("ID %s", c.ID)
	}
	if spec := s.engine.Spec("u1", "c"); spec.Log != filepath.Join(s.dir, "u1", "logs", "c", "1.log") {
		t.Errorf("log %s", spec.Log)
	}
}

func TestAContainerThatCannotBeStartedSaysWhyInTheWordsOfKubernetes(t *testing.T) {
	for _, c := range []struct {
		err    error
		at     string // Of the image, or a call of the engine.
		reason string
	}{
		{image.ErrName, "image", "InvalidImageName"},
		{image.ErrAbsent, "image", "ErrImageNeverPull"},
		{image.ErrUnknown, "image", "ErrImagePull"},
		{runtime.ErrImage, "start c", "ErrImagePull"},
		{runtime.ErrNoCommand, "start c", "RunContainerError"},
		{runtime.ErrInvalid, "start c", "CreateContainerError"},
		{runtime.ErrUnsupported, "start c", "CreateContainerError"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			s := begin(t)
			o := podOf("c")
			err := fmt.Errorf("what is wrong: %w", c.err)
			if c.at == "image" {
				s.images.fail("image", err)
			} else {
				s.engine.Fail(c.at, err)
			}
			s.runtime.Start(o, "c")
			s.until("it is refused", func() bool { return s.state(o, "c").Phase == kubelet.Refused })
			first := s.state(o, "c")
			if first.Reason != c.reason || first.Message != err.Error() || first.ID == "" {
				t.Errorf("state %+v", first)
			}
			s.images.fail("image", nil)
			s.runs(o, "c")
		})
	}
}

func TestACommandThatCannotBeStartedEndsAContainerWithoutASecondTry(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	o.Spec.RestartPolicy = corev1.RestartPolicyNever
	s.engine.Fail("start c", runtime.ErrImage)
	s.runtime.Start(o, "c")
	s.until("the image is refused", func() bool { return s.state(o, "c").Phase == kubelet.Refused })
	s.engine.Fail("start c", runtime.ErrNoCommand)
	s.runtime.Start(o, "c")
	s.until("it has ended", func() bool { return s.state(o, "c").Phase == kubelet.Exited })
	if c := s.state(o, "c"); c.Reason != "StartError" || c.ExitCode != 128 || c.Finished.IsZero() || c.ID == "" || c.Message != runtime.ErrNoCommand.Error() {
		t.Errorf("state %+v", c)
	}
}

func TestAVariableThatIsNotThereIsAnErrorOfTheConfiguration(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	from := &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, Key: "k"}}
	o.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: from}, {Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
	s.runtime.Start(o, "c")
	s.until("it is refused", func() bool { return s.state(o, "c").Reason == "CreateContainerConfigError" })
	s.objects.add("m", map[string]string{"k": "v"})
	s.runs(o, "c")
	if env := s.engine.Spec("u1", "c").Env; !slices.Equal(env, []string{"X=v", "IP=10.9.0.1"}) {
		t.Errorf("environment %q", env)
	}
}

func TestAPodWaitsUntilTheEngineMakesWhatItsContainersShare(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.engine.Fail("open u1", errors.New("no room for it"))
	s.engine.Fail("open u1", errors.New("no room for it"))
	s.runtime.Start(o, "c")
	s.until("that is told", func() bool {
		return s.state(o, "c").Message == "no room for it" && s.told("FailedCreatePodSandBox: no room for it")
	})
	if c := s.state(o, "c"); c.Phase != kubelet.Creating {
		t.Errorf("state %+v", c)
	}
	s.passes("it runs", func() bool { return s.state(o, "c").Phase == kubelet.Running })
}

func TestAPodThatIsStoppedWhileItsImageComesIsNotStarted(t *testing.T) {
	s := begin(t)
	s.images.wait = make(chan struct{})
	o := podOf("c", "d")
	s.runtime.Start(o, "c")
	s.runtime.Start(o, "d")
	s.runtime.Stop(o, 10*time.Second)
	s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	s.calls("close u1")
	if is := s.runtime.Status(o); len(is.Containers) != 0 {
		t.Errorf("containers that never were: %+v", is.Containers)
	}
}

func TestASecondStopWithLessGraceHurries(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.runs(o, "c")
	s.engine.Stubborn("u1", "c")
	s.runtime.Stop(o, 30*time.Second)
	s.until("it is asked to end", func() bool { return slices.Contains(s.engine.Calls(), "stop c 30s") })
	s.runtime.Stop(o, 2*time.Second)
	s.until("it is asked to hurry", func() bool { return slices.Contains(s.engine.Calls(), "stop c 2s") })
	s.within(3*time.Second, "it is gone", func() bool { return !s.runtime.Status(o).Exists })
	s.calls("open u1", "start c 0", "stop c 30s", "stop c 2s", "close u1")
}

func TestSidecarsEndAfterTheContainersThatTheyServe(t *testing.T) {
	s := begin(t)
	o := podOf("side:a", "side:b", "c")
	for _, name := range []string{"a", "b", "c"} {
		s.runs(o, name)
	}
	s.runtime.Stop(o, 10*time.Second)
	s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	s.calls("open u1", "start a 0", "start b 0", "start c 0", "stop c 10s", "stop b 10s", "stop a 10s", "close u1")
}

func TestWhatIsLeftOfAPodIsRemovedHoweverOftenThatFails(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.runs(o, "c")
	s.engine.Fail("stop c", errors.New("busy"))
	s.engine.Fail("close u1", errors.New("busy"))
	s.engine.Fail("close u1", errors.New("busy"))
	s.runtime.Stop(o, time.Second)
	s.passes("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	if s.engine.Pods() != 0 {
		t.Error("the engine has it still")
	}
}

func TestAKubeletThatStartsAnewFindsItsPodsAsTheyWere(t *testing.T) {
	s := begin(t)
	o := podOf("c", "d")
	s.runs(o, "c")
	s.runs(o, "d")
	s.engine.Exit("u1", "c", 3, "")
	s.until("its end is known", func() bool { return s.state(o, "c").Phase == kubelet.Exited })
	s.runs(o, "c")
	s.engine.Exit("u1", "d", 4, "")
	before := s.engine.Calls()
	s.restart(o)
	if c := s.state(o, "c"); c.Phase != kubelet.Running || c.ID != "fake://u1-c-1" || !c.Ready {
		t.Errorf("c is %+v", c)
	}
	if d := s.state(o, "d"); d.Phase != kubelet.Exited || d.ExitCode != 4 {
		t.Errorf("d is %+v", d)
	}
	if is := s.runtime.Status(o); is.IP != "10.9.0.1" || !is.Exists {
		t.Errorf("status %+v", is)
	}
	s.runs(o, "d")
	s.calls(append(before, "start d 1")...)
}

func TestAKubeletThatStartsAnewRemovesPodsThatAreNoneOfItsNode(t *testing.T) {
	s := begin(t)
	o, other := podOf("c"), podOf("c")
	other.UID = "u2"
	s.runs(o, "c")
	s.runs(other, "c")
	if err := os.MkdirAll(filepath.Join(s.dir, "u3", "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.restart(other)
	s.until("only the one is left", func() bool {
		left, err := os.ReadDir(s.dir)
		return s.engine.Pods() == 1 && err == nil && !slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() != "u2" })
	})
	if s.state(other, "c").Phase != kubelet.Running {
		t.Error("the pod of the node does not run")
	}
}

func TestContainersThatAMachineTookWithItHaveEndedAndGoOnCounting(t *testing.T) {
	s := begin(t)
	o := podOf("c", "d")
	s.runs(o, "c")
	started := metav1.NewTime(s.clock.Wall())
	o.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "c", RestartCount: 2, ContainerID: "fake://u1-c-2", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}},
		{Name: "d", RestartCount: 5, ContainerID: "fake://u1-d-5", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "fake://u1-d-5", ExitCode: 0, Reason: "Completed"}}},
	}
	s.engine.Lose("u1")
	s.restart(o)
	if c := s.state(o, "c"); c.Phase != kubelet.Exited || c.Reason != "ContainerStatusUnknown" || c.ExitCode != 137 {
		t.Errorf("c is %+v", c)
	}
	if d := s.state(o, "d"); d.Phase != kubelet.Exited || d.Reason != "Completed" || d.ID != "fake://u1-d-5" {
		t.Errorf("d is %+v", d)
	}
	s.runs(o, "c")
	if id := s.state(o, "c").ID; id != "fake://u1-c-3" {
		t.Errorf("ID %s", id)
	}
}

func TestAPodWhoseWatcherIsKilledIsMadeAnew(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.runs(o, "c")
	s.engine.Lose("u1")
	s.until("its end is known", func() bool { return s.state(o, "c").Reason == "ContainerStatusUnknown" })
	s.runtime.Start(o, "c")
	s.until("it runs again", func() bool { return s.state(o, "c").Phase == kubelet.Running })
	s.calls("open u1", "start c 0", "open u1", "start c 1")
}

// After a machine has started anew an engine that is another program knows the pod, and how
// its containers ended, but what they shared is gone.
func TestAPodThatHasEndedWithItsMachineIsOpenedAgain(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	s.runs(o, "c")
	s.engine.Exit("u1", "c", 255, "")
	s.restart(o)
	s.engine.Fail("start c", fmt.Errorf("pod u1 is not open: %w", runtime.ErrNotFound))
	s.runs(o, "c")
	s.calls("open u1", "start c 0", "start c 1", "open u1", "start c 1")
}

// Of a manifest that is taken away and put back the pod has the same UID.
func TestAPodThatComesAgainIsNotTakenForTheOneThatIsForgotten(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	for range 20 {
		s.until("it runs", func() bool {
			s.runtime.Start(o, "c")
			return s.state(o, "c").Phase == kubelet.Running
		})
		logs := filepath.Join(s.dir, "u1", "logs")
		if err := os.MkdirAll(logs, 0o755); err != nil {
			t.Fatal(err)
		}
		s.runtime.Stop(o, 0)
		s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
		if _, err := os.Stat(logs); err != nil {
			t.Fatalf("its logs went before it was forgotten: %v", err)
		}
		s.runtime.Forget(o.UID)
	}
}

// Else its own address would be told to be the node's, for as long as it runs.
func TestAPodThatWasNotOpenedToTheEndIsOpenedAgain(t *testing.T) {
	s := begin(t)
	o, host := podOf("c"), podOf("c")
	host.UID, host.Spec.HostNetwork = "u2", true
	s.runs(host, "c")
	if _, err := s.engine.Open(t.Context(), &runtime.PodSpec{UID: "u1"}); err != nil {
		t.Fatal(err)
	}
	s.engine.Unwire("u1")
	s.restart(o, host)
	if is := s.runtime.Status(o); is.IP != "" {
		t.Errorf("before it has an address: %+v", is)
	}
	if is := s.runtime.Status(host); is.IP != "192.0.2.1" {
		t.Errorf("that of the node's network: %+v", is)
	}
	s.runs(o, "c")
	if is := s.runtime.Status(o); is.IP != "10.9.0.2" {
		t.Errorf("status %+v", is)
	}
	s.calls("open u2", "start c 0", "open u1", "open u1", "start c 0")
}

// What was told of an end must not be taken back by the next kubelet.
func TestTheLastWordsInALogAreHeardByTheNextKubeletToo(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	o.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	s.runs(o, "c")
	log := s.engine.Spec("u1", "c").Log
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, []byte("2026-01-01T00:00:00Z stderr F no database\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.engine.Exit("u1", "c", 1, "")
	says := func() bool { return s.state(o, "c").Message == "no database" }
	s.until("it is told why", says)
	s.restart(o)
	if !says() {
		t.Errorf("afterwards %+v", s.state(o, "c"))
	}
}

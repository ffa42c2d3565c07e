package cri

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// The runtime itself is tried in tests/kube/cri; here is what needs none.

func pod() *runtime.PodSpec {
	return &runtime.PodSpec{UID: "0000-1111", Namespace: "default", Name: "web-1", Hostname: "web-1", Dir: "/pods/0000-1111", Class: runtime.Burstable}
}

func engine() *Engine {
	return &Engine{cfg: Config{Node: "node-1", Cgroup: "/holdfast-node-1"}}
}

func spec() *runtime.ContainerSpec {
	return &runtime.ContainerSpec{
		UID: "0000-1111", Name: "main", Image: &runtime.Image{Ref: "web:1", ID: "sha256:aa", Entrypoint: []string{"/web"}},
		Log: "/pods/0000-1111/logs/main/0.log",
	}
}

func TestCgroupOfAPodIsNamedAsTheRuntimeWantsIt(t *testing.T) {
	e := engine()
	if got, want := e.parent(pod()), "/holdfast-node-1/burstable/pod0000-1111"; got != want {
		t.Errorf("cgroupfs: %s, want %s", got, want)
	}
	e.systemd = true
	if got, want := e.parent(pod()), "holdfast_node_1-burstable-pod0000_1111.slice"; got != want {
		t.Errorf("systemd: %s, want %s", got, want)
	}
	bare := pod()
	bare.Class = ""
	if got, want := engine().parent(bare), "/holdfast-node-1/besteffort/pod0000-1111"; got != want {
		t.Errorf("without a class: %s, want %s", got, want)
	}
}

func TestSandboxKnowsItsConfigurationAfterARestart(t *testing.T) {
	p := pod()
	p.DNS = runtime.DNS{Servers: []string{"192.0.2.1"}}
	made, err := engine().sandboxConfig(p, 3)
	if err != nil {
		t.Fatal(err)
	}
	found, err := configOf(&api.PodSandbox{Annotations: made.Annotations})
	if err != nil {
		t.Fatal(err)
	}
	if made.String() != found.String() {
		t.Errorf("made\n%v\nfound\n%v", made, found)
	}
	if _, err := configOf(&api.PodSandbox{Id: "x", Annotations: map[string]string{annotationConfig: "{"}}); err == nil || !strings.Contains(err.Error(), annotationConfig) {
		t.Errorf("a broken annotation: %v", err)
	}
}

func TestPodOnTheNodesNetworkHasItsNameToo(t *testing.T) {
	p := pod()
	p.HostNetwork = true
	c, err := engine().sandboxConfig(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Hostname != "" || c.Linux.SecurityContext.NamespaceOptions.Network != api.NamespaceMode_NODE {
		t.Errorf("got %v", c)
	}
}

func TestIDsAreSplitAsTheyWereJoined(t *testing.T) {
	uid, id, err := split(idOf("a_b", "c0ffee"))
	if uid != "a_b" || id != "c0ffee" || err != nil {
		t.Errorf("got %q, %q, %v", uid, id, err)
	}
	for _, strange := range []string{"", "x", "_x", "x_"} {
		if _, _, err := split(strange); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%q: %v", strange, err)
		}
	}
}

func TestSpecsThatNoRuntimeCouldStartAreRefused(t *testing.T) {
	root := int64(0)
	for name, c := range map[string]struct {
		change func(s *runtime.ContainerSpec)
		says   string
	}{
		"a name with a path":       {func(s *runtime.ContainerSpec) { s.Name = "../x" }, `"../x"`},
		"a negative attempt":       {func(s *runtime.ContainerSpec) { s.Attempt = -1 }, "attempt"},
		"no command":               {func(s *runtime.ContainerSpec) { s.Image.Entrypoint = nil }, "has a command"},
		"a relative mount":         {func(s *runtime.ContainerSpec) { s.Mounts = []runtime.Mount{{Source: "a", Target: "/b"}} }, "absolute"},
		"an unknown capability":    {func(s *runtime.ContainerSpec) { s.Security.DropCapabilities = []string{"SING"} }, `"SING"`},
		"root, though unwanted":    {func(s *runtime.ContainerSpec) { s.Security.NonRoot, s.Security.User = true, &root }, "user is 0"},
		"an image's root":          {func(s *runtime.ContainerSpec) { s.Security.NonRoot = true }, "runAsUser"},
		"an image's root, by zero": {func(s *runtime.ContainerSpec) { s.Security.NonRoot, s.Image.User = true, "0:5" }, "runAsUser"},
		"an image's user by name":  {func(s *runtime.ContainerSpec) { s.Security.NonRoot, s.Image.User = true, "web" }, "runAsUser"},
	} {
		s := spec()
		c.change(s)
		if err := check(s); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	s := spec()
	s.Security.NonRoot, s.Image.User, s.Security.AddCapabilities = true, "17", []string{"ALL", "CAP_NET_ADMIN"}
	if err := check(s); err != nil {
		t.Error(err)
	}
}

func TestLogOutsideTheFolderOfItsPodIsRefused(t *testing.T) {
	p, err := engine().sandboxConfig(pod(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s := spec()
	s.Log = "/pods/other/logs/main/0.log"
	if _, err := engine().containerConfig(p, s); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestResourcesAreSaidInTheKernelsUnits(t *testing.T) {
	s := spec()
	s.Resources = runtime.Resources{RequestMilliCPU: 250, LimitMilliCPU: 200, LimitMemoryBytes: 5 << 20, LimitPIDs: 9}
	s.OOMScoreAdj = 700
	got := engine().resources(s)
	if got.CpuShares != 256 || got.CpuQuota != 20_000 || got.CpuPeriod != 100_000 || got.MemoryLimitInBytes != 5<<20 || got.OomScoreAdj != 700 || got.Unified != nil {
		t.Errorf("got %v", got)
	}
	e := engine()
	e.unified = true
	if got := e.resources(s).Unified["pids.max"]; got != "9" {
		t.Errorf("pids.max %q", got)
	}
	if got := engine().resources(spec()); got.CpuShares != 2 || got.CpuQuota != 0 {
		t.Errorf("without any: %v", got)
	}
}

func TestGroupAloneKeepsTheUserOfTheImage(t *testing.T) {
	group := int64(5)
	for user, want := range map[string]string{"": "0 ", "7": "7 ", "7:8": "7 ", "web": "- web", "web:x": "- web"} {
		c := securityOf(&api.PodSandboxConfig{}, &runtime.Security{Group: &group}, user)
		got := "- " + c.RunAsUsername
		if c.RunAsUser != nil {
			got = fmt.Sprint(c.RunAsUser.Value, " ")
		}
		if got != want || c.RunAsGroup.GetValue() != 5 {
			t.Errorf("image's user %q: %q with group %v, want %q", user, got, c.RunAsGroup, want)
		}
	}
}

func TestStatusOfAContainerIsTranslated(t *testing.T) {
	base := func() *api.ContainerStatus {
		return &api.ContainerStatus{Id: "c0", Metadata: &api.ContainerMetadata{Attempt: 2}, Labels: map[string]string{labelPodUID: "u", labelContainer: "main"},
			CreatedAt: 1, StartedAt: 2e9, FinishedAt: 5e9, State: api.ContainerState_CONTAINER_EXITED, ExitCode: 137}
	}
	s := base()
	s.Reason = "OOMKilled"
	if c := translate(s, "i"); c.ID != "u_c0" || c.Name != "main" || c.Attempt != 2 || c.ImageID != "i" || c.Phase != runtime.Exited || c.Reason != runtime.OOMKilled || c.ExitCode != 137 {
		t.Errorf("got %+v", c)
	}
	s = base()
	s.State = api.ContainerState_CONTAINER_RUNNING
	if c := translate(s, ""); c.Phase != runtime.Running || c.ExitCode != 0 || !c.Finished.IsZero() {
		t.Errorf("got %+v", c)
	}
	s = base()
	s.Reason, s.StartedAt = "Error", 6e9
	if c := translate(s, ""); c.Reason != "" || c.Finished.Before(c.Started) {
		t.Errorf("got %+v", c)
	}
}

func TestEndOfACommandIsReadFromTheStatus(t *testing.T) {
	for text, want := range map[string]struct {
		code int32
		err  error
	}{
		`{"metadata":{},"status":"Success"}`: {0, nil},
		`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}`:               {42, nil},
		`{"status":"Failure","reason":"InternalError","message":"OCI runtime exec failed: exec: \"x\": executable file not found"}`: {0, runtime.ErrNoCommand},
	} {
		code, err := verdict([]byte(text))
		if code != want.code || !errors.Is(err, want.err) {
			t.Errorf("%s: %d, %v", text, code, err)
		}
	}
	for _, text := range []string{`{"status":"Failure","message":"the shim is gone"}`, "x"} {
		if _, err := verdict([]byte(text)); err == nil || errors.Is(err, runtime.ErrNoCommand) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestErrorsOfTheRuntimeAreOurs(t *testing.T) {
	for text, c := range map[string]struct {
		code codes.Code
		want error
	}{
		"no such container": {codes.NotFound, runtime.ErrNotFound},
		"failed to generate container spec: no users found": {codes.Unknown, runtime.ErrInvalid},
	} {
		if err := refine(status.Error(c.code, text)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := refine(status.Error(codes.Unknown, "disk full")); err == nil || errors.Is(err, runtime.ErrInvalid) || err.Error() != "disk full" {
		t.Errorf("got %v", err)
	}
	if refine(nil) != nil {
		t.Error("no error became one")
	}
}

func TestPodsOfWhichSomethingDiffersAreTold(t *testing.T) {
	before := map[string]string{"s1": "READY a", "c1": "RUNNING a", "s2": "READY b", "c2": "RUNNING b", "s3": "READY c"}
	now := map[string]string{"s1": "READY a", "c1": "EXITED a", "s2": "READY b", "c2": "RUNNING b", "s4": "READY d"}
	got := differing(before, now)
	slices.Sort(got)
	if want := []string{"a", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestImageSaysWhatItsContainersRun(t *testing.T) {
	image := &runtime.Image{}
	configOfImage(`{"chainID":"x","imageSpec":{"config":{"User":"7","Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/w","StopSignal":"SIGINT"}}}`, image)
	want := runtime.Image{User: "7", Env: []string{"A=b"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, WorkingDir: "/w", StopSignal: "SIGINT"}
	if fmt.Sprint(*image) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", *image, want)
	}
}

// shelf is a registry of nothing that says who may see it.
type shelf struct{}

func (shelf) Name(context.Context, string) (string, bool) { return "", false }

func (shelf) ServeHTTP(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "images") }

func TestRegistryOnLoopbackIsForTheRuntimeOnly(t *testing.T) {
	tasks := task.New(t.Context())
	r, err := serve("the-guarded", shelf{}, tasks)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		r.close()
		if err := tasks.Wait(); err != nil {
			t.Error(err)
		}
	}()
	ask := func(password string) int {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.ref("v2/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			q.SetBasicAuth(registryUser, password)
		}
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if a, b, c := ask(""), ask("guess"), ask(r.password); a != 401 || b != 401 || c != 200 {
		t.Errorf("nobody gets %d, a guess %d, the runtime %d", a, b, c)
	}
}

func TestRegistryOfANodeHasAPortOfItsOwnUnlessThatIsTaken(t *testing.T) {
	tasks := task.New(t.Context())
	node := "n" + rand.Text() // Others may run this test at the same time.
	start := func() *registry {
		r, err := serve(node, shelf{}, tasks)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := start()
	second := start()
	if first.address == second.address {
		t.Errorf("two are at %s", first.address)
	}
	second.close()
	first.close()
	if err := tasks.Wait(); err != nil {
		t.Error(err)
	}
	tasks = task.New(t.Context())
	third := start()
	third.close()
	if err := tasks.Wait(); err != nil {
		t.Error(err)
	}
	if third.address != first.address {
		t.Errorf("after a restart it is at %s, and was at %s", third.address, first.address)
	}
}

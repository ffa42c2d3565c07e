package cri_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/conformance"
	"github.com/holdfast-db/holdfast/kube/runtime/cri"
)

// bench is a containerd with the images and an engine.
type bench struct {
	*containerd
	files *conformance.Files
	dir   string
}

func newBench(t *testing.T, network string) *bench {
	t.Helper()
	b := &bench{containerd: startContainerd(t, network), files: conformance.NewFiles(t), dir: t.TempDir()}
	pause := *b.files.Images().Plain
	pause.Ref, pause.Cmd = pauseRef, []string{"wait"}
	b.load(t, b.files, &pause)
	return b
}

// open connects an engine that ends with the test, after its pods.
func (b *bench) open(t *testing.T, changed runtime.Changed, local cri.Local) *cri.Engine {
	t.Helper()
	e := b.engine(t, "node-1", changed, local)
	t.Cleanup(func() {
		pods, err := e.List(context.Background())
		must(t, err)
		for _, p := range pods {
			must(t, e.Close(context.Background(), p.UID))
		}
		must(t, e.Shutdown())
	})
	return e
}

func (b *bench) pod(t *testing.T, uid string) *runtime.PodSpec {
	t.Helper()
	p := &runtime.PodSpec{UID: uid, Namespace: "test", Name: "pod-" + uid, Hostname: "pod-" + uid, Dir: filepath.Join(b.dir, uid), Class: runtime.Guaranteed}
	must(t, os.MkdirAll(filepath.Join(p.Dir, "logs"), 0o755))
	return p
}

func container(p *runtime.PodSpec, image *runtime.Image, args ...string) *runtime.ContainerSpec {
	return &runtime.ContainerSpec{UID: p.UID, Name: "main", Image: image, Args: args, Log: filepath.Join(p.Dir, "logs", "main", "0.log")}
}

// shelf is a registry with one image, as that of a kubelet's own store.
type shelf struct {
	*content
	ref, name string
	asked     atomic.Int32
}

func (s *shelf) Name(_ context.Context, ref string) (string, bool) { return s.name, ref == s.ref }

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if r.URL.Path == "/v2/" {
		return
	}
	repository, _, _ := strings.Cut(s.name, ":")
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"+repository+"/")
	kind, digest, _ := strings.Cut(rest, "/")
	if kind == "manifests" {
		if !strings.HasPrefix(digest, "sha256:") {
			digest = s.manifest
		}
		w.Header().Set("Content-Type", manifestType)
	}
	blob, there := s.blobs[digest]
	if !ok || !there {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(blob)))
}

func TestImagesOfTheNodeArePulledOverLoopback(t *testing.T) {
	b := newBench(t, wires)
	want := *b.files.Images().Plain
	want.User, want.StopSignal = "4:5", "SIGUSR1"
	s := &shelf{content: newImage(t, b.files.Layer, &want), ref: "builtin/demo", name: "builtin/demo:1"}
	e := b.open(t, func(string) {}, s)
	if image, err := e.Present(t.Context(), s.ref); image != nil || err != nil {
		t.Fatalf("before: %+v, %v", image, err)
	}
	image, err := e.Pull(t.Context(), s.ref, nil)
	must(t, err)
	if s.asked.Load() == 0 || image.Ref != s.ref || !slices.Equal(image.Entrypoint, want.Entrypoint) || !slices.Equal(image.Cmd, want.Cmd) ||
		!slices.Equal(image.Env, want.Env) || image.User != want.User || image.WorkingDir != want.WorkingDir || image.StopSignal != want.StopSignal {
		t.Errorf("pulled %+v with %d requests", image, s.asked.Load())
	}
	again, err := e.Present(t.Context(), s.ref)
	must(t, err)
	if again == nil || again.ID != image.ID {
		t.Errorf("afterwards: %+v", again)
	}
	p := b.pod(t, "from-the-shelf")
	_, err = e.Open(t.Context(), p)
	must(t, err)
	_, err = e.Start(t.Context(), container(p, image, "wait"))
	must(t, err)
	waitFor(t, "the container", func() bool {
		text, _ := os.ReadFile(filepath.Join(p.Dir, "logs", "main", "0.log"))
		return strings.Contains(string(text), "ready")
	})
}

func TestImageThatNobodyHasIsAnErrorOfImages(t *testing.T) {
	b := newBench(t, wires)
	e := b.open(t, func(string) {}, nil)
	_, err := e.Pull(t.Context(), "127.0.0.1:1/absent:1", &runtime.Login{User: "u", Password: "p"})
	if !errors.Is(err, runtime.ErrImage) {
		t.Errorf("got %v", err)
	}
	if image, err := e.Present(t.Context(), "127.0.0.1:1/absent:1"); image != nil || err != nil {
		t.Errorf("got %+v, %v", image, err)
	}
}

func TestPodsOfAnotherNodeAreNotSeenNorClosed(t *testing.T) {
	b := newBench(t, wires)
	e := b.open(t, func(string) {}, nil)
	p := b.pod(t, "mine")
	_, err := e.Open(t.Context(), p)
	must(t, err)
	other, err := cri.New(t.Context(), cri.Config{Socket: b.socket, Node: "another", Cgroup: "/holdfast-" + os.Getenv(insideVariable),
		Changed: func(string) {}, Clock: clock.Real(), Logger: hclog.NewNullLogger()})
	must(t, err)
	defer func() { must(t, other.Shutdown()) }()
	pods, err := other.List(t.Context())
	must(t, err)
	if len(pods) != 0 {
		t.Errorf("the other sees %+v", pods)
	}
	must(t, other.Close(t.Context(), p.UID))
	pods, err = e.List(t.Context())
	must(t, err)
	if len(pods) != 1 || pods[0].IP == "" {
		t.Errorf("afterwards: %+v", pods)
	}
}

func TestPodWhoseSandboxDiedIsOpenedAgainAndItsEndsAreKept(t *testing.T) {
	b := newBench(t, wires)
	var heard atomic.Int32
	e := b.open(t, func(string) { heard.Add(1) }, nil)
	plain := b.files.Images().Plain
	b.load(t, b.files, plain)
	image := pulled(t, e, plain.Ref)
	p := b.pod(t, "phoenix")
	_, err := e.Open(t.Context(), p)
	must(t, err)
	first, err := e.Start(t.Context(), container(p, image, "exit", "7"))
	must(t, err)
	waitFor(t, "its end", func() bool { return state(t, e, first) == runtime.Exited })
	before := heard.Load()
	must(t, syscall.Kill(pauseOf(t, p.UID), syscall.SIGKILL))
	waitFor(t, "the word of the sandbox's end", func() bool { return heard.Load() > before })
	next := container(p, image, "wait")
	next.Attempt, next.Log = 1, filepath.Join(p.Dir, "logs", "main", "1.log")
	if _, err := e.Start(t.Context(), next); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("start in a dead sandbox: %v", err)
	}
	pod, err := e.Open(t.Context(), p)
	must(t, err)
	if pod.IP == "" || len(pod.Containers) != 1 || pod.Containers[0].ExitCode != 7 {
		t.Errorf("opened again: %+v", pod)
	}
	second, err := e.Start(t.Context(), next)
	must(t, err)
	if state(t, e, second) != runtime.Running || state(t, e, first) != runtime.Exited {
		t.Error("not both are told")
	}
}

// state is that of a container, 0 if it is not listed.
func state(t *testing.T, e *cri.Engine, id string) runtime.Phase {
	t.Helper()
	pods, err := e.List(t.Context())
	must(t, err)
	for _, p := range pods {
		for _, c := range p.Containers {
			if c.ID == id {
				return c.Phase
			}
		}
	}
	return 0
}

// pauseOf is the process of a sandbox: the only one in the cgroup of a pod whose
// containers have ended.
func pauseOf(t *testing.T, uid string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	must(t, err)
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "pod"+uid) {
			pid := 0
			for _, r := range strings.Split(f, "/")[2] {
				pid = 10*pid + int(r-'0')
			}
			return pid
		}
	}
	t.Fatal("no process of the sandbox")
	return 0
}

package cri

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// fake is a runtime that answers as others than Debian's containerd do. What it does not
// say it has not implemented.
type fake struct {
	api.UnimplementedRuntimeServiceServer
	api.UnimplementedImageServiceServer

	name   string                           // Of the runtime.
	info   map[string]string                // Of its status.
	driver *api.CgroupDriver                // Nil: it has no word for it.
	events chan *api.ContainerEventResponse // Nil: it has none.
	exec   func(context.Context, *api.ExecSyncRequest) (*api.ExecSyncResponse, error)

	mu struct {
		sync.Mutex
		sandboxes  []*api.PodSandbox
		containers []*api.Container
		images     []*api.Image
		removed    []string
	}
}

// start has an engine on it, which ends with the test.
func (f *fake) start(t *testing.T, clk clock.Clock, changed runtime.Changed) *Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	api.RegisterRuntimeServiceServer(s, f)
	api.RegisterImageServiceServer(s, f)
	g := task.New(context.WithoutCancel(t.Context()))
	g.Go("fake", func(context.Context) error { return s.Serve(l) })
	e, err := New(t.Context(), Config{Socket: socket, Node: "node-1", Changed: changed, Clock: clk, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Shutdown(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		s.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (f *fake) Version(context.Context, *api.VersionRequest) (*api.VersionResponse, error) {
	return &api.VersionResponse{RuntimeApiVersion: "v1", RuntimeName: f.name, RuntimeVersion: "1.0"}, nil
}

func (f *fake) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	return &api.StatusResponse{Status: &api.RuntimeStatus{}, Info: f.info}, nil
}

func (f *fake) RuntimeConfig(ctx context.Context, r *api.RuntimeConfigRequest) (*api.RuntimeConfigResponse, error) {
	if f.driver == nil {
		return f.UnimplementedRuntimeServiceServer.RuntimeConfig(ctx, r)
	}
	return &api.RuntimeConfigResponse{Linux: &api.LinuxRuntimeConfiguration{CgroupDriver: *f.driver}}, nil
}

func (f *fake) GetContainerEvents(r *api.GetEventsRequest, s grpc.ServerStreamingServer[api.ContainerEventResponse]) error {
	if f.events == nil {
		return f.UnimplementedRuntimeServiceServer.GetContainerEvents(r, s)
	}
	for {
		select {
		case e := <-f.events:
			if e == nil {
				return nil // The stream ends.
			}
			if err := s.Send(e); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (f *fake) ListPodSandbox(context.Context, *api.ListPodSandboxRequest) (*api.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListPodSandboxResponse{Items: slices.Clone(f.mu.sandboxes)}, nil
}

func (f *fake) ListContainers(_ context.Context, r *api.ListContainersRequest) (*api.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &api.ListContainersResponse{}
	for _, c := range f.mu.containers {
		has := true
		for name, value := range r.GetFilter().GetLabelSelector() {
			has = has && c.Labels[name] == value
		}
		if has {
			answer.Containers = append(answer.Containers, c)
		}
	}
	return answer, nil
}

func (f *fake) ContainerStatus(_ context.Context, r *api.ContainerStatusRequest) (*api.ContainerStatusResponse, error) {
	return &api.ContainerStatusResponse{Status: &api.ContainerStatus{Id: r.ContainerId, State: api.ContainerState_CONTAINER_RUNNING}}, nil
}

func (f *fake) ExecSync(ctx context.Context, r *api.ExecSyncRequest) (*api.ExecSyncResponse, error) {
	return f.exec(ctx, r)
}

func (f *fake) ListImages(context.Context, *api.ListImagesRequest) (*api.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListImagesResponse{Images: slices.Clone(f.mu.images)}, nil
}

func (f *fake) ImageStatus(_ context.Context, r *api.ImageStatusRequest) (*api.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.mu.images {
		if i.Id == r.Image.Image || slices.Contains(i.RepoTags, r.Image.Image) {
			return &api.ImageStatusResponse{Image: i}, nil
		}
	}
	return &api.ImageStatusResponse{}, nil
}

func (f *fake) RemoveImage(_ context.Context, r *api.RemoveImageRequest) (*api.RemoveImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.removed = append(f.mu.removed, r.Image.Image)
	return &api.RemoveImageResponse{}, nil
}

func (f *fake) ImageFsInfo(context.Context, *api.ImageFsInfoRequest) (*api.ImageFsInfoResponse, error) {
	return &api.ImageFsInfoResponse{ImageFilesystems: []*api.FilesystemUsage{{FsId: &api.FilesystemIdentifier{Mountpoint: "/images"}}}}, nil
}

func TestImagesOfOthersAndOfSandboxesAreInUse(t *testing.T) {
	f := &fake{name: "containerd", info: map[string]string{"config": `{"sandboxImage":"registry.test/pause:1"}`}}
	f.mu.images = []*api.Image{
		{Id: "sha256:pause", RepoTags: []string{"registry.test/pause:1"}, Size: 1},
		{Id: "sha256:free", RepoTags: []string{"registry.test/free:1"}, RepoDigests: []string{"registry.test/free@sha256:f"}, Size: 2},
		{Id: "sha256:pinned", Pinned: true, Size: 3},
		{Id: "sha256:byid", Size: 4},
		{Id: "sha256:byname", RepoTags: []string{"registry.test/byname:1"}, Size: 5},
	}
	f.mu.containers = []*api.Container{ // Of another program: neither has a label of this node.
		{Id: "a", ImageRef: "sha256:byid", Image: &api.ImageSpec{Image: "sha256:byid"}},
		{Id: "b", ImageRef: "sha256:other", Image: &api.ImageSpec{Image: "registry.test/byname:1"}},
	}
	e := f.start(t, clocktest.New(), func(string) {})
	list, err := e.Kept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if want := k.ID != "sha256:free"; k.InUse != want {
			t.Errorf("%s in use: %v", k.ID, k.InUse)
		}
		if k.ID == "sha256:free" && (k.Bytes != 2 || len(k.Names) != 1 || len(k.Digests) != 1) {
			t.Errorf("told of %+v", k)
		}
	}
	if err := e.RemoveImage(t.Context(), "sha256:free"); err != nil || !slices.Equal(f.mu.removed, []string{"sha256:free"}) {
		t.Errorf("removed %v, %v", f.mu.removed, err)
	}
	if dir, err := e.ImageDir(t.Context()); dir != "/images" || err != nil {
		t.Errorf("they are at %q, %v", dir, err)
	}
}

func TestTheDriverOfCgroupsIsWhatTheRuntimeSays(t *testing.T) {
	systemd, plain := api.CgroupDriver_SYSTEMD, api.CgroupDriver_CGROUPFS
	const configured = `{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}},"kata":{"options":{}}}}}`
	for name, c := range map[string]struct {
		driver *api.CgroupDriver
		config string
		want   string
	}{
		"told systemd":                          {&systemd, "", "holdfast_node_1-burstable-pod0000_1111.slice"},
		"told otherwise than it is configured":  {&plain, configured, "/holdfast-node-1/burstable/pod0000-1111"},
		"too old to tell, configured":           {nil, configured, "holdfast_node_1-burstable-pod0000_1111.slice"},
		"too old to tell, configured otherwise": {nil, `{"containerd":{"defaultRuntimeName":"runc"}}`, "/holdfast-node-1/burstable/pod0000-1111"},
		"too old to tell, no configuration":     {nil, "[crio]", "/holdfast-node-1/burstable/pod0000-1111"},
	} {
		f := &fake{name: "x", driver: c.driver, info: map[string]string{"config": c.config}}
		e := f.start(t, clocktest.New(), func(string) {})
		if got := e.parent(pod()); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestTheEngineIsCalledAsTheRuntimeCallsItself(t *testing.T) {
	for name, want := range map[string]string{"containerd": "containerd", "cri-o": "cri-o", "CRI-O": "cri-o", "a b://": "cri", "": "cri"} {
		if info := (&fake{name: name}).start(t, clocktest.New(), func(string) {}).Info(); info.Name != want || info.Version != "1.0" {
			t.Errorf("%q: %+v, want %s", name, info, want)
		}
	}
}

// event is one of a pod, of a node.
func event(node, uid string) *api.ContainerEventResponse {
	return &api.ContainerEventResponse{PodSandboxStatus: &api.PodSandboxStatus{
		Metadata: &api.PodSandboxMetadata{Uid: uid}, Labels: map[string]string{labelNode: node}}}
}

func TestEventsAreHeardAtOnceAndWhatIsMissedIsSeen(t *testing.T) {
	f := &fake{name: "containerd", events: make(chan *api.ContainerEventResponse, 10)}
	heard := make(chan string, 10)
	clk := clocktest.New()
	f.start(t, clk, func(uid string) { heard <- uid })
	next := func(want string, advance time.Duration) {
		t.Helper()
		end := time.After(time.Minute)
		for {
			select {
			case uid := <-heard:
				if uid != want {
					t.Errorf("heard of %q, want %q", uid, want)
				}
				return
			case <-end:
				t.Fatalf("nothing is heard of %s", want)
			case <-time.After(time.Millisecond):
				clk.Advance(advance)
			}
		}
	}
	f.events <- event("node-2", "another") // Of which nobody wants to hear.
	f.events <- event("node-1", "first")
	next("first", 0)
	f.events <- nil
	f.mu.Lock()
	f.mu.sandboxes = []*api.PodSandbox{{Id: "s", Metadata: &api.PodSandboxMetadata{Uid: "second"}}}
	f.mu.Unlock()
	next("second", lookEvery)
	f.events <- event("node-1", "third") // On the next stream.
	next("third", eventsRetry)
}

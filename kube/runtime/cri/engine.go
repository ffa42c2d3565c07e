package cri

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Config of an engine.
type Config struct {
	Socket string // Of the runtime: /run/containerd/containerd.sock.
	Node   string // Only pods with its name are seen. Required.

	// Cgroup is the parent of the cgroups of all pods. Empty: /holdfast-NODE.
	Cgroup string

	// Local, if given, is a registry of the images that the kubelet itself has. The
	// runtime pulls them from it over loopback.
	Local Local

	Changed runtime.Changed
	Clock   clock.Clock
	Logger  hclog.Logger
}

// Local is a registry of images that the node has.
type Local interface {
	http.Handler
	// Name is where in the registry an image is or would be, as library/demo:1; false:
	// it is not there.
	Name(ctx context.Context, ref string) (string, bool)
}

// messageBytesMax is of an answer of the runtime; the list of a node with many pods is
// long. Other kubelets have the same.
const messageBytesMax = 16 << 20

// Engine is a connection to a runtime.
type Engine struct {
	cfg     Config
	log     hclog.Logger
	conn    *grpc.ClientConn
	runtime api.RuntimeServiceClient
	images  api.ImageServiceClient
	info    runtime.Info
	systemd bool // The runtime lets systemd make cgroups, and they are named so.
	unified bool // Cgroups are of version 2.

	sandboxImage string // Of which the runtime makes sandboxes. Empty: it does not tell.

	local *registry
	tasks *task.Group

	mu struct { // Guards what was seen and does not change any more.
		sync.Mutex
		ips    map[string]string            // By sandbox.
		ended  map[string]runtime.Container // By the runtime's ID.
		logs   map[string]string            // Of running containers, likewise.
		closed bool
	}
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`) // A label can hold it.

var runtimeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`) // It begins the IDs of containers.

// New connects to a runtime. The engine works until Shutdown.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if !nodeName.MatchString(cfg.Node) {
		return nil, fmt.Errorf("node name %q: want letters, digits, . - and _, 63 at most", cfg.Node)
	}
	if cfg.Cgroup == "" {
		cfg.Cgroup = "/holdfast-" + cfg.Node
	}
	conn, err := grpc.NewClient("unix://"+cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax)))
	if err != nil {
		return nil, fmt.Errorf("container runtime at %s: %w", cfg.Socket, err)
	}
	e := &Engine{cfg: cfg, log: cfg.Logger.Named("cri"), conn: conn, runtime: api.NewRuntimeServiceClient(conn),
		images: api.NewImageServiceClient(conn), tasks: task.New(context.Background()), unified: unified()}
	e.mu.ips, e.mu.ended, e.mu.logs = map[string]string{}, map[string]runtime.Container{}, map[string]string{}
	if err := e.meet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("container runtime at %s: %w", cfg.Socket, err), conn.Close())
	}
	if cfg.Local != nil {
		if e.local, err = serve(cfg.Node, cfg.Local, e.tasks); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	e.tasks.Go("cri-watch", e.watch)
	e.tasks.Go("cri-logs", e.rotate)
	return e, nil
}

// meet asks the runtime what it is, for as long as ctx lets it start.
func (e *Engine) meet(ctx context.Context) error {
	version, err := e.runtime.Version(ctx, &api.VersionRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return refine(err)
	}
	if v := version.RuntimeApiVersion; v != "v1" {
		return fmt.Errorf("it speaks CRI %s, want v1: containerd 1.6 or later", v)
	}
	e.info = runtime.Info{Name: strings.ToLower(version.RuntimeName), Version: version.RuntimeVersion, Isolated: true, PodNetwork: true}
	if !runtimeName.MatchString(e.info.Name) {
		e.info.Name = "cri"
	}
	status, err := e.runtime.Status(ctx, &api.StatusRequest{Verbose: true})
	if err != nil {
		return refine(err)
	}
	for _, c := range status.Status.GetConditions() {
		if !c.Status {
			// Pods of the node's network run without; a new CNI configuration is seen by the runtime.
			e.log.Warn("the container runtime is not ready", "condition", c.Type, "reason", c.Reason, "message", c.Message)
		}
	}
	config := configOfRuntime(status.Info["config"])
	e.sandboxImage = config.SandboxImage
	e.systemd = e.usesSystemd(ctx, config)
	return nil
}

// Info implements runtime.Engine.
func (e *Engine) Info() runtime.Info { return e.info }

// Shutdown implements runtime.Engine.
func (e *Engine) Shutdown() error {
	e.mu.Lock()
	closed := e.mu.closed
	e.mu.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	e.tasks.Stop()
	if e.local != nil {
		e.local.close()
	}
	err := e.tasks.Wait()
	return errors.Join(err, e.conn.Close())
}

// pause waits, or ends with ctx.
func (e *Engine) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-e.cfg.Clock.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// parent is the cgroup of a pod, as the runtime wants to hear it.
func (e *Engine) parent(spec *runtime.PodSpec) string {
	class := strings.ToLower(string(spec.Class))
	if class == "" {
		class = strings.ToLower(string(runtime.BestEffort))
	}
	if !e.systemd {
		return path.Join(e.cfg.Cgroup, class, "pod"+spec.UID)
	}
	// A slice says its parents in its name, with a dash for each step.
	escape := strings.NewReplacer("-", "_", "/", "-")
	return escape.Replace(strings.Trim(path.Join(e.cfg.Cgroup, class, "pod"+spec.UID), "/")) + ".slice"
}

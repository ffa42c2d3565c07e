//go:build linux

package process

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
	"github.com/holdfast-db/holdfast/kube/runtime/supervised"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// Config of an engine. All fields are required.
type Config struct {
	// Dir is a folder of the engine's own, with a file for each pod. It is kept from run
	// to run: without it pods of earlier runs are not found.
	Dir     string
	Changed runtime.Changed // Hears that something became of a pod.
	Logger  hclog.Logger
	Clock   clock.Clock
}

// Engine implements runtime.Engine.
type Engine struct {
	set      *supervised.Set
	uid, gid int
}

// New makes the engine, and finds the pods of earlier runs.
func New(cfg Config) (*Engine, error) {
	if cfg.Dir == "" || cfg.Changed == nil || cfg.Logger == nil || cfg.Clock == nil {
		return nil, errors.New("process: Dir, Changed, Logger and Clock are required")
	}
	e := &Engine{uid: os.Geteuid(), gid: os.Getegid()}
	set, err := supervised.NewSet(supervised.Config{
		Dir: cfg.Dir, Logger: cfg.Logger, Clock: cfg.Clock, Changed: cfg.Changed,
		Prepare: func(_ *supervised.Pod, b *supervisor.Boot) (uintptr, error) {
			b.Subreaper = true
			return 0, nil
		},
		Sweep: supervised.KillMarked(cfg.Clock),
	})
	if err != nil {
		return nil, err
	}
	e.set = set
	return e, nil
}

// Info implements runtime.Engine.
func (e *Engine) Info() runtime.Info {
	return runtime.Info{Name: "process", Version: "processes of the node, without isolation"}
}

// List implements runtime.Engine.
func (e *Engine) List(ctx context.Context) ([]runtime.Pod, error) { return e.set.List(ctx) }

// Open implements runtime.Engine.
func (e *Engine) Open(ctx context.Context, spec *runtime.PodSpec) (*runtime.Pod, error) {
	return e.set.Open(ctx, spec)
}

// Start implements runtime.Engine.
func (e *Engine) Start(ctx context.Context, spec *runtime.ContainerSpec) (string, error) {
	if err := e.refuse(spec); err != nil {
		return "", err
	}
	signal, err := supervised.Signal(spec.Image.StopSignal)
	if err != nil {
		return "", invalid("stop signal of image %s: %v", spec.Image.Ref, err)
	}
	id := supervised.ContainerID(spec.UID, spec.Name, spec.Attempt)
	l := &supervisor.Launch{
		ID: id, Name: spec.Name, Attempt: spec.Attempt, ImageID: spec.Image.ID, Log: spec.Log,
		StopSignal: signal, Stdin: spec.Stdin, MemoryMax: spec.Resources.LimitMemoryBytes,
		Stage: stage.Spec{Argv: supervised.Command(spec), TTY: spec.TTY, NoNewPrivileges: !spec.Security.MayGainPrivileges, OOMScoreAdj: &spec.OOMScoreAdj},
	}
	return id, e.set.Start(ctx, spec.UID, l, func(p *supervised.Pod) error { return makeRoot(p, spec, l) })
}

// makeRoot makes the folder of a container and lets the launch know.
func makeRoot(p *supervised.Pod, spec *runtime.ContainerSpec, l *supervisor.Launch) error {
	l.Scratch = supervised.Scratch(p, spec)
	dir := filepath.Join(l.Scratch, "root")
	if err := buildRoot(dir, spec); err != nil {
		return errors.Join(err, os.RemoveAll(l.Scratch))
	}
	l.Stage.Prefix = dir
	l.Stage.Dir = filepath.Join(dir, supervised.WorkingDir(spec))
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	env = append(env, "HOSTNAME="+p.Spec.Hostname, "HOME="+l.Stage.Dir)
	env = append(env, spec.Image.Env...)
	env = append(env, spec.Env...)
	l.Stage.Env = supervised.LastOfEach(append(env, "HOLDFAST_ROOT="+dir))
	return os.MkdirAll(filepath.Dir(spec.Log), 0o750)
}

// Stop implements runtime.Engine.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	return e.set.Stop(ctx, id, grace)
}

// Close implements runtime.Engine.
func (e *Engine) Close(ctx context.Context, uid string) error { return e.set.Close(ctx, uid) }

// Exec implements runtime.Engine.
func (e *Engine) Exec(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
	return e.set.Exec(ctx, id, spec)
}

// Attach implements runtime.Engine.
func (e *Engine) Attach(ctx context.Context, id string, streams runtime.Streams) error {
	return e.set.Attach(ctx, id, streams)
}

// Dial implements runtime.Engine: the pod's ports are the node's.
func (e *Engine) Dial(ctx context.Context, uid string, port uint16) (net.Conn, error) {
	if _, err := e.set.Find(uid); err != nil {
		return nil, err
	}
	return supervised.DialNode(ctx, port)
}

// Usage implements runtime.Engine.
func (e *Engine) Usage(ctx context.Context, uid string) (map[string]runtime.Use, error) {
	return e.set.Usage(ctx, uid)
}

// Shutdown implements runtime.Engine.
func (e *Engine) Shutdown() error { return e.set.Shutdown() }

var _ runtime.Engine = (*Engine)(nil)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

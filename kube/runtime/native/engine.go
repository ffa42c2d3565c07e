//go:build linux

package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
	"github.com/holdfast-db/holdfast/kube/runtime/supervised"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// Config of an engine. Dir, Node, Changed, Logger and Clock are required.
type Config struct {
	// Dir is a folder of the engine's own, with a file for each pod. It is kept from run
	// to run: without it pods of earlier runs are not found.
	Dir string
	// Node is the name of the node: engines of several on one machine do not meet.
	Node string
	// CgroupParent is the group below which all others are, in each hierarchy. Empty:
	// holdfast-NODE. Groups of pods below it that Dir does not know are removed.
	CgroupParent string
	// Network gives pods their addresses; nil: they have lo alone.
	Network runtime.Network
	Changed runtime.Changed // Hears that something became of a pod.
	Logger  hclog.Logger
	Clock   clock.Clock
}

// Engine implements runtime.Engine.
type Engine struct {
	cfg     Config
	set     *supervised.Set
	cgroups *tree
}

// New makes the engine, finds the pods of earlier runs and removes what no pod claims.
func New(cfg Config) (*Engine, error) {
	if cfg.Dir == "" || cfg.Node == "" || cfg.Changed == nil || cfg.Logger == nil || cfg.Clock == nil {
		return nil, errors.New("native: Dir, Node, Changed, Logger and Clock are required")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("runtime native needs root: start the kubelet as root, or use the runtime process")
	}
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = "holdfast-" + cfg.Node
	}
	t, err := newTree(cfg.CgroupParent, cfg.Clock)
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, cgroups: t}
	e.set, err = supervised.NewSet(supervised.Config{
		Dir: cfg.Dir, Sealed: true, Logger: cfg.Logger, Clock: cfg.Clock, Changed: cfg.Changed,
		Prepare: e.prepare, Opened: e.opened, Sweep: e.sweep, Clean: e.clean,
	})
	if err != nil {
		return nil, err
	}
	// Beside the node's other work its pods weigh as much as all of its processors.
	if err := t.make("", limits{milliCPU: int64(goruntime.NumCPU()) * 1000}); err != nil {
		return nil, errors.Join(err, e.set.Shutdown())
	}
	e.collect()
	return e, nil
}

// Info implements runtime.Engine.
func (e *Engine) Info() runtime.Info {
	return runtime.Info{Name: "native", Version: "namespaces and cgroups by the kubelet itself", Isolated: true, PodNetwork: e.cfg.Network != nil}
}

// List implements runtime.Engine.
func (e *Engine) List(ctx context.Context) ([]runtime.Pod, error) { return e.set.List(ctx) }

// Open implements runtime.Engine.
func (e *Engine) Open(ctx context.Context, spec *runtime.PodSpec) (*runtime.Pod, error) {
	return e.set.Open(ctx, spec)
}

// Names of groups.
const (
	podPrefix       = "pod"
	supervisorGroup = "supervisor"
)

func classGroup(c runtime.Class) string {
	if c == "" {
		c = runtime.BestEffort
	}
	return strings.ToLower(string(c))
}

func podGroup(p *supervised.Pod) string {
	return classGroup(p.Spec.Class) + "/" + podPrefix + p.Spec.UID
}

// supervisorMemory is on top of what the containers of a pod may have together.
const supervisorMemory = 16 << 20

// supervisorScore keeps the kernel from choosing a supervisor when memory ends, where it may.
const supervisorScore = -998

// prepare makes the groups of a pod, and says what its supervisor shall be.
func (e *Engine) prepare(p *supervised.Pod, b *supervisor.Boot) (uintptr, error) {
	r := p.Spec.Resources
	l := limits{milliCPU: r.RequestMilliCPU, milliCPUMax: r.LimitMilliCPU, processesMax: r.LimitPIDs}
	if r.LimitMemoryBytes > 0 {
		l.memoryMax = r.LimitMemoryBytes + supervisorMemory
	}
	group := podGroup(p)
	if err := e.cgroups.make(group, l); err != nil {
		return 0, err
	}
	if err := e.weigh(p.Spec.Class); err != nil {
		return 0, err
	}
	if err := e.cgroups.make(group+"/"+supervisorGroup, limits{}); err != nil {
		return 0, err
	}
	score := supervisorScore
	b.Cgroups, b.OOMScoreAdj = e.cgroups.procs(group+"/"+supervisorGroup), &score
	b.Hostname, b.Loopback = p.Spec.Hostname, !p.Spec.HostNetwork
	clone := uintptr(unix.CLONE_NEWUTS | unix.CLONE_NEWIPC)
	if !p.Spec.HostNetwork {
		clone |= unix.CLONE_NEWNET
	}
	return clone, nil
}

// weigh gives a class the weight of all that its pods request.
func (e *Engine) weigh(c runtime.Class) error {
	var sum int64
	for _, p := range e.set.Pods() {
		if classGroup(p.Spec.Class) == classGroup(c) {
			sum += p.Spec.Resources.RequestMilliCPU
		}
	}
	return e.cgroups.make(classGroup(c), limits{milliCPU: sum})
}

// opened gives a pod its address and its files.
func (e *Engine) opened(ctx context.Context, p *supervised.Pod, pid int) error {
	if e.cfg.Network != nil && !p.Spec.HostNetwork {
		ip, err := e.cfg.Network.Connect(ctx, p.Spec.UID, fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			return fmt.Errorf("network of pod %s: %w", p.Spec.UID, err)
		}
		p.IP = ip.String()
	}
	return writeNames(p)
}

// sweep kills what is left of a pod without a supervisor.
func (e *Engine) sweep(p *supervised.Pod, _ []supervisor.Record) error {
	return e.cgroups.kill(podGroup(p))
}

// clean removes what a pod has beside its files.
func (e *Engine) clean(ctx context.Context, p *supervised.Pod) error {
	if e.cfg.Network != nil && !p.Spec.HostNetwork {
		if err := e.cfg.Network.Disconnect(ctx, p.Spec.UID); err != nil {
			return fmt.Errorf("network of pod %s: %w", p.Spec.UID, err)
		}
	}
	if err := e.cgroups.remove(podGroup(p), removeMax); err != nil {
		return fmt.Errorf("pod %s: %w", p.Spec.UID, err) // Its file stays, so that it is tried again.
	}
	return nil
}

// collect removes the groups of pods that are not known. What cannot be removed now is
// found at the next start again.
func (e *Engine) collect() {
	for _, class := range []runtime.Class{runtime.Guaranteed, runtime.Burstable, runtime.BestEffort} {
		for _, name := range e.cgroups.children(classGroup(class)) {
			uid, ok := strings.CutPrefix(name, podPrefix)
			if !ok || e.set.Has(uid) {
				continue
			}
			group := classGroup(class) + "/" + name
			err := e.cgroups.kill(group)
			if err == nil {
				err = e.cgroups.remove(group, removeMax)
			}
			e.cfg.Logger.Warn("cgroup of a pod that is not known: removed", "cgroup", group, "err", err)
		}
	}
}

// Start implements runtime.Engine.
func (e *Engine) Start(ctx context.Context, spec *runtime.ContainerSpec) (string, error) {
	l, err := launchOf(spec)
	if err != nil {
		return "", err
	}
	group := ""
	err = e.set.Start(ctx, spec.UID, l, func(p *supervised.Pod) error {
		group = podGroup(p) + "/" + groupOf(l)
		return e.ready(p, spec, l, group)
	})
	if err != nil {
		if group != "" {
			_ = e.cgroups.remove(group, 0) // With the pod at the latest.
		}
		return "", err
	}
	return l.ID, nil
}

func groupOf(l *supervisor.Launch) string { return l.Name + "." + strconv.Itoa(l.Attempt) }

// launchOf is what the spec alone says of a launch.
func launchOf(spec *runtime.ContainerSpec) (*supervisor.Launch, error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	signal, err := supervised.Signal(spec.Image.StopSignal)
	if err != nil {
		return nil, fmt.Errorf("%w: stop signal of image %s: %w", runtime.ErrInvalid, spec.Image.Ref, err)
	}
	x := &spec.Security
	caps, err := stage.Capabilities(x.AddCapabilities, x.DropCapabilities)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrInvalid, err)
	}
	return &supervisor.Launch{
		ID: supervised.ContainerID(spec.UID, spec.Name, spec.Attempt), Name: spec.Name, Attempt: spec.Attempt, ImageID: spec.Image.ID, Log: spec.Log,
		Isolated: true, StopSignal: signal, Stdin: spec.Stdin,
		Stage: stage.Spec{
			Argv: supervised.Command(spec), Dir: supervised.WorkingDir(spec), TTY: spec.TTY, OOMScoreAdj: &spec.OOMScoreAdj,
			NoNewPrivileges: !x.MayGainPrivileges,
			Rights: &stage.Rights{
				ImageUser: spec.Image.User, User: x.User, Group: x.Group, Groups: x.Groups, NonRoot: x.NonRoot, Caps: caps, Unfiltered: x.UnfilteredSyscalls,
			},
		},
	}, nil
}

// ready makes what a container needs, and completes its launch.
func (e *Engine) ready(p *supervised.Pod, spec *runtime.ContainerSpec, l *supervisor.Launch, group string) error {
	for _, old := range e.cgroups.children(podGroup(p)) {
		if old != supervisorGroup {
			_ = e.cgroups.remove(podGroup(p)+"/"+old, 0) // Refused where something runs.
		}
	}
	r := spec.Resources
	err := e.cgroups.make(group, limits{milliCPU: r.RequestMilliCPU, milliCPUMax: r.LimitMilliCPU, memoryMax: r.LimitMemoryBytes, processesMax: r.LimitPIDs})
	if err != nil {
		return err
	}
	l.Scratch = supervised.Scratch(p, spec)
	if err := os.RemoveAll(l.Scratch); err != nil { // Of a start that was cut short.
		return err
	}
	if err := os.MkdirAll(l.Scratch, 0o700); err != nil {
		return err
	}
	l.Kills = e.cgroups.kills(group)
	l.Stage.Cgroups = e.cgroups.procs(group)
	l.Stage.Root = &stage.Root{Layers: spec.Image.Layers, Work: l.Scratch, ReadOnly: spec.Security.ReadOnlyRoot, Mounts: mounts(p, spec)}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + p.Spec.Hostname}
	if spec.TTY {
		env = append(env, "TERM=xterm")
	}
	l.Stage.Env = supervised.LastOfEach(slices.Concat(env, spec.Image.Env, spec.Env))
	return os.MkdirAll(filepath.Dir(spec.Log), 0o750)
}

// Stop implements runtime.Engine.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	return e.set.Stop(ctx, id, grace)
}

// Close implements runtime.Engine.
func (e *Engine) Close(ctx context.Context, uid string) error {
	p, err := e.set.Find(uid)
	if err != nil {
		return nil // It is not there.
	}
	if err := e.set.Close(ctx, uid); err != nil {
		return err
	}
	return e.weigh(p.Spec.Class)
}

// Exec implements runtime.Engine.
func (e *Engine) Exec(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
	return e.set.Exec(ctx, id, spec)
}

// Attach implements runtime.Engine.
func (e *Engine) Attach(ctx context.Context, id string, streams runtime.Streams) error {
	return e.set.Attach(ctx, id, streams)
}

// Dial implements runtime.Engine.
func (e *Engine) Dial(ctx context.Context, uid string, port uint16) (net.Conn, error) {
	return e.set.Dial(ctx, uid, port) // Its supervisor is in its network, the node's or its own.
}

// Usage implements runtime.Engine.
func (e *Engine) Usage(_ context.Context, uid string) (map[string]runtime.Use, error) {
	p, err := e.set.Find(uid)
	if err != nil {
		return nil, err
	}
	all := map[string]runtime.Use{}
	for _, child := range e.cgroups.children(podGroup(p)) {
		name, _, ok := strings.Cut(child, ".")
		group := podGroup(p) + "/" + child
		if ok && e.cgroups.busy(group) {
			all[name] = e.cgroups.use(group)
		}
	}
	return all, nil
}

// Shutdown implements runtime.Engine.
func (e *Engine) Shutdown() error { return e.set.Shutdown() }

var _ runtime.Engine = (*Engine)(nil)

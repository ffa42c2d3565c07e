package pods

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/environ"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/volume"
)

// Images is where images come from.
type Images interface {
	// Resolve finds an image, and fetches it if its policy says so.
	Resolve(ctx context.Context, ref string, policy corev1.PullPolicy, logins image.Logins) (*runtime.Image, error)
	// Collect removes what nobody uses, if room is short.
	Collect(ctx context.Context, used map[string]bool) error
	// List tells which there are.
	List(ctx context.Context) ([]image.Info, error)
}

// Wires are what a pod has of the network beside its address.
type Wires interface {
	DNS(pod *corev1.Pod) runtime.DNS
	// Publish makes the host ports of a pod ports of the node, and Unpublish takes them
	// back.
	Publish(pod *corev1.Pod, address netip.Addr)
	Unpublish(uid string)
}

// Config says what a Runtime works with. All but those with a default are required.
type Config struct {
	// NewEngine makes the engine, which tells changed.
	NewEngine func(ctx context.Context, changed runtime.Changed) (runtime.Engine, error)

	Images  Images
	Volumes *volume.Volumes
	Objects environ.Objects

	// Dir has a folder for each pod, named by its UID: that of Volumes.
	Dir string

	// Node is the node as it is known at the start.
	Node *corev1.Node

	// Loopback gives pods that are on the network of the node a loopback address each,
	// so that several can listen on one port, if they look at HOLDFAST_POD_IP. Only for
	// a cluster of one machine. Without it they have the node's address.
	Loopback bool

	// Wires lead to pods and from them.
	Wires Wires

	Changed func(uid types.UID)                                 // Hears that a pod is otherwise than Status said.
	Event   func(pod *corev1.Pod, kind, reason, message string) // Tells people.

	// Spread draws from [0,1): containers that are found when a kubelet starts are not all
	// asked at once how they are. Nil: they are.
	Spread func() float64

	Clock  clock.Clock // Default: the machine's.
	Logger hclog.Logger
}

// Runtime runs pods on an engine.
type Runtime struct {
	cfg    Config
	engine runtime.Engine
	info   runtime.Info
	clock  clock.Clock
	log    hclog.Logger
	tasks  *task.Group
	looks  chan struct{} // Holds one: the engine says that something changed.
	node   atomic.Pointer[corev1.Node]

	mu struct {
		sync.Mutex
		pods map[types.UID]*pod
		cpu  map[string]cpuSample // By the ID of a container.
	}
}

// Open makes the engine and asks it what is there, until it answers or ctx ends.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	r := &Runtime{cfg: cfg, clock: cfg.Clock, log: cfg.Logger, looks: make(chan struct{}, 1)}
	r.node.Store(cfg.Node)
	r.mu.pods, r.mu.cpu = map[types.UID]*pod{}, map[string]cpuSample{}
	var err error
	if r.engine, err = cfg.NewEngine(ctx, func(string) { r.lookSoon() }); err != nil {
		return nil, err
	}
	r.info = r.engine.Info()
	delay := retryMin
	for {
		listed, err := r.list(ctx)
		if err == nil {
			r.found(listed)
			break
		}
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), r.engine.Shutdown())
		}
		r.log.Warn("the engine does not tell what runs, asking again", "engine", r.info.Name, "error", err)
		if !r.pause(ctx, delay) {
			return nil, errors.Join(ctx.Err(), r.engine.Shutdown())
		}
		delay = min(2*delay, retryMax)
	}
	r.tasks = task.New(context.WithoutCancel(ctx))
	r.tasks.Go("pods look", r.lookOn)
	r.tasks.Go("pods volumes", r.keepVolumes)
	r.tasks.Go("pods images", r.keepImages)
	return r, nil
}

// Info is what the engine is.
func (r *Runtime) Info() runtime.Info { return r.info }

// Isolated implements kubelet.Isolator.
func (r *Runtime) Isolated() bool { return r.info.Isolated }

// NodeChanged implements kubelet.NodeFollower.
func (r *Runtime) NodeChanged(node *corev1.Node) { r.node.Store(node) }

// CollectImages implements kubelet.ImageCollector.
func (r *Runtime) CollectImages(ctx context.Context) error {
	return r.cfg.Images.Collect(ctx, r.Used())
}

// NodeImages implements kubelet.ImageLister.
func (r *Runtime) NodeImages(ctx context.Context) ([]corev1.ContainerImage, error) {
	list, err := r.cfg.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []corev1.ContainerImage
	for _, i := range list {
		all = append(all, corev1.ContainerImage{Names: slices.Concat(i.Digests, i.Names), SizeBytes: i.Bytes})
	}
	return all, nil
}

// Addresses are those of the pods that the engine has, by UID; zero for one on the
// network of the node.
func (r *Runtime) Addresses() map[string]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]netip.Addr{}
	for uid, p := range r.mu.pods {
		if p.open {
			all[string(uid)] = r.ownAddress(p.ip)
		}
	}
	return all
}

// Close ends the work on pods. They go on.
func (r *Runtime) Close() error {
	r.tasks.Stop()
	err := r.tasks.Wait()
	r.mu.Lock()
	var watches []*watch
	for _, p := range r.mu.pods {
		for _, c := range p.containers {
			watches = append(watches, c.watch)
		}
	}
	r.mu.Unlock()
	for _, w := range watches {
		w.close()
	}
	return errors.Join(err, r.engine.Shutdown())
}

func (r *Runtime) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-r.clock.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runtime) dir(uid types.UID) string { return filepath.Join(r.cfg.Dir, string(uid)) }

// Start implements kubelet.Runtime.
func (r *Runtime) Start(o *corev1.Pod, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil {
		p = newPod(o)
		r.mu.pods[o.UID] = p
	}
	if p.stop != nil || p.evicted != "" || p.forget {
		return // Whoever asks is told when it has ended, and when its folder is gone.
	}
	p.object, p.exists = o, true
	c := p.container(name)
	if c.state.Phase == kubelet.Running || c.state.Phase == kubelet.Creating {
		return
	}
	c.state = kubelet.ContainerState{Phase: kubelet.Creating}
	p.wanted = append(p.wanted, name)
	r.workLocked(p)
}

// Renew implements kubelet.Renewer.
func (r *Runtime) Renew(o *corev1.Pod, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil || p.stop != nil {
		return
	}
	if c := p.containers[name]; c != nil && c.runs() {
		r.stopContainerLocked(p, name, c, newDeadline(r.clock.Mono()+graceOf(o)))
	}
}

// Stop implements kubelet.Runtime.
func (r *Runtime) Stop(o *corev1.Pod, grace time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil || !p.exists {
		return
	}
	p.object, p.keeps = o, false
	r.stopLocked(p, grace)
}

// Fence implements kubelet.Fencer.
func (r *Runtime) Fence(o *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil || !p.exists {
		return
	}
	p.object, p.keeps = o, p.stop == nil || p.keeps
	r.stopLocked(p, 0)
}

func (r *Runtime) stopLocked(p *pod, grace time.Duration) {
	if p.stop == nil {
		p.stop = newDeadline(r.clock.Mono() + grace)
	} else {
		p.stop.shorten(r.clock.Mono() + grace)
	}
	for _, c := range p.containers {
		if c.stopper != nil {
			c.stopper.shorten(p.stop.at())
		}
	}
	p.wanted = nil
	if p.cancel != nil {
		p.cancel()
	}
	r.workLocked(p)
}

// Status implements kubelet.Runtime.
func (r *Runtime) Status(o *corev1.Pod) kubelet.PodState {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[o.UID]
	if p == nil {
		return kubelet.PodState{}
	}
	p.object = o
	s := kubelet.PodState{Exists: p.exists, IP: p.ip, Evicted: p.evicted, Containers: make(map[string]kubelet.ContainerState, len(p.containers))}
	for name, c := range p.containers {
		state := c.state
		if state.Phase == kubelet.Running {
			state.Starting, state.Ready = c.watch.state()
		}
		s.Containers[name] = state
	}
	return s
}

// Forget implements kubelet.Runtime.
func (r *Runtime) Forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[uid]
	if p == nil {
		p = &pod{uid: uid, containers: map[string]*container{}}
		r.mu.pods[uid] = p
	}
	p.forget = true
	r.workLocked(p)
}

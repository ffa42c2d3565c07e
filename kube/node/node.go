package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/fabric"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/pods"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/kube/volume"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Kind is what runs the containers of a node.
type Kind string

// Kinds.
const (
	Native  Kind = "native"  // Namespaces and cgroups by our own code. Needs root.
	Process Kind = "process" // Plain processes.
	CRI     Kind = "cri"     // Whatever answers at a socket, containerd for one.
)

// LoopbackServices are the addresses of services in a cluster of one machine without root:
// they are the machine's own already.
const LoopbackServices = "127.96.0.0/16"

// Config says which node this is. Name, Instance, Dir, Client, Kind and Logger are
// required.
type Config struct {
	Name, Instance string
	Dir, StaticDir string          // StaticDir may be empty: there are no manifests of the node's own.
	Client         *objects.Client // As the identity of the node.
	Tunnels        []tunnel.Server // To each control plane. None: nobody reaches the containers through one.
	Heard          func(*kubepb.HeartbeatResponse)

	Kind   Kind
	Socket string // Of CRI.

	Labels   map[string]string
	Reserved corev1.ResourceList // Kept from pods, of what the machine has.
	Pods     int64               // That it takes. Default: PodsMax.
	Address  string              // Of the node, as others reach it.
	Alone    bool                // All nodes are on this machine: without a network of their own pods get loopback addresses.
	Version  string              // Of this program.

	// PodRange are the addresses of all pods, ServiceRange those of services, as the
	// control planes have them.
	PodRange, ServiceRange netip.Prefix
	Backend                network.Backend // How packets come to pods of other nodes. Default: none.

	Random func() uint64  // From many goroutines; nobody must guess it. Required.
	Spread func() float64 // In [0,1). Required.
	Clock  clock.Clock    // Default: the machine's.
	Logger hclog.Logger
}

// Validate reports all that is wrong, with the mend.
func (c *Config) Validate() error {
	var errs []error
	switch c.Kind {
	case Native:
		if os.Geteuid() != 0 {
			errs = append(errs, errors.New("runtime native makes namespaces and cgroups, which takes root: run this as root, or use --runtime process"))
		}
	case Process:
	case CRI:
		if c.Socket == "" {
			errs = append(errs, errors.New("runtime cri needs the socket of an engine: give --cri-socket, unix:///run/containerd/containerd.sock for example"))
		}
	default:
		errs = append(errs, fmt.Errorf("runtime %q is none: use %s, %s or %s", c.Kind, Native, Process, CRI))
	}
	switch a, err := netip.ParseAddr(c.Address); {
	case err != nil:
		errs = append(errs, fmt.Errorf("address of the node %q: %w: give --node-ip", c.Address, err))
	case !a.Is4():
		errs = append(errs, fmt.Errorf("address of the node %v: pods and services have IPv4 alone: give an IPv4 address with --node-ip", a))
	}
	return errors.Join(errs...)
}

// node is one that runs.
type node struct {
	cfg   Config
	log   hclog.Logger
	clock clock.Clock
	tasks *task.Group
	store *image.Store
	again atomic.Bool

	mu struct {
		sync.Mutex
		runtime *pods.Runtime
		fabric  *fabric.Fabric
		pulled  *pulled // Nil: the engine keeps no images itself.
	}
}

// Run is the node until ctx ends, or until the control plane refuses it for good. Its
// pods go on.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil { // Engines that are other programs are told of paths in it.
		return err
	}
	for {
		again, err := runOnce(ctx, cfg)
		if !again || err != nil || ctx.Err() != nil {
			return err
		}
		cfg.Logger.Info("the node has its range of pods: its network begins anew")
	}
}

// runOnce is the node. It ends early, and is to be run again, when it has learned what
// its network is made from; its pods do not notice.
func runOnce(ctx context.Context, cfg Config) (again bool, err error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	n := &node{cfg: cfg, log: cfg.Logger, clock: cfg.Clock, tasks: task.New(ctx)}
	if err := vfs.MakeFolder(vfs.OS(), cfg.Dir); err != nil {
		return false, err
	}
	capacity, err := new(Machine).Capacity(cfg.Dir)
	if err != nil {
		return false, err
	}
	if cfg.Pods > 0 {
		capacity[corev1.ResourcePods] = *resource.NewQuantity(cfg.Pods, resource.DecimalSI)
	}
	if n.store, err = image.Open(image.Config{
		Dir: filepath.Join(cfg.Dir, "images"), Logger: n.log.Named("images"), Clock: n.clock, Rootless: cfg.Kind == Process, KeepBlobs: cfg.Kind == CRI,
	}); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, n.store.Close()) }()
	var k *kubelet.Kubelet
	k, err = kubelet.New(kubelet.Config{
		Client: cfg.Client, Node: cfg.Name, Instance: cfg.Instance, Labels: cfg.Labels, Capacity: capacity, Reserved: cfg.Reserved,
		Address: cfg.Address, Runtime: string(cfg.Kind), System: new(Machine).System(cfg.Version), Heard: cfg.Heard, Dir: cfg.Dir, StaticDir: cfg.StaticDir, Disk: n.disk,
		BootTime: bootTime, Clock: n.clock, Logger: n.log,
		NewRuntime: func(ctx context.Context, is *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			return n.runtime(ctx, k, is, changed)
		},
	})
	if err != nil {
		return false, err
	}
	n.tasks.Go("kubelet", k.Run)
	err = n.tasks.Wait()
	return n.again.Load(), errors.Join(err, n.close())
}

// follower is a runtime whose network may have to begin anew.
type follower struct {
	*pods.Runtime
	node *node
	bare bool // It has no network for pods, for want of a range.
}

// NodeChanged implements kubelet.NodeFollower.
func (f *follower) NodeChanged(is *corev1.Node) {
	f.Runtime.NodeChanged(is)
	if f.bare && is.Spec.PodCIDR != "" {
		f.node.again.Store(true)
		f.node.tasks.Stop()
	}
}

// RuntimeVersion implements kubelet.Versioner.
func (f *follower) RuntimeVersion() string {
	if f.node.cfg.Kind != CRI {
		return string(f.node.cfg.Kind)
	}
	return f.Info().Name + "://" + f.Info().Version
}

func (n *node) close() error {
	n.mu.Lock()
	r, w := n.mu.runtime, n.mu.fabric
	n.mu.Unlock()
	if r == nil {
		return nil
	}
	return errors.Join(r.Close(), w.Close())
}

// runtime makes what runs pods, and what leads to them.
func (n *node) runtime(ctx context.Context, k *kubelet.Kubelet, is *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
	from := named{n.cfg.Client}
	dir := filepath.Join(n.cfg.Dir, "pods")
	volumes, err := volume.New(volume.Config{
		Dir: dir, Objects: from, Allocatable: func() corev1.ResourceList { return is.Status.Allocatable },
		Mounts: n.cfg.Kind != Process && volume.MayMount(), Clock: n.clock, Logger: n.log.Named("volumes"),
	})
	if err != nil {
		return nil, err
	}
	w, err := n.wire(is)
	if err != nil {
		return nil, err
	}
	var kept images = stored{n.store}
	var fetched *pulled
	if n.cfg.Kind == CRI {
		fetched = newPulled(n.store, n.clock, n.log.Named("images"))
		kept = fetched
	}
	cfg := pods.Config{
		Images: kept, Volumes: volumes, Objects: from, Dir: dir, Node: is, Loopback: n.cfg.Alone, Wires: w,
		Changed: changed, Event: k.Event, Spread: n.cfg.Spread, Clock: n.clock, Logger: n.log.Named("pods"),
	}
	cfg.NewEngine = func(ctx context.Context, changed runtime.Changed) (runtime.Engine, error) {
		e, err := n.engine(ctx, w.Network(), changed)
		if fetched != nil && err == nil {
			fetched.engine = e.(runtime.Puller)
		}
		return e, err
	}
	r, err := pods.Open(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if err := w.Retain(ctx, r.Addresses()); err != nil {
		n.log.Warn("networks of pods that are gone stay until the next start", "error", err)
	}
	n.tasks.Go("network", w.Run)
	n.mu.Lock()
	n.mu.runtime, n.mu.fabric, n.mu.pulled = r, w, fetched
	n.mu.Unlock()
	if len(n.cfg.Tunnels) > 0 {
		n.tasks.Go("tunnel", func(ctx context.Context) error {
			return tunnel.Serve(ctx, tunnel.Config{
				Name: n.cfg.Name, Instance: n.cfg.Instance, Node: reached{r, kept}, Servers: n.cfg.Tunnels, Logger: n.log.Named("tunnel"), Clock: n.clock, Spread: n.cfg.Spread,
			})
		})
	}
	return &follower{Runtime: r, node: n, bare: n.cfg.Kind == Native && w.Network() == nil}, nil
}

// wire makes what leads packets to pods.
func (n *node) wire(is *corev1.Node) (*fabric.Fabric, error) {
	c := &n.cfg
	address, _ := netip.ParseAddr(c.Address)     // Validate has seen it.
	own, _ := netip.ParsePrefix(is.Spec.PodCIDR) // Invalid: it has none yet, or there was none left.
	cfg := fabric.Config{
		Client: c.Client, Node: c.Name, PodCIDR: own, PodRange: c.PodRange, ServiceRange: c.ServiceRange, Backend: c.Backend, Address: address,
		Root: c.Kind == Native && own.IsValid() || c.Kind == CRI && os.Geteuid() == 0, Foreign: c.Kind == CRI, Dir: c.Dir, Random: n.cfg.Random, Clock: n.clock, Logger: n.log,
	}
	if c.Alone && !cfg.Root {
		cfg.Address = netip.Addr{} // Loopback.
	}
	return fabric.Open(cfg)
}

// disk measures what the folder lies on, or the images of the engine, whichever is fuller.
func (n *node) disk() (free, total int64, err error) {
	free, total, err = room(n.cfg.Dir)
	n.mu.Lock()
	p := n.mu.pulled
	n.mu.Unlock()
	if err != nil || p == nil {
		return free, total, err
	}
	ctx, cancel := context.WithTimeout(n.tasks.Context(), imageDirMax)
	defer cancel()
	dir, err := p.engine.ImageDir(ctx)
	if err != nil {
		return free, total, nil // The engine is away: what is known counts.
	}
	imagesFree, imagesTotal, err := room(dir)
	if err == nil && float64(imagesFree)*float64(total) < float64(free)*float64(imagesTotal) {
		return imagesFree, imagesTotal, nil
	}
	return free, total, nil
}

// imageDirMax bounds the question where an engine has its images.
const imageDirMax = 5 * time.Second

func room(dir string) (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

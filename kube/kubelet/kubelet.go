package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Config says which node this is and what runs its pods. Client, Node, NewRuntime and
// Logger are required.
type Config struct {
	Client *objects.Client // As the identity of the node.
	Node   string

	// Instance tells this kubelet from another of its name. The same after a restart:
	// it goes on with the lease that it had.
	Instance string

	// Labels of the node, beside host name, system and architecture. A node may set
	// only those of a machine.
	Labels map[string]string

	// Capacity is what the node has; Reserved is kept from pods.
	Capacity, Reserved corev1.ResourceList

	Address string // Of the node. Empty: not told.
	Runtime string // Its name, for people: "sim".

	// System is what else is told of the machine: its kernel, its system. The fields that
	// others of this struct fill are ignored.
	System corev1.NodeSystemInfo

	// NewRuntime is called once: when the node is registered, or else, without a control
	// plane, with the node as it was last. It may take as long as whatever runs containers
	// takes to answer. The runtime calls changed, from any goroutine but not from within a
	// call of its own, when the state of a pod is another.
	NewRuntime func(ctx context.Context, node *corev1.Node, changed func(uid types.UID)) (Runtime, error)

	// Heard is told what each heartbeat was answered with: among other things, the
	// authorities that the cluster trusts. Called in order, and must not block. Nil: nobody
	// listens.
	Heard func(*kubepb.HeartbeatResponse)

	// Dir is where the kubelet keeps what it must know without a control plane, and FS
	// what it lies on (default: the machine's). Empty: it keeps nothing, and waits for a
	// control plane after a restart.
	Dir string
	FS  vfs.FS

	// StaticDir is a folder of manifests of pods that this node runs by itself. Empty:
	// there are none.
	StaticDir string

	// Disk measures what Dir and the containers lie on. Below diskFreeLow of it the node has
	// disk pressure: it takes no pods in, and has images collected. Nil: it is not looked
	// at.
	Disk func() (free, total int64, err error)

	// BootTime is which start of the machine this is, and how long ago that was, also
	// while it slept. With Dir, a kubelet that is restarted knows by it how long the
	// node's lease still stands. Nil: it stops singletons until a heartbeat is answered.
	BootTime func() (boot string, since time.Duration, err error)

	Clock  clock.Clock // Default: the machine's.
	Logger hclog.Logger
}

func (c *Config) setDefaults() error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("no Client"))
	}
	if c.NewRuntime == nil {
		errs = append(errs, errors.New("no NewRuntime"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("no Logger"))
	}
	if c.Instance == "" {
		c.Instance = c.Node
	}
	if c.Heard == nil {
		c.Heard = func(*kubepb.HeartbeatResponse) {}
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	errs = append(errs, pki.CheckNodeName(c.Node))
	return errors.Join(errs...)
}

// Kubelet is one node.
type Kubelet struct {
	cfg     Config
	client  *objects.Client
	clock   clock.Clock
	log     hclog.Logger
	runtime Runtime            // Set before the first worker is, and before what reads it starts.
	started atomic.Bool        // It is set: for tasks that began before.
	folder  *checkpoint.Folder // Nil: nothing is kept.
	pods    *pods
	lease   lease
	hold    hold
	disk    disk
	events  chan event
	claimed chan struct{} // Holds one: the lease is another.
	beat    chan struct{} // Holds one: the next heartbeat is due now.
	changed chan struct{} // Holds one: conditions of the node have changed.
}

// New returns a kubelet that does nothing before Run.
func New(cfg Config) (*Kubelet, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("kubelet %q: %w", cfg.Node, err)
	}
	k := &Kubelet{
		cfg: cfg, client: cfg.Client, clock: cfg.Clock, log: cfg.Logger.With("node", cfg.Node),
		events: make(chan event, eventsQueued), claimed: make(chan struct{}, 1), changed: make(chan struct{}, 1), beat: make(chan struct{}, 1),
	}
	k.hold.signal, k.lease.longer = make(chan struct{}, 1), make(chan struct{}, 1)
	k.hold.mu.told = holdUntold
	k.pods = newPods(k)
	return k, nil
}

// Run is the node until ctx ends, or until the control plane refuses it for good.
// What ran before goes on at once, with or without a control plane. Containers go on
// when it returns: that the kubelet ends is no reason for pods to.
func (k *Kubelet) Run(ctx context.Context) error {
	saved, err := k.load()
	if err == nil {
		err = k.loadLease()
	}
	if err != nil {
		return fmt.Errorf("kubelet %s: %w", k.cfg.Node, err)
	}
	defer k.lease.end()
	g := task.New(ctx)
	k.pods.tasks = g
	g.Go("kubelet", func(ctx context.Context) error {
		if err := k.pods.resume(ctx, saved); err != nil {
			return err
		}
		if err := k.alone(ctx, saved); err != nil {
			return err
		}
		g.Go("kubelet static pods", k.keepStatic)
		g.Go("kubelet disk", k.watchDisk)
		return k.join(ctx, g, saved)
	})
	g.Go("kubelet events", k.writeEvents)
	err = g.Wait()
	k.pods.stop()
	return err
}

// join registers the node, and then runs what needs a control plane.
func (k *Kubelet) join(ctx context.Context, g *task.Group, saved *checkpoint.Saved) error {
	node, err := k.register(ctx)
	if err != nil {
		return err
	}
	if err := k.start(ctx, node); err != nil {
		return err
	}
	k.keepNode(node)
	k.tellDamaged(saved)
	informer := objects.NewInformer[*corev1.Pod](k.client, objects.ListOptions{Fields: k.pods.fields()}, k.log)
	informer.OnHistory(k.heardHistory)
	informer.OnChange(k.pods.changed)
	k.pods.informer = informer
	g.Go("kubelet lease", k.keepLease)
	g.Go("kubelet lease file", k.noteLeases)
	g.Go("kubelet pods", informer.Run)
	g.Go("kubelet node status", k.keepStatus)
	if err := informer.Synced(ctx); err != nil {
		return err
	}
	k.pods.begin()
	g.Go("kubelet hold", k.keepHold)
	g.Go("kubelet samples", k.sampleAll)
	return nil
}

// pause waits, and says whether there is a reason to go on.
func (k *Kubelet) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-k.clock.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// final reports whether another attempt would get the same answer.
func final(err error) bool {
	return errors.Is(err, objects.ErrDenied) || errors.Is(err, objects.ErrInvalid)
}

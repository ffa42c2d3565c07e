package kubelet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
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

	// NewRuntime is called once the node is registered. The runtime calls changed, from
	// any goroutine but not from within a call of its own, when the state of a pod is
	// another.
	NewRuntime func(node *corev1.Node, changed func(uid types.UID)) Runtime

	// Heard is told what each heartbeat was answered with: among other things, the
	// authorities that the cluster trusts. Called in order, and must not block. Nil: nobody
	// listens.
	Heard func(*kubepb.HeartbeatResponse)

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
	errs = append(errs, pki.CheckNodeName(c.Node))
	return errors.Join(errs...)
}

// Kubelet is one node.
type Kubelet struct {
	cfg     Config
	client  *objects.Client
	clock   clock.Clock
	log     hclog.Logger
	runtime Runtime // Set once the node is registered.
	pods    *pods
	lease   lease
	events  chan event
	claimed chan struct{} // Holds one: the lease is another.
}

// New returns a kubelet that does nothing before Run.
func New(cfg Config) (*Kubelet, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("kubelet %q: %w", cfg.Node, err)
	}
	k := &Kubelet{
		cfg: cfg, client: cfg.Client, clock: cfg.Clock, log: cfg.Logger.With("node", cfg.Node),
		events: make(chan event, eventsQueued), claimed: make(chan struct{}, 1),
	}
	k.pods = newPods(k)
	return k, nil
}

// Run is the node until ctx ends, or until the control plane refuses it for good.
// Containers go on when it returns: that the kubelet ends is no reason for pods to.
func (k *Kubelet) Run(ctx context.Context) error {
	node, err := k.register(ctx)
	if err != nil {
		return err
	}
	k.runtime = k.cfg.NewRuntime(node, k.pods.poke)
	informer := objects.NewInformer[*corev1.Pod](k.client, objects.ListOptions{Fields: "spec.nodeName=" + k.cfg.Node}, k.log)
	informer.OnChange(k.pods.changed)
	g := task.New(ctx)
	k.pods.tasks = g
	g.Go("kubelet lease", k.keepLease)
	g.Go("kubelet pods", informer.Run)
	g.Go("kubelet start", func(ctx context.Context) error {
		if err := informer.Synced(ctx); err != nil {
			return err
		}
		k.pods.begin(informer)
		return nil
	})
	g.Go("kubelet node status", k.keepStatus)
	g.Go("kubelet samples", k.sampleAll)
	g.Go("kubelet events", k.writeEvents)
	err = g.Wait()
	k.pods.stop()
	return err
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

package sim

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/tunnel"
)

// FleetConfig says which simulated nodes there are. Dial and Logger are required.
type FleetConfig struct {
	Prefix string // Of the names: PREFIX-1 and so on.
	Count  int
	Zones  int // The nodes are spread over so many. 0: they have none.

	// Dial returns the connection of a node. Several may have the same, if the other
	// side can tell who calls.
	Dial func(node string) (grpc.ClientConnInterface, error)

	// Tunnels has each node keep a tunnel over its connection, which leads to one server
	// then. Without, nobody reads the logs of its containers: enough for thousands.
	Tunnels bool

	Capacity corev1.ResourceList // Of each. Default: 8 cores, 32Gi, 110 pods.
	Instance string              // Of the process, the same after a restart.
	Clock    clock.Clock         // Default: the machine's.
	Logger   hclog.Logger
}

// NodeName is that of the i-th node of a fleet, from 1.
func NodeName(prefix string, i int) string { return fmt.Sprintf("%s-%d", prefix, i) }

// DefaultCapacity is what a simulated node has if nothing else is said.
func DefaultCapacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
}

// RunFleet runs kubelets until ctx ends, or until one of them is refused for good.
func RunFleet(ctx context.Context, cfg FleetConfig) error {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Capacity == nil {
		cfg.Capacity = DefaultCapacity()
	}
	g := task.New(ctx)
	for i := 1; i <= cfg.Count; i++ {
		g.Go("sim kubelet", func(ctx context.Context) error { return runNode(ctx, &cfg, i) })
	}
	return g.Wait()
}

func runNode(ctx context.Context, cfg *FleetConfig, i int) error {
	name := NodeName(cfg.Prefix, i)
	conn, err := cfg.Dial(name)
	if err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	var labels map[string]string
	if cfg.Zones > 0 {
		labels = map[string]string{corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", (i-1)%cfg.Zones+1)}
	}
	var runtime *Runtime
	g := task.New(ctx)
	k, err := kubelet.New(kubelet.Config{
		Client: objects.New(conn, "kubelet"), Node: name, Instance: cfg.Instance, Labels: labels, Capacity: cfg.Capacity, Runtime: "sim",
		NewRuntime: func(_ context.Context, node *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			runtime = New(Config{Clock: cfg.Clock, Subnet: node.Spec.PodCIDR, Changed: changed})
			if cfg.Tunnels {
				g.Go("tunnel", func(ctx context.Context) error {
					return tunnel.Serve(ctx, tunnel.Config{
						Name: name, Instance: cfg.Instance, Node: runtime, Servers: []tunnel.Server{{Name: "the fleet's", Conn: conn}}, Logger: cfg.Logger.With("node", name),
						Clock: cfg.Clock, Spread: func() float64 { return float64(i) / float64(cfg.Count+1) },
					})
				})
			}
			return runtime, nil
		},
		Clock: cfg.Clock, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	g.Go("kubelet", func(ctx context.Context) error {
		err := k.Run(ctx)
		g.Stop()
		return err
	})
	err = g.Wait()
	if runtime != nil {
		runtime.Close()
	}
	return err
}

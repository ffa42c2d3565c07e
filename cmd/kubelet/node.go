package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/pages"
	"github.com/holdfast-db/holdfast/internal/resident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/join"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/node"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// runNode joins the cluster as one node, or goes on as it.
func (o *options) runNode(ctx context.Context) error {
	pages.Find().Release() // What packages have needed once, in order to be initialised.
	made, err := o.joinToken()
	if err != nil {
		return err
	}
	n, err := join.New(join.Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: o.log.Named("join"), Dir: o.dir, Node: o.node, Servers: o.servers, Token: made, Spread: rand.Float64,
	})
	if err != nil {
		return err
	}
	if err := n.Rotator().Ready(ctx); err != nil {
		return fmt.Errorf("join %s as %s: %w", strings.Join(o.servers, ","), o.node, err)
	}
	creds, err := n.Credentials()
	if err != nil {
		return err
	}
	conn, err := dial(o.servers, creds)
	if err != nil {
		return err
	}
	defer conn.Close()
	g := task.New(ctx)
	g.Go("certificate", n.Rotator().Run)
	g.Go("memory", func(ctx context.Context) error { return resident.Keep(ctx, clock.Real()) })
	var tunnels []tunnel.Server
	for _, s := range o.servers {
		one, err := dial([]string{s}, creds) // What ends a tunnel is the end of its connection.
		if err != nil {
			return err
		}
		defer one.Close()
		tunnels = append(tunnels, tunnel.Server{Name: s, Conn: one})
	}
	if o.runtime == simulated {
		g.Go("kubelet", func(ctx context.Context) error { return o.simulate(ctx, conn, n.Heard, tunnels) })
		return g.Wait()
	}
	cfg := o.nodeConfig()
	cfg.Client, cfg.Heard, cfg.Tunnels = objects.New(conn, "kubelet"), n.Heard, tunnels
	g.Go("node", func(ctx context.Context) error { return node.Run(ctx, *cfg) })
	return g.Wait()
}

// nodeConfig is a node that runs containers.
func (o *options) nodeConfig() *node.Config {
	return &node.Config{
		Name: o.node, Instance: o.instance, Dir: o.dir, StaticDir: o.staticDir, Kind: node.Kind(o.runtime), Socket: o.socket,
		PodRange: o.podPrefix, ServiceRange: o.servicePrefix, Backend: network.Backend(o.backend), Labels: o.labels, Reserved: o.reserved, Pods: o.pods, Address: o.address, Alone: o.alone(), Version: build.Version(),
		Random: rand.Uint64, Spread: rand.Float64, Logger: o.log,
	}
}

// simulate is a node that runs nothing.
func (o *options) simulate(ctx context.Context, conn *grpc.ClientConn, heard func(*kubepb.HeartbeatResponse), tunnels []tunnel.Server) error {
	var runtime *sim.Runtime
	g := task.New(ctx)
	k, err := kubelet.New(kubelet.Config{
		Client: objects.New(conn, "kubelet"), Node: o.node, Instance: o.instance, Capacity: o.capacity, Runtime: o.runtime, Heard: heard,
		Dir: o.dir, StaticDir: o.staticDir, Disk: o.disk, Logger: o.log,
		NewRuntime: func(_ context.Context, node *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			runtime = sim.New(sim.Config{Clock: clock.Real(), Subnet: node.Spec.PodCIDR, Changed: changed})
			g.Go("tunnel", func(ctx context.Context) error {
				return tunnel.Serve(ctx, tunnel.Config{
					Name: o.node, Instance: o.instance, Node: runtime, Servers: tunnels, Logger: o.log.Named("tunnel"), Spread: rand.Float64,
				})
			})
			return runtime, nil
		},
	})
	if err != nil {
		return err
	}
	g.Go("kubelet", k.Run)
	err = g.Wait()
	if runtime != nil {
		runtime.Close()
	}
	return err
}

// joinToken is what was given; nil if nothing was.
func (o *options) joinToken() (*token.Token, error) {
	text := o.token
	if o.tokenFile != "" {
		if text != "" {
			return nil, wrong("--token and --token-file: give one of them")
		}
		data, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		if text = strings.TrimSpace(string(data)); text == "" {
			return nil, fmt.Errorf("--token-file: %s is empty: put in it what 'holdfastctl token create' prints", o.tokenFile)
		}
	}
	if text == "" {
		return nil, nil
	}
	made, err := token.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	return &made, nil
}

// nodesPerConnection of a fleet: each has two streams, and calls beside them; a server
// takes a thousand.
const nodesPerConnection = 400

// runFleet runs many simulated nodes.
func (o *options) runFleet(ctx context.Context) error {
	files := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: o.certs}.Files(o.cert)
	r, err := pki.AwaitReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: o.log, Files: files})
	if err != nil {
		return err
	}
	name := r.Certificate().Leaf.Subject.CommonName
	prefix, ok := strings.CutPrefix(name, auth.FleetPrefix)
	if !ok || prefix == "" {
		return fmt.Errorf("%s is of %q: the certificate of a fleet has the common name %sPREFIX and the organization %s", files.Cert, name, auth.FleetPrefix, auth.FleetGroup)
	}
	var conns []*grpc.ClientConn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range (o.count + nodesPerConnection - 1) / nodesPerConnection {
		c, err := dial(o.servers, join.Live(r))
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	of := map[string]*grpc.ClientConn{}
	for i := 1; i <= o.count; i++ {
		of[sim.NodeName(prefix, i)] = conns[(i-1)/nodesPerConnection]
	}
	o.log.Info("fleet starts", "nodes", o.count, "first", sim.NodeName(prefix, 1))
	err = sim.RunFleet(ctx, sim.FleetConfig{
		Prefix: prefix, Count: o.count, Zones: o.zones, Capacity: o.capacity, Instance: o.instance, Logger: o.log,
		Dial: func(node string) (grpc.ClientConnInterface, error) {
			c := of[node]
			if c == nil {
				return nil, errors.New("it is not of this fleet")
			}
			return speaking{c, node}, nil
		},
	})
	return err
}

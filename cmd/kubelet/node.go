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

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/join"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

// runNode joins the cluster as one node, or goes on as it.
func (o *options) runNode(ctx context.Context) error {
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
	var runtime *sim.Runtime
	k, err := kubelet.New(kubelet.Config{
		Client: objects.New(conn, "kubelet"), Node: o.node, Instance: o.instance, Capacity: o.capacity, Runtime: o.runtime, Heard: n.Heard, Logger: o.log,
		NewRuntime: func(node *corev1.Node, changed func(types.UID)) kubelet.Runtime {
			runtime = sim.New(sim.Config{Clock: clock.Real(), Subnet: node.Spec.PodCIDR, Changed: changed})
			return runtime
		},
	})
	if err != nil {
		return err
	}
	g := task.New(ctx)
	g.Go("certificate", n.Rotator().Run)
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
		text = strings.TrimSpace(string(data))
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

package kube_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/tests/network"
)

var (
	faultsFor  = flag.Duration("faults", 15*time.Second, "how long the cluster is harmed")
	faultsSeed = flag.Uint64("seed", 0, "of the faults; 0: by the time")
)

// While rollouts, scaling and drains go on, control planes and fleets of nodes are
// killed, stopped for a while, and cut off from each other. A minute after the last fault all is as it is meant
// to be, and at no revision was it ever wrong.
func TestFaultsDuringRolloutsScalingAndDrainsLeaveNoTrace(t *testing.T) {
	seed := *faultsSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with: go test ./tests/kube -run Faults -faults=%v -seed=%d", *faultsFor, seed)
	c := startThreeOn(t, meshOf(t, 6), 4, 4, 4)
	apps := map[string]int32{"red": 6, "green": 8, "blue": 4}
	for name, n := range apps {
		c.create(deployment(name, n, "300m"))
	}
	c.eventually(30*time.Second, "all pods run", func(ctx context.Context) error { return c.allRolledOut(ctx, apps) })

	ctx, cancel := context.WithTimeout(c.ctx, *faultsFor)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { c.harm(ctx, rand.New(rand.NewPCG(seed, 1))) })
	both.Go(func() { c.work(ctx, rand.New(rand.NewPCG(seed, 2)), apps) })
	both.Wait()
	c.heal()
	c.within(60*time.Second, "all nodes are ready", func(ctx context.Context) error { return c.nodesReady(ctx, 12) })
	c.within(60*time.Second, "all pods run", func(ctx context.Context) error { return c.allRolledOut(ctx, apps) })
	c.replay()
}

func (c *three) allRolledOut(ctx context.Context, apps map[string]int32) error {
	for name, n := range apps {
		if err := c.rolledOut(ctx, name, n); err != nil {
			return err
		}
	}
	return nil
}

// meshOf is a network that can be cut, nil where none can be made.
func meshOf(t *testing.T, members int) *network.Mesh {
	t.Helper()
	names, err := network.NewNames()
	if err == nil {
		t.Cleanup(func() {
			if err := names.Close(); err != nil {
				t.Error(err)
			}
		})
		err = network.Probe(names)
	}
	var mesh *network.Mesh
	if err == nil {
		mesh, err = network.New(network.Config{Members: members, Names: names})
	}
	if err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatalf("nobody can be cut off here: %v", err)
		}
		t.Logf("nobody is cut off here: %v", err)
		return nil
	}
	t.Cleanup(func() {
		if err := mesh.Close(); err != nil {
			t.Error(err)
		}
	})
	return mesh
}

// harm does one thing after the other, each to one process. Two control planes always
// run, or will soon.
func (c *three) harm(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		victim := r.IntN(len(c.planes))
		p, what := c.planes[victim], "control plane"
		if r.IntN(2) == 0 {
			i := r.IntN(len(c.fleets))
			p, what, victim = c.fleets[i], "fleet", len(c.planes)+i
		}
		pause := time.Duration(300+r.IntN(3000)) * time.Millisecond
		switch k := r.IntN(3); {
		case k == 0:
			c.Logf("fault: kill %s %s, back after %v", what, p.args[0], pause)
			p.kill()
			wait(ctx, pause)
			p.start()
		case k == 1 || c.mesh == nil:
			c.Logf("fault: stop %s %s for %v", what, p.args[0], pause)
			p.signal(syscall.SIGSTOP)
			wait(ctx, pause)
			p.signal(syscall.SIGCONT)
		default:
			c.cut(ctx, r, victim, pause)
		}
		wait(ctx, time.Duration(r.IntN(1000))*time.Millisecond)
	}
}

// cut separates one process from control planes, from fleets, or from everybody, in one
// direction or in both; sometimes for so long that its nodes count as dead.
func (c *three) cut(ctx context.Context, r *rand.Rand, victim int, pause time.Duration) {
	first, last := 0, len(c.planes)+len(c.fleets)
	switch r.IntN(3) {
	case 0:
		last = len(c.planes)
	case 1:
		if first = len(c.planes); victim >= first {
			first = 0 // Fleets say nothing to each other.
		}
	}
	if *faultsFor > time.Minute && r.IntN(4) == 0 { // Else it would be the only fault.
		pause += 15 * time.Second
	}
	hears, speaks := true, true // Whether the direction is cut.
	switch r.IntN(3) {
	case 0:
		hears = false
	case 1:
		speaks = false
	}
	c.Logf("fault: member %d cut off from %d to %d for %v; it hears them: %t, it is heard: %t", victim, first, last-1, pause, !hears, !speaks)
	each := func(change func(from, to int) error) {
		for other := first; other < last; other++ {
			var errs []error
			if other == victim {
				continue
			}
			if speaks {
				errs = append(errs, change(victim, other))
			}
			if hears {
				errs = append(errs, change(other, victim))
			}
			if err := errors.Join(errs...); err != nil { // Of the rules, not of what is cut.
				c.Error(err)
			}
		}
	}
	each(c.mesh.Cut)
	wait(ctx, pause)
	each(c.mesh.Heal)
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// work changes what is meant to be. That a call fails while faults go on is no news:
// what apps say is asked for again at the end.
func (c *three) work(ctx context.Context, r *rand.Rand, apps map[string]int32) {
	names := []string{"red", "green", "blue"}
	for ctx.Err() == nil {
		name := names[r.IntN(len(names))]
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		var err error
		switch r.IntN(3) {
		case 0:
			apps[name] = int32(2 + r.IntN(10))
			err = c.scaleTo(call, name, apps[name])
		case 1:
			err = c.roll(call, name, r.Uint64())
		case 2:
			err = c.drain(call, fmt.Sprintf("fleet%d-%d", 1+r.IntN(3), 1+r.IntN(4)))
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			c.Logf("refused: %v", err)
		}
		wait(ctx, time.Duration(r.IntN(1500))*time.Millisecond)
	}
	for name, n := range apps {
		c.eventually(30*time.Second, "scaled "+name, func(ctx context.Context) error { return c.scaleTo(ctx, name, n) })
	}
}

func (c *three) scaleTo(ctx context.Context, name string, n int32) error {
	_, err := c.api.Scale(ctx, &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: name}, Replicas: n})
	return err
}

// roll gives the template another annotation, which is another version.
func (c *three) roll(ctx context.Context, name string, version uint64) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"version":"%x"}}}}}`, version)
	_, err := c.api.RPC().Patch(ctx, &kubepb.PatchRequest{
		Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: name}, Type: kubepb.PatchRequest_MERGE, Patch: []byte(patch),
	})
	return err
}

// drain moves everything off a node, then lets pods back.
func (c *three) drain(ctx context.Context, node string) error {
	if err := c.cordon(ctx, node, true); err != nil {
		return err
	}
	pods, _, err := objects.List[*corev1.Pod](ctx, c.api, objects.ListOptions{Fields: "spec.nodeName=" + node})
	if err != nil {
		return err
	}
	for _, p := range pods {
		if _, err := c.api.Evict(ctx, &kubepb.EvictRequest{Pod: &kubepb.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}}); err != nil {
			return err
		}
	}
	return c.cordon(ctx, node, false)
}

func (c *three) cordon(ctx context.Context, node string, on bool) error {
	_, err := c.api.RPC().Patch(ctx, &kubepb.PatchRequest{
		Object: &kubepb.Ref{Kind: "Node", Name: node}, Type: kubepb.PatchRequest_MERGE, Patch: fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, on),
	})
	return err
}

// heal undoes what is still wrong.
func (c *three) heal() {
	for _, p := range append(c.planes, c.fleets...) {
		if !p.running() {
			c.Fatalf("%s has ended by itself:\n%s", p.args[0], p.out)
		}
		p.signal(syscall.SIGCONT)
	}
	for i := range c.fleets {
		for j := range 4 {
			c.eventually(30*time.Second, "uncordoned", func(ctx context.Context) error {
				return c.cordon(ctx, fmt.Sprintf("fleet%d-%d", i+1, j+1), false)
			})
		}
	}
}

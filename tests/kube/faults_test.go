package kube_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var (
	faultsFor  = flag.Duration("faults", 12*time.Second, "how long the cluster is harmed")
	faultsSeed = flag.Uint64("seed", 0, "of the faults; 0: by the time")
)

// While rollouts, scaling and drains go on, control planes and fleets of nodes are
// killed and stopped for a while. A minute after the last fault all is as it is meant
// to be, and at no revision was it ever wrong.
func TestFaultsDuringRolloutsScalingAndDrainsLeaveNoTrace(t *testing.T) {
	seed := *faultsSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with: go test ./tests/kube -run Faults -faults=%v -seed=%d", *faultsFor, seed)
	c := startThree(t, 4, 4, 4)
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
	c.eventually(60*time.Second, "all nodes are ready", func(ctx context.Context) error { return c.nodesReady(ctx, 12) })
	c.eventually(60*time.Second, "all pods run", func(ctx context.Context) error { return c.allRolledOut(ctx, apps) })
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

// harm does one thing after the other, each to one process. Two control planes always
// run, or will soon.
func (c *three) harm(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		p, what := c.planes[r.IntN(3)], "control plane"
		if r.IntN(2) == 0 {
			p, what = c.fleets[r.IntN(len(c.fleets))], "fleet"
		}
		pause := time.Duration(500+r.IntN(4000)) * time.Millisecond
		if r.IntN(2) == 0 {
			c.Logf("fault: kill %s %s, back after %v", what, p.args[0], pause)
			p.kill()
			wait(ctx, pause)
			p.start()
		} else {
			c.Logf("fault: stop %s %s for %v", what, p.args[0], pause)
			p.signal(syscall.SIGSTOP)
			wait(ctx, pause)
			p.signal(syscall.SIGCONT)
		}
		wait(ctx, time.Duration(r.IntN(2000))*time.Millisecond)
	}
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

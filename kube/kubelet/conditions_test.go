package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
)

// plain is a runtime without isolation, whose images can be collected.
type plain struct {
	*sim.Runtime
	collected atomic.Int32
}

func (p *plain) Isolated() bool { return false }

// NodeImages are more than a status shall have.
func (p *plain) NodeImages(context.Context) (all []corev1.ContainerImage, err error) {
	for i := range 60 {
		all = append(all, corev1.ContainerImage{Names: slices.Repeat([]string{fmt.Sprintf("i%d:1", i)}, 9), SizeBytes: int64(1 + i)})
	}
	return all, nil
}

func (p *plain) CollectImages(context.Context) error {
	p.collected.Add(1)
	return nil
}

const clockStep = 200 * time.Millisecond

func conditionsOf(t *testing.T, c *objects.Client) string {
	t.Helper()
	n, err := objects.Get[*corev1.Node](t.Context(), c, "", "n")
	if err != nil {
		return err.Error()
	}
	is := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, c := range n.Status.Conditions {
		is[c.Type] = c.Status
	}
	return fmt.Sprint(is)
}

func TestADiskThatRunsFullKeepsPodsAwayAndImagesAreCollected(t *testing.T) {
	leak.Check(t)
	clk, cluster := clocktest.New(), kubetest.Start(t)
	admin := cluster.Client(auth.Admin("ann"))
	var free atomic.Int64
	free.Store(500)
	runtime := &plain{}
	k, err := kubelet.New(kubelet.Config{
		Client: cluster.Client(auth.Node("n")), Node: "n", Capacity: sim.DefaultCapacity(), Clock: clk, Logger: hclog.NewNullLogger(),
		Disk: func() (int64, int64, error) { return free.Load(), 1000, nil },
		NewRuntime: func(_ context.Context, node *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			runtime.Runtime = sim.New(sim.Config{Clock: clk, Subnet: node.Spec.PodCIDR, Changed: changed})
			return runtime, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := task.New(context.WithoutCancel(t.Context()))
	g.Go("kubelet", k.Run)
	b := &bench{T: t, tasks: g}
	t.Cleanup(b.stop)
	are := func(want string) {
		t.Helper()
		b.soon(want, func() error {
			clk.Advance(clockStep)
			if is := conditionsOf(t, admin); is != want {
				return fmt.Errorf("conditions are %s", is)
			}
			return nil
		})
	}
	are("map[DiskPressure:False Isolated:False Ready:True]")
	free.Store(99)
	are("map[DiskPressure:True Isolated:False Ready:True]")
	b.soon("images are collected", func() error { // After it is told.
		if runtime.collected.Load() == 0 {
			return errors.New("none was")
		}
		return nil
	})
	n, err := objects.Get[*corev1.Node](t.Context(), admin, "", "n")
	if err != nil {
		t.Fatal(err)
	}
	if told := n.Status.Images; len(told) != 50 || told[0].SizeBytes != 60 || told[49].SizeBytes != 11 || len(told[0].Names) != 5 {
		t.Errorf("of 60 images %d are told: %+v", len(told), told)
	}
	h := &harness{T: t, cluster: cluster, admin: admin}
	pod := h.boundTo("n", "p", "100m")
	b.soon("the pod is rejected", func() error {
		clk.Advance(clockStep)
		p, err := objects.Get[*corev1.Pod](t.Context(), admin, "default", pod.Name)
		if err == nil && (p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted") {
			err = fmt.Errorf("%+v", p.Status)
		}
		return err
	})
	free.Store(110) // More than at its beginning is needed for its end.
	for range 50 {
		clk.Advance(clockStep)
	}
	if is := conditionsOf(t, admin); is != "map[DiskPressure:True Isolated:False Ready:True]" {
		t.Errorf("conditions are %s", is)
	}
	free.Store(126)
	are("map[DiskPressure:False Isolated:False Ready:True]")
	runtime.Close()
}

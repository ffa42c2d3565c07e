package kubelet_test

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// rooted is an authority that is trusted and not asked for anything.
type rooted struct{ state.Authority }

func (rooted) Roots() ([]byte, error) { return []byte("roots"), nil }

func TestHeartbeatsTellWhomTheClusterTrusts(t *testing.T) {
	cluster := kubetest.Start(t, func(c *state.Config) { c.Authority = rooted{} })
	heard := make(chan *kubepb.HeartbeatResponse, 1)
	var runtime *sim.Runtime
	k, err := kubelet.New(kubelet.Config{
		Client: cluster.Client(auth.Node("n")), Node: "n", Capacity: sim.DefaultCapacity(), Logger: hclog.NewNullLogger(),
		Heard: func(r *kubepb.HeartbeatResponse) {
			select {
			case heard <- r:
			default: // The first is what the test looks at.
			}
		},
		NewRuntime: func(_ context.Context, node *corev1.Node, changed func(types.UID)) (kubelet.Runtime, error) {
			runtime = sim.New(sim.Config{Clock: clock.Real(), Subnet: node.Spec.PodCIDR, Changed: changed})
			return runtime, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := task.New(t.Context())
	g.Go("kubelet", k.Run)
	select {
	case r := <-heard:
		if string(r.Authority) != "roots" || r.Lease == 0 {
			t.Errorf("heard %v", r)
		}
	case <-time.After(patience):
		t.Error("nothing was heard")
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if runtime != nil {
		runtime.Close()
	}
}

package kubelet_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// patience is how long a test waits for what should happen soon.
const patience = 60 * time.Second

// harness is a cluster with one simulated node, sim-1, of one core.
type harness struct {
	*testing.T
	cluster *kubetest.Cluster
	admin   *objects.Client
	changed chan struct{} // Holds one: a pod or node has changed.
	pods    *objects.Informer[*corev1.Pod]
	nodes   *objects.Informer[*corev1.Node]
}

func start(t *testing.T) *harness {
	leak.Check(t)
	h := &harness{T: t, cluster: kubetest.Start(t), changed: make(chan struct{}, 1)}
	h.admin = h.cluster.Client(auth.Admin("ann"))
	h.pods = objects.NewInformer[*corev1.Pod](h.admin, objects.ListOptions{}, hclog.NewNullLogger())
	h.nodes = objects.NewInformer[*corev1.Node](h.admin, objects.ListOptions{}, hclog.NewNullLogger())
	h.pods.OnChange(func(_, _ *corev1.Pod) { h.rouse() })
	h.nodes.OnChange(func(_, _ *corev1.Node) { h.rouse() })
	h.run("pods", h.pods.Run)
	h.run("nodes", h.nodes.Run)
	h.run("fleet", func(ctx context.Context) error {
		capacity := sim.DefaultCapacity()
		capacity[corev1.ResourceCPU] = resource.MustParse("1")
		return sim.RunFleet(ctx, sim.FleetConfig{
			Prefix: "sim", Count: 1, Capacity: capacity, Instance: "x", Logger: hclog.NewNullLogger(),
			Dial: func(node string) (grpc.ClientConnInterface, error) {
				return h.cluster.Service.Dial(auth.Node(node)), nil
			},
		})
	})
	h.until("the node is ready", func() bool { return h.ready() })
	return h
}

func (h *harness) rouse() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *harness) run(name string, f func(context.Context) error) {
	g := task.New(context.WithoutCancel(h.Context()))
	g.Go(name, f)
	h.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			h.Errorf("%s: %v", name, err)
		}
	})
}

func (h *harness) until(what string, yes func() bool) {
	h.Helper()
	timeout := time.After(patience)
	for !yes() {
		select {
		case <-h.changed:
		case <-timeout:
			h.Fatalf("not within %v: %s; pods: %v", patience, what, h.pods.List(""))
		}
	}
}

func (h *harness) ready() bool {
	n, ok := h.nodes.Get("", "sim-1")
	if !ok {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// bound makes a pod and gives it the node.
func (h *harness) bound(name, cpu string) *corev1.Pod {
	h.Helper()
	return h.boundTo("sim-1", name, cpu)
}

func (h *harness) boundTo(node, name, cpu string) *corev1.Pod {
	h.Helper()
	made := h.made(name, cpu)
	if err := h.bind(made, node); err != nil {
		h.Fatal(err)
	}
	return made
}

func (h *harness) bind(pod *corev1.Pod, node string) error {
	_, err := h.admin.Bind(h.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}, PodUid: string(pod.UID), Node: node})
	return err
}

func (h *harness) made(name, cpu string) *corev1.Pod {
	h.Helper()
	p := &corev1.Pod{}
	p.Namespace, p.Name = "default", name
	p.Annotations = map[string]string{sim.Prefix + "cpu": "120m", sim.Prefix + "memory": "64Mi"}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
	}}}
	made, err := objects.Create(h.Context(), h.admin, p)
	if err != nil {
		h.Fatal(err)
	}
	return made
}

// lie says of the node that it has 64 cores.
func (h *harness) lie() {
	h.Helper()
	err := objects.ErrConflict
	for errors.Is(err, objects.ErrConflict) {
		var n *corev1.Node
		if n, err = objects.Get[*corev1.Node](h.Context(), h.admin, "", "sim-1"); err == nil {
			n.Status.Capacity[corev1.ResourceCPU], n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("64"), resource.MustParse("64")
			_, err = objects.UpdateStatus(h.Context(), h.admin, n)
		}
	}
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) phase(name string) corev1.PodPhase {
	p, ok := h.pods.Get("default", name)
	if !ok {
		return ""
	}
	return p.Status.Phase
}

func TestAPodRunsIsMeasuredAndGoes(t *testing.T) {
	h := start(t)
	h.bound("a", "500m")
	h.until("the pod runs", func() bool { return h.phase("a") == corev1.PodRunning })
	p, _ := h.pods.Get("default", "a")
	if s := p.Status; s.PodIP == "" || s.StartTime == nil || len(s.ContainerStatuses) != 1 || !s.ContainerStatuses[0].Ready {
		t.Errorf("status %+v", s)
	}
	if err := objects.Delete[*corev1.Pod](h.Context(), h.admin, "default", "a"); err != nil {
		t.Fatal(err)
	}
	h.until("the pod is gone", func() bool { return h.phase("a") == "" })
}

// The ledger would not let two such pods onto the node. Somebody who lies about the
// node gets past it, but not past the kubelet.
func TestAPodForWhichThereIsNoRoomIsRejected(t *testing.T) {
	h := start(t)
	h.bound("a", "700m")
	h.until("the first runs", func() bool { return h.phase("a") == corev1.PodRunning })
	b, err := h.made("b", "700m"), error(nil)
	for range 10 { // The kubelet tells the truth now and then.
		h.lie()
		if err = h.bind(b, "sim-1"); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	h.until("the second is rejected", func() bool { return h.phase("b") == corev1.PodFailed })
	if p, _ := h.pods.Get("default", "b"); p.Status.Reason != "OutOfcpu" {
		t.Errorf("reason %q: %s", p.Status.Reason, p.Status.Message)
	}
	h.bound("c", "200m")
	h.until("what fits runs", func() bool { return h.phase("c") == corev1.PodRunning })
}

func TestANodeWhoseObjectIsDeletedRegistersAnew(t *testing.T) {
	h := start(t)
	before, _ := h.nodes.Get("", "sim-1")
	if err := objects.Delete[*corev1.Node](h.Context(), h.admin, "", "sim-1"); err != nil {
		t.Fatal(err)
	}
	h.until("it is there again, and ready", func() bool {
		n, ok := h.nodes.Get("", "sim-1")
		return ok && n.UID != before.UID && h.ready()
	})
	got, err := h.cluster.Store().Get(h.Context(), client.Get{Range: client.One(state.HeartbeatPrefix + "sim-1")})
	if err != nil || len(got.Kvs) != 1 || got.Kvs[0].Lease == 0 {
		t.Errorf("heartbeat key %v, %v", got, err)
	}
}

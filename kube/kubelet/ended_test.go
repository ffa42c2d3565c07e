package kubelet_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// once makes a pod that runs for a moment, and gives it a node.
func once(t *testing.T, admin *objects.Client, node string, annotations map[string]string, sidecars ...corev1.Container) {
	t.Helper()
	p := &corev1.Pod{}
	p.Namespace, p.Name = "default", "once"
	p.Annotations = map[string]string{}
	for k, v := range annotations {
		p.Annotations[sim.Prefix+k] = v
	}
	p.Spec.RestartPolicy, p.Spec.InitContainers = corev1.RestartPolicyNever, sidecars
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo"}}
	made, err := objects.Create(t.Context(), admin, p)
	if err == nil {
		_, err = admin.Bind(t.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: "once"}, PodUid: string(made.UID), Node: node})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Its room is given to others in the write that says that it has ended.
func TestAPodIsToldToHaveEndedOnceItsSidecarsHave(t *testing.T) {
	h := start(t)
	always := corev1.ContainerRestartPolicyAlways
	once(t, h.admin, "sim-1", map[string]string{"exit-after.c": "100ms", "stop.side": "400ms"}, corev1.Container{Name: "side", Image: "builtin/demo", RestartPolicy: &always})
	h.until("it has ended", func() bool { return h.phase("once") == corev1.PodSucceeded })
	p, _ := h.pods.Get("default", "once")
	if is := p.Status.InitContainerStatuses[0]; is.State.Terminated == nil {
		t.Errorf("it is told to have ended, and its sidecar to be %+v", is.State)
	}
}

// A control plane that does not answer when a pod ends, and a kubelet that is replaced before
// it does: what was to run once ran once.
func TestAPodThatHasEndedIsNotRunAgainSinceNobodyHeardOfIt(t *testing.T) {
	clk := clocktest.New()
	b := newBench(t, clk)
	cluster := kubetest.Start(t)
	admin := cluster.Client(auth.Admin("ann"))
	b.conn.set(cluster.Service.Dial(auth.Node("n")))
	tick := func() { clk.Advance(100 * time.Millisecond) }
	b.soon("the node is there", func() error {
		tick()
		_, err := objects.Get[*corev1.Node](t.Context(), admin, "", "n")
		return err
	})
	// It is seen to run long before it ends, however long the disk takes to take that in.
	once(t, admin, "n", map[string]string{"exit-after": "2m"})
	first := ""
	b.soon("it runs", func() error {
		tick()
		p := mirrors(t, admin)["once"]
		if p.Status.Phase != corev1.PodRunning || p.Status.ContainerStatuses[0].ContainerID == "" {
			return fmt.Errorf("%+v", p.Status)
		}
		first = p.Status.ContainerStatuses[0].ContainerID
		return nil
	})
	b.conn.muted.Store(true)
	b.soon("the disk knows that it has ended", func() error {
		clk.Advance(time.Second)
		saved, err := checkpoint.Read(vfs.OS(), filepath.Join(b.dir, "checkpoints"))
		if err == nil && (len(saved.Pods) != 1 || saved.Pods[0].Status.Phase != corev1.PodSucceeded) {
			err = fmt.Errorf("%+v", saved.Pods)
		}
		return err
	})
	b.stop()
	b.start()
	b.conn.muted.Store(false)
	b.soon("it is told", func() error {
		tick()
		if p := mirrors(t, admin)["once"]; p.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("%+v", p.Status)
		}
		return nil
	})
	is := mirrors(t, admin)["once"].Status.ContainerStatuses[0]
	if is.ContainerID != first || is.RestartCount != 0 || is.State.Terminated == nil {
		t.Errorf("container %s ran, and told is %+v", first, is)
	}
}

// A name of 253 bytes is a name. Those of its events are made of it, and a label holds 63.
func TestNodesAndPodsMayHaveTheLongestNames(t *testing.T) {
	clk := clocktest.New()
	node := strings.Repeat(strings.Repeat("n", 63)+".", 3) + strings.Repeat("n", 59) + "-1"
	b := newBenchOf(t, clk, node)
	b.write("a.yaml", manifest(strings.Repeat("a", 10), "builtin/demo"))
	cluster := kubetest.Start(t)
	admin := cluster.Client(auth.Admin("ann"))
	b.conn.set(cluster.Service.Dial(auth.Node(node)))
	tick := func() { clk.Advance(100 * time.Millisecond) }
	b.soon("the node is there", func() error {
		tick()
		_, err := objects.Get[*corev1.Node](t.Context(), admin, "", node)
		return err
	})
	p := &corev1.Pod{}
	p.Namespace, p.Name = "default", strings.Repeat("a-", 126)+"b"
	p.Spec.Containers = []corev1.Container{{Name: strings.Repeat("c", 63), Image: "builtin/demo"}}
	made, err := objects.Create(t.Context(), admin, p)
	if err == nil {
		_, err = admin.Bind(t.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: p.Name}, PodUid: string(made.UID), Node: node})
	}
	if err != nil {
		t.Fatal(err)
	}
	b.soon("it runs, and people hear of that", func() error {
		tick()
		if is := mirrors(t, admin)[p.Name]; is.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%+v", is.Status)
		}
		all, _, err := objects.List[*corev1.Event](t.Context(), admin, objects.ListOptions{})
		if err == nil && !slices.ContainsFunc(all, func(e *corev1.Event) bool { return e.InvolvedObject.UID == made.UID }) {
			err = fmt.Errorf("%d events, and none of it", len(all))
		}
		return err
	})
	b.stop()
	if !strings.Contains(b.log.String(), "metadata.name: with that of the node it has 264 bytes; 253 are the most") {
		t.Errorf("what cannot have a mirror is not named:\n%s", b.log.String())
	}
}

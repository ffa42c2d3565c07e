package controller_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/controller"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

const patience = 60 * time.Second // A machine may be busy; nothing waits for it when all is well.

// world is a cluster with controllers, and something that plays scheduler and
// kubelets.
type world struct {
	*testing.T
	cluster *kubetest.Cluster
	client  *objects.Client // Of a person who may do everything.
	tasks   *task.Group
	nodes   []string
}

func newWorld(t *testing.T, nodes int) *world {
	cluster := kubetest.Start(t)
	w := &world{T: t, cluster: cluster, client: cluster.Client(auth.Admin("ann")), tasks: task.New(context.Background())}
	t.Cleanup(func() {
		w.tasks.Stop()
		if err := w.tasks.Wait(); err != nil {
			t.Errorf("tasks: %v", err)
		}
	})
	for i := range nodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n" + strconv.Itoa(i)}}
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("500")}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		make1(w, n)
		w.beat(n.Name)
		w.nodes = append(w.nodes, n.Name)
	}
	w.kubelets()
	return w
}

func make1[T api.Object](w *world, o T) T {
	w.Helper()
	made, err := objects.Create(w.Context(), w.client, o)
	if err != nil {
		w.Fatal(err)
	}
	return made
}

// beat and die write and delete what a node's lease keeps.
func (w *world) beat(node string) {
	if _, err := w.cluster.Store().Put(w.Context(), client.Put{Key: "/holdfast/heartbeat/" + node, Value: []byte("test")}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) die(nodes ...string) {
	for _, n := range nodes {
		if _, err := w.cluster.Store().Delete(w.Context(), client.Delete{Range: client.One("/holdfast/heartbeat/" + n)}); err != nil {
			w.Fatal(err)
		}
	}
}

// lead writes a leader's key, which fences who led before.
func (w *world) lead() *kubepb.Fence {
	w.Helper()
	const at = "/holdfast/leader/controllers/test"
	if _, err := w.cluster.Store().Delete(w.Context(), client.Delete{Range: client.One(at)}); err != nil {
		w.Fatal(err)
	}
	r, err := w.cluster.Store().Put(w.Context(), client.Put{Key: at})
	if err != nil {
		w.Fatal(err)
	}
	return &kubepb.Fence{Key: at, CreateRevision: r.Header.Revision}
}

func (w *world) manager(clk clock.Clock) *controller.Manager {
	w.Helper()
	m, err := controller.New(controller.Config{
		Client: w.cluster.Client(auth.Controllers()), Store: w.cluster.Store(), Clock: clk,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: w.Output()}),
	})
	if err != nil {
		w.Fatal(err)
	}
	return m
}

func (w *world) run(m *controller.Manager, fence *kubepb.Fence) {
	w.tasks.Go("controllers", func(ctx context.Context) error {
		if err := m.Run(ctx, fence); ctx.Err() == nil {
			return err
		}
		return nil
	})
}

// kubelets bind each pod to a node, say that it runs, and let it end. Pods on nodes
// whose heartbeat is gone are left alone; those of the image "broken" never get ready.
func (w *world) kubelets() {
	pods := objects.NewInformer[*corev1.Pod](w.client, objects.ListOptions{}, hclog.NewNullLogger())
	changes := make(chan *corev1.Pod, 10000)
	pods.OnChange(func(_, pod *corev1.Pod) {
		if pod != nil {
			changes <- pod
		}
	})
	w.tasks.Go("pods", func(ctx context.Context) error { return ended(ctx, pods.Run(ctx)) })
	w.tasks.Go("kubelets", func(ctx context.Context) error {
		for n := 0; ; n++ {
			select {
			case pod := <-changes:
				err := w.play(ctx, pod, n)
				if err != nil && !errors.Is(err, objects.ErrConflict) && !errors.Is(err, objects.ErrNotFound) && !errors.Is(err, objects.ErrGuard) {
					return ended(ctx, err)
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *world) play(ctx context.Context, pod *corev1.Pod, n int) error {
	if pod.Spec.NodeName != "" {
		is, err := w.cluster.Store().Get(ctx, client.Get{Range: client.One("/holdfast/heartbeat/" + pod.Spec.NodeName), CountOnly: true})
		if err != nil || is.Count == 0 {
			return err
		}
	}
	_, ready := replica.Ready(pod)
	switch {
	case pod.DeletionTimestamp != nil:
		now := int64(0)
		return objects.Delete[*corev1.Pod](ctx, w.client, pod.Namespace, pod.Name, objects.Option{UID: string(pod.UID), Grace: &now})
	case pod.Spec.NodeName == "":
		for i := range w.nodes {
			node := w.nodes[(n+i)%len(w.nodes)]
			is, err := w.cluster.Store().Get(ctx, client.Get{Range: client.One("/holdfast/heartbeat/" + node), CountOnly: true})
			if err != nil {
				return err
			}
			if is.Count == 1 {
				_, err := w.client.Bind(ctx, &kubepb.BindRequest{Pod: &kubepb.Ref{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}, PodUid: string(pod.UID), Node: node})
				return err
			}
		}
	case !ready && pod.Spec.Containers[0].Image != "broken":
		next := pod.DeepCopy()
		next.Status.Phase, next.Status.PodIP = corev1.PodRunning, fmt.Sprintf("10.0.%d.%d", n/250%250, n%250+1)
		replica.SetReady(&next.Status, true, "", time.Now())
		_, err := objects.UpdateStatus(ctx, w.client, next)
		return err
	}
	return nil
}

// eventually reads until f says that it is so.
func (w *world) eventually(what string, f func() (bool, string)) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	last := ""
	for ctx.Err() == nil {
		ok, is := f()
		if ok {
			return
		}
		last = is
	}
	w.Fatalf("not so within %v: %s; it is: %s", patience, what, last)
}

func (w *world) deployment(name string) *appsv1.Deployment {
	w.Helper()
	d, err := objects.Get[*appsv1.Deployment](w.Context(), w.client, "default", name)
	if err != nil {
		w.Fatal(err)
	}
	return d
}

// done waits until a Deployment is as it was asked for.
func (w *world) done(name string) {
	w.Helper()
	w.eventually("deployment "+name+" is done", func() (bool, string) {
		d := w.deployment(name)
		s, n := d.Status, *d.Spec.Replicas
		return s.ObservedGeneration == d.Generation && s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n, fmt.Sprintf("%d wanted, %+v", n, s)
	})
}

// change updates a Deployment, as often as it takes.
func (w *world) change(name string, f func(d *appsv1.Deployment)) {
	w.Helper()
	w.eventually("deployment "+name+" is changed", func() (bool, string) {
		d := w.deployment(name)
		f(d)
		_, err := objects.Update(w.Context(), w.client, d)
		if err != nil && !errors.Is(err, objects.ErrConflict) {
			w.Fatal(err)
		}
		return err == nil, ""
	})
}

func web(replicas int32, image string) *appsv1.Deployment {
	app := map[string]string{"app": "web"}
	two := intstr.FromInt32(2)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: app},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &two, MaxUnavailable: &two}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}},
		},
	}
}

func (w *world) pods(namespace string) []*corev1.Pod {
	w.Helper()
	pods, _, err := objects.List[*corev1.Pod](w.Context(), w.client, objects.ListOptions{Namespace: namespace})
	if err != nil {
		w.Fatal(err)
	}
	return pods
}

func names(pods []*corev1.Pod) string {
	var all []string
	for _, p := range pods {
		all = append(all, p.Name+"@"+p.Spec.NodeName)
	}
	return strings.Join(all, " ")
}

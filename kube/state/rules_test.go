package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func seconds(n int64) objects.Option { return objects.Option{Grace: &n} }

func TestABoundPodEndsOnceItsNodeSaysSo(t *testing.T) {
	cluster, c := admin(t)
	node := cluster.Client(auth.Node("n1"))
	create(t, c, nodeOf("n1", "4"))
	p := create(t, c, podOf("p", "1"))
	if err := bind(t, c, p, "n1"); err != nil {
		t.Fatal(err)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), node, "default", "p", seconds(0)); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("a node deletes a pod that nobody deletes: %v", err)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "p", seconds(20)); err != nil {
		t.Fatal(err)
	}
	p, err := objects.Get[*corev1.Pod](t.Context(), c, "default", "p")
	if err != nil || p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 20 {
		t.Fatalf("%+v, %v", p, err)
	}
	// A second, shorter end is nearer; a longer one changes nothing.
	for _, grace := range []int64{5, 100} {
		if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "p", seconds(grace)); err != nil {
			t.Fatal(err)
		}
	}
	if p, err = objects.Get[*corev1.Pod](t.Context(), c, "default", "p"); err != nil || *p.DeletionGracePeriodSeconds != 5 {
		t.Errorf("%+v, %v", p, err)
	}
	if l := ledgerOf(t, cluster, "n1"); l.CpuMillis != 1000 {
		t.Errorf("while it ends, the ledger is %v", l)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), node, "default", "p", seconds(0)); err != nil {
		t.Fatal(err)
	}
	if l := ledgerOf(t, cluster, "n1"); l.CpuMillis != 0 || l.Pods != 0 {
		t.Errorf("after its end, the ledger is %v", l)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), node, "default", "p", seconds(0)); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("a second end: %v", err)
	}
}

func TestAFinalizerIsWaitedFor(t *testing.T) {
	_, c := admin(t)
	m := &corev1.ConfigMap{}
	m.Namespace, m.Name, m.Finalizers = "default", "m", []string{"holdfast.io/keep"}
	create(t, c, m)
	err := objects.Delete[*corev1.ConfigMap](t.Context(), c, "default", "m", objects.Option{Propagation: kubepb.DeleteRequest_FOREGROUND})
	if err != nil {
		t.Fatal(err)
	}
	m, err = objects.Get[*corev1.ConfigMap](t.Context(), c, "default", "m")
	if err != nil || m.DeletionTimestamp == nil || fmt.Sprint(m.Finalizers) != "[holdfast.io/keep foregroundDeletion]" {
		t.Fatalf("%+v, %v", m, err)
	}
	more := m.DeepCopy()
	more.Finalizers = append(more.Finalizers, "holdfast.io/more")
	if _, err := objects.Update(t.Context(), c, more); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("a finalizer is added to what ends: %v", err)
	}
	m.Finalizers = nil
	if _, err := objects.Update(t.Context(), c, m); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Get[*corev1.ConfigMap](t.Context(), c, "default", "m"); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("without finalizers: %v", err)
	}
}

func TestANamespaceThatEndsTakesNothingIn(t *testing.T) {
	_, c := admin(t)
	ns := &corev1.Namespace{}
	ns.Name = "shop"
	create(t, c, ns)
	p := podOf("p", "1")
	p.Namespace = "shop"
	create(t, c, p)
	if err := objects.Delete[*corev1.Namespace](t.Context(), c, "", "shop"); err != nil {
		t.Fatal(err)
	}
	for want, namespace := range map[error]string{objects.ErrGuard: "shop", objects.ErrNotFound: "nowhere"} {
		p := podOf("q", "1")
		p.Namespace = namespace
		if _, err := objects.Create(t.Context(), c, p); !errors.Is(err, want) {
			t.Errorf("a pod in %s: %v", namespace, err)
		}
	}
	ns, err := objects.Get[*corev1.Namespace](t.Context(), c, "", "shop")
	if err != nil || ns.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("%+v, %v", ns, err)
	}
	ns.Spec.Finalizers = nil
	if _, err := objects.Update(t.Context(), c, ns); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Get[*corev1.Namespace](t.Context(), c, "", "shop"); !errors.Is(err, objects.ErrNotFound) {
		t.Error(err)
	}
}

func TestAnAddressIsGivenOnceAndTakenBack(t *testing.T) {
	_, c := admin(t)
	service := func(name, ip string) (*corev1.Service, error) {
		s := &corev1.Service{}
		s.Namespace, s.Name, s.Spec.ClusterIP = "default", name, ip
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
		return objects.Create(t.Context(), c, s)
	}
	a, err := service("a", "")
	if err != nil || !strings.HasPrefix(a.Spec.ClusterIP, "10.96.") || a.Spec.Ports[0].NodePort < 30000 {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := service("b", a.Spec.ClusterIP); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("the address of another: %v", err)
	}
	if _, err := service("b", "10.97.0.1"); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("an address out of the range: %v", err)
	}
	changed := a.DeepCopy()
	changed.Spec.ClusterIP, changed.Spec.ClusterIPs, changed.Spec.Ports[0].NodePort = "", nil, 0
	changed.Labels = map[string]string{"a": "b"}
	changed, err = objects.Update(t.Context(), c, changed)
	if err != nil || changed.Spec.ClusterIP != a.Spec.ClusterIP || changed.Spec.Ports[0].NodePort != a.Spec.Ports[0].NodePort || changed.Generation != 1 {
		t.Errorf("applied again without: %+v, %v", changed, err)
	}
	if err := objects.Delete[*corev1.Service](t.Context(), c, "default", "a"); err != nil {
		t.Fatal(err)
	}
	if b, err := service("b", a.Spec.ClusterIP); err != nil || b.Spec.ClusterIP != a.Spec.ClusterIP {
		t.Errorf("once it is free: %+v, %v", b, err)
	}
	one, two := create(t, c, nodeOf("n1", "1")), create(t, c, nodeOf("n2", "1"))
	if one.Spec.PodCIDR == "" || one.Spec.PodCIDR == two.Spec.PodCIDR {
		t.Errorf("subnets %q and %q", one.Spec.PodCIDR, two.Spec.PodCIDR)
	}
}

func TestAPodGetsThePriorityOfItsClass(t *testing.T) {
	_, c := admin(t)
	class := &schedulingv1.PriorityClass{Value: 1000}
	class.Name = "high"
	create(t, c, class)
	p := podOf("p", "1")
	p.Spec.PriorityClassName = "high"
	if p = create(t, c, p); p.Spec.Priority == nil || *p.Spec.Priority != 1000 {
		t.Errorf("priority %v", p.Spec.Priority)
	}
	q := podOf("q", "1")
	q.Spec.PriorityClassName = "none"
	if _, err := objects.Create(t.Context(), c, q); !errors.Is(err, objects.ErrInvalid) {
		t.Error(err)
	}
}

func TestAnEvictionSpendsTheBudgetInTheSameWrite(t *testing.T) {
	_, c := admin(t)
	create(t, c, nodeOf("n1", "4"))
	for _, name := range []string{"a", "b", "broken"} {
		if err := bind(t, c, create(t, c, podOf(name, "1")), "n1"); err != nil {
			t.Fatal(err)
		}
		p, err := objects.Get[*corev1.Pod](t.Context(), c, "default", name)
		if err != nil {
			t.Fatal(err)
		}
		p.Status.Phase = corev1.PodRunning
		if name != "broken" {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		if _, err := objects.UpdateStatus(t.Context(), c, p); err != nil {
			t.Fatal(err)
		}
	}
	budget := &policyv1.PodDisruptionBudget{}
	budget.Namespace, budget.Name = "default", "web"
	budget.Spec.MinAvailable = &intstr.IntOrString{IntVal: 1}
	budget.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	budget = create(t, c, budget)
	evict := func(name string) error {
		_, err := c.Evict(t.Context(), &kubepb.EvictRequest{Pod: &kubepb.Ref{Namespace: "default", Name: name}})
		return err
	}
	if err := evict("a"); !errors.Is(err, objects.ErrFull) {
		t.Errorf("before the controllers have counted: %v", err)
	}
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2}
	budget, err := objects.UpdateStatus(t.Context(), c, budget)
	if err != nil {
		t.Fatal(err)
	}
	if err := evict("a"); err != nil {
		t.Fatal(err)
	}
	if err := evict("b"); !errors.Is(err, objects.ErrFull) {
		t.Errorf("a second: %v", err)
	}
	tell := func(healthy int32) {
		t.Helper()
		if budget, err = objects.Get[*policyv1.PodDisruptionBudget](t.Context(), c, "default", "web"); err != nil {
			t.Fatal(err)
		}
		budget.Status.DisruptionsAllowed, budget.Status.CurrentHealthy = 0, healthy
		if budget, err = objects.UpdateStatus(t.Context(), c, budget); err != nil {
			t.Fatal(err)
		}
	}
	tell(0)
	if err := evict("broken"); !errors.Is(err, objects.ErrFull) {
		t.Errorf("one that is not ready, while too few are: %v", err)
	}
	tell(1)
	if err := evict("broken"); err != nil {
		t.Errorf("one that is not ready, without which the budget holds: %v", err)
	}
	if p, err := objects.Get[*corev1.Pod](t.Context(), c, "default", "a"); err != nil || p.DeletionTimestamp == nil {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestATaintThatDrivesPodsOutTellsSinceWhen: tolerations for a while count from then, and
// whoever writes the node again without the time changes nothing.
func TestATaintThatDrivesPodsOutTellsSinceWhen(t *testing.T) {
	_, c := admin(t)
	n := nodeOf("n1", "4")
	n.Spec.Taints = []corev1.Taint{{Key: "repair", Value: "disk", Effect: corev1.TaintEffectNoExecute}, {Key: "slow", Effect: corev1.TaintEffectNoSchedule}}
	n = create(t, c, n)
	since := n.Spec.Taints[0].TimeAdded
	if since == nil || n.Spec.Taints[1].TimeAdded != nil {
		t.Fatalf("taints %v", n.Spec.Taints)
	}
	earlier := metav1.NewTime(since.Add(-time.Hour))
	n.Spec.Taints[0].TimeAdded = &earlier
	n, err := objects.Update(t.Context(), c, n)
	if err != nil {
		t.Fatal(err)
	}
	n.Spec.Taints[0].TimeAdded = nil
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "leave", Effect: corev1.TaintEffectNoExecute})
	if n, err = objects.Update(t.Context(), c, n); err != nil {
		t.Fatal(err)
	}
	if was, is := n.Spec.Taints[0].TimeAdded, n.Spec.Taints[2].TimeAdded; was == nil || !was.Equal(&earlier) || is == nil || is.Before(since) {
		t.Errorf("taints %v", n.Spec.Taints)
	}
}

// TestAPodThatHasNotStartedIsEvictedWhateverItsBudgetSays: nobody misses it, and its node
// could not be emptied while it cannot start.
func TestAPodThatHasNotStartedIsEvictedWhateverItsBudgetSays(t *testing.T) {
	_, c := admin(t)
	create(t, c, nodeOf("n1", "4"))
	if err := bind(t, c, create(t, c, podOf("waits", "1")), "n1"); err != nil {
		t.Fatal(err)
	}
	budget := &policyv1.PodDisruptionBudget{}
	budget.Namespace, budget.Name = "default", "web"
	budget.Spec.MaxUnavailable = &intstr.IntOrString{IntVal: 0}
	budget.Spec.Selector = &metav1.LabelSelector{}
	budget = create(t, c, budget)
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DesiredHealthy: 1, ExpectedPods: 1}
	if _, err := objects.UpdateStatus(t.Context(), c, budget); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Evict(t.Context(), &kubepb.EvictRequest{Pod: &kubepb.Ref{Namespace: "default", Name: "waits"}}); err != nil {
		t.Error(err)
	}
}

func TestEventsLieOnALeaseAndASourceOfTooManyIsStopped(t *testing.T) {
	cluster, c := admin(t)
	long := &corev1.Event{Reason: "Tested", Message: strings.Repeat("x", 20<<10)}
	long.Namespace, long.Name = "default", "long"
	if _, err := objects.Create(t.Context(), c, long); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("an event of 20 KiB: %v", err)
	}
	var err error
	n := 0
	for ; n < 1000 && err == nil; n++ {
		e := &corev1.Event{Reason: "Tested"}
		e.Namespace, e.GenerateName = "default", "p-"
		e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"}
		_, err = objects.Create(t.Context(), c, e)
	}
	if !errors.Is(err, objects.ErrFull) || n < 100 {
		t.Errorf("after %d events: %v", n, err)
	}
	r, err := cluster.Store().Get(t.Context(), client.Get{Range: client.Prefix(api.Event.Prefix("default")), Limit: 1})
	if err != nil || len(r.Kvs) != 1 || r.Kvs[0].Lease == 0 {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestASecondKubeletOfOneNameIsRefusedWhileTheFirstLives(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n1", "1"))
	create(t, c, nodeOf("n2", "1"))
	node := cluster.Client(auth.Node("n1"))
	beat := func(ctx context.Context, name, instance string) (*kubepb.HeartbeatResponse, error) {
		stream, err := node.RPC().Heartbeat(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(&kubepb.HeartbeatRequest{Node: name, Instance: instance}); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, err := beat(ctx, "n1", "one")
	if err != nil || first.Lease == 0 || first.TtlMilliseconds < 9000 || first.ClusterId == 0 {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := beat(ctx, "n1", "one")
	if err != nil || again.Lease != first.Lease {
		t.Errorf("the same kubelet over another stream: %v, %v", again, err)
	}
	if _, err := beat(ctx, "n1", "two"); err == nil || !strings.Contains(err.Error(), "another kubelet of this name lives") {
		t.Errorf("another: %v", err)
	}
	if _, err := beat(ctx, "n2", "one"); err == nil || !strings.Contains(err.Error(), "may not heartbeat") {
		t.Errorf("in the name of another node: %v", err)
	}
	if _, err := cluster.Store().Revoke(ctx, first.Lease); err != nil {
		t.Fatal(err)
	}
	if next, err := beat(ctx, "n1", "two"); err != nil || next.Lease == first.Lease {
		t.Errorf("after its death: %v, %v", next, err)
	}
}

func TestTheAuditFindsALedgerThatSomebodyWrote(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n1", "4"))
	if err := bind(t, c, create(t, c, podOf("p", "1")), "n1"); err != nil {
		t.Fatal(err)
	}
	if drifts, err := cluster.Service.Audit(t.Context()); err != nil || len(drifts) != 0 {
		t.Fatalf("%v, %v", drifts, err)
	}
	b, _ := (&kubepb.Ledger{CpuMillis: 7}).MarshalVT()
	if _, err := cluster.Store().Put(t.Context(), client.Put{Key: state.LedgerPrefix + "n1", Value: b}); err != nil {
		t.Fatal(err)
	}
	if drifts, err := cluster.Service.Audit(t.Context()); err != nil || len(drifts) != 1 || drifts[0].Sum.CpuMillis != 1000 {
		t.Errorf("%v, %v", drifts, err)
	}
}

// createWeb creates a Deployment of one copy.
func createWeb(t *testing.T, c *objects.Client) {
	t.Helper()
	d := &appsv1.Deployment{}
	d.Namespace, d.Name = "default", "web"
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	d.Spec.Template.Labels = d.Spec.Selector.MatchLabels
	d.Spec.Template.Spec = podOf("", "1").Spec
	create(t, c, d)
}

func TestScaleSaysWhatThereWasBefore(t *testing.T) {
	_, c := admin(t)
	createWeb(t, c)
	r, err := c.Scale(t.Context(), &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}, Replicas: 5})
	if err != nil || r.Before != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	if d, err := objects.Get[*appsv1.Deployment](t.Context(), c, "default", "web"); err != nil || *d.Spec.Replicas != 5 || d.Generation != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

// However many write one object at once, each has its turn.
func TestWritesOfOneObjectStandInLine(t *testing.T) {
	_, c := admin(t)
	createWeb(t, c)
	const writers = 400
	g := task.New(t.Context())
	for i := range writers {
		g.Go("writer", func(ctx context.Context) error {
			_, err := c.Scale(ctx, &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: "web"}, Replicas: int32(i + 2)})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if d, err := objects.Get[*appsv1.Deployment](t.Context(), c, "default", "web"); err != nil || d.Generation != 1+writers {
		t.Errorf("generation %d, %v", d.Generation, err)
	}
}

func TestANodeTellsTheUseOfItsOwnPodsOnly(t *testing.T) {
	cluster := twoNodes(t)
	use := map[string]*kubepb.Use{"c": {CpuMillis: 100}}
	_, err := cluster.Client(auth.Node("node-a")).RPC().Sample(t.Context(), &kubepb.SampleRequest{Node: "node-a", Use: &kubepb.Use{CpuMillis: 200}, Pods: []*kubepb.PodUse{
		{Namespace: "default", Name: "pod-a", Containers: use}, {Namespace: "default", Name: "pod-b", Containers: use},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := cluster.Client(auth.Controllers()).Usage(t.Context(), &kubepb.UsageRequest{})
	if err != nil || len(r.Nodes) != 1 || len(r.Pods) != 1 || r.Pods[0].Name != "pod-a" || r.Pods[0].Containers["c"].CpuMillis != 100 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestAFenceThatIsOverIsToldApartFromAGuard(t *testing.T) {
	cluster, c := admin(t)
	const key = "/holdfast/leader/scheduler/1"
	r, err := cluster.Store().Put(t.Context(), client.Put{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	create(t, c, nodeOf("n", "1"))
	p := create(t, c, podOf("p", "1"))
	remote := objects.New(serve(t, cluster)(subject("ann", "admin")), "test")
	stands := &kubepb.Fence{Key: key, CreateRevision: r.Header.Revision}
	over := &kubepb.Fence{Key: key, CreateRevision: r.Header.Revision - 1}
	for name, c := range map[string]*objects.Client{"inside": c, "over the network": remote} {
		_, err := c.Bind(t.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Namespace: "default", Name: "p"}, Node: "n", Fence: over})
		if !errors.Is(err, objects.ErrFenced) || !errors.Is(err, objects.ErrGuard) {
			t.Errorf("%s: bind: %v", name, err)
		}
		// That the pod is there already is not what matters to who leads no more.
		if _, err = objects.Create(t.Context(), c, podOf("p", "1"), objects.Option{Fence: over}); !errors.Is(err, objects.ErrFenced) {
			t.Errorf("%s: create: %v", name, err)
		}
		guard := objects.Option{Fence: stands, Guards: []*kubepb.Guard{{Object: &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: "p"}, ResourceVersion: 1}}}
		if _, err = objects.Update(t.Context(), c, p, guard); !errors.Is(err, objects.ErrGuard) || errors.Is(err, objects.ErrFenced) {
			t.Errorf("%s: guard: %v", name, err)
		}
	}
}

func TestAServiceThatGoesTakesNothingWithIt(t *testing.T) {
	cluster, c := admin(t)
	s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Name: "a", Port: 80}}}}
	s.Namespace, s.Name, s.Finalizers = "default", "s", []string{"holdfast.io/keep"}
	create(t, c, s)
	if err := objects.Delete[*corev1.Service](t.Context(), c, "default", "s"); err != nil {
		t.Fatal(err)
	}
	s, err := objects.Get[*corev1.Service](t.Context(), c, "default", "s")
	if err != nil {
		t.Fatal(err)
	}
	s.Finalizers = nil
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "b", Port: 81})
	if _, err := objects.Update(t.Context(), c, s); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"/holdfast/ip/", "/holdfast/port/", "/registry/services"} {
		r, err := cluster.Store().Get(t.Context(), client.Get{Range: client.Prefix(prefix)})
		if err != nil || len(r.Kvs) > 0 {
			t.Errorf("left: %v, %v", r.Kvs, err)
		}
	}
}

func TestTheNamespacesOfEveryClusterStay(t *testing.T) {
	_, c := admin(t)
	for _, name := range []string{"default", "kube-system"} {
		ns := &corev1.Namespace{}
		ns.Name = name
		if _, err := objects.Create(t.Context(), c, ns); err != nil && !errors.Is(err, objects.ErrExists) {
			t.Fatal(err)
		}
		if err := objects.Delete[*corev1.Namespace](t.Context(), c, "", name); !errors.Is(err, objects.ErrGuard) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestANodeWithLessThanItsPodsTakesNoMore(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n", "1"))
	for name, want := range map[string]error{"nowhere": objects.ErrNotFound, "n": objects.ErrFull} {
		p := podOf("p", "2")
		p.Spec.NodeName = name
		if _, err := objects.Create(t.Context(), c, p); !errors.Is(err, want) {
			t.Errorf("a pod that names node %s: %v", name, err)
		}
	}
	p := podOf("p", "1")
	p.Spec.NodeName = "n"
	p = create(t, c, p)
	if l := ledgerOf(t, cluster, "n"); l.CpuMillis != 1000 || l.Pods != 1 {
		t.Errorf("ledger %v", l)
	}
	n, err := objects.Get[*corev1.Node](t.Context(), c, "", "n")
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Allocatable = nodeOf("", "500m").Status.Allocatable
	if _, err := objects.UpdateStatus(t.Context(), c, n); err != nil {
		t.Fatal(err)
	}
	if err := bind(t, c, create(t, c, podOf("q", "1m")), "n"); !errors.Is(err, objects.ErrFull) {
		t.Errorf("bound to a node that shrank below its pods: %v", err)
	}
	// Its pods stay as they are, and end as ever; nothing of the ledger is left.
	if err := objects.Delete[*corev1.Pod](t.Context(), c, "default", "p", seconds(0), objects.Option{UID: string(p.UID)}); err != nil {
		t.Fatal(err)
	}
	r, err := cluster.Store().Get(t.Context(), client.Get{Range: client.Prefix(state.LedgerPrefix)})
	if err != nil || len(r.Kvs) > 0 {
		t.Errorf("ledgers %v, %v", r.GetKvs(), err)
	}
}

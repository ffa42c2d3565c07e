package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// patience is how long a test waits for what should happen soon.
const patience = 60 * time.Second

// harness is a cluster, with somebody who may do everything and sees all pods.
type harness struct {
	*testing.T
	cluster *kubetest.Cluster
	admin   *objects.Client
	pods    *objects.Informer[*corev1.Pod]
	changed chan struct{} // Holds one: a pod has changed.
}

func start(t *testing.T) *harness {
	leak.Check(t)
	h := &harness{T: t, cluster: kubetest.Start(t), changed: make(chan struct{}, 1)}
	h.admin = h.cluster.Client(auth.Admin("ann"))
	h.pods = objects.NewInformer[*corev1.Pod](h.admin, objects.ListOptions{}, hclog.NewNullLogger())
	h.pods.OnChange(func(_, _ *corev1.Pod) {
		select {
		case h.changed <- struct{}{}:
		default:
		}
	})
	h.run("informer", h.pods.Run)
	return h
}

// run runs something until the test ends.
func (h *harness) run(name string, f func(context.Context) error) {
	g := task.New(context.WithoutCancel(h.Context()))
	g.Go(name, f)
	h.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			h.Error(err)
		}
	})
}

// scheduler starts one.
func (h *harness) scheduler(seed uint64, fence *kubepb.Fence) *scheduler.Scheduler {
	s, err := scheduler.New(scheduler.Config{Client: h.cluster.Client(auth.Scheduler()), Seed: seed, Logger: hclog.NewNullLogger()})
	if err != nil {
		h.Fatal(err)
	}
	h.run(fmt.Sprint("scheduler ", seed), func(ctx context.Context) error { return s.Run(ctx, fence) })
	return s
}

// until waits for something that a change of a pod brings about, or looks again.
func (h *harness) until(what string, yes func() bool) {
	h.Helper()
	deadline := time.After(patience)
	for !yes() {
		select {
		case <-h.changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			h.Fatalf("not in time: %s", what)
		}
	}
}

func (h *harness) bound() (n int) {
	for _, p := range h.pods.List("") {
		if p.Spec.NodeName != "" {
			n++
		}
	}
	return n
}

func (h *harness) node(name, cpu string) *corev1.Node {
	n := &corev1.Node{}
	n.Name = name
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return create(h, n)
}

func (h *harness) pod(name, cpu string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name = "default", name
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "builtin/demo", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)},
	}}}
	if change != nil {
		change(p)
	}
	return create(h, p)
}

func create[T api.Object](h *harness, o T) T {
	h.Helper()
	made, err := objects.Create(h.Context(), h.admin, o)
	if err != nil {
		h.Fatal(err)
	}
	return made
}

func (h *harness) condition(name string) *corev1.PodCondition {
	p, ok := h.pods.Get("default", name)
	if !ok {
		return nil
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return &c
		}
	}
	return nil
}

// TestTwoSchedulersAndAHandWrittenBindNeverOvercommit: each revision of the store is
// looked at, from the first.
func TestTwoSchedulersAndAHandWrittenBindNeverOvercommit(t *testing.T) {
	const nodes, pods, each = 50, 500, 9 // So many pods fit on a node.
	h := start(t)
	for i := range nodes {
		h.node(fmt.Sprintf("node-%02d", i), fmt.Sprintf("%dm", 100*each))
	}
	h.scheduler(1, nil)
	h.scheduler(2, nil)
	byHand := 0
	for i := range pods {
		p := h.pod(fmt.Sprintf("pod-%03d", i), "100m", nil)
		if i%5 == 0 { // All to one node, until it is full, and beyond.
			if _, err := h.admin.Bind(t.Context(), &kubepb.BindRequest{
				Pod: &kubepb.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}, Node: "node-07"}); err == nil {
				byHand++
			}
		}
	}
	h.until("all nodes are full", func() bool { return h.bound() == nodes*each })
	h.until("those that are left say why", func() bool {
		said := 0
		for _, p := range h.pods.List("") {
			c := h.condition(p.Name)
			if p.Spec.NodeName == "" && c != nil && c.Message == "0/50 nodes are available: 50 Insufficient cpu." {
				said++
			}
		}
		return said == pods-nodes*each
	})
	// Whoever goes makes room for one of those that wait.
	for i := range 20 {
		now := int64(0)
		if err := objects.Delete[*corev1.Pod](t.Context(), h.admin, "default", firstBound(h, i), objects.Option{Grace: &now}); err != nil {
			t.Fatal(err)
		}
	}
	h.until("the room is used", func() bool { return len(h.pods.List("")) == pods-20 && h.bound() == nodes*each })
	t.Logf("%d pods bound by hand", byHand)
	replay(h)
}

func firstBound(h *harness, skip int) string {
	h.Helper()
	for _, p := range h.pods.List("") {
		if p.Spec.NodeName != "" {
			if skip--; skip < 0 {
				return p.Name
			}
		}
	}
	h.Fatal("no pod is bound")
	return ""
}

// replay goes through the history of the store: at each revision no node has more
// pods than it has room for, and its ledger says what they take; a pod that has a
// node keeps it.
func replay(h *harness) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	head, err := h.cluster.Store().Get(ctx, client.Get{Range: client.One("x")})
	if err != nil {
		h.Fatal(err)
	}
	r := &replayer{h: h, pods: map[string]*corev1.Pod{}, nodes: map[string]*corev1.Node{}, ledgers: map[string]int64{}}
	w := h.cluster.Store().Watch(ctx, client.Watch{Range: client.Prefix("/"), Revision: 1})
	defer w.Cancel()
	last := head.Header.Revision
	for report := range w.Reports() {
		for _, e := range report.Events {
			if e.Kv.ModRevision != r.revision {
				r.check()
				r.revision = e.Kv.ModRevision
			}
			r.take(string(e.Kv.Key), e.Kv.Value)
		}
		if r.revision >= last {
			r.check()
			h.Logf("%d revisions, %d pods, %d checks", r.revision, len(r.pods), r.checks)
			return
		}
	}
	h.Fatalf("history ended at revision %d of %d: %v", r.revision, last, w.Err())
}

type replayer struct {
	h        *harness
	revision int64
	pods     map[string]*corev1.Pod
	nodes    map[string]*corev1.Node
	ledgers  map[string]int64 // CPU.
	touched  map[string]bool  // Nodes, in this revision.
	checks   int
}

func (r *replayer) take(key string, value []byte) {
	if r.touched == nil {
		r.touched = map[string]bool{}
	}
	if node, ok := strings.CutPrefix(key, state.LedgerPrefix); ok {
		l := &kubepb.Ledger{}
		if err := l.UnmarshalVT(value); err != nil {
			r.h.Fatal(err)
		}
		r.ledgers[node], r.touched[node] = l.CpuMillis, true
	}
	if _, name, ok := api.Node.ParseKey(key); ok && len(value) > 0 {
		o, err := api.Decode(api.Node, value, r.revision)
		if err != nil {
			r.h.Fatal(err)
		}
		r.nodes[name], r.touched[name] = o.(*corev1.Node), true
	}
	if _, _, ok := api.Pod.ParseKey(key); ok {
		r.pod(key, value)
	}
}

func (r *replayer) pod(key string, value []byte) {
	old := r.pods[key]
	if old != nil && old.Spec.NodeName != "" {
		r.touched[old.Spec.NodeName] = true
	}
	if len(value) == 0 {
		delete(r.pods, key)
		return
	}
	o, err := api.Decode(api.Pod, value, r.revision)
	if err != nil {
		r.h.Fatal(err)
	}
	p := o.(*corev1.Pod)
	if old != nil && old.UID == p.UID && old.Spec.NodeName != "" && old.Spec.NodeName != p.Spec.NodeName {
		r.h.Errorf("revision %d: %s moved from %s to %q", r.revision, key, old.Spec.NodeName, p.Spec.NodeName)
	}
	if p.Spec.NodeName != "" {
		r.touched[p.Spec.NodeName] = true
	}
	r.pods[key] = p
}

func (r *replayer) check() {
	for node := range r.touched {
		r.checks++
		n := r.nodes[node]
		if n == nil {
			r.h.Fatalf("revision %d: pods on node %s, which there is not", r.revision, node)
		}
		var sum api.Resources
		for _, p := range r.pods {
			if p.Spec.NodeName == node {
				sum.Add(api.PodRequests(&p.Spec))
			}
		}
		if offers := api.NodeResources(n); sum.MilliCPU > offers.MilliCPU || sum.Pods > offers.Pods {
			r.h.Errorf("revision %d: node %s has %d CPU and gave %d", r.revision, node, offers.MilliCPU, sum.MilliCPU)
		}
		if sum.MilliCPU != r.ledgers[node] {
			r.h.Errorf("revision %d: the ledger of %s says %d, its pods %d", r.revision, node, r.ledgers[node], sum.MilliCPU)
		}
	}
	r.touched = nil
}

// TestAPodThatFitsNowhereSaysWhyOnceAndRunsWhenItCan also asks Explain and the events.
func TestAPodThatFitsNowhereSaysWhyOnceAndRunsWhenItCan(t *testing.T) {
	h := start(t)
	h.node("small", "1")
	s := h.scheduler(1, nil)
	h.pod("large", "2", nil)
	const why = "0/1 nodes are available: 1 Insufficient cpu."
	h.until("it says why", func() bool { c := h.condition("large"); return c != nil && c.Message == why })
	if c := h.condition("large"); c.Status != corev1.ConditionFalse || c.Reason != corev1.PodReasonUnschedulable || c.LastTransitionTime.IsZero() {
		t.Errorf("condition %+v", c)
	}

	// Another attempt with the same end: nothing is written again. A pod that comes could
	// be the one that this one wants to be near.
	h.pod("lonely", "100m", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "none"}}}}}}
	})
	h.until("the lonely one says why", func() bool { return h.condition("lonely") != nil })
	first, _ := h.pods.Get("default", "lonely")
	h.pod("other", "100m", func(p *corev1.Pod) { p.Spec.SchedulerName = "somebody-else" })
	h.pod("tiny", "100m", func(p *corev1.Pod) { p.Spec.SchedulerName = "binpack" })
	h.until("another attempt", func() bool { return len(explain(h, s, "lonely")) >= 2 })
	h.until("tiny is bound", func() bool { return h.bound() == 1 })
	if again, _ := h.pods.Get("default", "lonely"); again.ResourceVersion != first.ResourceVersion {
		t.Errorf("the pod was written again: %+v", again.Status)
	}
	if n := len(explain(h, s, "large")); n != 1 {
		t.Errorf("%d attempts for a pod that nothing has helped", n)
	}

	h.node("big", "4")
	h.until("it runs", func() bool { p, _ := h.pods.Get("default", "large"); return p.Spec.NodeName == "big" })
	if c := h.condition("large"); c.Status != corev1.ConditionTrue {
		t.Errorf("condition %+v", c)
	}
	if p, _ := h.pods.Get("default", "other"); p.Spec.NodeName != "" || len(p.Status.Conditions) > 0 {
		t.Errorf("a pod of another scheduler: %+v", p)
	}

	decisions := explain(h, s, "large")
	newest, oldest := decisions[0], decisions[len(decisions)-1]
	if newest.Node != "big" || len(newest.Scores) != 1 || newest.Scores[0].Plugins["NodeResourcesFit"] == 0 || newest.Time <= oldest.Time {
		t.Errorf("newest decision %v", newest)
	}
	if oldest.Node != "" || len(oldest.Reasons) != 1 || oldest.Reasons[0].Text != "Insufficient cpu" || oldest.Reasons[0].Plugin != "NodeResourcesFit" {
		t.Errorf("oldest decision %v", oldest)
	}
	events(h, "large", "FailedScheduling", "Scheduled")
}

func explain(h *harness, s *scheduler.Scheduler, pod string) []*kubepb.Decision {
	answer, err := s.Explain(h.Context(), &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: pod})
	if err != nil {
		h.Fatal(err)
	}
	return answer.Decisions
}

// events waits until a pod has one event of each reason.
func events(h *harness, pod string, reasons ...string) {
	h.Helper()
	told := make(chan string, 100)
	seen := objects.NewInformer[*corev1.Event](h.admin, objects.ListOptions{}, hclog.NewNullLogger())
	seen.OnChange(func(old, now *corev1.Event) {
		if old == nil && now.InvolvedObject.Name == pod {
			told <- now.Reason
		}
	})
	h.run("events", seen.Run)
	missing := map[string]bool{}
	for _, reason := range reasons {
		missing[reason] = true
	}
	for deadline := time.After(patience); len(missing) > 0; {
		select {
		case reason := <-told:
			if !missing[reason] {
				h.Errorf("event %s of %s was written twice", reason, pod)
			}
			delete(missing, reason)
		case <-deadline:
			h.Fatalf("no events %v", missing)
		}
	}
}

func TestASchedulerWhoseLeadershipIsOverStopsAndBindsNothing(t *testing.T) {
	h := start(t)
	h.node("a", "4")
	p := h.pod("web", "1", nil)
	s, err := scheduler.New(scheduler.Config{Client: h.cluster.Client(auth.Scheduler()), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Run(ctx, &kubepb.Fence{Key: "/holdfast/leader/scheduler/1", CreateRevision: 1}); err != nil || ctx.Err() != nil {
		t.Errorf("Run: %v, %v", err, ctx.Err())
	}
	now, err := objects.Get[*corev1.Pod](t.Context(), h.admin, "default", p.Name)
	if err != nil || now.Spec.NodeName != "" {
		t.Errorf("pod on %q, %v", now.Spec.NodeName, err)
	}
}

func TestAWrongConfigurationIsNamed(t *testing.T) {
	_, err := scheduler.New(scheduler.Config{Profile: "random"})
	for _, part := range []string{"client", "logger", `"random"`, "binpack"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
}

package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// marked waits until a node is known to be silent.
func (w *world) marked(node string) {
	w.Helper()
	w.eventually(node+" is marked", func() (bool, string) {
		n, err := objects.Get[*corev1.Node](w.Context(), w.client, "", node)
		if err != nil {
			w.Fatal(err)
		}
		return len(n.Spec.Taints) == 1 && n.Status.Conditions[0].Status == corev1.ConditionUnknown, fmt.Sprint(n.Spec.Taints, n.Status.Conditions)
	})
}

// on counts active and terminating pods of a node.
func (w *world) on(node string) (active, terminating int) {
	for _, pod := range w.pods("default") {
		switch {
		case pod.Spec.NodeName != node:
		case replica.Active(pod):
			active++
		default:
			terminating++
		}
	}
	return active, terminating
}

// creeping is a clock that the test advances, and that else goes a twentieth as fast as the
// machine's. On one that stands still a controller that pauses does so for ever: before it
// tries again, or after a look in which the test let time pass.
func (w *world) creeping() *clocktest.Fake {
	clk := clocktest.New()
	w.tasks.Go("clock", func(ctx context.Context) error {
		for {
			select {
			case <-time.After(100 * time.Millisecond):
				clk.Advance(5 * time.Millisecond)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return clk
}

// calm lets the first minute of a leadership pass, in which nobody is evicted.
func (w *world) calm(clk *clocktest.Fake) {
	for range 7 {
		clk.Advance(10 * time.Second)
	}
}

// readyAddresses are the ready ones of a Service.
func (w *world) readyAddresses(service string) int {
	slices, _, err := objects.List[*discoveryv1.EndpointSlice](w.Context(), w.client, objects.ListOptions{Namespace: "default", Labels: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		w.Fatal(err)
	}
	n := 0
	for _, s := range slices {
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				n++
			}
		}
	}
	return n
}

func TestPodsOfADeadNodeRunElsewhereAfterTheirTolerationAndTrafficGoesAtOnce(t *testing.T) {
	w := newWorld(t, 4)
	clk := w.creeping()
	w.run(w.manager(clk), w.lead())
	make1(w, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	})
	make1(w, web(8, "one"))
	w.done("web")
	w.calm(clk)
	w.eventually("eight addresses are ready", func() (bool, string) { n := w.readyAddresses("web"); return n == 8, fmt.Sprint(n) })
	lost, _ := w.on("n1")
	if lost == 0 {
		t.Fatalf("nothing runs on n1: %s", names(w.pods("default")))
	}
	w.die("n1")
	w.marked("n1")
	w.eventually("its addresses are withdrawn", func() (bool, string) { n := w.readyAddresses("web"); return n == 8-lost, fmt.Sprint(n) })
	clk.Advance(14 * time.Second)
	if active, _ := w.on("n1"); active != lost {
		t.Errorf("%d of %d pods are left on the node after 14 s", active, lost)
	}
	w.eventually("they run elsewhere", func() (bool, string) {
		clk.Advance(time.Second)
		active, terminating := w.on("n1")
		return active == 0 && terminating == lost && w.deployment("web").Status.AvailableReplicas == 8, names(w.pods("default"))
	})
	w.replay()
}

func TestTheBrakeKeepsPodsWhenMostNodesFallSilentUntilItIsCalm(t *testing.T) {
	w := newWorld(t, 5)
	clk := w.creeping()
	m := w.manager(clk)
	w.run(m, w.lead())
	make1(w, web(10, "one"))
	w.done("web")
	w.calm(clk)
	w.die("n0", "n1", "n2")
	for _, n := range []string{"n0", "n1", "n2"} {
		w.marked(n)
	}
	w.eventually("who watches sees the brake", func() (bool, string) {
		return strings.Contains(m.Brake().Why, "3 of 5 nodes fell silent"), m.Brake().Why
	})
	w.eventually("an event says that evictions stopped", func() (bool, string) {
		events, _, err := objects.List[*corev1.Event](t.Context(), w.client, objects.ListOptions{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		all := ""
		for _, e := range events {
			all += e.Reason + ": " + e.Message + "\n"
		}
		return strings.Contains(all, "EvictionsStopped: 3 of 5 nodes fell silent"), all
	})
	before := names(w.pods("default"))
	for range 11 {
		clk.Advance(10 * time.Second)
		if now := names(w.pods("default")); now != before {
			t.Fatalf("pods moved while most nodes were silent:\n%s\n%s", before, now)
		}
	}
	w.eventually("calm for long enough, pods run elsewhere", func() (bool, string) {
		clk.Advance(5 * time.Second)
		left := 0
		for _, n := range []string{"n0", "n1", "n2"} {
			active, _ := w.on(n)
			left += active
		}
		return left == 0 && w.deployment("web").Status.AvailableReplicas == 10, names(w.pods("default"))
	})
}

func TestASingletonIsStartedElsewhereOnlyAfterItsBound(t *testing.T) {
	w := newWorld(t, 2)
	clk := w.creeping()
	w.run(w.manager(clk), w.lead())
	d := web(1, "one")
	d.Spec.Template.Annotations = map[string]string{replica.Singleton: "true"}
	soon := corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	zero := int64(0)
	soon.TolerationSeconds = &zero
	d.Spec.Template.Spec.Tolerations = []corev1.Toleration{soon}
	make1(w, d)
	w.done("web")
	w.calm(clk)
	first := w.pods("default")[0]
	w.die(first.Spec.NodeName)
	w.marked(first.Spec.NodeName)
	clk.Advance(4 * time.Second)
	for range 20 { // As often as the controllers need to do something wrong.
		if pods := w.pods("default"); len(pods) != 1 || pods[0].UID != first.UID || pods[0].DeletionTimestamp != nil {
			t.Fatalf("before the bound: %s", names(pods))
		}
	}
	w.eventually("it runs elsewhere, and only there", func() (bool, string) {
		clk.Advance(time.Second)
		pods := w.pods("default")
		return len(pods) == 1 && pods[0].UID != first.UID && pods[0].Spec.NodeName != "", names(pods)
	})
}

func TestOwnersTakeTheirsWithThemInEachOfThreeWays(t *testing.T) {
	w := newWorld(t, 2)
	w.run(w.manager(w.creeping()), w.lead())
	for _, c := range []struct {
		name string
		how  objects.Option
		left int
	}{{"background", objects.Option{}, 0}, {"foreground", objects.Option{Propagation: 1}, 0}, {"orphan", objects.Option{Propagation: 2}, 2}} {
		set := web(2, "one")
		make1(w, &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: c.name},
			Spec:       appsv1.ReplicaSetSpec{Replicas: set.Spec.Replicas, Selector: set.Spec.Selector, Template: set.Spec.Template},
		})
		w.eventually(c.name+": two pods run", func() (bool, string) {
			s, err := objects.Get[*appsv1.ReplicaSet](t.Context(), w.client, "default", c.name)
			if err != nil {
				t.Fatal(err)
			}
			return s.Status.AvailableReplicas == 2, s.Status.String()
		})
		if err := objects.Delete[*appsv1.ReplicaSet](t.Context(), w.client, "default", c.name, c.how); err != nil {
			t.Fatal(err)
		}
		w.eventually(c.name+": the set is gone, with its pods or without", func() (bool, string) {
			_, err := objects.Get[*appsv1.ReplicaSet](t.Context(), w.client, "default", c.name)
			return err != nil && len(w.pods("default")) == c.left, names(w.pods("default"))
		})
	}
	for _, pod := range w.pods("default") {
		if len(pod.OwnerReferences) > 0 {
			t.Errorf("%s has owners: %v", pod.Name, pod.OwnerReferences)
		}
	}
}

// TestPodsOfADeletedNodeGo: those that end already too, which nobody on a dead node
// lets end.
func TestPodsOfADeletedNodeGo(t *testing.T) {
	w := newWorld(t, 3)
	clk := w.creeping()
	w.run(w.manager(clk), w.lead())
	make1(w, web(6, "one"))
	w.done("web")
	w.calm(clk)
	w.die("n1")
	w.marked("n1")
	w.eventually("its pods terminate", func() (bool, string) {
		clk.Advance(time.Second)
		active, terminating := w.on("n1")
		return active == 0 && terminating > 0, names(w.pods("default"))
	})
	for range 3 { // The node may come back: nobody takes them from it.
		clk.Advance(time.Minute)
	}
	if _, terminating := w.on("n1"); terminating == 0 {
		t.Fatal("pods of a node that is only silent went")
	}
	if err := objects.Delete[*corev1.Node](t.Context(), w.client, "", "n1"); err != nil {
		t.Fatal(err)
	}
	w.eventually("its pods go with it", func() (bool, string) {
		clk.Advance(time.Second)
		active, terminating := w.on("n1")
		return active+terminating == 0, names(w.pods("default"))
	})
	w.eventually("six pods are left", func() (bool, string) { return len(w.pods("default")) == 6, names(w.pods("default")) })
	w.replay()
}

// TestPodsOfADeletedNodeStayWhileItsLeaseStands: its kubelet may be cut off, and run
// them still.
func TestPodsOfADeletedNodeStayWhileItsLeaseStands(t *testing.T) {
	w := newWorld(t, 2)
	clk := w.creeping()
	w.run(w.manager(clk), w.lead())
	pod := func(name, node string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: []string{"holdfast.io/watched"}}}
		p.Spec.NodeName = node
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "broken"}}
		return p
	}
	make1(w, pod("a", "n0"))
	make1(w, pod("b", "n1"))
	w.die("n1")
	for _, n := range []string{"n0", "n1"} {
		if err := objects.Delete[*corev1.Node](t.Context(), w.client, "", n); err != nil {
			t.Fatal(err)
		}
	}
	ending := func(name string) bool {
		p, err := objects.Get[*corev1.Pod](t.Context(), w.client, "default", name)
		if err != nil {
			t.Fatal(err)
		}
		return p.DeletionTimestamp != nil
	}
	w.eventually("the pod of a node without a lease is collected", func() (bool, string) {
		clk.Advance(time.Second)
		return ending("b"), ""
	})
	if ending("a") { // It was looked at before the other one.
		t.Error("the pod of a node whose lease stands was collected")
	}
	w.die("n0")
	w.eventually("the other one follows when the lease has ended", func() (bool, string) {
		clk.Advance(time.Second)
		return ending("a"), ""
	})
}

// TestAPodThatCannotBeWrittenKeepsNoOtherOnADeadNode: it was stored before a rule that it
// breaks.
func TestAPodThatCannotBeWrittenKeepsNoOtherOnADeadNode(t *testing.T) {
	w := newWorld(t, 1)
	clk := w.creeping()
	w.run(w.manager(clk), w.lead())
	ready := func(name string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		p.Spec.NodeName = "n0"
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "one"}}
		make1(w, p)
		w.eventually(name+" is ready", func() (bool, string) {
			var err error
			if p, err = objects.Get[*corev1.Pod](t.Context(), w.client, "default", name); err != nil {
				t.Fatal(err)
			}
			_, is := replica.Ready(p)
			return is, p.Status.String()
		})
		return p
	}
	ready("plain")
	broken := ready("broken")
	broken.Spec.RestartPolicy = "Sometimes"
	broken.ResourceVersion = ""
	raw, err := api.Encode(broken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.cluster.Store().Put(t.Context(), client.Put{Key: api.Pod.Key("default", "broken"), Value: raw}); err != nil {
		t.Fatal(err)
	}
	w.calm(clk)
	w.die("n0")
	w.marked("n0")
	w.eventually("both are to go", func() (bool, string) {
		clk.Advance(time.Second)
		_, terminating := w.on("n0")
		return terminating == 2, names(w.pods("default"))
	})
}

package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/controller/rollout"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/kube/objects"
)

func image(name string) func(d *appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = name }
}

// TestADeploymentRollsOutIsScaledPausedAndUndone walks through it, and replays what
// happened at every revision.
func TestADeploymentRollsOutIsScaledPausedAndUndone(t *testing.T) {
	w := newWorld(t, 3)
	w.run(w.manager(clock.Real()), w.lead())
	make1(w, web(10, "one"))
	w.done("web")
	w.change("web", image("two"))
	w.done("web")
	w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 14 })
	w.change("web", image("three"))
	w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 6 })
	w.done("web")

	w.change("web", func(d *appsv1.Deployment) { d.Spec.Paused = true; image("four")(d) })
	w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 8 })
	w.eventually("sizes follow while it is paused", func() (bool, string) {
		s := w.deployment("web").Status
		return s.AvailableReplicas == 8 && s.UpdatedReplicas == 0, s.String()
	})
	w.change("web", func(d *appsv1.Deployment) { d.Spec.Paused = false })
	w.done("web")

	w.change("web", func(d *appsv1.Deployment) { d.Annotations[rollout.RollbackTo] = "2" })
	w.eventually("it is revision 5, with the image of revision 2", func() (bool, string) {
		d := w.deployment("web")
		return d.Spec.Template.Spec.Containers[0].Image == "two" && d.Annotations[rollout.Revision] == "5" && d.Annotations[rollout.RollbackTo] == "", d.String()
	})
	w.done("web")

	w.change("web", image("broken"))
	w.eventually("a broken revision holds everything up", func() (bool, string) {
		s := w.deployment("web").Status
		return s.UpdatedReplicas == 4 && s.AvailableReplicas == 6, s.String()
	})
	d := w.deployment("web")
	sets, _, err := objects.List[*appsv1.ReplicaSet](t.Context(), w.client, objects.ListOptions{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	undone, to, err := rollout.Undo(d, sets, 0)
	if err != nil || to != 5 {
		t.Fatalf("undo to %d, %v", to, err)
	}
	w.change("web", func(d *appsv1.Deployment) { d.Spec.Template = undone.Spec.Template })
	w.done("web")
	w.replay()
}

// TestTwoManagersOfWhichOneIsFencedMakeNoExtras lets one lead that another has
// followed: it sees and plans the same, and may write nothing.
func TestTwoManagersOfWhichOneIsFencedMakeNoExtras(t *testing.T) {
	w := newWorld(t, 3)
	stale := w.lead()
	w.run(w.manager(clock.Real()), stale)
	make1(w, web(10, "one"))
	w.done("web")
	fence := w.lead()
	w.run(w.manager(clock.Real()), fence)
	w.change("web", image("two"))
	w.done("web")
	w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 15 })
	w.done("web")
	w.replay()
}

// TestTheControllersRunForWhoIsElected campaigns as a process does: the second takes
// over when the first resigns.
func TestTheControllersRunForWhoIsElected(t *testing.T) {
	w := newWorld(t, 2)
	run := func(ctx context.Context, name string) error {
		return ended(ctx, leader.Run(ctx, leader.Config{Client: w.cluster.Store(), Name: "controllers", Value: name, Logger: hclog.NewNullLogger()}, w.manager(clock.Real()).Run))
	}
	first, resign := context.WithCancel(t.Context())
	w.tasks.Go("first", func(context.Context) error { return run(first, "first") })
	make1(w, web(3, "one"))
	w.done("web")
	w.tasks.Go("second", func(ctx context.Context) error { return run(ctx, "second") })
	resign()
	w.change("web", image("two"))
	w.done("web")
	w.replay()
}

func TestANamespaceThatEndsIsEmptiedAndGoes(t *testing.T) {
	w := newWorld(t, 2)
	w.run(w.manager(clock.Real()), w.lead())
	make1(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	d := web(3, "one")
	d.Namespace = "shop"
	make1(w, d)
	make1(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "settings"}})
	w.eventually("three pods run", func() (bool, string) {
		d, err := objects.Get[*appsv1.Deployment](context.Background(), w.client, "shop", "web")
		if err != nil {
			t.Fatal(err)
		}
		return d.Status.AvailableReplicas == 3, d.Status.String()
	})
	if err := objects.Delete[*corev1.Namespace](t.Context(), w.client, "", "shop"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the namespace is gone", func() (bool, string) {
		ns, err := objects.Get[*corev1.Namespace](context.Background(), w.client, "", "shop")
		return ns == nil && err != nil, names(w.pods("shop"))
	})
	if pods := w.pods("shop"); len(pods) > 0 {
		t.Errorf("left behind: %s", names(pods))
	}
}

func TestControllersWhoseLeadershipIsOverStop(t *testing.T) {
	w := newWorld(t, 2)
	stale := w.lead()
	w.lead()
	make1(w, web(3, "one"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.manager(clock.Real()).Run(ctx, stale); err != nil || ctx.Err() != nil {
		t.Errorf("Run: %v, %v", err, ctx.Err())
	}
	if pods := w.pods("default"); len(pods) > 0 {
		t.Errorf("pods were made: %s", names(pods))
	}
}

// TestTheLongestNameThereMayBeIsRolledOut: those of its set, its pods and its events are made
// of it, and are no longer.
func TestTheLongestNameThereMayBeIsRolledOut(t *testing.T) {
	w := newWorld(t, 1)
	w.run(w.manager(clock.Real()), w.lead())
	name := strings.Repeat("a-", 126)
	for _, last := range []string{"b", "c"} { // They share all that goes into the names of their sets.
		d := web(2, "one")
		d.Name = name + last
		make1(w, d)
	}
	for _, last := range []string{"b", "c"} {
		w.eventually("it is rolled out", func() (bool, string) {
			d := w.deployment(name + last)
			return d.Status.AvailableReplicas == 2, d.Status.String()
		})
	}
	for _, p := range w.pods("default") {
		if len(p.Name) > 253 {
			t.Errorf("a name of %d bytes", len(p.Name))
		}
	}
	w.eventually("people hear of it", func() (bool, string) {
		all, _, err := objects.List[*corev1.Event](t.Context(), w.client, objects.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(all, func(e *corev1.Event) bool { return e.InvolvedObject.Name == name+"b" }), fmt.Sprint(len(all), " events")
	})
}

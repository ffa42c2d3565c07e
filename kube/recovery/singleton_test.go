package recovery_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/recovery"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var one = map[string]string{api.Singleton: "true"}

// moved makes a singleton, takes a snapshot, and has the singleton move to another pod.
func moved(w *world) (snapshot int64, was, is *corev1.Pod) {
	w.Helper()
	w.deployment("one", 1, one)
	w.eventually("it runs", func() error { return w.runs(1) })
	for _, p := range w.pods("one") {
		was = p
	}
	snapshot = w.revision()
	if err := objects.Delete[*corev1.Pod](w.Context(), w.admin, "default", was.Name); err != nil {
		w.Fatal(err)
	}
	w.eventually("it runs elsewhere", func() error {
		for _, p := range w.pods("one") {
			if p.UID != was.UID {
				is = p
				return w.runs(1)
			}
		}
		return errors.New("there is no other yet")
	})
	return snapshot, was, is
}

// The snapshot knows another pod than the one that runs: that is not started.
func TestASingletonThatHasMovedSinceASnapshotRunsOnce(t *testing.T) {
	w := newWorld(t, 3, clock.Real())
	snapshot, was, is := moved(w)
	before := w.ids()
	w.restore(snapshot)
	_, running, recorded := lists(w.told())
	if fmt.Sprint(running, recorded) != fmt.Sprint([]string{is.Name}, []string{was.Name}) {
		t.Errorf("running %v, recorded %v", running, recorded)
	}
	if _, err := w.cluster.Client(auth.Controllers()).Recover(t.Context(), &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_SETTLE}); !errors.Is(err, objects.ErrGuard) {
		t.Errorf("it is settled with a pod undecided: %v", err)
	}
	r, err := recovery.Adopt(t.Context(), w.admin, false)
	if err != nil || !r.Settled || len(r.Removed) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	w.settled()
	w.unchanged(before)
	w.exact()
	if pods := w.pods("one"); len(pods) != 1 || pods[is.Name] == nil {
		t.Errorf("pods %v", pods)
	}
}

// What is not recorded is let go, and only then another starts.
func TestASingletonThatIsPrunedHasEndedBeforeAnotherStarts(t *testing.T) {
	quick.LeaveOut(t)
	w := newWorld(t, 3, clock.Real())
	snapshot, _, is := moved(w)
	w.restore(snapshot)
	w.told()
	r, err := recovery.Prune(t.Context(), w.admin)
	if err != nil || !r.Settled || len(r.Pruned) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	w.eventually("another runs", func() error { // checkOnly sees whether it was too early.
		if _, ok := w.ids()[is.UID]; ok {
			return errors.New("the old one runs")
		}
		return w.runs(1)
	})
	w.settled()
	w.exact()
}

// A node that does not tell may run it, until an operator says that it does not.
func TestASingletonOfASilentNodeIsReservedUntilItIsGivenUp(t *testing.T) {
	quick.LeaveOut(t)
	w := newWorld(t, 3, clock.Real())
	w.limits.Bound = 2 * time.Second
	w.deployment("one", 1, one)
	w.deployment("web", 3, nil)
	w.eventually("they run", func() error { return w.runs(4) })
	var at string
	for _, p := range w.pods("one") {
		at = p.Spec.NodeName
	}
	snapshot := w.revision()
	var silent *machine
	for _, m := range w.machines {
		if m.name == at {
			silent = m
		}
	}
	w.cut()
	silent.stop()
	w.timeline++
	w.cluster = w.cluster.Restore(snapshot, w.set(w.timeline))
	w.govern()
	w.back()
	w.eventually("controllers go on", func() error {
		is, err := w.admin.Recovery(t.Context(), true)
		if err == nil && is.State != kubepb.RecoveryResponse_PROCEEDING {
			err = fmt.Errorf("%v", is)
		}
		return err
	})
	// Its pod may be deleted by nobody who only believes that it has ended.
	pod := w.pods("one")
	for _, p := range pod {
		now := int64(0)
		err := objects.Delete[*corev1.Pod](t.Context(), w.cluster.Client(auth.Controllers()), "default", p.Name, objects.Option{Grace: &now})
		if !errors.Is(err, objects.ErrGuard) {
			t.Errorf("delete: %v", err)
		}
	}
	w.scale("web", 5)
	w.eventually("others are made", func() error {
		n := 0
		for _, p := range w.pods("web") {
			if p.Spec.NodeName != at && p.Status.Phase == corev1.PodRunning {
				n++
			}
		}
		if n < 2 {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
	if err := recovery.GiveUp(t.Context(), w.admin, []string{at}); err != nil {
		t.Fatal(err)
	}
	w.settled()
	w.exact()
}

package recovery_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/kube/recovery"
)

// Fifty pods run, of which an older snapshot knows ten, and ten that are no more.
func TestPodsThatASnapshotDoesNotKnowAreAdoptedAndNothingIsRestarted(t *testing.T) {
	quick.LeaveOut(t)
	w := newWorld(t, 4, clock.Real())
	w.deployment("web", 10, nil)
	w.deployment("old", 10, nil)
	w.eventually("twenty run", func() error { return w.runs(20) })
	snapshot := w.revision()
	w.scale("old", 0)
	w.scale("web", 30)
	w.eventually("thirty run", func() error { return w.runs(30) })
	w.deployment("new", 20, nil)
	w.eventually("fifty run", func() error { return w.runs(50) })
	w.eventually("the old ones have ended", func() error { // Those that still end are told of too.
		if left := len(w.pods("old")); left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
	before := w.ids()

	w.restore(snapshot)
	is := w.told()
	both, running, recorded := lists(is)
	if len(both) != 10 || len(running) != 40 || len(recorded) != 10 {
		t.Fatalf("both %d, running %d, recorded %d: %v", len(both), len(running), len(recorded), is)
	}
	w.exact()
	w.unchanged(before)
	// The templates of those of web are recorded; of the others only their nodes speak.
	r, err := recovery.Adopt(t.Context(), w.admin, false)
	if err != nil || len(r.Refused) != 20 || len(r.Adopted) != 20 || r.Settled {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err = recovery.Adopt(t.Context(), w.admin, true)
	if err != nil || len(r.Refused) > 0 || len(r.Adopted) != 20 || !r.Settled {
		t.Fatalf("%+v, %v", r, err)
	}
	if len(r.Warned) != 20 {
		t.Errorf("warnings: %v", r.Warned)
	}
	w.settled()
	w.eventually("the old ones are made anew", func() error { return w.runs(60) })
	w.unchanged(before)
	w.exact()
	w.neverRestarted(before)
	// The deployment that the snapshot did not know takes its pods back.
	w.deployment("new", 20, nil)
	w.eventually("its pods are its own again", func() error {
		for name, p := range w.pods("new") {
			if len(p.OwnerReferences) == 0 {
				return fmt.Errorf("pod %s has no owner", name)
			}
		}
		return w.runs(60)
	})
	w.unchanged(before)
	// All is as ever: nodes end what is deleted.
	w.scale("new", 0)
	w.eventually("it ends", func() error { return w.runs(40) })
	w.exact()
}

// neverRestarted checks what is told of the containers that ran before, once all is told.
func (w *world) neverRestarted(before map[types.UID]string) {
	w.Helper()
	w.eventually("of all pods it is told how they are", func() error {
		for name, p := range w.pods("") {
			if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].ContainerID == "" {
				return fmt.Errorf("pod %s: %+v", name, p.Status)
			}
		}
		return nil
	})
	for name, p := range w.pods("") {
		if id, ok := before[p.UID]; ok && (p.Status.ContainerStatuses[0].ContainerID != id || p.Status.ContainerStatuses[0].RestartCount != 0) {
			w.Errorf("pod %s: %+v", name, p.Status)
		}
	}
}

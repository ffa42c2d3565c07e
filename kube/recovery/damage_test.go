package recovery_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/recovery"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// damage flips a bit of files of a pod, and starts the kubelet anew.
func (m *machine) damage(uid types.UID, suffixes ...string) {
	m.stop()
	for _, suffix := range suffixes {
		file := filepath.Join(m.dir, "checkpoints", "pod-"+string(uid)+suffix)
		b, err := os.ReadFile(file)
		if err == nil {
			b[len(b)/2] ^= 1
			err = os.WriteFile(file, b, 0o600)
		}
		if err != nil {
			m.world.Fatal(err)
		}
	}
}

// surplus runs two pods of which a snapshot knows one, on one machine, and returns the
// one that it does not know.
func surplus(w *world) (snapshot int64, unknown types.UID) {
	w.deployment("web", 1, nil)
	w.eventually("one runs", func() error { return w.runs(1) })
	snapshot = w.revision()
	before := w.ids()
	w.scale("web", 2)
	w.eventually("two run, and the control plane knows", func() error {
		ready := 0
		for _, p := range w.pods("web") {
			if p.Status.Phase == corev1.PodRunning {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d", ready)
		}
		return w.runs(2)
	})
	for uid := range w.ids() {
		if _, ok := before[uid]; !ok {
			unknown = uid
		}
	}
	return snapshot, unknown
}

// nodeEvent waits for an event about a node.
func (w *world) nodeEvent(reason string, uid types.UID) {
	w.Helper()
	w.eventually("an event tells of it", func() error {
		all, _, err := objects.List[*corev1.Event](w.Context(), w.admin, objects.ListOptions{Namespace: "default"})
		for _, e := range all {
			if e.Reason == reason && strings.Contains(e.Message, string(uid)) {
				return nil
			}
		}
		return fmt.Errorf("%d events, %w", len(all), errors.Join(err, errors.New("none of it")))
	})
}

// What was written before tells what the pod is: it is adopted as any other.
func TestAPodWhoseCheckpointIsDamagedIsAdopted(t *testing.T) {
	w := newWorld(t, 1, clock.Real())
	snapshot, uid := surplus(w)
	before := w.ids()
	w.machines[0].damage(uid, "")
	w.restore(snapshot)
	w.machines[0].start()
	w.told()
	w.nodeEvent("DamagedCheckpoint", uid)
	r, err := recovery.Adopt(t.Context(), w.admin, false)
	if err != nil || !r.Settled || len(r.Adopted) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	w.settled()
	w.unchanged(before)
	w.exact()
	left := filepath.Join(w.machines[0].dir, "checkpoints", "pod-"+string(uid)+".damaged")
	if there, err := vfs.Exists(vfs.OS(), left); err != nil || !there {
		t.Errorf("the damaged file is not put aside: %v", err)
	}
}

// Nothing tells what the pod is. It goes on all the same, through another start of its
// kubelet, until somebody says that it shall end.
func TestAPodOfWhichAllIsLostGoesOnUntilItIsPruned(t *testing.T) {
	w := newWorldOf(t, 1, clock.Real(), 120) // It may be a singleton, and would end with the lease.
	snapshot, uid := surplus(w)
	before := w.ids()
	m := w.machines[0]
	m.damage(uid, "", ".before")
	w.restore(snapshot)
	m.start()
	w.told()
	w.nodeEvent("LostCheckpoint", uid)
	m.stop()
	m.start()
	var is *kubepb.RecoveryResponse
	w.eventually("it is told of as what it is", func() error {
		is = w.told()
		_, running, _ := lists(is)
		if fmt.Sprint(running) != fmt.Sprint([]string{"unreadable-" + string(uid)}) {
			return fmt.Errorf("running: %v", running)
		}
		return nil
	})
	w.unchanged(before)
	r, err := recovery.Adopt(t.Context(), w.admin, false)
	if err != nil || r.Settled || len(r.Refused) != 1 || !errors.Is(r.Refused[0].Err, objects.ErrGuard) {
		t.Fatalf("it is adopted without anybody knowing what it is: %+v, %v", r, err)
	}
	w.unchanged(before)
	if r, err = recovery.Prune(t.Context(), w.admin); err != nil || !r.Settled || len(r.Pruned) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	w.settled()
	delete(before, uid)
	w.eventually("it has ended, and left nothing", func() error {
		if _, ok := w.ids()[uid]; ok {
			return errors.New("it runs")
		}
		s, err := checkpoint.Read(vfs.OS(), filepath.Join(m.dir, "checkpoints"))
		if err == nil && len(s.Lost) > 0 {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	w.unchanged(before)
	w.exact()
}

// The control plane still has it: its worker goes on with what that says.
func TestAPodOfWhichAllIsLostIsWhatTheControlPlaneSays(t *testing.T) {
	w := newWorldOf(t, 1, clock.Real(), 120)
	_, uid := surplus(w)
	before := w.ids()
	m := w.machines[0]
	m.damage(uid, "", ".before")
	m.start()
	w.nodeEvent("LostCheckpoint", uid)
	w.eventually("it is written down again", func() error {
		s, err := checkpoint.Read(vfs.OS(), filepath.Join(m.dir, "checkpoints"))
		if err == nil && len(s.Pods) != 2 {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	w.unchanged(before)
	w.scale("web", 1)
	w.eventually("one is left", func() error { return w.runs(1) })
}

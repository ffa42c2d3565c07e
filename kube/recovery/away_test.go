package recovery_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
)

// pumped is a clock that goes as the machine's does, and faster where nothing real is
// waited for.
type pumped struct {
	*clocktest.Fake
	mu   sync.Mutex
	stop chan struct{}
	done chan struct{}
}

func pump(t *testing.T) *pumped {
	p := &pumped{Fake: clocktest.New(), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		last := time.Now()
		for {
			select {
			case <-time.After(2 * time.Millisecond):
			case <-p.stop:
				return
			}
			now := time.Now()
			p.advance(now.Sub(last))
			last = now
		}
	}()
	t.Cleanup(func() { close(p.stop); <-p.done })
	return p
}

func (p *pumped) advance(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Advance(d)
}

// skip lets time pass in small steps, in each of which others come to write a file.
func (p *pumped) skip(d time.Duration) {
	for ; d > 0; d -= 100 * time.Millisecond {
		p.advance(100 * time.Millisecond)
		<-time.After(300 * time.Microsecond)
	}
}

// Ten minutes without a control plane, in which a kubelet is killed and another starts,
// and a container ends and is started anew as its policy says.
func TestTenMinutesWithoutAControlPlaneEndNothing(t *testing.T) {
	quick.LeaveOut(t)
	clk := pump(t)
	w := newWorld(t, 3, clk)
	w.deployment("web", 12, nil)
	w.eventually("twelve run", func() error { return w.runs(12) })
	before := w.ids()
	p := &corev1.Pod{}
	p.Namespace, p.Name = "default", "flaky"
	p.Annotations = map[string]string{sim.Prefix + "exit-after": "100s", sim.Prefix + "exit-code": "3"}
	p.Spec = spec()
	if _, err := objects.Create(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
	w.eventually("all run", func() error { return w.runs(13) })
	uid := w.pods("flaky")["flaky"].UID

	w.cut()
	clk.skip(3 * time.Minute)
	for _, m := range w.machines {
		m.stop()
		m.start()
	}
	w.eventually("all are adopted", func() error {
		for _, m := range w.machines {
			if m.clock.(*pumped).Waiters() == 0 {
				return fmt.Errorf("%s waits for nothing", m.name)
			}
		}
		return nil
	})
	clk.skip(7 * time.Minute)
	w.unchanged(before)
	starts := 0
	for _, m := range w.machines {
		m.mu.Lock()
		starts += m.starts[string(uid)+"/c"]
		m.mu.Unlock()
	}
	if starts < 3 {
		t.Errorf("the container that ends was started %d times", starts)
	}

	w.govern()
	w.back()
	clk.skip(12 * time.Second) // They try again within ten.
	w.eventually("what happened is told", func() error {
		p := w.pods("flaky")["flaky"]
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("it has no status: %+v", p)
		}
		if is := p.Status.ContainerStatuses[0]; int(is.RestartCount) < starts-1 {
			return fmt.Errorf("%d starts: %+v", starts, is)
		}
		for name, p := range w.pods("web") { // They may have had no time for it before.
			if len(p.Status.ContainerStatuses) == 0 {
				return fmt.Errorf("%s has no status: %+v", name, p)
			}
		}
		return nil
	})
	w.unchanged(before)
	for name, p := range w.pods("web") {
		if _, ok := before[p.UID]; !ok || p.DeletionTimestamp != nil || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("pod %s: %+v", name, p.Status)
		}
	}
	w.exact()
}

// A kubelet that was away while its pod was deleted ends it; one that the control plane
// still has goes on.
func TestWhatWasDeletedWhileAKubeletWasAwayEnds(t *testing.T) {
	w := newWorld(t, 1, pump(t))
	w.deployment("web", 2, nil)
	w.eventually("two run", func() error { return w.runs(2) })
	w.machines[0].stop()
	var gone corev1.Pod
	for _, p := range w.pods("web") {
		gone = *p
	}
	now := int64(0)
	if err := objects.Delete[*corev1.Pod](t.Context(), w.admin, "default", gone.Name, objects.Option{Grace: &now}); err != nil {
		t.Fatal(err)
	}
	before := w.ids()
	delete(before, gone.UID)
	w.machines[0].start()
	w.eventually("another runs in its place", func() error {
		if _, ok := w.ids()[gone.UID]; ok {
			return fmt.Errorf("pod %s still runs", gone.Name)
		}
		return w.runs(2)
	})
	w.unchanged(before)
	if _, err := objects.Get[*corev1.Node](t.Context(), w.cluster.Client(auth.Node("n0")), "", "n0"); err != nil {
		t.Error(err)
	}
}

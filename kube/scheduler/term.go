package scheduler

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// errFenced ends a term whose leadership is over.
var errFenced = errors.New("the leadership is over")

// term is a scheduler while it leads: from the first list to the end of Run.
//
// It has more fields than most types: the second half is what decideAll owns.
type term struct {
	*Scheduler
	fence   *kubepb.Fence
	pods    *objects.Informer[*corev1.Pod]
	nodes   *objects.Informer[*corev1.Node]
	inbox   *inbox
	binds   chan *binding // Never full: bindsMax are on their way.
	reports *reporter

	// Owned by decideAll.
	snapshot *placement.Snapshot
	core     *placement.Core
	queue    *queue
	assumed  map[placement.Key]*binding // Decided, and not yet told by the informer.
	inFlight int
	changes  changes
	read     read
	over     error
	free     bool // Nothing keeps pods from being bound: it is settled what runs.
}

// changes are what could help parked pods, until the next pass.
type changes struct {
	nodes map[string]placement.Set // "": elsewhere.
	next  time.Duration            // When the next pass may be.
}

func newTerm(s *Scheduler, fence *kubepb.Fence) *term {
	t := &term{
		Scheduler: s, fence: fence, inbox: newInbox(), binds: make(chan *binding, bindsMax),
		pods:     objects.NewInformer[*corev1.Pod](s.client, objects.ListOptions{}, s.log),
		nodes:    objects.NewInformer[*corev1.Node](s.client, objects.ListOptions{}, s.log),
		snapshot: placement.New(), core: placement.NewCore(s.seed), queue: newQueue(), assumed: map[placement.Key]*binding{},
	}
	t.read = read{pods: map[placement.Key]int64{}, nodes: map[string]int64{}}
	t.changes = changes{nodes: map[string]placement.Set{}}
	t.reports = newReporter(s, t.pods.Get)
	t.pods.OnChange(func(old, now *corev1.Pod) { t.inbox.put(func() { t.podChanged(old, now) }) })
	t.nodes.OnChange(func(old, now *corev1.Node) { t.inbox.put(func() { t.nodeChanged(old, now) }) })
	return t
}

// decideAll makes one decision after the other.
func (t *term) decideAll(ctx context.Context) error {
	if err := errors.Join(t.nodes.Synced(ctx), t.pods.Synced(ctx)); err != nil {
		return ctx.Err()
	}
	for ctx.Err() == nil {
		for _, message := range t.inbox.take() {
			message()
		}
		if t.over != nil {
			return t.over
		}
		now := t.clock.Mono()
		idle := t.wake(now)
		if t.free && t.inFlight < bindsMax {
			if w := t.queue.next(now); w != nil {
				t.place(w, now)
				continue
			}
			idle = min(idle, t.queue.due(now))
		}
		select {
		case <-t.inbox.signal:
		case <-t.clock.After(idle):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// awaitRecovery asks whether the store was restored and it is not settled yet what
// runs. Until it is, binds would be refused.
func (t *term) awaitRecovery(ctx context.Context) error {
	for told := false; ; told = true {
		asking, cancel := context.WithTimeout(ctx, bindTimeout)
		is, err := t.client.Recovery(asking, false)
		cancel()
		if err == nil && is.Hold != kubepb.Hold_HOLD_ALL {
			t.inbox.put(func() { t.free = true })
			return nil
		}
		if !told && err == nil {
			t.log.Warn("the store was restored: nothing is scheduled until it is settled what runs")
		}
		select {
		case <-t.clock.After(recoveryLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// place decides about one pod.
func (t *term) place(w *waiting, now time.Duration) {
	profile, _ := t.profileOf(w.object)
	d := t.core.Decide(t.snapshot, w.pod, profile)
	t.journal.add(w.pod, t.clock.Wall(), d)
	if d.Node == "" {
		w.forgive()
		t.queue.park(w, now, d.Refused)
		t.reports.unschedulable(w.object, d.Message())
		return
	}
	t.changed(d.Node, t.snapshot.SetPod(w.pod, d.Node))
	b := newBinding(w, d.Node, t.fence)
	t.assumed[w.pod.Key] = b
	t.inFlight++
	t.binds <- b
}

// changed remembers that plugins may say yes where they said no, on a node or, if
// none is named, somewhere.
func (t *term) changed(node string, to placement.Set) {
	if to != 0 {
		t.changes.nodes[node] |= to
	}
}

// wake lets the changes wake parked pods, now and then. It returns when it wants to be
// called again.
func (t *term) wake(now time.Duration) time.Duration {
	c := &t.changes
	if len(c.nodes) == 0 {
		return parkedLook
	}
	if c.next > now {
		return c.next - now
	}
	var all placement.Set
	for _, to := range c.nodes {
		all |= to
	}
	helps := t.helps
	if len(c.nodes) > wakeNodesMax {
		helps = nil
	}
	t.queue.wake(now, all, helps)
	clear(c.nodes)
	cost := t.clock.Mono() - now
	c.next = now + max(wakeInterval, wakePause*cost)
	return parkedLook
}

// helps reports whether one of the nodes that have changed could now take a pod.
func (t *term) helps(w *waiting, by placement.Set) (bool, placement.Set) {
	if !by.Local() {
		return true, 0
	}
	var besides placement.Set
	for node, to := range t.changes.nodes {
		if to&by == 0 {
			continue
		}
		refused := t.core.Refused(t.snapshot, w.pod, node)
		if refused == 0 {
			return true, 0
		}
		besides |= refused
	}
	return false, besides
}

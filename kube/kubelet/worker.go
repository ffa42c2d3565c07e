package kubelet

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// worker is one pod. Its fields are guarded by the lock of pods, but for history and
// what is after it: these belong to the one turn that is under way.
//
// It has more fields than most types, as each is a fact of its own that the next turn
// needs.
type worker struct {
	pod    *corev1.Pod // The newest that is known.
	gone   bool        // Its object is, and it is to end.
	kept   bool        // Its object is, and it goes on until it is decided about.
	freed  bool        // It was kept, and is gone now: the control plane still counts it.
	here   bool        // It was started here, by this kubelet or one before.
	unread bool        // No file tells what it is, and pod is a stand-in until the control plane does.
	exists bool        // Something of it was in the runtime at the last look, or soon will be.
	runs   bool        // A container of it did, or soon will.
	judged bool        // Whether there is room for it was looked at.
	reject *rejection
	status *corev1.PodStatus // The newest, whether it is told already or not. Nil: that of pod.
	busy   bool
	again  bool // Something changed since the turn began.
	timer  clock.Timer

	history map[string]*history
	stopped time.Duration // When it must have ended, by the last Stop (monotonic); -1: there was none.
	lost    time.Duration // When its node was said to be lost; 0: it is not.
	retry   time.Duration // Before the next attempt of a call that failed.
	static  *static       // Nil: it is the control plane's.
	saved   *corev1.Pod   // As it is on disk. Nil: it is not.

	verdict *corev1.PodStatus // How it ends. Nil: it goes on.
}

func newWorker(pod *corev1.Pod) *worker {
	w := &worker{pod: pod, history: map[string]*history{}, stopped: -1}
	for _, c := range containersOf(pod) {
		h := &history{}
		w.history[c.Name] = h
		s := toldOf(&pod.Status, &c)
		if s == nil {
			continue
		}
		h.restarts, h.last = s.RestartCount, s.LastTerminationState.Terminated
		if t := s.State.Terminated; t != nil {
			h.last, h.counted = t, t.ContainerID
		} else if h.last != nil {
			h.counted = h.last.ContainerID
		}
	}
	return w
}

// holds reports whether the pod takes room on the node. One whose containers have ended
// takes none, though it is not cleared away yet: the control plane counts it no more, and
// may have given its room to another.
func (w *worker) holds() bool {
	return w.runs || w.reject == nil && !w.gone && !finished(w.pod)
}

// work takes turns until there is nothing to do.
func (p *pods) work(ctx context.Context, w *worker) {
	for {
		p.mu.Lock()
		if !w.again || ctx.Err() != nil {
			w.busy = false
			p.mu.Unlock()
			return
		}
		w.again = false
		if w.unread && len(w.pod.Spec.Containers) > 0 {
			w.unread, w.history = false, newWorker(w.pod).history
		}
		t := turn{pod: w.pod, gone: w.gone, kept: w.kept, freed: w.freed, here: w.here, unread: w.unread, reject: w.reject, listed: p.mu.begun}
		if w.static != nil {
			t.mirror = w.static.mirror
		}
		p.mu.Unlock()
		if p.turn(ctx, w, &t) {
			return
		}
	}
}

// turn is what a worker knew when its turn began.
type turn struct {
	pod                     *corev1.Pod
	gone, kept, freed, here bool
	unread                  bool
	reject                  *rejection
	listed                  bool        // The control plane has told of pods.
	mirror                  *corev1.Pod // Of a static pod.
}

// turn looks, plans and acts once. It returns true when the worker has gone.
func (p *pods) turn(ctx context.Context, w *worker, t *turn) bool {
	k, pod := p.kubelet, t.pod
	state := k.runtime.Status(pod)
	if !state.Exists && goesOn(pod) && w.verdict == nil {
		state.Containers = nil // What was stopped and is started again begins anew.
	}
	if t.gone {
		return p.leave(w, t, state)
	}
	if state.Exists && !t.here { // Its checkpoint was lost, or is of another folder.
		t.here = true
		p.mu.Lock()
		w.here = true
		p.mu.Unlock()
	}
	made := makePlan(&facts{
		Pod: pod, State: state, History: w.history, Reject: t.reject, Fenced: k.mayHaveEnded(), Verdict: w.verdict,
		Hold: k.holdOf(w), Here: t.here, Stopping: w.stopped >= 0,
		Now: k.clock.Wall(), Mono: k.clock.Mono(), HostIP: k.cfg.Address,
	})
	p.conclude(w, t, made)
	p.look(w, state, made)
	if made.Stop {
		p.halt(w, pod, made.Grace, made.Fence)
	}
	p.tell(pod, made.Events)
	p.renew(pod, made.Renew)
	if p.lost(w, pod) && made.Status != nil && !made.Remove {
		made.Status, made.Wake = nil, retryDelayMin
	}
	wake := made.Wake
	if err := p.carryOut(ctx, w, t, made); err != nil {
		w.retry = min(max(2*w.retry, retryDelayMin), retryDelayMax)
		if wake == 0 || w.retry < wake {
			wake = w.retry
		}
		k.log.Debug("the state of a pod is not written, trying again", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	} else {
		w.retry = 0
	}
	if wake > 0 {
		p.mu.Lock()
		p.wakeLocked(w, wake)
		p.mu.Unlock()
	}
	return false
}

// conclude remembers how a pod ends. It is on disk before the pod is stopped, as what is left
// of that tells it, too.
func (p *pods) conclude(w *worker, t *turn, made *plan) {
	if made.Verdict == nil {
		return
	}
	w.verdict = made.Verdict
	_ = p.keep(w, t, made) // Else it is tried again with what is told.
}

func goesOn(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil && !finished(pod) }

func (p *pods) tell(pod *corev1.Pod, events []note) {
	for _, n := range events {
		p.kubelet.note(pod, n)
	}
}

func (p *pods) renew(pod *corev1.Pod, names []string) {
	if r, ok := p.kubelet.runtime.(Renewer); ok {
		for _, name := range names {
			r.Renew(pod, name)
		}
	}
}

// carryOut starts what is to be started, and tells how the pod is.
func (p *pods) carryOut(ctx context.Context, w *worker, t *turn, made *plan) error {
	if err := p.launch(w, t, made); err != nil {
		return err
	}
	if len(made.Start) > 0 && made.Status != nil {
		made.Status = nil // What came of the start is told with it.
		p.poke(t.pod.UID)
	}
	switch {
	case w.static != nil:
		return p.reflect(ctx, w, t, made)
	case t.kept || t.unread:
		return nil // Nobody there knows of it.
	case t.pod.ResourceVersion == "":
		return nil // The store was restored, and has not told yet how the pod is there.
	}
	return p.write(ctx, w, t.pod, made)
}

// lost reports whether the control plane takes the node for lost, as the pod's status
// says, and has not heard of it since. To contradict before that would only have both
// write in turns.
func (p *pods) lost(w *worker, pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady && c.Reason == "NodeLost" {
			if w.lost == 0 {
				w.lost = p.kubelet.clock.Mono()
				rouse(p.kubelet.beat)
			}
			return !p.kubelet.answeredSince(w.lost)
		}
	}
	w.lost = 0
	return false
}

// look notes what there is, for those who ask while no turn is under way.
func (p *pods) look(w *worker, state PodState, made *plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := w.exists
	w.exists, w.runs = state.Exists || len(made.Start) > 0, len(made.Start) > 0
	for _, c := range state.Containers { //tidy:ordered a sum
		w.runs = w.runs || c.Phase == Running || c.Phase == Creating
	}
	w.status = made.Status
	if w.verdict != nil && !w.exists {
		w.status = w.verdict
	}
	if was != w.exists {
		rouse(p.kubelet.hold.signal)
	}
}

// launch starts what is to be started, once it is on disk that it may run.
func (p *pods) launch(w *worker, t *turn, made *plan) error {
	k := p.kubelet
	if err := p.keep(w, t, made); err != nil {
		made.Start = nil
		k.note(t.pod, note{corev1.EventTypeWarning, "FailedCheckpoint", err.Error()})
		return err
	}
	if len(made.Start) == 0 {
		return nil
	}
	p.mu.Lock()
	w.here = true
	p.mu.Unlock()
	for _, name := range made.Start {
		w.stopped = -1
		k.runtime.Start(t.pod, name)
	}
	return nil
}

// keep has the disk know how a pod is, and how it ends. That it cannot be written is an error
// of a pod that was never started here.
func (p *pods) keep(w *worker, t *turn, made *plan) error {
	k := p.kubelet
	status := made.Status
	if w.verdict != nil && !finished(t.pod) {
		status = w.verdict
	}
	if !t.here && len(made.Start) == 0 {
		return nil
	}
	err := k.keep(w, t.pod, status)
	if err != nil && t.here {
		k.log.Warn("a checkpoint is older than its pod", "pod", t.pod.Namespace+"/"+t.pod.Name, "error", err)
		return nil
	}
	return err
}

// leave ends a pod whose object is gone, and returns true once nothing is left of it.
func (p *pods) leave(w *worker, t *turn, state PodState) bool {
	k := p.kubelet
	if state.Exists {
		grace := time.Duration(0)
		fenced := singleton(t.pod) && k.mayHaveEnded()
		if (t.freed || w.static != nil) && !fenced { // Nobody has waited for it yet.
			grace = graceOf(t.pod)
		}
		p.halt(w, t.pod, grace, false)
		return false
	}
	if k.folder != nil {
		if err := k.folder.RemovePod(t.pod.UID); err != nil {
			k.log.Warn("a checkpoint of a pod that is gone stays", "error", err)
		}
	}
	k.runtime.Forget(t.pod.UID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	delete(p.mu.workers, t.pod.UID)
	if w.static != nil {
		if m := w.static.mirror; m != nil {
			p.mu.strays[m.UID] = m
		}
		rouse(p.statics)
	}
	rouse(k.hold.signal)
	return true
}

// halt stops a pod, and again only if it has to end sooner: containers are sent their
// signal each time, and many take the second for an order to drop everything.
func (p *pods) halt(w *worker, pod *corev1.Pod, grace time.Duration, fence bool) {
	by := p.kubelet.clock.Mono() + grace
	if w.stopped >= 0 && by+time.Second >= w.stopped {
		return
	}
	if w.stopped < 0 {
		p.kubelet.note(pod, note{corev1.EventTypeNormal, "Killing", "Stopping the containers of the pod"})
	}
	w.stopped = by
	if r, ok := p.kubelet.runtime.(Fencer); ok && fence {
		r.Fence(pod)
		return
	}
	p.kubelet.runtime.Stop(pod, grace)
}

// write tells the control plane.
func (p *pods) write(ctx context.Context, w *worker, pod *corev1.Pod, made *plan) error {
	if made.Status == nil && !made.Remove {
		return nil
	}
	limit := callMax
	if singleton(pod) { // When the lease may have ended, its worker is needed to stop it.
		limit = min(limit, p.kubelet.lease.left(p.kubelet))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if made.Status != nil {
		o := pod.DeepCopy()
		o.Status = *made.Status
		now, err := objects.UpdateStatus(ctx, p.kubelet.client, o)
		if err != nil {
			return harmless(err)
		}
		p.mu.Lock()
		if newer(now, w.pod) {
			w.pod = now
			w.again = w.again || finished(now)
		}
		p.mu.Unlock()
		pod = now
	}
	if made.Remove {
		version, err := api.ParseVersion(pod.ResourceVersion) // In a store that was restored it may not be deleted.
		if err != nil {
			return err
		}
		var now int64
		return harmless(objects.Delete[*corev1.Pod](ctx, p.kubelet.client, pod.Namespace, pod.Name, objects.Option{UID: string(pod.UID), ResourceVersion: version, Grace: &now}))
	}
	return nil
}

// harmless drops what the watch will tell about: the pod is another, or gone.
func harmless(err error) error {
	if errors.Is(err, objects.ErrConflict) || errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	return err
}

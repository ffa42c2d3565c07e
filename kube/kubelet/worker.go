package kubelet

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// worker is one pod. Its fields are guarded by the lock of pods, but for history and
// what is after it: these belong to the one turn that is under way.
type worker struct {
	pod    *corev1.Pod // The newest that is known.
	gone   bool        // Its object is.
	exists bool        // Something of it was in the runtime at the last look, or soon will be.
	reject *rejection
	busy   bool
	again  bool // Something changed since the turn began.
	timer  clock.Timer

	history map[string]*history
	stopped time.Duration // The grace of the last Stop; -1: there was none.
	retry   time.Duration // Before the next attempt of a call that failed.
}

func newWorker(pod *corev1.Pod) *worker {
	w := &worker{pod: pod, history: map[string]*history{}, stopped: -1}
	for _, c := range containersOf(pod) {
		h := &history{}
		w.history[c.Name] = h
		list := pod.Status.ContainerStatuses
		if c.init {
			list = pod.Status.InitContainerStatuses
		}
		for i := range list {
			s := &list[i]
			if s.Name != c.Name {
				continue
			}
			h.restarts, h.last = s.RestartCount, s.LastTerminationState.Terminated
			if t := s.State.Terminated; t != nil {
				h.last, h.counted = t, t.ContainerID
			} else if h.last != nil {
				h.counted = h.last.ContainerID
			}
		}
	}
	return w
}

// holds reports whether the pod takes room on the node.
func (w *worker) holds() bool {
	return w.exists || w.reject == nil && !w.gone && !finished(w.pod)
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
		pod, gone, reject := w.pod, w.gone, w.reject
		p.mu.Unlock()
		if p.turn(ctx, w, pod, gone, reject) {
			return
		}
	}
}

// turn looks, plans and acts once. It returns true when the worker has gone.
func (p *pods) turn(ctx context.Context, w *worker, pod *corev1.Pod, gone bool, reject *rejection) bool {
	k := p.kubelet
	state := k.runtime.Status(pod)
	if gone {
		if state.Exists {
			p.halt(w, pod, 0)
			return false
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if w.timer != nil {
			w.timer.Stop()
		}
		delete(p.mu.workers, pod.UID)
		return true
	}
	made := makePlan(&facts{
		Pod: pod, State: state, History: w.history, Reject: reject, Fenced: k.mayHaveEnded(),
		Now: k.clock.Wall(), Mono: k.clock.Mono(), HostIP: k.cfg.Address,
	})
	p.mu.Lock()
	w.exists = state.Exists || len(made.Start) > 0
	p.mu.Unlock()
	if made.Stop {
		p.halt(w, pod, made.Grace)
	}
	for _, name := range made.Start {
		w.stopped = -1
		k.runtime.Start(pod, name)
	}
	for _, n := range made.Events {
		k.note(pod, n)
	}
	wake := made.Wake
	if len(made.Start) > 0 && made.Status != nil {
		made.Status = nil // What came of the start is told with it.
		p.poke(pod.UID)
	}
	if err := p.write(ctx, w, pod, made); err != nil {
		w.retry = min(max(2*w.retry, retryDelayMin), retryDelayMax)
		if wake == 0 || w.retry < wake {
			wake = w.retry
		}
		k.log.Debug("the control plane does not take the state of a pod, trying again", "pod", pod.Namespace+"/"+pod.Name, "error", err)
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

// halt stops a pod, once for each grace.
func (p *pods) halt(w *worker, pod *corev1.Pod, grace time.Duration) {
	if w.stopped >= 0 && grace+time.Second >= w.stopped {
		return
	}
	if w.stopped < 0 {
		p.kubelet.note(pod, note{corev1.EventTypeNormal, "Killing", "Stopping the containers of the pod"})
	}
	w.stopped = grace
	p.kubelet.runtime.Stop(pod, grace)
}

// write tells the control plane.
func (p *pods) write(ctx context.Context, w *worker, pod *corev1.Pod, made *plan) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
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
	}
	if made.Remove {
		var now int64
		return harmless(objects.Delete[*corev1.Pod](ctx, p.kubelet.client, pod.Namespace, pod.Name, objects.Option{UID: string(pod.UID), Grace: &now}))
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

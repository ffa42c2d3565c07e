package kubelet

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// After a restore the objects are older than what runs here. The server tells with the
// first message of each watch, and with each heartbeat, of which history its objects
// are. If that is not the one that this node last went along with (settled, which is
// on its disk), the node holds everything until it is told how much it shall.

// hold is what the node refrains from.
type hold struct {
	signal chan struct{} // Holds one: something is to be looked at.

	mu struct {
		sync.Mutex
		history  uint64      // That the control plane told last. 0: none was told.
		settled  uint64      // That the node goes along with.
		told     kubepb.Hold // By the last heartbeat of history; holdUntold before the first.
		revision int64       // Who has seen the objects as of it knows what was decided.
	}
}

const holdUntold kubepb.Hold = -1

// level is what the node refrains from now.
func (h *hold) level() kubepb.Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.levelLocked()
}

func (h *hold) levelLocked() kubepb.Hold {
	switch m := &h.mu; {
	case m.history == 0:
		return kubepb.Hold_HOLD_NONE
	case m.history == m.settled:
		return max(m.told, kubepb.Hold_HOLD_NONE)
	case m.told >= kubepb.Hold_HOLD_UNLISTED:
		return m.told
	}
	return kubepb.Hold_HOLD_ALL // It is not told yet, or what was decided is not seen yet.
}

// holdOf is what is refrained from of a pod: static ones are the node's own.
func (k *Kubelet) holdOf(w *worker) kubepb.Hold {
	if w.static != nil {
		return kubepb.Hold_HOLD_NONE
	}
	return k.hold.level()
}

// heardHistory is told of which history the objects are, before any of them.
func (k *Kubelet) heardHistory(history uint64) {
	h := &k.hold
	h.mu.Lock()
	if history == 0 || history == h.mu.history {
		h.mu.Unlock()
		return
	}
	h.mu.history, h.mu.told, h.mu.revision = history, holdUntold, 0
	settled := h.mu.settled
	h.mu.Unlock()
	if history != settled {
		if settled != 0 {
			k.log.Warn("the store was restored: what runs goes on, and nothing is started or ended until the control plane says so")
		}
		k.pods.forgetVersions()
	}
	rouse(k.beat)
	rouse(h.signal)
}

// heardHold is told, with each heartbeat, how much to refrain from.
func (k *Kubelet) heardHold(answer *kubepb.HeartbeatResponse) {
	if answer.History == 0 {
		return
	}
	k.heardHistory(answer.History)
	h := &k.hold
	h.mu.Lock()
	changed := h.mu.told != answer.Hold || h.mu.revision != answer.HoldRevision
	h.mu.told, h.mu.revision = answer.Hold, answer.HoldRevision
	h.mu.Unlock()
	if changed {
		k.pods.pokeAll()
		rouse(h.signal)
	}
}

// keepHold releases what was held, once that is due, and tells what the node has for
// as long as somebody wants to know.
func (k *Kubelet) keepHold(ctx context.Context) error {
	last := "" // What was told last. Empty: nothing that is still kept there.
	for {
		k.release(ctx)
		told, err := k.tellInventory(ctx, last)
		if err == nil {
			last = told
		} else if ctx.Err() == nil {
			k.log.Debug("what the node has is not told yet, trying again", "error", err)
		}
		var look <-chan time.Time
		if err != nil || last != "" || k.holds() {
			look = k.clock.After(holdLook)
		}
		select {
		case <-k.hold.signal:
		case <-look:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// holds reports whether the node refrains from anything, or has to settle something.
func (k *Kubelet) holds() bool {
	h := &k.hold
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.levelLocked() != kubepb.Hold_HOLD_NONE || h.mu.history != h.mu.settled
}

// release ends the hold of pods that are recorded nowhere, once all that was decided
// about them has been seen here.
func (k *Kubelet) release(ctx context.Context) {
	h := &k.hold
	h.mu.Lock()
	due := h.mu.history != h.mu.settled && h.mu.told >= kubepb.Hold_HOLD_NONE && h.mu.told < kubepb.Hold_HOLD_UNLISTED
	history, revision, had := h.mu.history, h.mu.revision, h.mu.settled
	h.mu.Unlock()
	if !due || !k.pods.seen(ctx, history, revision) {
		return
	}
	if k.folder != nil {
		if err := k.folder.PutHistory(history); err != nil {
			k.log.Warn("the hold goes on: that it is over cannot be written", "error", err)
			return
		}
	}
	h.mu.Lock()
	h.mu.settled = history
	h.mu.Unlock()
	if had != 0 {
		k.log.Info("the recovery is settled: the node goes by its objects again")
	}
	k.pods.released()
}

// seen reports whether the objects of a history are known, up to a revision. A watch
// on which nothing happens tells its revision now and then only: then they are read,
// and whatever is recorded there must be known here.
func (p *pods) seen(ctx context.Context, history uint64, revision int64) bool {
	p.mu.Lock()
	begun := p.mu.begun
	p.mu.Unlock()
	if !begun || p.informer.History() != history {
		return false
	}
	if p.informer.Revision() >= revision {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	all, _, err := objects.List[*corev1.Pod](ctx, p.kubelet.client, objects.ListOptions{Fields: p.fields(), ResourceVersion: revision})
	if err != nil {
		p.kubelet.log.Debug("the hold goes on: what was decided cannot be read yet", "error", err)
		return false
	}
	for _, pod := range all {
		if is, ok := p.informer.Get(pod.Namespace, pod.Name); !ok || is.UID != pod.UID {
			return false
		}
	}
	return p.informer.History() == history
}

// fields select the pods of the node.
func (p *pods) fields() string { return "spec.nodeName=" + p.kubelet.cfg.Node }

// forgetVersions makes whatever the control plane tells next newer than what is known.
func (p *pods) forgetVersions() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.mu.workers {
		w.pod = w.pod.DeepCopy()
		w.pod.ResourceVersion = ""
	}
}

// unlistedLocked is what becomes of a pod that the control plane does not list. One
// that was not listed when a new history began is kept until it is decided about.
func (p *pods) unlistedLocked(w *worker) {
	h := &p.kubelet.hold
	h.mu.Lock()
	level := h.levelLocked()
	w.kept = level == kubepb.Hold_HOLD_ALL ||
		level == kubepb.Hold_HOLD_UNLISTED && (w.kept || !p.mu.begun || p.informer.History() != h.mu.history)
	h.mu.Unlock()
	w.gone = !w.kept
	p.pokeLocked(w)
	p.tellMoved()
	rouse(h.signal)
}

// released looks at all pods anew: those that are still recorded nowhere end, and
// those that were not started are.
func (p *pods) released() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range byAge(p.mu.workers) {
		if w.kept {
			w.kept, w.gone, w.freed = false, true, true
		}
		p.judgeLocked(w)
		p.pokeLocked(w)
	}
	p.tellMoved()
}

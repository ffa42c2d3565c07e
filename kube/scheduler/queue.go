package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
)

// queue holds the pods that want a node. It has no clock: what the time is, is told.
//
// A pod is active, the next of the highest priority, oldest first; or it waits out a
// backoff; or it is parked until something happens that could help it, by which
// plugins refused it. A pod that was taken out by next belongs to the caller until it
// is put back.
//
// Invariant: a pod is in one of the three, or in none; pods has those in one.
type queue struct {
	pods    map[placement.Key]*waiting
	active  waitingHeap
	backoff waitingHeap
	parked  map[placement.Set]map[*waiting]struct{}
	serial  uint64
	looked  time.Duration // When parked pods were last looked through.
}

// waiting is a pod on its way to a node.
type waiting struct {
	pod    *placement.Pod
	object *corev1.Pod // As it was last told.
	since  time.Duration

	serial   uint64        // Age.
	failed   int           // Attempts in a row that found no node.
	refusals int           // Binds in a row that were refused.
	tried    time.Duration // When it failed last.

	// noRoom counts binds that a node had no room for: after the second in a row the pod is
	// tried elsewhere. Until it fits nowhere; then all are tried anew.
	noRoom map[string]int

	// Of the queue.
	in      *waitingHeap // Nil: parked, or out.
	index   int
	ready   time.Duration // End of the backoff.
	refused placement.Set // By whom, while parked.
}

// refusedFor takes in that a node had no room for a pod.
func (w *waiting) refusedFor(node string) {
	if w.noRoom == nil {
		w.noRoom = map[string]int{}
	}
	w.noRoom[node]++
	nodes := map[string]bool{}
	for node, n := range w.noRoom {
		if n > 1 {
			nodes[node] = true
		}
	}
	w.pod = w.pod.RefusedBy(nodes)
}

// forgive has a pod tried on all nodes again.
func (w *waiting) forgive() {
	if w.noRoom != nil {
		w.noRoom, w.pod = nil, w.pod.RefusedBy(nil)
	}
}

func newQueue() *queue {
	return &queue{
		pods: map[placement.Key]*waiting{}, parked: map[placement.Set]map[*waiting]struct{}{},
		active: waitingHeap{before: moreUrgent}, backoff: waitingHeap{before: readyEarlier},
	}
}

func moreUrgent(a, b *waiting) bool {
	if a.pod.Priority != b.pod.Priority {
		return a.pod.Priority > b.pod.Priority
	}
	return a.serial < b.serial
}

func readyEarlier(a, b *waiting) bool {
	if a.ready != b.ready {
		return a.ready < b.ready
	}
	return a.serial < b.serial
}

// add takes in a pod that has not been there.
func (q *queue) add(w *waiting) {
	q.serial++
	w.serial = q.serial
	q.activate(w)
}

// activate puts a pod that is out, or anywhere, among the active.
func (q *queue) activate(w *waiting) {
	q.remove(w)
	q.pods[w.pod.Key] = w
	q.active.push(w)
}

// retry puts a pod that failed back, to wait out its backoff.
func (q *queue) retry(w *waiting, now time.Duration) {
	w.failed++
	w.tried = now
	q.wait(w, now)
}

// park puts a pod back that some plugins refused on all nodes.
func (q *queue) park(w *waiting, now time.Duration, refused placement.Set) {
	w.failed++
	w.tried = now
	q.parkUnder(w, refused)
}

func (q *queue) parkUnder(w *waiting, refused placement.Set) {
	q.remove(w)
	q.pods[w.pod.Key] = w
	w.refused = refused
	if q.parked[refused] == nil {
		q.parked[refused] = map[*waiting]struct{}{}
	}
	q.parked[refused][w] = struct{}{}
}

// wait puts a pod among the active, or first into its backoff if that is not over.
func (q *queue) wait(w *waiting, now time.Duration) {
	w.ready = w.tried + backoffOf(w.failed)
	if w.failed == 0 || w.ready <= now {
		q.activate(w)
		return
	}
	q.remove(w)
	q.pods[w.pod.Key] = w
	q.backoff.push(w)
}

func backoffOf(failed int) time.Duration {
	d := backoffMin
	for range failed - 1 {
		if d *= 2; d >= backoffMax {
			return backoffMax
		}
	}
	return d
}

// remove takes a pod out, wherever it is.
func (q *queue) remove(w *waiting) {
	if q.pods[w.pod.Key] != w {
		return
	}
	delete(q.pods, w.pod.Key)
	if w.in != nil {
		heap.Remove(w.in, w.index)
		return
	}
	delete(q.parked[w.refused], w)
	if len(q.parked[w.refused]) == 0 {
		delete(q.parked, w.refused)
	}
}

// wake wakes the parked pods that a change could help: those that one of the plugins
// refused. Helps, if given, is asked of each; if it says no it may name plugins that
// refuse the pod besides, and a change there could help it from then on.
func (q *queue) wake(now time.Duration, changed placement.Set, helps func(w *waiting, by placement.Set) (bool, placement.Set)) {
	var woken, rekeyed []*waiting
	for refused, set := range q.parked {
		if refused&changed == 0 {
			continue
		}
		for w := range set {
			yes, besides := true, placement.Set(0)
			if helps != nil {
				yes, besides = helps(w, refused&changed)
			}
			if yes {
				woken = append(woken, w)
			} else if refused|besides != refused {
				w.refused |= besides
				rekeyed = append(rekeyed, w)
				delete(set, w)
			}
		}
		if len(set) == 0 {
			delete(q.parked, refused)
		}
	}
	for _, w := range rekeyed {
		delete(q.pods, w.pod.Key) // It is in no set now.
		q.parkUnder(w, w.refused)
	}
	for _, w := range woken {
		q.wait(w, now)
	}
}

// tick does what is due: ends backoffs, and wakes pods that were parked for long.
func (q *queue) tick(now time.Duration) {
	for len(q.backoff.pods) > 0 && q.backoff.pods[0].ready <= now {
		q.activate(q.backoff.pods[0])
	}
	if now-q.looked < parkedLook {
		return
	}
	q.looked = now
	var late []*waiting
	for _, set := range q.parked {
		for w := range set {
			if now-w.tried >= parkedMax {
				late = append(late, w)
			}
		}
	}
	for _, w := range late {
		q.activate(w)
	}
}

// next takes out the pod whose turn it is, nil if none is active.
func (q *queue) next(now time.Duration) *waiting {
	q.tick(now)
	if len(q.active.pods) == 0 {
		return nil
	}
	w := q.active.pods[0]
	q.remove(w)
	return w
}

// due is how long nothing happens by itself.
func (q *queue) due(now time.Duration) time.Duration {
	d := max(0, parkedLook-(now-q.looked))
	if len(q.backoff.pods) > 0 {
		d = min(d, max(0, q.backoff.pods[0].ready-now))
	}
	return d
}

// waitingHeap is a heap for container/heap that tells each pod where it is.
type waitingHeap struct {
	pods   []*waiting
	before func(a, b *waiting) bool
}

func (h *waitingHeap) push(w *waiting) {
	w.in = h
	heap.Push(h, w)
}

// Len and the rest implement heap.Interface.
func (h *waitingHeap) Len() int           { return len(h.pods) }
func (h *waitingHeap) Less(i, j int) bool { return h.before(h.pods[i], h.pods[j]) }

func (h *waitingHeap) Swap(i, j int) {
	h.pods[i], h.pods[j] = h.pods[j], h.pods[i]
	h.pods[i].index, h.pods[j].index = i, j
}

// Push implements heap.Interface.
func (h *waitingHeap) Push(x any) {
	w := x.(*waiting)
	w.index = len(h.pods)
	h.pods = append(h.pods, w)
}

// Pop implements heap.Interface.
func (h *waitingHeap) Pop() any {
	last := len(h.pods) - 1
	w := h.pods[last]
	h.pods[last] = nil
	h.pods = h.pods[:last]
	w.in = nil
	return w
}

package state

import (
	"sync"
)

// event is one change of one object. Old is nil for a new one, new for one that is
// gone; then last is old at the revision of its end.
type event struct {
	revision       int64
	old, new, last *entry
}

// ring holds the latest events of a kind.
type ring struct {
	floor  int64 // Events after this revision are all here.
	events []*event
	bytes  int
}

func (r *ring) add(e *event) {
	r.events = append(r.events, e)
	r.bytes += e.bytes()
	drop := 0
	for len(r.events)-drop > eventsKept || r.bytes > eventsKeptBytes && len(r.events)-drop > 1 {
		r.bytes -= r.events[drop].bytes()
		r.floor = r.events[drop].revision
		r.events[drop] = nil
		drop++
	}
	r.events = r.events[drop:]
}

func (e *event) bytes() int {
	if e.new != nil {
		return len(e.new.stored.Value)
	}
	return len(e.last.stored.Value)
}

// since returns the events after a revision, false if some are forgotten.
func (r *ring) since(revision int64) ([]*event, bool) {
	if revision < r.floor {
		return nil, false
	}
	i := len(r.events)
	for i > 0 && r.events[i-1].revision > revision {
		i--
	}
	return r.events[i:], true
}

// crowd are the watchers of a kind. Those that want the pods of one node only are
// found by it: of thousands, an event is for two.
type crowd struct {
	all    map[*watcher]struct{}
	byNode map[string]map[*watcher]struct{}
}

func newCrowd() crowd {
	return crowd{all: map[*watcher]struct{}{}, byNode: map[string]map[*watcher]struct{}{}}
}

func (c *crowd) add(w *watcher) {
	if !w.pick.hasNode {
		c.all[w] = struct{}{}
		return
	}
	if c.byNode[w.pick.node] == nil {
		c.byNode[w.pick.node] = map[*watcher]struct{}{}
	}
	c.byNode[w.pick.node][w] = struct{}{}
}

func (c *crowd) remove(w *watcher) {
	delete(c.all, w)
	if w.pick.hasNode {
		delete(c.byNode[w.pick.node], w)
		if len(c.byNode[w.pick.node]) == 0 {
			delete(c.byNode, w.pick.node)
		}
	}
}

// tell gives an event to all whom it may concern.
func (c *crowd) tell(e *event) {
	for w := range c.all { //tidy:ordered each has its own queue
		w.push(e)
	}
	before, after := "", ""
	if e.old != nil {
		before = e.old.fields.node
		for w := range c.byNode[before] { //tidy:ordered each has its own queue
			w.push(e)
		}
	}
	if e.new != nil {
		after = e.new.fields.node
		if e.old != nil && before == after {
			return
		}
		for w := range c.byNode[after] { //tidy:ordered each has its own queue
			w.push(e)
		}
	}
}

func (c *crowd) expire() {
	for w := range c.all { //tidy:ordered each has its own queue
		w.expire()
	}
	for _, ws := range c.byNode { //tidy:ordered each has its own queue
		for w := range ws { //tidy:ordered each has its own queue
			w.expire()
		}
	}
}

// watcher waits for events of one kind.
type watcher struct {
	pick *pick
	wake chan struct{} // Holds one.

	mu struct {
		sync.Mutex
		queue   []*event
		expired bool
	}
}

func (w *watcher) push(e *event) {
	if !w.pick.concerns(e) {
		return
	}
	w.mu.Lock()
	if len(w.mu.queue) >= watchQueueMax {
		w.mu.expired, w.mu.queue = true, nil
	}
	if !w.mu.expired {
		w.mu.queue = append(w.mu.queue, e)
	}
	w.mu.Unlock()
	w.rouse()
}

func (w *watcher) expire() {
	w.mu.Lock()
	w.mu.expired, w.mu.queue = true, nil
	w.mu.Unlock()
	w.rouse()
}

func (w *watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what waits, and whether the watch has expired.
func (w *watcher) take() (events []*event, expired bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events, w.mu.queue = w.mu.queue, nil
	return events, w.mu.expired
}

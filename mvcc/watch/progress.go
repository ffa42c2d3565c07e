package watch

import "github.com/holdfast-db/holdfast/internal/ident"

// wish is a progress mark that was asked for.
type wish struct {
	stream *Stream
	id     int64          // A watcher, or AllWatchers.
	after  ident.Revision // The head when it was asked for: an older mark would not answer it.
}

// Progress asks for a mark after everything up to the present head: of one
// watcher, or of all (AllWatchers). Nothing comes of it unless all that it is
// about are live then, and have reached their start.
func (s *Stream) Progress(id int64) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.err != nil {
		return
	}
	head := h.mu.store.Head()
	if h.mu.pushed >= head {
		h.markLocked(wish{s, id, head})
		return
	}
	for i := range h.mu.wanted {
		if w := &h.mu.wanted[i]; w.stream == s && w.id == id {
			w.after = head // Once is enough.
			return
		}
	}
	h.mu.wanted = append(h.mu.wanted, wish{s, id, head})
}

// settle notes that everything matched is in the queues, and makes the marks
// that waited for it.
func (h *Hub) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.pushed = h.mu.at
	early := h.mu.wanted[:0]
	for _, w := range h.mu.wanted {
		if w.after <= h.mu.pushed {
			h.markLocked(w)
		} else {
			early = append(early, w)
		}
	}
	clear(h.mu.wanted[len(early):])
	h.mu.wanted = early
}

// markLocked puts a mark into a queue if it would be true.
func (h *Hub) markLocked(want wish) {
	s := want.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.err != nil {
		return
	}
	it := item{batch: Batch{Kind: Progress, ID: want.id, Revision: h.mu.pushed}}
	if want.id != AllWatchers {
		it.watcher = s.mu.watchers[want.id]
		if it.watcher == nil || it.watcher.marked || !it.watcher.reached(h.mu.pushed) {
			return
		}
		it.watcher.marked = true
		s.enqueueLocked(it)
		return
	}
	if s.mu.marked > 0 && s.mu.marked >= want.after || len(s.mu.watchers) == 0 {
		return // One that waits to be sent says as much.
	}
	for _, w := range s.mu.watchers { //tidy:ordered all of them
		if !w.reached(h.mu.pushed) {
			return
		}
	}
	s.mu.marked = it.batch.Revision
	s.enqueueLocked(it)
}

// reached reports whether a watcher has everything up to a revision, and has
// begun by then. Its stream is locked.
func (w *watcher) reached(revision ident.Revision) bool {
	return w.state == live && w.asked <= revision
}

// unmarkLocked notes that a mark left the queue.
func (s *Stream) unmarkLocked(it item) {
	switch {
	case it.watcher != nil:
		it.watcher.marked = false
	case it.batch.Revision == s.mu.marked:
		s.mu.marked = 0
	}
}

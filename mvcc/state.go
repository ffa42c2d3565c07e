package mvcc

import (
	"slices"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// State is where a store stands: what one entry of the log left.
type State struct {
	Position  ident.Position // Of the last applied entry, and its last group that changed anything.
	Term      ident.Term     // Of that entry.
	Time      int64          // Of that entry, in nanoseconds. Rises strictly.
	Digest    ident.Digest   // After the last record of history.
	Revision  ident.Revision // The head.
	Compacted ident.Revision // C: the oldest revision that can be read.
	Merged    ident.Revision // M: base is merged through here.
	ConfState []byte         // Raft's, in force after the entry.
	Identity
}

// state is State as published, with all that a reader needs.
type state struct {
	*layout
	State
	mark    history.Mark // End of history after the entry.
	written int64        // Bytes of history since the store was opened.
}

// layout is the young index and the two revisions that say how to read it. It
// is immutable and shared by the states of many entries; it changes when a
// segment is sealed, a table replaces a list, C or M moves.
//
// Readers count themselves in the layout they use. Base is merged on, and
// segments are dropped, only when nobody is left in layouts that need them
// otherwise: whoever found a layout can rely on base being at least as old as
// its C, and on every segment its generations name.
type layout struct {
	active *generation
	older  []*generation // Sealed ones, newest first.

	compacted backend.Point // C.
	merged    backend.Point // M.

	readers atomic.Int64
	retired atomic.Bool // No longer published.
}

// next returns a copy to change before it is published.
func (l *layout) next() *layout {
	return &layout{active: l.active, older: l.older, compacted: l.compacted, merged: l.merged}
}

// acquire returns the published state, with a reader counted in its layout.
func (s *Store) acquire() *state {
	for {
		st := s.state.Load()
		st.layout.readers.Add(1)
		// Once more: whoever retires a layout first publishes another, then looks
		// at the count. Either it sees us, or we see the other.
		if s.state.Load().layout == st.layout {
			return st
		}
		s.leave(st.layout)
	}
}

// leave counts a reader out.
func (s *Store) leave(l *layout) {
	if l.readers.Add(-1) == 0 && l.retired.Load() {
		s.wake()
	}
}

// publishLocked makes st what readers find from now on.
func (s *Store) publishLocked(st *state) {
	old := s.state.Load()
	s.state.Store(st)
	if old != nil && old.layout != st.layout {
		old.layout.retired.Store(true)
		s.mu.retired = append(s.readLocked(), old.layout)
	}
}

// readLocked forgets retired layouts that nobody reads in: nobody can enter
// any more, and with them go lists and tables.
func (s *Store) readLocked() []*layout {
	s.mu.retired = slices.DeleteFunc(s.mu.retired, func(l *layout) bool { return l.readers.Load() == 0 })
	return s.mu.retired
}

// relayout publishes the present state with a changed layout.
func (s *Store) relayout(change func(l *layout)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := *s.state.Load()
	st.layout = st.layout.next()
	change(st.layout)
	st.State.Merged = st.layout.merged.Revision
	s.publishLocked(&st)
}

// readersBefore counts those who read in retired layouts that match.
func (s *Store) readersBefore(match func(l *layout) bool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for _, l := range s.readLocked() {
		if match(l) {
			n += l.readers.Load()
		}
	}
	return n
}

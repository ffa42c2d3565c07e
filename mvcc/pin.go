package mvcc

import (
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Pin keeps one revision readable over many views, for streams that outlive
// one. A merge that would take the revision away waits for the pin, but not
// for ever: after pinWaitMax the pin ends, and the next View fails as compacted.
type Pin struct {
	store    *Store
	revision ident.Revision
	views    int  // Guarded by Store.mu, as is expired.
	expired  bool // No view may begin.
}

// Pin keeps revision rev readable; 0 or below means the head. Release it.
func (s *Store) Pin(rev ident.Revision) (*Pin, error) {
	st := s.acquire() // While we are counted here, no merge past rev begins.
	defer s.leave(st.layout)
	at, err := readRevision(rev, st.Revision, st.Compacted)
	if err != nil {
		return nil, err
	}
	return s.pinAt(at), nil
}

// pinAt pins a revision that the caller can read in a view it still has.
func (s *Store) pinAt(rev ident.Revision) *Pin {
	p := &Pin{store: s, revision: rev}
	s.mu.Lock()
	s.mu.pins[p] = struct{}{}
	s.mu.Unlock()
	return p
}

// Revision that is kept.
func (p *Pin) Revision() ident.Revision { return p.revision }

// View returns the present state, in which the pinned revision can be read
// even if it was compacted meanwhile.
func (p *Pin) View() (*View, error) {
	s := p.store
	s.mu.Lock()
	if p.expired {
		s.mu.Unlock()
		return nil, fmt.Errorf("read at %d was ended by a compaction: %w", p.revision, ErrCompacted)
	}
	p.views++
	s.mu.Unlock()
	v := s.View()
	v.pin, v.compacted = p, min(v.compacted, p.revision)
	return v, nil
}

// leave counts a view of the pin out.
func (p *Pin) leave() {
	p.store.mu.Lock()
	p.views--
	expired := p.expired
	p.store.mu.Unlock()
	if expired {
		p.store.wake()
	}
}

// Release lets go of the revision.
func (p *Pin) Release() {
	s := p.store
	s.mu.Lock()
	delete(s.mu.pins, p)
	p.expired = true
	s.mu.Unlock()
	s.wake()
}

// pinsBefore counts the pins below a revision. With expire it ends them first,
// and counts only those whose view is still out.
func (s *Store) pinsBefore(rev ident.Revision, expire bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.mu.pins { //tidy:ordered only counted
		if p.revision >= rev {
			continue
		}
		if expire {
			p.expired = true
		}
		if !p.expired || p.views > 0 {
			n++
		}
	}
	return n
}

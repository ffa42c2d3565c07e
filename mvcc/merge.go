package mvcc

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// merge brings base from M up to C: the last version in (M, C] of every key
// that changed there, in key order, in small transactions.
//
// Base is a mixture meanwhile, which nobody sees: it is read under young
// versions since M, at C or later. M moves in the last transaction; begun
// anew after a crash, it writes the same rows.
type merge struct {
	from, to backend.Point
	cursors  []youngCursor // Over the generations with revisions in (from, to], newest first.
	changes  []backend.KeyChange
	bytes    int
	keys     int64
}

// stepMerge does one transaction of a merge, or begins one when C is ahead of
// M.
func (s *Store) stepMerge() (bool, error) {
	b, st := &s.background, s.state.Load()
	if b.merge == nil {
		switch {
		case st.layout.compacted.Revision == st.layout.merged.Revision || !s.mergeMayBegin(st):
			return false, nil
		case s.db.Meta().Compacted != st.layout.compacted:
			return true, s.checkpoint() // Base never gets ahead of the last checkpoint (I-4).
		}
		b.merge = newMerge(st.layout)
	}
	began := s.cfg.Clock.Mono()
	if began < b.restUntil && !s.hurried() || s.isFrozen() {
		return false, nil
	}
	m := b.merge
	base := s.db.View()
	done, err := m.fill(s.history, base, s.cfg.mergeKeys)
	base.Release()
	if err != nil {
		return true, fmt.Errorf("merge up to revision %d: %w", m.to.Revision, err)
	}
	var target *backend.Point
	if done {
		target = &m.to
	}
	fail.Here("mvcc/merge/before")
	if err := s.db.Merge(m.changes, target); err != nil {
		return true, fmt.Errorf("merge up to revision %d: %w", m.to.Revision, err)
	}
	fail.Here("mvcc/merge/after")
	m.reset()
	if !s.cfg.Manual {
		now, rest := s.cfg.Clock.Mono(), time.Duration(mergeRest)
		if st.written == b.merged {
			rest = mergeRestIdle
		}
		b.merged, b.restUntil = st.written, now+rest*(now-began)
	}
	if done {
		s.endMerge()
	}
	return true, nil
}

// mergeMayBegin reports whether nobody reads below C any more (rule 4). Views
// are short and are waited for. Pins belong to streams: after pinWaitMax they
// are ended.
func (s *Store) mergeMayBegin(st *state) bool {
	b := &s.background
	c := st.layout.compacted.Revision
	if s.isFrozen() || s.readersBefore(func(l *layout) bool { return l.compacted.Revision < c }) > 0 {
		return false
	}
	now := s.cfg.Clock.Mono()
	if s.pinsBefore(c, b.blocked != 0 && now-b.blocked >= pinWaitMax) == 0 {
		b.blocked = 0
		return true
	}
	if b.blocked == 0 {
		b.blocked = max(now, 1)
	}
	return false
}

func newMerge(l *layout) *merge {
	m := &merge{from: l.merged, to: l.compacted}
	// All that C covers is sealed: a compaction seals.
	for _, g := range l.older {
		if g.first > m.to.Revision || g.last <= m.from.Revision {
			continue
		}
		if c := g.seek(nil); c.key != nil {
			m.cursors = append(m.cursors, youngCursor{cursor: c})
		}
	}
	return m
}

// fill gathers the changes of one transaction and reports whether these are
// the last.
func (m *merge) fill(log *history.Log, base *backend.View, keysMax int) (done bool, err error) {
	for len(m.changes) < keysMax && m.bytes < mergeBytesMax {
		key := lowest(m.cursors)
		if key == nil {
			return true, nil
		}
		var v history.Version
		if newestAt(m.cursors, m.to.Revision, &v) && v.Mod > m.from.Revision {
			change := backend.KeyChange{Key: bytes.Clone(key)}
			if !v.Tombstone {
				if change.KV, err = log.Value(v.Loc); err != nil {
					return false, fmt.Errorf("value of revision %d: %w", v.Mod, err)
				}
			}
			m.changes = append(m.changes, change)
			m.bytes += len(change.Key) + len(change.KV)
			if !base.Beyond(key) {
				m.bytes += mergePage
			}
		}
		advance(m.cursors)
	}
	return false, nil
}

func (m *merge) reset() {
	m.keys += int64(len(m.changes))
	clear(m.changes)
	m.changes, m.bytes = m.changes[:0], 0
}

// endMerge publishes the new M, and with it lets go of the generations that
// base covers now: no key is touched.
func (s *Store) endMerge() {
	fail.Here("mvcc/merge/ended")
	m := s.background.merge
	s.background.merge = nil
	s.background.unsettled = true
	s.relayout(func(l *layout) {
		l.merged = m.to
		var kept []*generation // Not a part of older: that would keep all of it alive.
		for _, g := range l.older {
			if g.last > m.to.Revision {
				kept = append(kept, g)
			}
		}
		l.older = kept
	})
	s.cfg.Logger.Debug("merged history into base", "revision", m.to.Revision, "keys", m.keys)
}

// stepDrop unlinks the segments that base covers, once a crash can no longer
// bring an older M back, and nobody reads in a layout that needs them.
func (s *Store) stepDrop() (bool, error) {
	st := s.state.Load()
	c, m := st.layout.compacted.Revision, st.layout.merged.Revision
	if c != m || s.isFrozen() {
		return false, nil
	}
	below := s.droppable(m)
	if below != 0 {
		if s.background.unsettled {
			// bbolt may fall back to the meta page before the last: let that one know
			// M too.
			return true, s.checkpoint()
		}
		if s.readersBefore(func(l *layout) bool { return l.merged.Revision < m }) > 0 {
			return false, nil
		}
		if freed, err := s.history.Drop(below); freed > 0 || err != nil {
			return true, err
		}
	}
	s.heldBelow.Store(below) // What is left before it somebody wants still.
	s.mu.Lock()
	s.mu.settled = c
	s.mu.Unlock()
	return false, nil
}

// droppable is the first segment that has to stay: the one with revision M,
// since a watch may begin at C (rule 3). 0 when none is before it.
func (s *Store) droppable(merged ident.Revision) uint64 {
	segments := s.history.Segments()
	for i, info := range segments {
		if info.LastRevision >= merged || !info.Sealed {
			if i == 0 {
				return 0
			}
			return info.ID
		}
	}
	return 0
}

// mergeLag is how many bytes of history a merge has to go through.
func (s *Store) mergeLag() (lag int64) {
	st := s.state.Load()
	for _, info := range s.history.Segments() {
		if info.LastRevision > st.layout.merged.Revision && info.FirstRevision <= st.layout.compacted.Revision {
			lag += info.Bytes
		}
	}
	return lag
}

// hurried reports whether a merge should not rest: somebody waits for it, or
// it falls behind.
func (s *Store) hurried() bool {
	s.mu.Lock()
	waiters := s.mu.waiters
	s.mu.Unlock()
	return waiters > 0 || s.mergeLag() > mergeLagBytesMax
}

// WaitMerged waits until what was compacted before the call is merged into
// base, and the space of its history given back as far as nobody holds it.
func (s *Store) WaitMerged(ctx context.Context) error {
	c := s.Compacted()
	s.mu.Lock()
	s.mu.waiters++
	s.mu.Unlock()
	s.wake()
	defer func() {
		s.mu.Lock()
		s.mu.waiters--
		s.mu.Unlock()
	}()
	return s.await(ctx, func() bool { return s.mu.settled >= c })
}

package mvcc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Frozen is the state after one entry, for a snapshot: base, and history since
// M. It stays as it is while the store goes on. Merges wait for it, so close it
// soon, and at once when it is overdue; until then no segment it needs is dropped.
type Frozen struct {
	State State
	Base  *backend.View // Its Meta tells M, and count and hash of its rows.

	store   *Store
	rows    *rowTables
	mark    history.Mark
	bytes   int64 // Of the store, when it was frozen.
	release func()
}

// Freeze captures the state after the last applied entry. Apply goroutine, and
// not within an entry.
func (s *Store) Freeze() (*Frozen, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.mu.frozen++
	s.mu.Unlock()
	st := s.acquire()
	defer s.leave(st.layout)
	// While we are counted in the layout, no segment since its M is dropped. Base
	// is taken after it: where a merge went on meanwhile, history covers it.
	f := &Frozen{State: st.State, Base: s.db.View(), store: s, rows: s.rows.copy(), mark: st.mark, bytes: s.Bytes()}
	defer fail.Here("snapshot/freeze/after")
	f.release = s.history.Hold(s.firstSegment(f.Base.Meta().Merged.Revision))
	return f, nil
}

// firstSegment is the one that holds a revision, or the first there is.
func (s *Store) firstSegment(rev ident.Revision) uint64 {
	segments := s.history.Segments()
	for _, info := range segments {
		if info.LastRevision >= rev {
			return info.ID
		}
	}
	return segments[len(segments)-1].ID
}

func (s *Store) isFrozen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.frozen > 0
}

// Overdue is an error once a compaction waits for this state and the quota comes
// near: a reader that is slow must not keep all others from writing (rule 8).
// Whoever reads for somebody who may take his time asks after each piece.
func (f *Frozen) Overdue() error {
	s := f.store
	quota, bytes, l := s.cfg.QuotaBytes, s.Bytes(), s.state.Load().layout
	if quota <= 0 || l.compacted.Revision == l.merged.Revision || bytes < quota-quota/frozenQuotaLeft || bytes-f.bytes < quota/frozenQuotaGone {
		return nil
	}
	return fmt.Errorf("the store has grown by %d bytes since entry %d, to %d of %d: %w", bytes-f.bytes, f.State.Position.Index, bytes, quota, ErrOverdue)
}

// Rows calls fn for each small row, by rising table and key.
func (f *Frozen) Rows(fn func(table backend.Table, key, value []byte) error) error {
	for t := 1; t < tablesMax; t++ {
		table := backend.Table(t)
		err := f.rows.of(table).each(func(key, value []byte) error { return fn(table, key, value) })
		if err != nil {
			return err
		}
	}
	return nil
}

// Records calls fn for each record of history from the one that holds revision
// M of Base to the frozen state: what a store made from Base has to apply.
func (f *Frozen) Records(ctx context.Context, fn func(*history.Record) error) error {
	r, err := f.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	for ctx.Err() == nil {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) || err == nil && rec.Index > f.mark.Index {
			return nil
		}
		if err != nil {
			return fmt.Errorf("history of a frozen state: %w", err)
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Reader begins where Records does. Whoever reads must stop after End.
func (f *Frozen) Reader() (*history.Reader, error) {
	return f.store.Events(f.Base.Meta().Merged.Revision)
}

// End is where history of the frozen state ends.
func (f *Frozen) End() history.Mark { return f.mark }

// Close lets the store go on merging. It may be called again.
func (f *Frozen) Close() error {
	if f.store == nil {
		return nil
	}
	f.release()
	f.Base.Release()
	f.store.mu.Lock()
	f.store.mu.frozen--
	f.store.mu.Unlock()
	f.store.wake()
	f.store = nil
	return nil
}

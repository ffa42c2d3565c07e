package mvcc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
)

// background is what the background goroutine remembers between steps. It
// alone writes base.
type background struct {
	last      ident.Index   // Of the newest checkpoint.
	looked    time.Duration // When it was last seen whether one is due by time.
	merge     *merge        // Under way.
	synced    int64         // Bytes of history, as state.written, that a sync has covered.
	unsettled bool          // Base was merged on since the newest checkpoint: the older meta page does not know yet.
	blocked   time.Duration // Since when pins keep a merge waiting; 0: not.
	restUntil time.Duration // No transaction of a merge before.
	merged    int64         // Bytes of history, as state.written, at the last of them.
}

// wake has the background look for work.
func (s *Store) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// due tells the apply goroutine whether there is work because of what it wrote.
func (s *Store) due(st *state) bool {
	return s.history.Unflushed() >= flushBytes || st.written-s.checkpointed.Load() >= s.cfg.CheckpointBytes
}

func (s *Store) run(ctx context.Context) error {
	ticker := s.cfg.Clock.NewTicker(min(s.cfg.CheckpointInterval, time.Second))
	defer ticker.Stop()
	for ctx.Err() == nil {
		more, err := s.Step()
		switch {
		case noSpace(err):
			s.cfg.Logger.Warn("disk is full, background work waits for room", "error", err)
			more = false
		case err != nil:
			return nil // Store.Err tells.
		}
		if more {
			continue
		}
		wakeup := s.wakeup
		if err != nil {
			wakeup = nil // Only time brings room.
		}
		var rested <-chan time.Time
		if rest := s.background.restUntil - s.cfg.Clock.Mono(); rest > 0 {
			rested = s.cfg.Clock.After(rest)
		}
		select {
		case <-ctx.Done():
		case <-wakeup:
		case <-rested:
		case <-ticker.C():
		}
	}
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, backend.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) && !errors.Is(err, backend.ErrFailed)
}

// Step does one bounded piece of background work and tells whether there may be
// more. Only for the owner of a Manual store. An error other than a full disk
// is final.
func (s *Store) Step() (more bool, err error) {
	if more, err = s.step(); err != nil && !noSpace(err) {
		s.fail(fmt.Errorf("background: %w", err))
	}
	s.mu.Lock()
	s.mu.full = nil
	if noSpace(err) {
		s.mu.full = err
	}
	s.progressLocked()
	s.mu.Unlock()
	return more, err
}

// progressLocked lets those look again who wait for the background.
func (s *Store) progressLocked() {
	close(s.mu.progress)
	s.mu.progress = make(chan struct{})
}

// step tries what there is to do, the most urgent first.
func (s *Store) step() (more bool, err error) {
	var full error // The first that found no room: another may make some.
	for _, try := range []func() (bool, error){
		s.stepFlush, s.stepCheckpoint, s.stepConvert, s.stepTables, s.stepMerge, s.stepDrop,
	} {
		did, err := try()
		switch {
		case noSpace(err):
			full = cmp.Or(full, err)
		case did || err != nil:
			return did, err
		}
	}
	return false, full
}

// stepFlush writes history to its files, and syncs now and then: one sync of
// all that a checkpoint covers would hold up those of the log.
func (s *Store) stepFlush() (bool, error) {
	if s.history.Unflushed() < flushBytes {
		return false, nil
	}
	b, written := &s.background, s.state.Load().written
	if written-b.synced < syncBytes {
		return true, s.history.Flush()
	}
	_, err := s.history.Sync()
	if err == nil {
		b.synced = written
	}
	return true, err
}

// stepCheckpoint makes a checkpoint when one was asked for, when enough was
// written, or when something changed and the time has come.
func (s *Store) stepCheckpoint() (bool, error) {
	b, st, now := &s.background, s.state.Load(), s.cfg.Clock.Mono()
	due := st.written-s.checkpointed.Load() >= s.cfg.CheckpointBytes
	if now-b.looked >= s.cfg.CheckpointInterval {
		b.looked = now
		due = due || st.Position.Index != b.last
	}
	s.mu.Lock()
	due = due || s.mu.asked > s.mu.answered
	s.mu.Unlock()
	if !due {
		return false, nil
	}
	return true, s.checkpoint()
}

// checkpoint makes the present state durable: history first, then one base
// transaction with the small rows that changed and all that says where the
// state stands (I-2).
func (s *Store) checkpoint() error {
	s.mu.Lock()
	st, dirty, asked := s.state.Load(), s.mu.dirty, s.mu.asked
	s.mu.dirty = make(map[rowID][]byte)
	s.mu.Unlock()
	began := s.cfg.Clock.Mono()
	txID, err := s.writeCheckpoint(st, dirty)
	if err != nil {
		s.mu.Lock()
		for id, value := range dirty { //tidy:ordered a map is merged
			if _, newer := s.mu.dirty[id]; !newer {
				s.mu.dirty[id] = value
			}
		}
		s.mu.Unlock()
		return fmt.Errorf("checkpoint at entry %d: %w", st.Position.Index, err)
	}
	fail.Here("mvcc/checkpoint/after")
	b := &s.background
	done := Checkpoint{Index: st.Position.Index, Previous: b.last, TxID: txID, Took: s.cfg.Clock.Mono() - began}
	b.last, b.unsettled, b.synced = st.Position.Index, false, st.written
	s.checkpointed.Store(st.written)
	s.mu.Lock()
	s.mu.answered = asked
	s.mu.Unlock()
	if s.cfg.OnCheckpoint != nil {
		s.cfg.OnCheckpoint(done)
	}
	return nil
}

func (s *Store) writeCheckpoint(st *state, dirty map[rowID][]byte) (txID uint64, err error) {
	fail.Here("mvcc/checkpoint/before")
	if _, err := s.history.Sync(); err != nil {
		return 0, err
	}
	fail.Here("mvcc/checkpoint/synced")
	m := backend.Meta{
		Applied: st.Position, Term: st.Term, Time: st.Time, Digest: st.Digest, Revision: st.Revision,
		Compacted: st.layout.compacted, ConfState: st.ConfState, Cluster: st.Cluster, Timeline: st.Timeline,
	}
	if m.HistoryMark, err = st.mark.AppendBinary(nil); err != nil {
		return 0, err
	}
	rows := make([]backend.RowChange, 0, len(dirty))
	for id, value := range dirty { //tidy:ordered base sorts them
		rows = append(rows, backend.RowChange{Table: id.table, Key: []byte(id.key), Value: value})
	}
	return s.db.Checkpoint(rows, m)
}

// stepConvert turns the oldest list of a sealed segment into a table.
func (s *Store) stepConvert() (bool, error) {
	l := s.state.Load().layout
	for i := len(l.older) - 1; i >= 0; i-- {
		g := l.older[i]
		if g.list == nil {
			continue
		}
		c, err := s.convert(g)
		if err != nil {
			return true, err
		}
		s.relayout(func(l *layout) { l.replace(g, 1, c) })
		return true, nil
	}
	return false, nil
}

// stepTables merges two tables when a read meets too many.
func (s *Store) stepTables() (bool, error) {
	l := s.state.Load().layout
	i := l.crowded()
	if i < 0 {
		return false, nil
	}
	m, err := mergeTables(l.older[i], l.older[i+1])
	if err != nil {
		return true, err
	}
	s.relayout(func(l2 *layout) { l2.replace(l.older[i], 2, m) })
	return true, nil
}

// replace puts g in the place of n generations from first on. The apply
// goroutine may have added younger ones meanwhile.
func (l *layout) replace(first *generation, n int, g *generation) {
	older := make([]*generation, 0, len(l.older))
	for i := 0; i < len(l.older); i++ {
		if l.older[i] == first {
			older = append(older, g)
			i += n - 1
			continue
		}
		older = append(older, l.older[i])
	}
	l.older = older
}

// Checkpoint makes everything applied before the call durable without the log.
func (s *Store) Checkpoint(ctx context.Context) error {
	s.mu.Lock()
	s.mu.asked++
	n := s.mu.asked
	s.mu.Unlock()
	s.wake()
	return s.await(ctx, func() bool { return s.mu.answered >= n })
}

// WaitIndexed waits while more than one sealed segment has its index in the form
// in which it was written, which is several times as large as a table. It fails
// on a full disk. Where the owner does background work himself, it does that work.
func (s *Store) WaitIndexed(ctx context.Context) error {
	for s.unconverted() > 1 {
		if s.cfg.Manual {
			if _, err := s.stepConvert(); err != nil {
				return err
			}
			continue
		}
		s.wake()
		var full error
		err := s.await(ctx, func() bool {
			full = s.mu.full
			return full != nil || s.unconverted() <= 1
		})
		if err = errors.Join(err, full); err != nil {
			return err
		}
	}
	return nil
}

// unconverted counts lists of sealed segments.
func (s *Store) unconverted() (n int) {
	for _, g := range s.state.Load().layout.older {
		if g.list != nil {
			n++
		}
	}
	return n
}

// await waits for the background until done, which is called with mu held.
func (s *Store) await(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, progress, failure, closed := done(), s.mu.progress, s.mu.failure, s.mu.closed
		s.mu.Unlock()
		switch {
		case ok:
			return nil
		case failure != nil:
			return failure
		case closed:
			return ErrClosed
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-progress:
		}
	}
}

package raftnodetest

import (
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// MemLog is a raftnode.Log that forgets what was not synced when it crashes.
// Reads see only what was synced, as in wal.
type MemLog struct {
	mu struct {
		sync.Mutex
		durable image
		pending []func(*image) // In order, since the last sync.
		last    wal.Mark       // With what is pending.
		failure error
	}
}

var _ raftnode.Log = (*MemLog)(nil)

// image is what a log holds.
type image struct {
	hard    wal.HardState
	start   wal.Mark
	entries []*raftpb.Entry // From start.Index+1 on.
	notes   map[uint8][]byte
	cut     bool
}

func (m *image) last() wal.Mark {
	if len(m.entries) == 0 {
		return m.start
	}
	e := m.entries[len(m.entries)-1]
	return wal.Mark{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
}

// NewMemLog returns an empty log behind start.
func NewMemLog(start wal.Mark) *MemLog {
	l := &MemLog{}
	l.mu.durable = image{start: start, notes: map[uint8][]byte{}, hard: wal.HardState{Term: start.Term, Commit: start.Index}}
	l.mu.last = start
	return l
}

// Recovered is what opening the log would find.
func (l *MemLog) Recovered() *wal.Recovered {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.mu.durable
	r := &wal.Recovered{HardState: d.hard, Start: d.start, Last: d.last()}
	r.HardState.Commit = min(r.HardState.Commit, r.Last.Index)
	if d.cut {
		r.Cut = &wal.Cut{Last: r.Last}
	}
	return r
}

// Crash returns what a power cut leaves: all that was synced and the first kept
// of the writes after that. torn says that the next one was half there.
func (l *MemLog) Crash(kept int, torn bool) *MemLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	after := &MemLog{}
	after.mu.durable = l.mu.durable
	after.mu.durable.entries = slices.Clone(l.mu.durable.entries)
	for _, op := range l.mu.pending[:min(kept, len(l.mu.pending))] {
		op(&after.mu.durable)
	}
	after.mu.durable.cut = after.mu.durable.cut || torn
	after.mu.last = after.mu.durable.last()
	return after
}

// Pending is the number of writes since the last sync.
func (l *MemLog) Pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.pending)
}

// Fail makes every later write fail.
func (l *MemLog) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.failure = err
}

// Append implements raftnode.Log.
func (l *MemLog) Append(entries []*raftpb.Entry, hs *wal.HardState) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.failure != nil {
		return l.mu.failure
	}
	if len(entries) > 0 {
		if first := ident.Index(entries[0].GetIndex()); first > l.mu.last.Index+1 {
			return fmt.Errorf("entry %d behind %d: %w", first, l.mu.last.Index, wal.ErrOrder)
		}
		newest := entries[len(entries)-1]
		l.mu.last = wal.Mark{Index: ident.Index(newest.GetIndex()), Term: ident.Term(newest.GetTerm())}
	}
	var hard *wal.HardState
	if hs != nil {
		hard = new(*hs)
	}
	l.mu.pending = append(l.mu.pending, func(m *image) {
		if len(entries) > 0 {
			first := ident.Index(entries[0].GetIndex())
			keep := int(first - m.start.Index - 1)
			m.entries = append(slices.Clip(m.entries[:keep]), entries...)
		}
		if hard != nil {
			m.hard = *hard
		}
	})
	return nil
}

// Note implements raftnode.Log.
func (l *MemLog) Note(n wal.Note) error {
	return l.later(func(m *image) { m.notes[n.Kind] = n.Data })
}

// ClearCut implements raftnode.Log.
func (l *MemLog) ClearCut() error { return l.later(func(m *image) { m.cut = false }) }

func (l *MemLog) later(op func(*image)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.failure != nil {
		return l.mu.failure
	}
	l.mu.pending = append(l.mu.pending, op)
	return nil
}

// Sync implements raftnode.Log.
func (l *MemLog) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncLocked()
}

func (l *MemLog) syncLocked() error {
	if l.mu.failure != nil {
		return l.mu.failure
	}
	for _, op := range l.mu.pending {
		op(&l.mu.durable)
	}
	l.mu.pending = nil
	return nil
}

// Compact implements raftnode.Log.
func (l *MemLog) Compact(index ident.Index) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.syncLocked(); err != nil {
		return err
	}
	d := &l.mu.durable
	if index <= d.start.Index {
		return nil
	}
	n := int(index - d.start.Index)
	d.start = wal.Mark{Index: index, Term: ident.Term(d.entries[n-1].GetTerm())}
	d.entries = slices.Clone(d.entries[n:])
	return nil
}

// Prepare implements raftnode.Log. Memory is always ready.
func (l *MemLog) Prepare() error { return nil }

// Prepared implements raftnode.Log.
func (l *MemLog) Prepared() bool { return true }

// Reset implements raftnode.Log. It is durable at once.
func (l *MemLog) Reset(start wal.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.syncLocked(); err != nil {
		return err
	}
	d := &l.mu.durable
	d.start, d.entries = start, nil
	d.hard.Commit = max(d.hard.Commit, start.Index)
	l.mu.last = start
	return nil
}

// Entries implements raftnode.Log.
func (l *MemLog) Entries(lo, hi ident.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &l.mu.durable
	if lo <= d.start.Index {
		return nil, fmt.Errorf("entry %d, log begins behind %d: %w", lo, d.start.Index, wal.ErrCompacted)
	}
	if hi > d.last().Index+1 || lo >= hi {
		return nil, fmt.Errorf("entries %d to %d, log ends at %d: %w", lo, hi, d.last().Index, wal.ErrUnavailable)
	}
	entries := d.entries[lo-d.start.Index-1 : hi-d.start.Index-1]
	size := uint64(0)
	for i, e := range entries {
		if size += uint64(len(e.GetData())) + 16; i > 0 && size > maxBytes {
			entries = entries[:i]
			break
		}
	}
	return slices.Clone(entries), nil
}

// Term implements raftnode.Log.
func (l *MemLog) Term(i ident.Index) (ident.Term, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.durable.term(i)
}

func (m *image) term(i ident.Index) (ident.Term, error) {
	switch {
	case i == m.start.Index:
		return m.start.Term, nil
	case i < m.start.Index:
		return 0, fmt.Errorf("entry %d, log begins behind %d: %w", i, m.start.Index, wal.ErrCompacted)
	case i > m.last().Index:
		return 0, fmt.Errorf("entry %d, log ends at %d: %w", i, m.last().Index, wal.ErrUnavailable)
	}
	return ident.Term(m.entries[i-m.start.Index-1].GetTerm()), nil
}

// DurableTerm is the term of a durable entry; a compacted one counts as held.
func (l *MemLog) DurableTerm(i ident.Index) (term ident.Term, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i < l.mu.durable.start.Index {
		return 0, true
	}
	term, err := l.mu.durable.term(i)
	return term, err == nil
}

// DurableHard is the hard state that a crash would leave.
func (l *MemLog) DurableHard() wal.HardState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.durable.hard
}

// DurableLast is the last entry that a crash would leave.
func (l *MemLog) DurableLast() wal.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.durable.last()
}

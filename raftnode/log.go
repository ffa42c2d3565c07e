package raftnode

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// recentLog is the raft.Storage: the newest entries in memory, older ones on
// disk. Entries come in when the append that stores them is handed out; Raft
// looks at them here only after it heard that they are durable.
//
// Invariant: whatever is not durable yet is in memory.
// Invariant: start moves here before the disk may drop anything (rule 23).
type recentLog struct {
	disk LogReader
	hard raftpb.HardState // As at boot, for Raft's start only.
	conf *raftpb.ConfState

	start   wal.Mark // The entry before the first.
	last    wal.Mark
	durable ident.Index     // Everything up to here can be read from disk.
	entries []*raftpb.Entry // The newest ones, without a gap, up to last.
	bytes   int
	total   uint64 // Bytes of the log at boot, and of all that was appended since.

	snapshot *SnapMeta // A frozen state that can be sent, or nil.
	stale    bool      // The configuration has changed since it was frozen.
	wanted   bool      // Raft asked for a snapshot and there was none.
}

var _ raft.Storage = (*recentLog)(nil)

// entryOverheadBytes is what an entry costs besides its data.
const entryOverheadBytes = 160

func entryBytes(e *raftpb.Entry) int { return len(e.GetData()) + entryOverheadBytes }

func newRecentLog(disk LogReader, hs wal.HardState, conf *raftpb.ConfState, start, last wal.Mark) *recentLog {
	return &recentLog{
		disk:    disk,
		hard:    raftpb.HardState{Term: new(uint64(hs.Term)), Vote: new(uint64(hs.Vote)), Commit: new(uint64(hs.Commit))},
		conf:    conf,
		start:   start,
		last:    last,
		durable: last.Index,
	}
}

// firstInMemory is the index of entries[0], or the next one to come.
func (l *recentLog) firstInMemory() ident.Index {
	return l.last.Index + 1 - ident.Index(len(l.entries))
}

// append takes entries whose append is handed out. They may supersede old ones.
func (l *recentLog) append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := ident.Index(entries[0].GetIndex())
	if first <= l.last.Index {
		l.truncate(first)
	}
	l.entries = append(l.entries, entries...)
	for _, e := range entries {
		l.bytes += entryBytes(e)
		l.total += uint64(entryBytes(e))
	}
	newest := entries[len(entries)-1]
	l.last = wal.Mark{Index: ident.Index(newest.GetIndex()), Term: ident.Term(newest.GetTerm())}
}

// truncate forgets first and everything after it. append sets last.
func (l *recentLog) truncate(first ident.Index) {
	l.durable = min(l.durable, first-1)
	inMemory := l.firstInMemory()
	keep := 0
	if first > inMemory {
		keep = int(first - inMemory)
	}
	for _, e := range l.entries[keep:] {
		l.bytes -= entryBytes(e)
	}
	l.entries = append([]*raftpb.Entry(nil), l.entries[:keep]...) // Readers of the old slice keep theirs.
	l.last.Index = first - 1
}

// synced says that everything up to index is on disk, unless superseded since.
func (l *recentLog) synced(index ident.Index, term ident.Term) {
	if index <= l.durable || index > l.last.Index {
		return
	}
	if i := l.firstInMemory(); index >= i && ident.Term(l.entries[index-i].GetTerm()) != term {
		return
	}
	l.durable = index
}

// trim drops from memory what is durable and beyond the bounds.
func (l *recentLog) trim() {
	if len(l.entries) <= RecentEntriesMax && l.bytes <= RecentBytesMax {
		return
	}
	n, bytes := 0, l.bytes
	first := l.firstInMemory()
	for n < len(l.entries) && first+ident.Index(n) <= l.durable &&
		(len(l.entries)-n > RecentEntriesMax*3/4 || bytes > RecentBytesMax*3/4) {
		bytes -= entryBytes(l.entries[n])
		n++
	}
	if n == 0 {
		return
	}
	l.entries = append(make([]*raftpb.Entry, 0, len(l.entries)-n), l.entries[n:]...)
	l.bytes = bytes
}

// compact moves the start to index. It reports whether there was anything to do.
func (l *recentLog) compact(index ident.Index) (bool, error) {
	if index <= l.start.Index {
		return false, nil
	}
	if index > l.durable {
		return false, fmt.Errorf("compact to %d, durable to %d: %w", index, l.durable, ErrRaft)
	}
	term, err := l.Term(uint64(index))
	if err != nil {
		return false, fmt.Errorf("compact to %d: %w", index, err)
	}
	inMemory := l.firstInMemory()
	if index >= inMemory {
		n := int(index + 1 - inMemory)
		for _, e := range l.entries[:n] {
			l.bytes -= entryBytes(e)
		}
		l.entries = append([]*raftpb.Entry(nil), l.entries[n:]...)
	}
	l.start = wal.Mark{Index: index, Term: ident.Term(term)}
	return true, nil
}

// reset begins anew behind an installed snapshot.
func (l *recentLog) reset(start wal.Mark) {
	l.start, l.last, l.durable = start, start, start.Index
	l.entries, l.bytes = nil, 0
}

// InitialState implements raft.Storage.
func (l *recentLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &l.hard, l.conf, nil
}

// Entries implements raft.Storage.
func (l *recentLog) Entries(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	if ident.Index(lo) <= l.start.Index {
		return nil, raft.ErrCompacted
	}
	if ident.Index(hi) > l.last.Index+1 {
		return nil, raft.ErrUnavailable
	}
	first := uint64(l.firstInMemory())
	if lo < first {
		entries, err := l.disk.Entries(ident.Index(lo), ident.Index(min(hi, first)), min(maxBytes, LogReadBytesMax))
		if err != nil {
			return nil, fmt.Errorf("read log entries from %d: %w", lo, err)
		}
		return entries, nil
	}
	entries := l.entries[lo-first : hi-first]
	size := uint64(0)
	for i, e := range entries {
		size += uint64(entryBytes(e))
		if i > 0 && size > maxBytes {
			entries = entries[:i]
			break
		}
	}
	return entries[:len(entries):len(entries)], nil
}

// Term implements raft.Storage.
func (l *recentLog) Term(i uint64) (uint64, error) {
	index := ident.Index(i)
	first := l.firstInMemory()
	switch {
	case index == l.start.Index:
		return uint64(l.start.Term), nil
	case index < l.start.Index:
		return 0, raft.ErrCompacted
	case index > l.last.Index:
		return 0, raft.ErrUnavailable
	case index == l.last.Index:
		return uint64(l.last.Term), nil
	case index >= first:
		return l.entries[index-first].GetTerm(), nil
	}
	term, err := l.disk.Term(index)
	if err != nil {
		return 0, fmt.Errorf("read term of log entry %d: %w", index, err)
	}
	return uint64(term), nil
}

// LastIndex implements raft.Storage.
func (l *recentLog) LastIndex() (uint64, error) { return uint64(l.last.Index), nil }

// FirstIndex implements raft.Storage.
func (l *recentLog) FirstIndex() (uint64, error) { return uint64(l.start.Index) + 1, nil }

// Snapshot implements raft.Storage. The frozen index, term and configuration
// go into the message unchanged.
func (l *recentLog) Snapshot() (*raftpb.Snapshot, error) {
	if l.snapshot == nil || l.stale || l.snapshot.Index < l.start.Index {
		l.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index:     new(uint64(l.snapshot.Index)),
		Term:      new(uint64(l.snapshot.Term)),
		ConfState: raftpb.EnsureConfState(l.snapshot.Conf),
	}}, nil
}

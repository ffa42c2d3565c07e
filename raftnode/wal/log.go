package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Log is an open Raft log.
type Log struct {
	cfg Config // Set once.

	mu struct { // Guards what readers see, never held during I/O.
		sync.Mutex
		index    index
		retired  []*segment  // Given up, oldest first; Prepare recycles them.
		readable ident.Index // Invariant: the records of all entries up to it are durable.
		salt     uint32      // Some checksum of the log, for the next segment's header.
		prepared bool
		failed   error
		closed   bool
		syncs    uint64
		bytes    uint64 // Synced.
		readers  sync.WaitGroup
	}

	prep struct { // Serializes the making and retiring of files, also during their I/O.
		sync.Mutex
		next     *segment
		spares   []string
		sequence uint64 // Invariant: above every sequence ever used in this folder.
	}

	w writer // Owned by the writing goroutine.
}

// writer is the end of the log.
type writer struct {
	seg    *segment
	buf    []byte // Encoded, not yet written; belongs at pos.
	pos    int64
	chain  uint32 // Checksum of the last record.
	synced int64  // Offset in seg below which all is durable.
	dirty  bool   // Something below pos is not durable.
	state  state  // With everything in buf.
	marks  syncMarks
}

// Create begins a log after start in an empty folder. A crash leaves the log
// or nothing that Open takes for one.
func Create(cfg Config, start Mark) (*Log, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("create raft log: %w", err)
	}
	if err := free(&cfg, names); err != nil { // Before anything is touched.
		return nil, err
	}
	l := &Log{cfg: cfg}
	for _, name := range names {
		if !isScratch(name) {
			continue
		}
		if err := cfg.FS.Remove(cfg.path(name)); err != nil {
			return nil, fmt.Errorf("clear what an earlier attempt left: %w", err)
		}
	}
	l.prep.sequence = 1
	l.w.state = state{start: start, last: start, hs: HardState{Commit: start.Index}}
	g := begin{state: l.w.state}
	seg, end, err := l.makeSegment(&g)
	if err != nil {
		return nil, fmt.Errorf("create raft log: %w", err)
	}
	l.w.seg, l.w.pos, l.w.synced, l.w.chain = seg, end.offset, end.offset, end.chain
	l.mu.index = index{segments: []*segment{seg}, start: start, last: start}
	l.mu.readable, l.mu.salt = start.Index, end.chain
	l.openSyncMarks()
	return l, nil
}

// Free tells whether Create would find no log in a folder. Anything else that it
// would refuse is an error.
func Free(cfg Config) (bool, error) {
	names, err := cfg.FS.List(cfg.Dir)
	if err == nil {
		err = free(&cfg, names)
	}
	if errors.Is(err, ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// free refuses a folder with a log, or with what was never part of one.
func free(cfg *Config, names []string) error {
	for _, name := range names {
		switch {
		case filepath.Ext(name) == segmentSuffix:
			return fmt.Errorf("%s: %w", cfg.path(name), ErrExists)
		case !isScratch(name) && !isBeside(name):
			return fmt.Errorf("%s: %w", cfg.path(name), ErrForeign)
		}
	}
	return nil
}

// isScratch tells whether a file means nothing without a segment.
func isScratch(name string) bool {
	_, numbered := sequenceOf(name)
	made := strings.HasPrefix(name, newPrefix) || strings.HasPrefix(name, sparePrefix)
	return numbered && made || name == markFileName || name == markFileName+".tmp"
}

// isBeside tells whether something may lie in the folder of a log that is not of
// it: logs that were set aside, and what the root of a file system has.
func isBeside(name string) bool { return strings.HasPrefix(name, asidePrefix) || name == "lost+found" }

// SetAside moves a log out of the way, into a folder within its own, which may
// be the root of a disk. It tells which, "" when there was no log. A crash leaves
// some of it there and some not; called again, it moves the rest.
func SetAside(cfg Config) (aside string, err error) {
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return "", fmt.Errorf("set raft log aside: %w", err)
	}
	old := slices.DeleteFunc(slices.Clone(names), isBeside)
	if len(old) == 0 {
		return "", nil
	}
	for i := 1; aside == "" || slices.Contains(names, filepath.Base(aside)); i++ {
		aside = cfg.path(fmt.Sprintf("%s%d", asidePrefix, i))
	}
	if err := vfs.MakeFolder(cfg.FS, aside); err != nil {
		return "", fmt.Errorf("set raft log aside: %w", err)
	}
	for _, name := range old {
		if err := cfg.FS.Rename(cfg.path(name), filepath.Join(aside, name)); err != nil {
			return "", fmt.Errorf("set raft log aside: %w", err)
		}
	}
	return aside, errors.Join(cfg.FS.SyncDir(aside), cfg.FS.SyncDir(cfg.Dir))
}

func (c *Config) path(name string) string { return filepath.Join(c.Dir, name) }

// usable returns why the log takes no more writes.
func (l *Log) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.failed != nil {
		return l.mu.failed
	}
	if l.mu.closed {
		return ErrClosed
	}
	return nil
}

// Append encodes entries and hard state for the next Sync. An entry at or
// below the last supersedes it and all after it. Nothing is kept of entries.
//
// Only ErrNoSegment leaves the log usable but the call half done; the same
// call may then be made again.
func (l *Log) Append(entries []*raftpb.Entry, hs *HardState) error {
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.checkAppend(entries, hs); err != nil {
		return err
	}
	// A crash may keep any part of this from the front. So term and vote come
	// before entries of that term, and the commit index after what it commits.
	if hs != nil && len(entries) > 0 && (hs.Term != l.w.state.hs.Term || hs.Vote != l.w.state.hs.Vote) {
		if err := l.appendHardState(HardState{Term: hs.Term, Vote: hs.Vote, Commit: l.w.state.hs.Commit}); err != nil {
			return err
		}
	}
	for len(entries) > 0 {
		n := l.fitting(entries)
		if n == 0 {
			if err := l.roll(); err != nil {
				return err
			}
			continue
		}
		l.encodeEntries(entries[:n])
		entries = entries[n:]
	}
	if hs != nil {
		if err := l.appendHardState(HardState{Term: hs.Term, Vote: hs.Vote, Commit: l.storable(hs.Commit)}); err != nil {
			return err
		}
	}
	if len(l.w.buf) > bufferBytesMax {
		return l.flush()
	}
	return nil
}

// storable lowers a commit index to what is durable: a follower may learn of a
// commit before its own disk has the entries, and a stored commit must prove
// that they were there.
func (l *Log) storable(commit ident.Index) ident.Index {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.w.state.hs.Commit, min(commit, l.mu.readable))
}

func (l *Log) checkAppend(entries []*raftpb.Entry, hs *HardState) error {
	if now := l.w.state.hs; hs != nil {
		if hs.Term < now.Term || hs.Term == now.Term && now.Vote != 0 && hs.Vote != now.Vote {
			return fmt.Errorf("term %d vote %s after term %d vote %s: %w", hs.Term, hs.Vote, now.Term, now.Vote, ErrOrder)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	first := ident.Index(entries[0].GetIndex())
	if low, last := l.w.state.hs.Commit, l.w.state.last.Index; first <= max(low, l.w.state.start.Index) || first > last+1 {
		return fmt.Errorf("entry %d onto a log of %d to %d committed to %d: %w", first, l.w.state.start.Index+1, last, low, ErrOrder)
	}
	before, err := l.Term(first - 1)
	if err != nil {
		return fmt.Errorf("entry %d: %w", first, err)
	}
	room := int(l.cfg.SegmentBytes) - headerBytes - recordBytes(beginBytes+notesBytes(l.w.state.notes)) - terminatorBytes
	for i, e := range entries {
		at := Mark{ident.Index(e.GetIndex()), ident.Term(e.GetTerm())}
		if at.Index != first+ident.Index(i) || at.Term < before || uint32(e.GetType()) > 0xff {
			return fmt.Errorf("entry %s type %d in place %d after term %d: %w", at, e.GetType(), first+ident.Index(i), before, ErrOrder)
		}
		if recordBytes(entryBytes+len(e.GetData())) > room {
			return fmt.Errorf("entry %s of %d bytes, a segment takes %d: %w", at, len(e.GetData()), room, ErrTooLarge)
		}
		before = at.Term
	}
	return nil
}

func notesBytes(notes []Note) int {
	n := 0
	for _, note := range notes {
		n += noteHeadBytes + len(note.Data)
	}
	return n
}

// fitting counts the entries that the active segment still takes.
func (l *Log) fitting(entries []*raftpb.Entry) int {
	at := l.end() + terminatorBytes
	for i, e := range entries {
		if at += int64(recordBytes(entryBytes + len(e.GetData()))); at > l.w.seg.size {
			return i
		}
	}
	return len(entries)
}

// end is the offset after everything encoded.
func (l *Log) end() int64 { return l.w.pos + int64(len(l.w.buf)) }

func (l *Log) encodeEntries(entries []*raftpb.Entry) {
	w := &l.w
	l.mu.Lock()
	at := l.end()
	for _, e := range entries {
		mark := Mark{ident.Index(e.GetIndex()), ident.Term(e.GetTerm())}
		l.mu.index.add(w.seg, uint32(at), mark)
		at += int64(recordBytes(entryBytes + len(e.GetData())))
	}
	w.state.last = l.mu.index.last
	l.mu.readable = min(l.mu.readable, ident.Index(entries[0].GetIndex())-1)
	l.mu.Unlock()

	for _, e := range entries {
		from := l.reserve()
		w.buf = appendEntry(w.buf, e)
		l.finish(from, kindEntry)
	}
}

// reserve leaves room for a record's header at the end of the buffer.
func (l *Log) reserve() (from int) {
	from = len(l.w.buf)
	l.w.buf = append(l.w.buf, zeroRecord[:recordHeaderBytes]...)
	return from
}

func (l *Log) finish(from int, k kind) {
	w := &l.w
	w.buf, w.chain = finishRecord(w.buf, from, k, w.seg.seed, w.chain, w.seg.sequence, uint32(w.pos)+uint32(from), uint32(w.synced))
}

// ensure makes room for one record of at most payload bytes.
func (l *Log) ensure(payload int) error {
	if l.end()+int64(recordBytes(payload))+terminatorBytes > l.w.seg.size {
		return l.roll()
	}
	return nil
}

func (l *Log) appendHardState(hs HardState) error {
	if hs == l.w.state.hs {
		return nil
	}
	if err := l.ensure(hardStateBytes); err != nil {
		return err
	}
	from := l.reserve()
	l.w.buf = appendHardState(l.w.buf, hs)
	l.finish(from, kindHardState)
	l.w.state.hs = hs
	return nil
}

// Note keeps a remark for the next Sync.
func (l *Log) Note(n Note) error {
	if n.Kind == NoteCut {
		return fmt.Errorf("note kind %d belongs to the log: %w", n.Kind, ErrOrder)
	}
	return l.note(n)
}

// ClearCut forgets a Cut, once a leader has brought this member past it.
func (l *Log) ClearCut() error { return l.note(Note{Kind: NoteCut}) }

func (l *Log) note(n Note) error {
	if err := l.usable(); err != nil {
		return err
	}
	notes := setNote(l.w.state.notes, Note{Kind: n.Kind, Data: append([]byte(nil), n.Data...)})
	if len(n.Data) > NoteBytesMax || len(notes) > NoteKindsMax {
		return fmt.Errorf("note of %d bytes, %d kinds: %w", len(n.Data), len(notes), ErrTooLarge)
	}
	if err := l.ensure(1 + len(n.Data)); err != nil {
		return err
	}
	from := l.reserve()
	l.w.buf = appendNote(l.w.buf, n)
	l.finish(from, kindNote)
	l.w.state.notes = notes
	return nil
}

// flush writes the buffer, with a terminator behind it.
func (l *Log) flush() error {
	w := &l.w
	if len(w.buf) == 0 {
		return nil
	}
	n := len(w.buf)
	w.buf = append(w.buf, zeroRecord[:]...)
	w.dirty = true
	fail.Here("wal/write/before")
	if _, err := w.seg.file.WriteAt(w.buf, w.pos); err != nil {
		return l.fail("write", err)
	}
	fail.Here("wal/write/after")
	w.pos += int64(n)
	w.buf = w.buf[:0]
	if cap(w.buf) > 2*bufferBytesMax {
		w.buf = nil // One huge batch must not hold memory for ever.
	}
	return nil
}

// Sync makes durable all that was appended. Once it has failed it fails for
// ever: what the file holds is then unknown.
func (l *Log) Sync() error {
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.flush(); err != nil {
		return err
	}
	if !l.w.dirty {
		return nil
	}
	fail.Here("wal/sync/before")
	if err := l.w.seg.file.SyncData(); err != nil {
		return l.fail("sync", err)
	}
	fail.Here("wal/sync/after")
	l.markSynced()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.syncs++
	l.mu.bytes += uint64(l.w.pos - l.w.synced)
	l.mu.readable = l.w.state.last.Index
	l.mu.salt = l.w.chain
	l.w.synced, l.w.dirty = l.w.pos, false
	return nil
}

// roll ends the active segment and begins the next.
func (l *Log) roll() error {
	if err := l.Sync(); err != nil {
		return err
	}
	next, err := l.takeNext()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.mu.index.segments = append(l.mu.index.segments, next)
	l.mu.Unlock()
	l.beginSegment(next, false)
	fail.Here("wal/segment/begun")
	return nil
}

func (l *Log) beginSegment(next *segment, reset bool) {
	w := &l.w
	g := begin{reset: reset, prevSequence: w.seg.sequence, prevEnd: uint32(w.pos), prevChain: w.chain, state: w.state}
	w.seg, w.pos, w.synced, w.chain = next, headerBytes, headerBytes, next.seed
	from := l.reserve()
	w.buf = appendBegin(w.buf, g)
	l.finish(from, kindBegin)
}

// Compact gives up the entries up to index: whole segments go to Prepare. It
// syncs, so that no segment goes before the new start is durable.
func (l *Log) Compact(index ident.Index) error {
	if err := l.usable(); err != nil {
		return err
	}
	if index <= l.w.state.start.Index {
		return nil
	}
	term, err := l.Term(index)
	if err != nil {
		return fmt.Errorf("compact to %d: %w", index, err)
	}
	if err := l.ensure(markBytes); err != nil {
		return err
	}
	start := Mark{Index: index, Term: term}
	from := l.reserve()
	l.w.buf = appendMark(l.w.buf, start)
	l.finish(from, kindStart)
	l.w.state.start = start
	if err := l.Sync(); err != nil {
		return err
	}
	fail.Here("wal/compact/synced")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.retired = append(l.mu.retired, l.mu.index.compact(start)...)
	return nil
}

// Reset empties the log after a snapshot was installed: it goes on after
// start. Term, vote and notes stay, the commit index rises to start.
func (l *Log) Reset(start Mark) error {
	if err := l.usable(); err != nil {
		return err
	}
	if start.Index < l.w.state.hs.Commit {
		return fmt.Errorf("reset to %s below commit %d: %w", start, l.w.state.hs.Commit, ErrOrder)
	}
	if err := l.Sync(); err != nil {
		return err
	}
	next, err := l.takeNext()
	if err != nil {
		return err
	}
	fail.Here("wal/reset/before")
	l.w.state.start, l.w.state.last = start, start
	l.w.state.hs.Commit = start.Index
	l.mu.Lock()
	l.mu.retired = append(l.mu.retired, l.mu.index.segments...)
	l.mu.index = index{segments: []*segment{next}, start: start, last: start}
	l.mu.readable = start.Index
	l.mu.Unlock()
	l.beginSegment(next, true)
	return l.Sync()
}

// fail ends writing for good and leaves a mark beside the segments, as best
// it can: the disk is failing.
func (l *Log) fail(what string, cause error) error {
	l.mu.Lock()
	first := l.mu.failed == nil
	if first {
		l.mu.failed = fmt.Errorf("%w: %s: %w", ErrFailed, what, cause)
	}
	failed := l.mu.failed
	l.mu.Unlock()
	if first {
		text := fmt.Sprintf("holdfast: the raft log in this folder failed and is rebuilt at the next start: %v\n", cause)
		if err := vfs.ReplaceFile(l.cfg.FS, l.cfg.path(failedName), []byte(text)); err != nil {
			l.cfg.Logger.Warn("cannot leave the mark of a failed log", "error", err)
		}
	}
	return failed
}

// Close syncs what was appended, ends the log with a mark that covers it, and
// waits for readers. It may be called again.
func (l *Log) Close() error {
	var failed error
	if l.usable() == nil {
		failed = l.close()
	}
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil
	}
	l.mu.closed = true
	l.mu.Unlock()
	l.mu.readers.Wait()
	return errors.Join(failed, l.closeFiles())
}

func (l *Log) closeFiles() error {
	l.prep.Lock()
	defer l.prep.Unlock()
	l.mu.Lock()
	files := append(append([]*segment(nil), l.mu.index.segments...), l.mu.retired...)
	l.mu.Unlock()
	if l.prep.next != nil {
		files = append(files, l.prep.next)
	}
	var errs []error
	if l.w.marks.file != nil {
		errs = append(errs, l.w.marks.file.Close())
	}
	for _, s := range files {
		if s.file != nil {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *Log) close() error {
	if err := l.Sync(); err != nil {
		return err
	}
	if l.end()+recordHeaderBytes+terminatorBytes > l.w.seg.size {
		return nil // A full segment is not worth a new one. The log is durable as it is.
	}
	l.finish(l.reserve(), kindEnd)
	return l.Sync()
}

// Stats returns counts for metrics.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{
		Segments: len(l.mu.index.segments), Retired: len(l.mu.retired), Prepared: l.mu.prepared,
		Syncs: l.mu.syncs, SyncedBytes: l.mu.bytes,
	}
	for _, list := range [][]*segment{l.mu.index.segments, l.mu.retired} {
		for _, seg := range list {
			s.Bytes += seg.size
		}
	}
	return s
}

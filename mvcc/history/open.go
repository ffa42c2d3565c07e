package history

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Open opens a history at a mark that Sync returned, checks that everything
// below it is there, and cuts what lies beyond: the Raft log replays that. Of
// the records only those of the segment with the mark are read; the rest are
// checked when they are, or by Verify.
func Open(cfg Config, at Mark) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := newLog(cfg)
	if err := l.open(at); err != nil {
		return nil, errors.Join(fmt.Errorf("open history: %w", err), l.Close())
	}
	return l, nil
}

func (l *Log) open(at Mark) error {
	dir, err := listDir(l.cfg.FS, l.cfg.Dir)
	if err != nil {
		return err
	}
	ids, err := l.needed(dir.segmentsUpTo(at.Segment))
	if err != nil {
		return err
	}
	list, err := loadSegments(l.cfg.FS, l.cfg.Dir, ids, vfs.FS.OpenWrite)
	l.segments.Store(&list)
	if err != nil {
		return err
	}
	if len(list) == 0 || list[len(list)-1].id != at.Segment {
		return damagef(filepath.Join(l.cfg.Dir, SegmentName(at.Segment)), 0, "the file is missing, history is needed up to %v", at)
	}
	active := list[len(list)-1]
	size := active.flushed.Load()
	if size < at.Offset {
		return damagef(active.name, size, "the file ends here, history is needed up to %v", at)
	}
	active.flushed.Store(at.Offset)
	if err := l.checkTail(active, at); err != nil {
		return err
	}
	if before := list[0].start.Revision; l.cfg.Merged != 0 && before > max(l.cfg.Merged, originRevision) {
		// Given back after a merge that base does not have: base is a copy, or its
		// disk lost what it had synced.
		return damagef(list[0].name, 0, "history begins here, behind revision %d, and base needs what followed revision %d: base is older than it was, or segments are missing", before, l.cfg.Merged)
	}
	// Only now, with the old verified, is anything removed.
	if err := l.cut(dir, active, at, size); err != nil {
		return err
	}
	l.writer.end, l.mu.end = at, at
	l.flush.open = []*segment{active}
	for _, s := range list {
		l.bytes.Add(s.flushed.Load())
		if err := l.countIndex(s); err != nil {
			return err
		}
	}
	return nil
}

// needed leaves out what stands before a gap, if nobody needs it: when the
// folder could not be synced after a segment was dropped, its name may be back
// after a crash, and those of later ones not.
func (l *Log) needed(ids []uint64) ([]uint64, error) {
	gap := len(ids) - 1
	for gap > 0 && ids[gap] == ids[gap-1]+1 {
		gap--
	}
	if gap <= 0 || l.cfg.Merged <= 0 {
		return ids, nil
	}
	f, err := l.cfg.FS.Open(filepath.Join(l.cfg.Dir, SegmentName(ids[gap])))
	if err != nil {
		return nil, err
	}
	h, _, err := readSegmentHeader(f, ids[gap])
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if h.start.Revision >= l.cfg.Merged {
		return ids, nil // The gap is within what is needed.
	}
	return ids[gap:], nil
}

// checkTail reads the records up to the mark.
func (l *Log) checkTail(s *segment, at Mark) error {
	r, err := l.ScanSegment(s.id)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if r.at != at {
		return damagef(s.name, at.Offset, "here ends %v, expected %v", r.at, at)
	}
	return nil
}

// cut removes what lies beyond the mark, and what belongs to nothing.
func (l *Log) cut(dir dirList, active *segment, at Mark, size int64) error {
	remove := dir.outside((*l.segments.Load())[0].id, at.Segment)
	for _, name := range remove {
		if err := removeFile(l.cfg.FS, filepath.Join(l.cfg.Dir, name)); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
			return err
		}
	}
	if size > at.Offset {
		f, err := active.acquire()
		if err != nil {
			return err
		}
		defer active.release()
		if err := f.Truncate(at.Offset); err != nil {
			return err
		}
		active.allocated = at.Offset
		active.dirty = true
	}
	if len(remove) > 0 || size > at.Offset {
		l.cfg.Logger.Info("history beyond the checkpoint cut", "segment", at.Segment, "offset", at.Offset,
			"index", uint64(at.Index), "bytes", size-at.Offset, "files", len(remove))
	}
	return nil
}

// outside names what is not part of the segments from first to last.
func (d dirList) outside(first, last uint64) []string {
	names := slices.Clone(d.scratch)
	for _, id := range d.indexes {
		if id < first || id >= last {
			names = append(names, IndexName(id))
		}
	}
	for _, id := range d.segments {
		if id < first {
			names = append(names, SegmentName(id))
		}
	}
	for _, id := range slices.Backward(d.segments) { // The newest first: never a gap.
		if id > last {
			names = append(names, SegmentName(id))
		}
	}
	return names
}

func (l *Log) countIndex(s *segment) error {
	info, err := l.cfg.FS.Stat(filepath.Join(l.cfg.Dir, IndexName(s.id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.indexBytes.Store(info.Size)
	l.bytes.Add(info.Size)
	return nil
}

// dirList is what a history folder has.
type dirList struct {
	segments []uint64 // Sorted.
	indexes  []uint64
	scratch  []string // Names of files that were never finished.
}

func listDir(fsys vfs.FS, path string) (dirList, error) {
	var d dirList
	names, err := fsys.List(path)
	if err != nil {
		return d, err
	}
	for _, name := range names {
		if id, ok := parseName(name, segmentSuffix); ok {
			d.segments = append(d.segments, id)
		} else if id, ok := parseName(name, indexSuffix); ok {
			d.indexes = append(d.indexes, id)
		} else if _, ok := parseName(name, indexSuffix+scratchSuffix); ok {
			d.scratch = append(d.scratch, name)
		}
	}
	slices.Sort(d.segments)
	return d, nil
}

func (d dirList) segmentsUpTo(id uint64) []uint64 {
	i, found := slices.BinarySearch(d.segments, id)
	if found {
		i++
	}
	return d.segments[:i]
}

// loadSegments opens files that must follow each other without a gap, and
// reads their headers. The last one counts as active and as long as its file
// is. What was opened is returned with an error too.
func loadSegments(fsys vfs.FS, dir string, ids []uint64, open func(vfs.FS, string) (vfs.File, error)) ([]*segment, error) {
	list := make([]*segment, 0, len(ids))
	for i, id := range ids {
		if i > 0 && id != ids[i-1]+1 {
			return list, damagef(filepath.Join(dir, SegmentName(ids[i-1]+1)), 0, "the file is missing, segment %d is there", id)
		}
		s := newSegment(dir, Mark{Segment: id})
		f, err := open(fsys, s.name)
		if err != nil {
			return list, err
		}
		s.setFile(f)
		list = append(list, s)
		h, size, err := readSegmentHeader(f, id)
		if err != nil {
			return list, err
		}
		s.start = h.start
		s.flushed.Store(size)
		s.allocated = size
		if i > 0 {
			if err := endsAt(list[i-1], h); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

func readSegmentHeader(f vfs.File, id uint64) (segmentHeader, int64, error) {
	size, err := f.Size()
	if err != nil {
		return segmentHeader{}, 0, err
	}
	data := make([]byte, segmentHeaderBytes)
	if err := readFull(f, data, 0); err != nil {
		return segmentHeader{}, 0, err
	}
	h, err := decodeSegmentHeader(data)
	if errors.Is(err, ErrVersion) {
		return h, 0, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if err != nil {
		return h, 0, damagef(f.Name(), 0, "%v", err)
	}
	if h.start.Segment != id {
		return h, 0, damagef(f.Name(), 0, "the file says it is segment %d", h.start.Segment)
	}
	return h, size, nil
}

// endsAt seals a segment that the next one follows. Its file has the exact
// length: it was trimmed before the next one could become durable.
func endsAt(s *segment, next segmentHeader) error {
	if size := s.flushed.Load(); size != next.previous {
		return damagef(s.name, min(size, next.previous), "the file has %d bytes, %d were written", size, next.previous)
	}
	if next.start.Index < s.start.Index || next.start.Revision < s.start.Revision {
		return damagef(s.name, 0, "begins at %v, the next segment at %v", s.start, next.start)
	}
	end := next.start
	end.Segment, end.Offset = s.id, next.previous
	s.sealed.Store(&end)
	return nil
}

func removeFile(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

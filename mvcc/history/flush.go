package history

import (
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Flush writes what is in memory only to the files, so that it may leave
// memory. Nothing is durable by that. For want of space it fails and may be
// tried again; after any other failed write nothing more is written ever.
func (l *Log) Flush() error {
	l.flush.Lock()
	defer l.flush.Unlock()
	return l.flushLocked()
}

// Sync makes everything durable that was appended before, and returns up to
// where. After a failed sync it fails for ever.
func (l *Log) Sync() (Mark, error) {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	end := l.End()
	dirty, created, err := l.flushForSync()
	if err != nil {
		return Mark{}, err
	}
	fail.Here("history/sync/before")
	// Outside of the lock of the flush: the writer may need that one.
	for _, s := range dirty {
		if err := syncSegment(s); err != nil {
			return Mark{}, l.fail(fmt.Errorf("sync segment %d: %w", s.id, err))
		}
	}
	if created {
		if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
			return Mark{}, l.fail(fmt.Errorf("sync history folder: %w", err))
		}
	}
	fail.Here("history/sync/after")
	return end, nil
}

func (l *Log) flushForSync() (dirty []*segment, created bool, err error) {
	l.flush.Lock()
	defer l.flush.Unlock()
	if err := l.flushLocked(); err != nil {
		return nil, false, err
	}
	var open []*segment
	for _, s := range l.flush.open {
		if s.dirty {
			s.dirty = false
			dirty = append(dirty, s)
		}
		if s.sealed.Load() == nil || s.flushed.Load() < s.sealed.Load().Offset {
			open = append(open, s)
		}
	}
	l.flush.open = open
	created, l.flush.created = l.flush.created, false
	return dirty, created, nil
}

func syncSegment(s *segment) error {
	f, err := s.acquire()
	if errors.Is(err, ErrDropped) {
		return nil // Whoever dropped it no longer needs it.
	}
	if err != nil {
		return err
	}
	defer s.release()
	return f.SyncData()
}

func (l *Log) flushLocked() error {
	if err := l.usable(); err != nil {
		return err
	}
	for _, b := range *l.blocks.Load() {
		from, to := b.flushed.Load(), b.published.Load()
		if from == to {
			continue
		}
		if err := l.write(b, from, to); err != nil {
			return err
		}
	}
	return l.trimLocked()
}

func (l *Log) write(b *block, from, to int64) error {
	s := b.segment
	f, err := l.fileLocked(s)
	if err != nil {
		return err
	}
	defer s.release()
	if err := l.allocateLocked(s, f, b.start+to); err != nil {
		return fmt.Errorf("allocate segment %d: %w", s.id, err)
	}
	s.dirty = true
	fail.Here("history/flush/before")
	if _, err := f.WriteAt(b.data[from:to], b.start+from); err != nil {
		return l.fail(fmt.Errorf("write segment %d at %d: %w", s.id, b.start+from, err))
	}
	// Before the block may leave the ring: a reader that misses it there must
	// find it in the file.
	s.flushed.Store(b.start + to)
	b.flushed.Store(to)
	l.behind.Add(from - to)
	return nil
}

// fileLocked lends the file of a segment, which it creates the first time.
func (l *Log) fileLocked(s *segment) (vfs.File, error) {
	f, err := s.acquire()
	if !errors.Is(err, errNotCreated) {
		return f, err
	}
	if f, err = l.cfg.FS.Create(s.name); err != nil {
		return nil, fmt.Errorf("create segment %d: %w", s.id, err)
	}
	s.setFile(f)
	l.flush.created = true
	l.flush.open = append(l.flush.open, s)
	return s.acquire()
}

// allocateLocked extends a file ahead of what is written, so that a full disk
// shows before a record is half written.
func (l *Log) allocateLocked(s *segment, f vfs.File, need int64) error {
	if l.cfg.Filling || need <= s.allocated || need <= allocateFromBytes || s.sealed.Load() != nil {
		return nil
	}
	size := min(need+min(max(need, allocateStepMin), allocateStepMax), max(need, l.cfg.SegmentBytes))
	if err := f.Allocate(size); err != nil {
		return err
	}
	s.allocated = size
	return nil
}

// trimLocked takes back what was allocated in vain for segments that have
// ended: the size of a sealed file is part of what is checked.
func (l *Log) trimLocked() error {
	for _, s := range l.flush.open {
		end := s.sealed.Load()
		if end == nil || s.flushed.Load() < end.Offset || s.allocated <= end.Offset {
			continue
		}
		f, err := s.acquire()
		if errors.Is(err, ErrDropped) {
			continue
		}
		if err != nil {
			return err
		}
		err = f.Truncate(end.Offset)
		s.release()
		if err != nil {
			return l.fail(fmt.Errorf("trim segment %d: %w", s.id, err))
		}
		s.allocated = end.Offset
		s.dirty = true
	}
	return nil
}

// fail remembers the first failure of a write or sync.
func (l *Log) fail(err error) error {
	l.failed.CompareAndSwap(nil, &err)
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

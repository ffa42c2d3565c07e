package wal

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// chainEnd is a place in a segment and the checksum of the record before it.
type chainEnd struct {
	offset int64
	chain  uint32
}

// Prepare retires what Compact and Reset gave up and makes the next segment.
// The owner calls it in the background after Compact, Reset and whenever
// Prepared is false; it returns at once when there is nothing to do.
func (l *Log) Prepare() error {
	l.prep.Lock()
	defer l.prep.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.retirePrep(); err != nil {
		return err
	}
	if l.prep.next != nil {
		return nil
	}
	next, _, err := l.makeSegment(nil)
	if err != nil {
		return err
	}
	l.prep.next = next
	l.setPrepared(true)
	return nil
}

// Prepared tells whether the next segment is ready.
func (l *Log) Prepared() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.prepared
}

func (l *Log) setPrepared(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.prepared = yes
}

// takeNext hands the prepared segment to the writer, making it if need be.
func (l *Log) takeNext() (*segment, error) {
	l.prep.Lock()
	defer l.prep.Unlock()
	next := l.prep.next
	if next == nil {
		var err error
		if next, _, err = l.makeSegment(nil); err != nil {
			return nil, err
		}
	}
	l.prep.next = nil
	l.setPrepared(false)
	return next, nil
}

// retirePrep recycles or removes segments that nobody reads any more, oldest
// first. Callers hold prep.
func (l *Log) retirePrep() error {
	changed := false
	for seg := l.idleRetired(); seg != nil; seg = l.idleRetired() {
		name := l.cfg.path(segmentName(seg.sequence))
		if err := seg.file.Close(); err != nil {
			l.cfg.Logger.Warn("cannot close a retired log segment", "file", name, "error", err)
		}
		fail.Here("wal/recycle/before")
		var err error
		if spare := spareName(seg.sequence); len(l.prep.spares) < sparesMax && seg.size == l.cfg.SegmentBytes {
			if err = l.cfg.FS.Rename(name, l.cfg.path(spare)); err == nil {
				l.prep.spares = append(l.prep.spares, spare)
			}
		} else {
			err = l.cfg.FS.Remove(name)
		}
		if err != nil {
			return fmt.Errorf("retire log segment: %w", err)
		}
		changed = true
	}
	if !changed {
		return nil
	}
	fail.Here("wal/recycle/after")
	// A file must have lost its old name for good before it gets a new life.
	if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
		return l.fail("sync folder", err)
	}
	return nil
}

// idleRetired takes the oldest retired segment, nil when it has readers.
func (l *Log) idleRetired() *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.retired) == 0 || l.mu.retired[0].readers > 0 {
		return nil
	}
	seg := l.mu.retired[0]
	l.mu.retired = l.mu.retired[1:]
	return seg
}

// makeSegment makes a segment under a new sequence, from a spare or from
// nothing, and gives it its name once header and size are durable. With first
// it already holds that record. Callers hold prep.
//
// Before the first sync a failure costs nothing and is ErrNoSegment. A failed
// sync is final, as everywhere.
func (l *Log) makeSegment(first *begin) (*segment, chainEnd, error) {
	sequence := l.prep.sequence
	l.prep.sequence++
	from, f, err := l.blankFile(sequence)
	if err != nil {
		return nil, chainEnd{}, fmt.Errorf("%w: %w", ErrNoSegment, err)
	}
	l.mu.Lock()
	header := segmentHeader{salt: l.mu.salt, sequence: sequence}.encode()
	l.mu.Unlock()
	_, seed, err := decodeSegmentHeader(header[:])
	if err != nil {
		return nil, chainEnd{}, err
	}
	b, end := header[:], chainEnd{offset: headerBytes, chain: seed}
	if first != nil {
		b = append(b, zeroRecord[:recordHeaderBytes]...)
		b, end.chain = finishRecord(appendBegin(b, *first), headerBytes, kindBegin, seed, seed, sequence, headerBytes, headerBytes)
		end.offset = int64(len(b))
	}
	name := segmentName(sequence)
	if _, err = f.WriteAt(append(b, zeroRecord[:]...), 0); err != nil {
		return nil, chainEnd{}, errors.Join(fmt.Errorf("%w: %w", ErrNoSegment, err), l.discard(f, from))
	}
	if err = f.SyncData(); err != nil {
		return nil, chainEnd{}, errors.Join(l.fail("sync a new segment", err), l.discard(f, from))
	}
	if f, err = l.rename(f, from, name); err != nil {
		return nil, chainEnd{}, fmt.Errorf("%w: %w", ErrNoSegment, err)
	}
	fail.Here("wal/segment/named")
	if err = l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
		return nil, chainEnd{}, errors.Join(l.fail("sync folder", err), l.discard(f, name))
	}
	return &segment{sequence: sequence, seed: seed, size: l.cfg.SegmentBytes, file: f}, end, nil
}

// rename gives a file its name and opens it under that, so that errors name
// the file that people find.
func (l *Log) rename(f vfs.File, from, to string) (vfs.File, error) {
	if err := l.cfg.FS.Rename(l.cfg.path(from), l.cfg.path(to)); err != nil {
		return nil, errors.Join(err, l.discard(f, from))
	}
	named, err := l.cfg.FS.OpenWrite(l.cfg.path(to))
	if err != nil {
		return nil, errors.Join(err, l.discard(f, to))
	}
	return named, f.Close()
}

// blankFile returns a file of the right size whose contents mean nothing.
func (l *Log) blankFile(sequence uint64) (string, vfs.File, error) {
	if n := len(l.prep.spares); n > 0 {
		name := l.prep.spares[n-1]
		l.prep.spares = l.prep.spares[:n-1]
		f, err := l.cfg.FS.OpenWrite(l.cfg.path(name))
		return name, f, err
	}
	name := newName(sequence)
	f, err := l.cfg.FS.Create(l.cfg.path(name))
	if err != nil {
		return name, nil, err
	}
	if err := f.Allocate(l.cfg.SegmentBytes); err != nil {
		return name, nil, errors.Join(err, l.discard(f, name))
	}
	return name, f, nil
}

// discard removes a file that could not be made into a segment.
func (l *Log) discard(f vfs.File, name string) error {
	err := errors.Join(f.Close(), l.cfg.FS.Remove(l.cfg.path(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

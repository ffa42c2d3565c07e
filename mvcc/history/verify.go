package history

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Found is a record that Verify came across.
type Found struct {
	File   string
	Offset int64
	Bytes  int64
	Record *Record // Good until the function returns.
}

// Verify reads a whole history that nobody has open: every checksum, the chain
// of entries and digests, each digest computed anew, and the key indexes. It
// calls fn with each record, and returns where the last good one ends. It does
// not know the mark that the owner keeps: damage in the last segment may be
// what a crash left beyond it.
func Verify(fsys vfs.FS, dir string, fn func(Found) error) (Mark, error) {
	l := newLog(Config{FS: fsys, Dir: dir, Logger: hclog.NewNullLogger()})
	defer l.Close()
	names, err := listDir(fsys, dir)
	if err != nil {
		return Mark{}, fmt.Errorf("verify history: %w", err)
	}
	list, err := loadSegments(fsys, dir, names.segments, vfs.FS.Open)
	l.segments.Store(&list)
	if err != nil {
		return Mark{}, fmt.Errorf("verify history: %w", err)
	}
	if len(list) == 0 {
		return Mark{}, damagef(dir, 0, "no segments")
	}
	for _, id := range names.indexes {
		if s := l.find(id); s != nil && s.sealed.Load() != nil {
			if _, err := l.ReadIndex(id); err != nil {
				return Mark{}, fmt.Errorf("verify history: %w", err)
			}
		}
	}
	r, err := l.ScanSegment(list[0].id)
	if err != nil {
		return Mark{}, err
	}
	defer r.Close()
	r.only = false
	r.VerifyDigests()
	return verifyRecords(r, fn)
}

func verifyRecords(r *Reader, fn func(Found) error) (Mark, error) {
	for {
		before := r.at
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.at, nil
		}
		if err != nil {
			if clean, zeroErr := r.onlyZeroes(); clean || zeroErr != nil {
				return r.at, zeroErr // What was allocated in advance.
			}
			return r.at, err
		}
		if r.at.Segment != before.Segment {
			before = r.segment.start
		}
		if fn == nil {
			continue
		}
		err = fn(Found{File: filepath.Base(r.segment.name), Offset: before.Offset, Bytes: r.at.Offset - before.Offset, Record: rec})
		if err != nil {
			return r.at, err
		}
	}
}

// onlyZeroes tells whether nothing was written from here to the end of the
// last file.
func (r *Reader) onlyZeroes() (bool, error) {
	if r.segment.sealed.Load() != nil {
		return false, nil
	}
	f, err := r.segment.acquire()
	if err != nil {
		return false, err
	}
	defer r.segment.release()
	for at, end := r.at.Offset, r.segment.flushed.Load(); at < end; {
		chunk := make([]byte, min(end-at, chunkBytesMax))
		if err := readFull(f, chunk, at); err != nil {
			return false, err
		}
		for _, b := range chunk {
			if b != 0 {
				return false, nil
			}
		}
		at += int64(len(chunk))
	}
	return true, nil
}

// ScanFile reads a sealed segment as it lies on disk, also what is in memory
// still, and has every digest computed anew. It fails with ErrNotSealed while the
// file is not written to its end.
func (l *Log) ScanFile(id uint64) (*Reader, error) {
	s, end, err := l.sealedSegment(id)
	if err != nil {
		return nil, err
	}
	if s.flushed.Load() < end.Offset {
		return nil, fmt.Errorf("segment %d is written up to %d of %d: %w", id, s.flushed.Load(), end.Offset, ErrNotSealed)
	}
	r, err := l.ScanSegment(id)
	if err != nil {
		return nil, err
	}
	r.disk, r.digests = true, true
	if err := s.checkHeader(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// checkHeader reads the header again, which says where the segment begins.
func (s *segment) checkHeader() error {
	f, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release()
	h, _, err := readSegmentHeader(f, s.id)
	if err == nil && h.start != s.start {
		err = damagef(s.name, 0, "the file begins at %v, was opened at %v", h.start, s.start)
	}
	return err
}

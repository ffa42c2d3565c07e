package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// scanner reads one segment file and believes nothing in it.
type scanner struct {
	name     string // With the folder, for errors.
	file     vfs.File
	size     int64
	sequence uint64
	seed     uint32

	window   []byte // What was read last,
	windowAt int64  // and from where.
	buf      []byte
}

// found is a record that holds by itself; its link to the one before is the
// caller's to check. The payload is good until the next read.
type found struct {
	header  recordHeader
	payload []byte
	at, end int64
}

func openScanner(fsys vfs.FS, name string, sequence uint64) (*scanner, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	s := &scanner{name: name, file: f}
	if s.size, err = f.Size(); err == nil {
		err = s.readHeader(sequence)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *scanner) readHeader(sequence uint64) error {
	b, err := s.bytes(0, headerBytes)
	if err != nil {
		return err
	}
	h, seed, err := decodeSegmentHeader(b)
	if errors.Is(err, ErrNewerFormat) {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err != nil {
		return s.damaged(0, err.Error())
	}
	if h.sequence != sequence {
		return s.damaged(0, fmt.Sprintf("holds segment %x, its name says %x", h.sequence, sequence))
	}
	if s.size > SegmentBytesMax {
		return s.damaged(0, fmt.Sprintf("file of %d bytes, a segment has at most %d", s.size, SegmentBytesMax))
	}
	s.sequence, s.seed = h.sequence, seed
	return nil
}

func (s *scanner) damaged(at int64, reason string) error {
	return &DamageError{File: s.name, Offset: at, Reason: reason}
}

// bytes returns n bytes at an offset, fewer at the end of the file. They are
// good until the next call.
func (s *scanner) bytes(at int64, n int) ([]byte, error) {
	if at >= s.size {
		return nil, nil
	}
	n = int(min(int64(n), s.size-at))
	if from := at - s.windowAt; from < 0 || from+int64(n) > int64(len(s.window)) {
		want := int(min(max(int64(n), readChunkBytes), s.size-at))
		if cap(s.buf) < want {
			s.buf = make([]byte, want)
		}
		s.window, s.windowAt = s.buf[:want], at
		if got, err := s.file.ReadAt(s.window, at); got < want && err != nil {
			s.window = nil
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read raft log %s at %d: %w", s.name, at, err)
		}
	}
	from := at - s.windowAt
	return s.window[from : from+int64(n)], nil
}

// record returns the record at an offset, if there is one that holds.
func (s *scanner) record(at int64) (r found, ok bool, err error) {
	b, err := s.bytes(at, recordHeaderBytes)
	if err != nil || len(b) < recordHeaderBytes {
		return found{}, false, err
	}
	h := decodeRecordHeader(b)
	if h.sequence != s.sequence || int64(h.offset) != at || int64(h.length) > s.size {
		return found{}, false, nil
	}
	size := recordBytes(int(h.length))
	if b, err = s.bytes(at, size); err != nil || len(b) < size {
		return found{}, false, err
	}
	if !checkRecord(b, h, s.seed, s.sequence, at) {
		return found{}, false, nil
	}
	return found{header: h, payload: b[recordHeaderBytes : recordHeaderBytes+int(h.length)], at: at, end: at + int64(size)}, true, nil
}

// terminated tells whether the log ends in order at an offset.
func (s *scanner) terminated(at int64) (bool, error) {
	b, err := s.bytes(at, terminatorBytes)
	if err != nil {
		return false, err
	}
	for _, c := range b {
		if c != 0 {
			return false, nil
		}
	}
	return true, nil
}

// traces are what is left of this segment's records beyond the end of the
// unbroken ones.
type traces struct {
	any    bool
	end    int64       // Of the last.
	synced int64       // The highest mark of one that holds.
	seen   ident.Index // The highest index of an entry that holds.
}

// tracesFrom looks for records of this life of the segment at every place
// where one can begin.
func (s *scanner) tracesFrom(at int64) (traces, error) {
	t := traces{end: at}
	for at+recordHeaderBytes <= s.size {
		b, err := s.bytes(at, recordHeaderBytes)
		if err != nil {
			return t, err
		}
		h := decodeRecordHeader(b)
		if h.sequence != s.sequence || int64(h.offset) != at {
			at += recordAlign
			continue
		}
		t.any = true
		r, ok, err := s.record(at)
		if err != nil {
			return t, err
		}
		if !ok {
			t.end = max(t.end, min(s.size, at+int64(recordHeaderBytes)+int64(h.length)))
			at += recordAlign
			continue
		}
		t.end, t.synced = max(t.end, r.end), max(t.synced, int64(h.synced))
		if mark, err := entryMark(r.payload); err == nil && h.kind == kindEntry {
			t.seen = max(t.seen, mark.Index)
		}
		at = r.end
	}
	return t, nil
}

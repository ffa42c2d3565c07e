package wal

import (
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// lastGuessBytes is read beyond where the last wanted record begins: enough
// for most, and one that is longer is read again alone.
const lastGuessBytes = 4 << 10

// Start is the entry before the first.
func (l *Log) Start() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.index.start
}

// Last is the last entry, synced or not; Start when there is none.
func (l *Log) Last() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.index.last
}

// Term returns the term of an entry from Start to Last, synced or not.
func (l *Log) Term(i ident.Index) (ident.Term, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := &l.mu.index
	switch {
	case i < x.start.Index:
		return 0, fmt.Errorf("entry %d, log starts after %d: %w", i, x.start.Index, ErrCompacted)
	case i == x.start.Index:
		return x.start.Term, nil
	case i > x.last.Index:
		return 0, fmt.Errorf("entry %d, last is %d: %w", i, x.last.Index, ErrUnavailable)
	}
	return x.term(i), nil
}

// Entries returns entries from lo up to but without hi, fewer when maxBytes of
// records are reached or when the rest is not synced, never none. They share
// memory with each other and with nothing else.
func (l *Log) Entries(lo, hi ident.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	var out []*raftpb.Entry
	for left := maxBytes; lo < hi; {
		r, err := l.beginRead(lo, hi, left)
		if len(out) > 0 && (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCompacted)) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		before := len(out)
		var used uint64
		out, used, err = r.read(out, lo, left)
		l.endRead(r.seg)
		if err != nil {
			return nil, err
		}
		lo += ident.Index(len(out) - before)
		if len(out)-before < r.count || used >= left {
			break
		}
		left -= used
	}
	return out, nil
}

// segmentRead is what to read of one segment.
type segmentRead struct {
	seg     *segment
	name    string
	offsets []uint32
	count   int // Wanted of this segment; offsets are fewer when maxBytes cannot hold them.
}

func (l *Log) beginRead(lo, hi ident.Index, maxBytes uint64) (segmentRead, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := &l.mu.index
	switch {
	case l.mu.closed:
		return segmentRead{}, ErrClosed
	case lo <= x.start.Index:
		return segmentRead{}, fmt.Errorf("entry %d, log starts after %d: %w", lo, x.start.Index, ErrCompacted)
	case lo > l.mu.readable:
		return segmentRead{}, fmt.Errorf("entry %d, synced up to %d: %w", lo, l.mu.readable, ErrUnavailable)
	}
	seg, at := x.find(lo)
	wanted := seg.offsets[at:min(at+int(min(hi, l.mu.readable+1)-lo), len(seg.offsets))]
	r := segmentRead{seg: seg, name: l.cfg.path(segmentName(seg.sequence)), count: len(wanted)}
	for i, offset := range wanted {
		if i > 0 && uint64(offset-wanted[0]) >= maxBytes {
			wanted = wanted[:i]
			break
		}
	}
	// A copy, since an entry that supersedes reuses the place.
	r.offsets = append(r.offsets, wanted...)
	seg.readers++
	l.mu.readers.Add(1)
	return r, nil
}

func (l *Log) endRead(seg *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seg.readers--
	l.mu.readers.Done()
}

// read appends entries to out while their records fit maxBytes, the first of
// all in any case, and returns how many bytes they take. Every byte is
// checked: the file may have changed since it was written.
func (r *segmentRead) read(out []*raftpb.Entry, lo ident.Index, maxBytes uint64) ([]*raftpb.Entry, uint64, error) {
	from := int64(r.offsets[0])
	to := min(int64(r.offsets[len(r.offsets)-1])+lastGuessBytes, r.seg.size)
	buf := make([]byte, to-from)
	if err := r.fill(buf, from); err != nil {
		return nil, 0, err
	}
	slab := make([]decodedEntry, len(r.offsets))
	if out == nil {
		out = make([]*raftpb.Entry, 0, len(r.offsets))
	}
	var used uint64
	for i, offset := range r.offsets {
		b, h, err := r.record(buf, from, int64(offset))
		if err != nil {
			return nil, 0, err
		}
		if used+uint64(len(b)) > maxBytes && len(out) > 0 {
			break
		}
		used += uint64(len(b))
		d := &slab[i]
		if err := d.decode(b[recordHeaderBytes : recordHeaderBytes+int(h.length)]); err != nil {
			return nil, 0, r.damaged(int64(offset), err.Error())
		}
		if d.index != uint64(lo)+uint64(i) {
			return nil, 0, r.damaged(int64(offset), fmt.Sprintf("entry %d where %d was written", d.index, uint64(lo)+uint64(i)))
		}
		out = append(out, &d.entry)
	}
	return out, used, nil
}

// record returns the checked record at offset, from buf, which begins at from,
// or from the file when buf ends too early.
func (r *segmentRead) record(buf []byte, from, offset int64) ([]byte, recordHeader, error) {
	b := buf[offset-from:]
	if len(b) < recordHeaderBytes {
		return nil, recordHeader{}, r.damaged(offset, "file ends within a record")
	}
	h := decodeRecordHeader(b)
	size := int64(recordHeaderBytes) + int64(h.length)
	size = (size + recordAlign - 1) &^ (recordAlign - 1)
	if h.kind != kindEntry || offset+size > r.seg.size {
		return nil, h, r.damaged(offset, "header of a record does not hold")
	}
	if size > int64(len(b)) {
		b = make([]byte, size)
		if err := r.fill(b, offset); err != nil {
			return nil, h, err
		}
	}
	b = b[:size]
	if decodeRecordHeader(b) != h || !checkRecord(b, h, r.seg.seed, r.seg.sequence, offset) {
		return nil, h, r.damaged(offset, "checksum of a record does not hold")
	}
	return b, h, nil
}

func (r *segmentRead) fill(b []byte, at int64) error {
	if n, err := r.seg.file.ReadAt(b, at); err != nil && !(n == len(b) && errors.Is(err, io.EOF)) {
		return fmt.Errorf("read raft log %s at %d: %w", r.name, at, err)
	}
	return nil
}

func (r *segmentRead) damaged(offset int64, reason string) error {
	return &DamageError{File: r.name, Offset: offset, Reason: reason}
}

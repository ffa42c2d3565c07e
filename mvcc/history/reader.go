package history

import (
	"fmt"
	"io"
	"sort"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Reader reads records in sequence, from memory and files alike, and checks
// every checksum and that each record follows the one before. It belongs to
// one goroutine, and holds the segments that it has yet to read until closed.
type Reader struct {
	log     *Log
	segment *segment
	at      Mark // Where the next record begins.
	only    bool // End with this segment.
	digests bool
	disk    bool // Read the file, also where memory has the same.

	from struct { // What to begin with; cleared once found.
		position ident.Position
		revision ident.Revision
	}

	chunk   []byte // Of the file. Never written to again: records share it.
	chunkAt int64

	rec     Record
	scratch Group
	release func()
	scanned int64
}

// Scan reads from the record that holds the first group at or after a
// position. The position may lie ahead.
func (l *Log) Scan(from ident.Position) (*Reader, error) {
	r, err := l.scan(func(m Mark) bool { return m.Index < from.Index })
	if err != nil {
		return nil, fmt.Errorf("scan from entry %d: %w", from.Index, err)
	}
	r.from.position = from
	return r, nil
}

// ScanRevision reads from the record that holds the first group with that
// revision or a later one. The revision may lie ahead.
func (l *Log) ScanRevision(from ident.Revision) (*Reader, error) {
	r, err := l.scan(func(m Mark) bool { return m.Revision < from })
	if err != nil {
		return nil, fmt.Errorf("scan from revision %d: %w", from, err)
	}
	r.from.revision = from
	return r, nil
}

// ScanSegment reads one segment, and ends where it does.
func (l *Log) ScanSegment(id uint64) (*Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.find(id)
	if s == nil {
		return nil, fmt.Errorf("scan segment %d: %w", id, ErrDropped)
	}
	return &Reader{log: l, segment: s, at: s.start, only: true, release: l.holdLocked(id)}, nil
}

// scan begins at the last known mark before what is looked for.
func (l *Log) scan(before func(Mark) bool) (*Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := *l.segments.Load()
	i := sort.Search(len(list), func(i int) bool { return !before(list[i].start) })
	if i == 0 {
		if first := list[0].start; first.Index > 0 {
			return nil, fmt.Errorf("history begins after entry %d, revision %d: %w", first.Index, first.Revision, ErrDropped)
		}
		i = 1 // Nothing has ever been before.
	}
	s := list[i-1]
	return &Reader{log: l, segment: s, at: s.point(before), release: l.holdLocked(s.id)}, nil
}

// VerifyDigests has every digest recomputed from here on.
func (r *Reader) VerifyDigests() { r.digests = true }

// Mark is where the last returned record ended.
func (r *Reader) Mark() Mark { return r.at }

// Scanned is how many bytes of records were read so far, those before the first
// that was returned included.
func (r *Reader) Scanned() int64 { return r.scanned }

// Close lets the segments go.
func (r *Reader) Close() { r.release() }

// Next returns the next record, or io.EOF when there is none yet: later there
// may be. The record and its slices of groups and mutations are good until the
// next call; keys and values stay, and must not be changed.
func (r *Reader) Next() (*Record, error) {
	for {
		rec, err := r.next()
		if err != nil {
			return nil, err
		}
		if r.wanted(rec) {
			return rec, nil
		}
	}
}

func (r *Reader) wanted(rec *Record) bool {
	last := &rec.Groups[len(rec.Groups)-1]
	if (ident.Position{Index: rec.Index, Group: last.Ordinal}).Less(r.from.position) || r.at.Revision < r.from.revision {
		return false
	}
	r.from.position, r.from.revision = ident.Position{}, 0
	return true
}

func (r *Reader) next() (*Record, error) {
	data, err := r.bytes(recordHeaderBytes)
	if err != nil {
		return nil, err
	}
	n, err := recordLength(data)
	if err != nil {
		return nil, r.damage(err)
	}
	if n > len(data) {
		if data, err = r.bytes(n); err != nil {
			return nil, err
		}
	}
	if n, err = r.decode(data); err != nil {
		return nil, r.damage(err)
	}
	r.segment.note(r.at)
	r.at = r.rec.last(r.at, n)
	r.scanned += int64(n)
	return &r.rec, nil
}

func (r *Reader) decode(data []byte) (int, error) {
	place := Loc{Segment: r.segment.id, Offset: uint32(r.at.Offset)}
	n, err := decodeRecord(data, &r.rec, place, r.segment.seed)
	if err != nil {
		return 0, err
	}
	if err := r.follows(); err != nil {
		return 0, err
	}
	if r.digests {
		return n, verifyDigests(data[:n], &r.rec, &r.scratch)
	}
	return n, nil
}

func (r *Reader) damage(err error) error {
	return damagef(r.segment.name, r.at.Offset, "%v", err)
}

func (r *Reader) follows() error {
	if r.rec.PrevIndex != r.at.Index || r.rec.PrevDigest != r.at.Digest {
		return malformed("entry %d follows entry %d, digest %v, but before it lies entry %d, digest %v",
			r.rec.Index, r.rec.PrevIndex, r.rec.PrevDigest, r.at.Index, r.at.Digest)
	}
	return r.rec.follows(r.at)
}

// bytes returns what lies at the reader's position: at least so many bytes,
// unless the segment has fewer.
func (r *Reader) bytes(atLeast int) ([]byte, error) {
	for {
		if b := r.log.blocks.Load().find(r.segment.id, r.at.Offset); b != nil && !r.disk {
			return b.data[r.at.Offset-b.start : b.published.Load()], nil
		}
		// Not in memory: then it was flushed before it left, or does not exist.
		if limit := r.segment.flushed.Load(); r.at.Offset < limit {
			return r.fromFile(int64(atLeast), limit)
		}
		end := r.segment.sealed.Load()
		if end == nil {
			return nil, io.EOF
		}
		if r.at.Offset < end.Offset {
			continue // It came into memory after we looked there.
		}
		if r.only {
			return nil, io.EOF
		}
		if err := r.advance(); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) fromFile(atLeast, limit int64) ([]byte, error) {
	from, left := r.at.Offset-r.chunkAt, limit-r.at.Offset
	atLeast = min(atLeast, left)
	if from >= 0 && from+atLeast <= int64(len(r.chunk)) {
		return r.chunk[from:], nil
	}
	f, err := r.segment.acquire()
	if err != nil {
		return nil, err
	}
	defer r.segment.release()
	size := min(max(2*int64(len(r.chunk)), chunkBytesMin), chunkBytesMax)
	chunk := make([]byte, min(max(size, atLeast), left))
	if err := readFull(f, chunk, r.at.Offset); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	r.chunk, r.chunkAt = chunk, r.at.Offset
	return chunk, nil
}

// advance goes on to the next segment.
func (r *Reader) advance() error {
	next := r.log.find(r.segment.id + 1)
	if next == nil {
		return fmt.Errorf("segment %d: %w", r.segment.id+1, ErrDropped)
	}
	want := r.at
	want.Segment, want.Offset = next.id, segmentHeaderBytes
	if next.start != want {
		return damagef(next.name, 0, "begins after %v, the segment before ends after %v", next.start, r.at)
	}
	release := r.log.Hold(next.id) // Before the old one is let go.
	r.release()
	r.release = release
	r.segment, r.at = next, next.start
	r.chunk, r.chunkAt = nil, 0
	return nil
}

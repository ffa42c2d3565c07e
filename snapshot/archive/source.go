package archive

import (
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Source is the state that is archived: what its member has applied, and so
// what is committed.
type Source interface {
	// Records reads history after an index. It fails with history.ErrDropped when
	// compaction has taken what follows.
	Records(after ident.Index) (Records, error)

	// Applied is the index of the last applied entry, and a channel that is closed
	// when there is another.
	Applied() (ident.Index, <-chan struct{})

	// Freeze captures the present state until it is released.
	Freeze() (f *mvcc.Frozen, release func() error, err error)
}

// Records gives records in order. What it has yet to give, and what it has given
// since it was last settled, is not dropped until it is closed.
type Records interface {
	Next() (*history.Record, error) // io.EOF: none yet.
	Behind() int64                  // Bytes that are there and were not given.
	Settle() error                  // All that was given is in the archive.
	Close()
}

// RecordsOf reads the history of a store after an index.
func RecordsOf(s *mvcc.Store, after ident.Index) (Records, error) {
	r, err := s.History().Scan(ident.Position{Index: after + 1})
	if err != nil {
		return nil, err
	}
	records := &storeRecords{Reader: r, log: s.History()}
	if err := records.Settle(); err != nil {
		r.Close()
		return nil, err
	}
	return records, nil
}

// storeRecords holds more than its reader does, which lets go of a segment as
// soon as it has read it: a write to the archive may yet fail.
type storeRecords struct {
	*history.Reader
	log    *history.Log
	anchor *history.Reader // At the segment of the first record that is not archived; only held.
	first  uint64          // The number of that segment.
}

// Settle implements Records.
func (r *storeRecords) Settle() error {
	at := r.Mark().Segment
	if r.anchor != nil && at == r.first {
		return nil
	}
	next, err := r.log.ScanSegment(at)
	if err != nil {
		return err
	}
	if r.anchor != nil {
		r.anchor.Close()
	}
	r.anchor, r.first = next, at
	return nil
}

// Close implements Records.
func (r *storeRecords) Close() {
	r.Reader.Close()
	r.anchor.Close()
}

func (r *storeRecords) Behind() int64 {
	at, bytes := r.Mark(), int64(0)
	for _, s := range r.log.Segments() {
		if s.ID == at.Segment {
			bytes += s.Bytes - at.Offset
		} else if s.ID > at.Segment {
			bytes += s.Bytes
		}
	}
	return bytes
}

// joined gives the records after a point that the archive holds, having made
// sure that this member's past is the archive's.
type joined struct {
	Records
	after  Point
	joined bool // The first record came, and follows.
}

// join opens the records after a point. history.ErrDropped: they are gone here.
func join(src Source, after Point) (*joined, error) {
	r, err := src.Records(after.Index)
	if err != nil {
		return nil, fmt.Errorf("history after entry %d: %w", after.Index, err)
	}
	return &joined{Records: r, after: after}, nil
}

// next returns nil when there is none yet.
func (j *joined) next() (*history.Record, error) {
	rec, err := j.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("history after entry %d: %w", j.after.Index, err)
	}
	if !j.joined && (rec.PrevIndex != j.after.Index || Digest(rec.PrevDigest) != j.after.Digest) {
		return nil, fmt.Errorf("the archive ends with entry %d, digest %s; here entry %d with digest %s comes before entry %d: %w",
			j.after.Index, j.after.Digest, rec.PrevIndex, rec.PrevDigest, rec.Index, ErrDisagree)
	}
	j.joined = true
	return rec, nil
}

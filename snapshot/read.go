package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// reader gives the parts of a snapshot in their order: the small rows, the rows
// of base, the records, the end. Each part is read to its end before the next.
type reader struct {
	frames *frameReader
	header *holdfastpb.SnapshotHeader
	hashed bool        // A hash at the end is wanted.
	hash   backend.Sum // Of the rows of base. Set by whoever has read them.

	// A snapshot that is extended goes on with other records behind its end.
	extension *Extension                 // nil: it is not.
	own       *holdfastpb.SnapshotHeader // What its own end is compared with.
	ended     bool                       // It was read, and verified.

	rows    uint64
	records uint64
	last    []byte      // Key of the row before.
	index   ident.Index // Of the record before, or the one that the first follows.
	digest  ident.Digest
}

func newReader(r io.Reader) (*reader, error) {
	frames, err := newFrameReader(r)
	if err != nil {
		return nil, err
	}
	h := &holdfastpb.SnapshotHeader{}
	s := &reader{frames: frames, header: h, own: h, hashed: true}
	b, err := frames.whole(kindHeader)
	if err != nil {
		return nil, err
	}
	if err := h.UnmarshalVT(b); err != nil {
		return nil, frames.damaged("header does not decode: %v", err)
	}
	if h.Format != FormatVersion {
		return nil, fmt.Errorf("its header has format %d, this program reads %d: %w", h.Format, FormatVersion, ErrNewerFormat)
	}
	if len(h.Digest) != len(s.digest) || len(h.AfterDigest) != len(s.digest) || h.Applied == nil || h.Merged.GetPosition() == nil ||
		h.Compacted == nil || h.Timeline == nil || h.AfterIndex > h.Applied.Index || h.AfterRevision > h.Revision {
		return nil, frames.damaged("header is incomplete or contradicts itself")
	}
	s.index, s.digest = ident.Index(h.AfterIndex), ident.Digest(h.AfterDigest)
	return s, nil
}

func (s *reader) close() { s.frames.close() }

// small returns the next small row, nil after the last.
func (s *reader) small() (*backend.RowChange, error) {
	more, err := s.frames.more(kindSmall)
	if err != nil || !more {
		return nil, err
	}
	table, err := s.frames.byte(kindSmall)
	if err != nil {
		return nil, err
	}
	row := &backend.RowChange{Table: backend.Table(table)}
	if row.Table < backend.TableLease || row.Table > backend.TableMeta || s.header.HistoryOnly {
		return nil, s.frames.damaged("row of table %d", table)
	}
	if row.Key, err = s.frames.sized(kindSmall); err != nil {
		return nil, err
	}
	if row.Value, err = s.frames.sized(kindSmall); err != nil {
		return nil, err
	}
	return row, nil
}

// base returns the next row of base, a nil key after the last. It is good until
// the next call.
func (s *reader) base() (key, kv []byte, err error) {
	more, err := s.frames.more(kindBase)
	if err != nil || !more {
		return nil, nil, err
	}
	if kv, err = s.frames.sized(kindBase); err != nil {
		return nil, nil, err
	}
	if key = keyOf(kv); key == nil || bytes.Compare(s.last, key) >= 0 || s.header.HistoryOnly {
		return nil, nil, s.frames.damaged("row %d of base is not one, or out of order", s.rows)
	}
	s.last = append(s.last[:0], key...)
	s.rows++
	return key, kv, nil
}

// keyOf returns the key that a KeyValue in wire form begins with, nil when it does not.
func keyOf(kv []byte) []byte {
	const keyField = 1<<3 | 2
	if len(kv) < 2 || kv[0] != keyField {
		return nil
	}
	length, n := binary.Uvarint(kv[1:])
	if n <= 0 || length == 0 || length > uint64(len(kv)-1-n) {
		return nil
	}
	return kv[1+n : 1+n+int(length) : 1+n+int(length)]
}

// record returns the next record, nil after the last. Its digests are verified,
// and that it follows the one before.
func (s *reader) record() (*history.Record, error) {
	if s.ended {
		return s.added()
	}
	more, err := s.frames.more(kindHistory)
	switch {
	case err != nil:
		return nil, err
	case !more && s.extension == nil:
		return nil, nil
	case !more:
		if err := s.end(); err != nil {
			return nil, err
		}
		return s.added()
	}
	b, err := s.frames.sized(kindHistory)
	if err != nil {
		return nil, err
	}
	rec, n, err := history.DecodeRecord(b)
	if err != nil {
		return nil, s.frames.damaged("record %d: %v", s.records, err)
	}
	if n != len(b) || rec.PrevIndex != s.index || rec.PrevDigest != s.digest || len(rec.Groups) == 0 || rec.Index > position(s.own).Index {
		return nil, s.frames.damaged("record of entry %d does not follow entry %d", rec.Index, s.index)
	}
	s.follow(rec)
	return rec, nil
}

func (s *reader) follow(rec *history.Record) {
	s.index, s.digest = rec.Index, rec.Groups[len(rec.Groups)-1].Digest
	s.records++
}

// end reads the last frame and what follows, and compares the totals.
func (s *reader) end() error {
	if s.ended {
		return nil
	}
	if more, err := s.frames.more(kindEnd); err != nil {
		return err
	} else if !more {
		return s.frames.damaged("%d bytes are left in a frame of kind %d", len(s.frames.plain), s.frames.kind)
	}
	before := s.frames.total - uint64(len(s.frames.plain))
	b, err := s.frames.whole(kindEnd)
	if err != nil {
		return err
	}
	end := &holdfastpb.SnapshotTrailer{}
	if err := end.UnmarshalVT(b); err != nil {
		return s.frames.damaged("end does not decode: %v", err)
	}
	if end.Rows != s.rows || end.Records != s.records || end.PayloadBytes != before {
		return s.frames.damaged("%d rows, %d records, %d bytes; it says %d, %d, %d",
			s.rows, s.records, before, end.Rows, end.Records, end.PayloadBytes)
	}
	if !s.header.HistoryOnly && !bytes.Equal(end.StateHash, s.hash[:]) {
		return s.frames.damaged("rows of base have hash %x, it says %x", s.hash[:], end.StateHash)
	}
	if !bytes.Equal(end.Digest, s.digest[:]) || !bytes.Equal(s.own.Digest, s.digest[:]) {
		return s.frames.damaged("digest is %s; header says %x, end says %x", s.digest, s.own.Digest, end.Digest)
	}
	s.ended = true
	return s.frames.finish(s.hashed)
}

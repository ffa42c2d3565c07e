package snapshot

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Extension is what comes after a snapshot: records, and where they lead.
type Extension struct {
	// To is the state that they lead to; Identity and Merged are of no interest.
	// Without a ConfState the configuration stays the base's.
	To   mvcc.State
	Next func() (*history.Record, error)          // By rising index; nil after the last.
	Tell func(h *holdfastpb.SnapshotHeader) error // The base's header, before anything is written. May be nil.
	// Proven says that whoever gives the base's bytes has compared all of them with
	// a SHA-256: the one at their end is then not computed a second time.
	Proven bool
}

// newExtended reads a snapshot as the one that it becomes with the records after
// it. Every byte that is read is verified.
//
// The small rows stay those of the base: records that follow bring them up to
// date when the result is restored. They do not tell Raft's configuration, which
// a restore replaces.
func newExtended(base io.Reader, x *Extension) (*reader, error) {
	s, err := newReader(base)
	if err != nil {
		return nil, err
	}
	if s.header.HistoryOnly {
		err = fmt.Errorf("snapshot has no base, it only continues one: %w", ErrHistoryOnly)
	} else if x.Tell != nil {
		err = x.Tell(s.own)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.extension = x
	if x.Proven {
		s.frames.sha = nil
	}
	h, to := proto.Clone(s.own).(*holdfastpb.SnapshotHeader), &x.To
	h.Applied, h.Term, h.EntryTime = wirePosition(to.Position), uint64(to.Term), to.Time
	h.Revision, h.Digest = int64(to.Revision), to.Digest[:]
	h.Compacted = &holdfastpb.Point{Revision: int64(to.Compacted)}
	if len(to.ConfState) > 0 {
		h.ConfState = to.ConfState
	}
	s.header = h
	return s, nil
}

// added returns the next record of the extension, nil after the last.
func (s *reader) added() (*history.Record, error) {
	if s.extension == nil {
		return nil, nil
	}
	rec, err := s.extension.Next()
	if err != nil {
		return nil, err
	}
	to := &s.extension.To
	if rec == nil {
		if s.digest != to.Digest || s.index > to.Position.Index {
			return nil, fmt.Errorf("records lead to entry %d with digest %s, position %s has %s: %w", s.index, s.digest, to.Position, to.Digest, ErrDamaged)
		}
		return nil, nil
	}
	if rec.PrevIndex != s.index || rec.PrevDigest != s.digest || rec.Index <= s.index {
		return nil, fmt.Errorf("record of entry %d follows entry %d with digest %s, the one before is %d with %s: %w",
			rec.Index, rec.PrevIndex, rec.PrevDigest, s.index, s.digest, ErrDamaged)
	}
	s.follow(rec)
	return rec, nil
}

// Extend reads a whole snapshot and writes the one that it becomes with the
// records after it. What was written means nothing unless Extend returns without
// an error.
func Extend(ctx context.Context, w io.Writer, base io.Reader, x Extension) (Totals, error) {
	in, err := newExtended(base, &x)
	if err != nil {
		return Totals{}, err
	}
	defer in.close()
	frames, err := newFrameWriter(w, true)
	if err != nil {
		return Totals{}, err
	}
	e := &extender{in: in, out: &writer{ctx: ctx, frames: frames}}
	err = e.run()
	e.out.totals.Bytes = frames.offset
	return e.out.totals, err
}

// extender copies a snapshot on its way to a longer one.
type extender struct {
	in  *reader
	out *writer
	raw []byte
}

func (e *extender) run() error {
	if err := e.out.message(kindHeader, e.in.header); err != nil {
		return err
	}
	for _, step := range []func() error{e.smallRows, e.baseRows, e.records} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := e.out.frames.flush(); err != nil {
		return err
	}
	t := e.out.totals
	end := &holdfastpb.SnapshotTrailer{
		Records: t.Records, Rows: t.Rows, PayloadBytes: e.out.frames.total, Digest: e.in.header.Digest, StateHash: e.in.hash[:],
	}
	if err := e.out.message(kindEnd, end); err != nil {
		return err
	}
	return e.out.frames.finish()
}

func (e *extender) smallRows() error {
	out := e.out.frames
	if err := out.begin(kindSmall); err != nil {
		return err
	}
	for {
		row, err := e.in.small()
		if err != nil || row == nil {
			return err
		}
		if err := out.add([]byte{byte(row.Table)}); err != nil {
			return err
		}
		if err := out.addSized(row.Key); err != nil {
			return err
		}
		if err := out.addSized(row.Value); err != nil {
			return err
		}
	}
}

func (e *extender) baseRows() error {
	if err := e.out.frames.begin(kindBase); err != nil {
		return err
	}
	for {
		key, kv, err := e.in.base()
		if err != nil || key == nil {
			return err
		}
		e.in.hash.AddRow(key, kv)
		if err := e.out.frames.addSized(kv); err != nil {
			return err
		}
		e.out.totals.Rows++
		if err := e.out.progress(); err != nil {
			return err
		}
	}
}

// records copies those of the base, then those that follow.
func (e *extender) records() error {
	if err := e.out.frames.begin(kindHistory); err != nil {
		return err
	}
	for {
		rec, err := e.in.record()
		if err != nil || rec == nil {
			return err
		}
		if e.raw, err = rec.AppendBinary(e.raw[:0]); err != nil {
			return fmt.Errorf("record of entry %d: %w", rec.Index, err)
		}
		if err := e.out.frames.addSized(e.raw); err != nil {
			return err
		}
		e.out.totals.Records++
		if err := e.out.progress(); err != nil {
			return err
		}
	}
}

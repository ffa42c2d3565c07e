package snapshot

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
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
}

// Extend reads a whole snapshot and writes the one that it becomes with the
// records after it. Every byte that is read is verified; what was written means
// nothing unless Extend returns without an error.
//
// The small rows stay those of the base: records that follow bring them up to
// date when the result is restored. They do not tell Raft's configuration, which
// a restore replaces.
func Extend(ctx context.Context, w io.Writer, base io.Reader, x Extension) (Totals, error) {
	in, err := newReader(base)
	if err != nil {
		return Totals{}, err
	}
	defer in.close()
	if in.header.HistoryOnly {
		return Totals{}, fmt.Errorf("snapshot has no base, it only continues one: %w", ErrHistoryOnly)
	}
	if x.Tell != nil {
		if err := x.Tell(in.header); err != nil {
			return Totals{}, err
		}
	}
	frames, err := newFrameWriter(w, true)
	if err != nil {
		return Totals{}, err
	}
	e := &extender{ctx: ctx, in: in, out: &writer{ctx: ctx, frames: frames}, x: x}
	err = e.run()
	e.out.totals.Bytes = frames.offset
	return e.out.totals, err
}

// extender copies a snapshot on its way to a longer one.
type extender struct {
	ctx  context.Context
	in   *reader
	out  *writer
	x    Extension
	hash backend.Sum
	raw  []byte
}

func (e *extender) run() error {
	header := proto.Clone(e.in.header).(*holdfastpb.SnapshotHeader)
	to := &e.x.To
	header.Applied, header.Term, header.EntryTime = wirePosition(to.Position), uint64(to.Term), to.Time
	header.Revision, header.Digest = int64(to.Revision), to.Digest[:]
	header.Compacted = &holdfastpb.Point{Revision: int64(to.Compacted)}
	if len(to.ConfState) > 0 {
		header.ConfState = to.ConfState
	}
	if err := e.out.message(kindHeader, header); err != nil {
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
	end := &holdfastpb.SnapshotTrailer{Records: t.Records, Rows: t.Rows, PayloadBytes: e.out.frames.total, Digest: header.Digest, StateHash: e.hash[:]}
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
		e.hash.AddRow(key, kv)
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
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		if err := e.add(rec); err != nil {
			return err
		}
	}
	index, digest := e.in.index, e.in.digest
	if err := e.in.end(e.hash); err != nil {
		return err
	}
	return e.more(index, digest)
}

// more adds the records that follow an index and its digest.
func (e *extender) more(index ident.Index, digest ident.Digest) error {
	for {
		rec, err := e.x.Next()
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		if rec.PrevIndex != index || rec.PrevDigest != digest || rec.Index <= index {
			return fmt.Errorf("record of entry %d follows entry %d with digest %s, the one before is %d with %s: %w",
				rec.Index, rec.PrevIndex, rec.PrevDigest, index, digest, ErrDamaged)
		}
		index, digest = rec.Index, rec.Groups[len(rec.Groups)-1].Digest
		if err := e.add(rec); err != nil {
			return err
		}
	}
	if digest != e.x.To.Digest || index > e.x.To.Position.Index {
		return fmt.Errorf("records lead to entry %d with digest %s, position %s has %s: %w",
			index, digest, e.x.To.Position, e.x.To.Digest, ErrDamaged)
	}
	return nil
}

func (e *extender) add(rec *history.Record) (err error) {
	if e.raw, err = rec.AppendBinary(e.raw[:0]); err != nil {
		return fmt.Errorf("record of entry %d: %w", rec.Index, err)
	}
	if err := e.out.frames.addSized(e.raw); err != nil {
		return err
	}
	e.out.totals.Records++
	return e.out.progress()
}

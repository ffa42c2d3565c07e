package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine"
)

// WriteOptions say what to write. Zero is a whole snapshot at full speed.
type WriteOptions struct {
	Member         ident.MemberID // Who writes it, for people.
	MadeUnixNano   int64          // When, for people.
	Have           []byte         // What the receiver said of itself (EncodeHave): it gets history only where that is enough.
	NoCompression  bool
	BytesPerSecond int64        // Of the stream; 0 means no limit. Needs Clock.
	Clock          clock.Clock  //
	Progress       func(Totals) // Now and then; nil means nobody listens.
	// GiveWay is called after each piece of content, and may wait there: others need
	// the processor and the disk. Nil: nobody does.
	GiveWay func(context.Context) error
}

// WriteTo writes a snapshot for a peer that has said where it stands.
func WriteTo(w io.Writer, f *mvcc.Frozen, have []byte) error {
	_, err := Write(context.Background(), w, f, WriteOptions{Have: have})
	return err
}

// Write writes a frozen state. It may be called more than once, also at the
// same time.
func Write(ctx context.Context, w io.Writer, f *mvcc.Frozen, o WriteOptions) (Totals, error) {
	frames, err := newFrameWriter(&pacedWriter{ctx: ctx, w: w, clock: o.Clock, rate: o.BytesPerSecond}, !o.NoCompression)
	if err != nil {
		return Totals{}, err
	}
	return writeFrames(ctx, frames, f, o)
}

// writeLocal writes a frozen state for a reader in this process, which reads
// without the SHA-256 at the end. Everything else that it verifies is there.
func writeLocal(ctx context.Context, w io.Writer, f *mvcc.Frozen) error {
	frames, err := newFrameWriter(w, false)
	if err != nil {
		return err
	}
	frames.sha = nil
	_, err = writeFrames(ctx, frames, f, WriteOptions{})
	return err
}

func writeFrames(ctx context.Context, frames *frameWriter, f *mvcc.Frozen, o WriteOptions) (Totals, error) {
	s := &writer{ctx: ctx, frames: frames, frozen: f, options: o}
	err := s.write()
	s.totals.Bytes = frames.offset
	return s.totals, err
}

type writer struct {
	ctx      context.Context
	frames   *frameWriter
	frozen   *mvcc.Frozen
	options  WriteOptions
	records  *history.Reader
	first    *history.Record // nil: there are none.
	totals   Totals
	reported int64
	piece    uint64 // Where the present one began.
}

func (s *writer) write() error {
	var err error
	if s.records, err = s.frozen.Reader(); err != nil {
		return fmt.Errorf("history of a snapshot: %w", err)
	}
	defer s.records.Close()
	if s.first, err = s.record(); err != nil {
		return err
	}
	joins, err := s.skipWhatIsThere()
	if err != nil {
		return err
	}
	header, err := s.header(joins)
	if err != nil {
		return err
	}
	steps := []func() error{s.smallRows, s.baseRows, s.historyRecords}
	if joins {
		steps = steps[2:]
	}
	if err := s.message(kindHeader, header); err != nil {
		return err
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	if err := s.frames.flush(); err != nil {
		return err
	}
	end := &holdfastpb.SnapshotTrailer{Records: s.totals.Records, Rows: s.totals.Rows, PayloadBytes: s.frames.total, Digest: header.Digest}
	if !joins {
		hash := s.frozen.Base.Meta().StateHash
		end.StateHash = hash[:]
	}
	if err := s.message(kindEnd, end); err != nil {
		return err
	}
	return s.frames.finish()
}

// record returns the next record of the frozen state, nil after the last.
func (s *writer) record() (*history.Record, error) {
	rec, err := s.records.Next()
	if errors.Is(err, io.EOF) || err == nil && rec.Index > s.frozen.End().Index {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("history of a snapshot: %w", err)
	}
	return rec, nil
}

// skipWhatIsThere moves to the first record that the receiver lacks, and
// reports whether history alone brings it here: its index is not below the one
// before the first record, and the digests there are equal (rule 24).
func (s *writer) skipWhatIsThere() (bool, error) {
	h, ok := decodeHave(s.options.Have)
	st := &s.frozen.State
	if !ok || h.cluster != st.Cluster || h.timeline != st.Timeline || h.index > st.Position.Index ||
		s.first != nil && h.index < s.first.PrevIndex || s.first == nil && h.digest != st.Digest {
		return false, nil
	}
	begin, digest := s.first, st.Digest
	for rec := s.first; rec != nil; {
		if rec.Index > h.index {
			digest = rec.PrevDigest
			s.first = rec
			break
		}
		var err error
		if rec, err = s.record(); err != nil {
			return false, err
		}
		s.first = rec
	}
	if digest == h.digest {
		return true, nil
	}
	// Another history: everything has to be sent, from the first record again.
	s.first = begin
	if begin == nil {
		return false, nil
	}
	s.records.Close()
	var err error
	if s.records, err = s.frozen.Reader(); err != nil {
		return false, err
	}
	s.first, err = s.record()
	return false, err
}

func (s *writer) header(joins bool) (*holdfastpb.SnapshotHeader, error) {
	st, base := &s.frozen.State, s.frozen.Base.Meta()
	h := &holdfastpb.SnapshotHeader{
		Format:        FormatVersion,
		ClusterId:     uint64(st.Cluster),
		Timeline:      &holdfastpb.TimelineInfo{Number: uint64(st.Timeline)},
		MemberId:      uint64(s.options.Member),
		MadeUnixNano:  s.options.MadeUnixNano,
		Applied:       wirePosition(st.Position),
		Term:          uint64(st.Term),
		EntryTime:     st.Time,
		Revision:      int64(st.Revision),
		Compacted:     &holdfastpb.Point{Revision: int64(st.Compacted)},
		Merged:        &holdfastpb.Point{Position: wirePosition(base.Merged.Position), Revision: int64(base.Merged.Revision)},
		Digest:        st.Digest[:],
		ConfState:     st.ConfState,
		HistoryOnly:   joins,
		AfterIndex:    uint64(s.frozen.End().Index),
		AfterDigest:   st.Digest[:],
		AfterRevision: int64(st.Revision),
	}
	if s.first != nil {
		h.AfterIndex, h.AfterDigest = uint64(s.first.PrevIndex), s.first.PrevDigest[:]
		if rev := firstRevision(s.first); rev != 0 {
			h.AfterRevision = int64(rev) - 1
		}
	}
	err := s.frozen.Rows(func(table backend.Table, key, value []byte) error {
		if table != backend.TableMeta || !bytes.Equal(key, statemachine.ClusterKey) {
			return nil
		}
		c := &holdfastpb.Cluster{}
		if err := c.UnmarshalVT(value); err != nil {
			return fmt.Errorf("cluster row: %w", err)
		}
		h.Uuid = c.Uuid
		if c.Timeline.GetNumber() == h.Timeline.Number {
			h.Timeline = c.Timeline
		}
		return nil
	})
	return h, err
}

func wirePosition(p ident.Position) *holdfastpb.Position {
	return &holdfastpb.Position{Index: uint64(p.Index), Group: p.Group}
}

type message interface{ MarshalVT() ([]byte, error) }

// message writes the one frame of a kind.
func (s *writer) message(kind byte, m message) error {
	b, err := m.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if len(b) > headerBytesMax {
		return fmt.Errorf("snapshot header of %d bytes, at most %d: %w", len(b), headerBytesMax, ErrInvalid)
	}
	if err := s.frames.begin(kind); err != nil {
		return err
	}
	return s.frames.add(b)
}

func (s *writer) smallRows() error {
	if err := s.frames.begin(kindSmall); err != nil {
		return err
	}
	return s.frozen.Rows(func(table backend.Table, key, value []byte) error {
		if err := s.frames.add([]byte{byte(table)}); err != nil {
			return err
		}
		if err := s.frames.addSized(key); err != nil {
			return err
		}
		return s.frames.addSized(value)
	})
}

func (s *writer) baseRows() error {
	if err := s.frames.begin(kindBase); err != nil {
		return err
	}
	c := s.frozen.Base.Cursor()
	key, kv, err := c.Seek(nil)
	for ; err == nil && key != nil; key, kv, err = c.Next() {
		if err := s.frames.addSized(kv); err != nil {
			return err
		}
		s.totals.Rows++
		if err := s.progress(); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("base of a snapshot: %w", err)
	}
	if want := s.frozen.Base.Meta().Rows; int64(s.totals.Rows) != want {
		return fmt.Errorf("base of a snapshot has %d rows, says %d: %w", s.totals.Rows, want, backend.ErrDamaged)
	}
	return nil
}

func (s *writer) historyRecords() error {
	if err := s.frames.begin(kindHistory); err != nil {
		return err
	}
	var b []byte
	for rec := s.first; rec != nil; {
		var err error
		if b, err = rec.AppendBinary(b[:0]); err != nil {
			return fmt.Errorf("record of entry %d: %w", rec.Index, err)
		}
		if err := s.frames.addSized(b); err != nil {
			return err
		}
		s.totals.Records++
		if err := s.progress(); err != nil {
			return err
		}
		if rec, err = s.record(); err != nil {
			return err
		}
	}
	return nil
}

func (s *writer) progress() error {
	if total := s.frames.total; s.options.GiveWay != nil && total-s.piece >= pieceBytes {
		s.piece = total
		if err := s.options.GiveWay(s.ctx); err != nil {
			return err
		}
	}
	if s.frames.offset-s.reported < progressBytes {
		return nil
	}
	s.reported = s.frames.offset
	s.totals.Bytes = s.frames.offset
	if s.options.Progress != nil {
		s.options.Progress(s.totals)
	}
	return s.ctx.Err()
}

// pacedWriter holds a rate.
type pacedWriter struct {
	ctx   context.Context
	w     io.Writer
	clock clock.Clock
	rate  int64
	begin time.Duration
	bytes int64
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	if p.rate <= 0 {
		return p.w.Write(b)
	}
	now := p.clock.Mono()
	if p.bytes == 0 {
		p.begin = now
	}
	due := p.begin + time.Duration(float64(p.bytes)/float64(p.rate)*float64(time.Second))
	if wait := due - now; wait > 0 {
		select {
		case <-p.clock.After(wait):
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		}
	}
	p.bytes += int64(len(b))
	return p.w.Write(b)
}

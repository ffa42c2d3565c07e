package archive

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// segment is a piece of the log under way, or taken apart: the state before it,
// records, and the state after them.
type segment struct {
	after   Point
	end     Point
	records int
	plain   []byte // Records, as history.Record.AppendBinary makes them.
}

// begin makes it an empty one after a point.
func (s *segment) begin(after Point) {
	s.after, s.end, s.records, s.plain = after, after, 0, s.plain[:0]
}

// add appends a record that must follow.
func (s *segment) add(rec *history.Record) error {
	end, err := advance(s.end, rec)
	if err != nil {
		return err
	}
	if s.plain, err = rec.AppendBinary(s.plain); err != nil {
		return fmt.Errorf("record of entry %d: %w", rec.Index, err)
	}
	s.end = end
	s.records++
	return nil
}

// advance returns the state after a record, given the one before.
func advance(before Point, rec *history.Record) (Point, error) {
	if rec.PrevIndex != before.Index || rec.Index <= before.Index || len(rec.Groups) == 0 {
		return before, fmt.Errorf("record of entry %d follows entry %d, not %d: %w", rec.Index, rec.PrevIndex, before.Index, ErrGap)
	}
	if Digest(rec.PrevDigest) != before.Digest {
		return before, fmt.Errorf("record of entry %d follows digest %s, entry %d has %s: %w", rec.Index, rec.PrevDigest, before.Index, before.Digest, ErrDisagree)
	}
	last := &rec.Groups[len(rec.Groups)-1]
	after := Point{
		Index: rec.Index, Group: last.Ordinal, Term: rec.Term, Time: rec.Time,
		Revision: before.Revision, Compacted: before.Compacted, Digest: Digest(last.Digest),
	}
	for i := range rec.Groups {
		if rev := rec.Groups[i].Revision; rev != 0 {
			if rev != after.Revision+1 {
				return before, fmt.Errorf("record of entry %d makes revision %d after %d: %w", rec.Index, rev, after.Revision, ErrGap)
			}
			after.Revision = rev
		}
		for j := range rec.Groups[i].Mutations {
			m := &rec.Groups[i].Mutations[j]
			if m.Kind == history.Compact && len(m.Value) == 8 {
				after.Compacted = max(after.Compacted, ident.Revision(binary.BigEndian.Uint64(m.Value)))
			}
		}
	}
	return after, nil
}

// cut returns a record that ends with a group, or nil when nothing of it is left.
func cut(rec *history.Record, group uint32) *history.Record {
	n := 0
	for n < len(rec.Groups) && rec.Groups[n].Ordinal <= group {
		n++
	}
	if n == 0 {
		return nil
	}
	short := *rec
	short.Groups = rec.Groups[:n:n]
	return &short
}

// place says where a segment belongs.
type place struct {
	cluster  UUID
	timeline ident.Timeline
}

// seal makes the object of a segment and its name within the timeline.
func (s *segment) seal(at place, sealer *sealer) (name string, data []byte, err error) {
	name = segmentName{First: s.after.Index + 1, Last: s.end.Index, Digest: s.end.Digest}.String()
	data, err = sealer.seal(head{
		Kind: kindLog, Cluster: at.cluster, Timeline: uint64(at.timeline),
		Log: &logHead{After: s.after, End: s.end, Records: s.records},
	}, s.plain)
	if err != nil {
		return "", nil, fmt.Errorf("segment of entries %d to %d: %w", s.after.Index+1, s.end.Index, err)
	}
	return name, data, nil
}

// openSegment verifies the object of a name to the last digest: its bytes, that
// it belongs where it lies, and that its records lead from one end to the other.
// Without a key its records are not seen, only what its head says of them: then
// the error is ErrNoKey.
func openSegment(o *opener, at place, name string, id segmentName, data []byte) (*segment, error) {
	h, plain, _, err := o.open(name, data)
	if err != nil && !errors.Is(err, ErrNoKey) {
		return nil, err
	}
	if h.Log == nil || h.Cluster != at.cluster || h.Timeline != uint64(at.timeline) {
		return nil, fmt.Errorf("object %s is a %s of cluster %s, timeline %d: %w", name, h.Kind, h.Cluster, h.Timeline, ErrForeign)
	}
	s := &segment{after: h.Log.After, end: h.Log.End, records: h.Log.Records, plain: plain}
	if s.after.Index+1 != id.First || s.end.Index != id.Last || s.end.Digest != id.Digest {
		return nil, fmt.Errorf("object %s holds entries %d to %d with digest %s: %w", name, s.after.Index+1, s.end.Index, s.end.Digest, ErrForeign)
	}
	if err != nil {
		return s, err
	}
	reached, n := s.after, 0
	err = s.each(name, func(rec *history.Record) error {
		next, err := advance(reached, rec)
		reached = next
		n++
		return err
	})
	if err != nil {
		return nil, err
	}
	if reached != s.end || n != s.records {
		return nil, damagef(name, fixedHeadBytes, "%d records lead to %s, its head says %d to %s", n, reached, s.records, s.end)
	}
	return s, nil
}

// each calls fn for each record. Digests within the records are verified.
func (s *segment) each(name string, fn func(*history.Record) error) error {
	rest := s.plain
	for len(rest) > 0 {
		rec, n, err := history.DecodeRecord(rest)
		if err != nil {
			return damagef(name, fixedHeadBytes, "record at byte %d of its content: %v", len(s.plain)-len(rest), err)
		}
		if err := fn(rec); err != nil {
			return fmt.Errorf("object %s: %w", name, err)
		}
		rest = rest[n:]
	}
	return nil
}

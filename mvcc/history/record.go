package history

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Kind says what a mutation did. The numbers are part of the format.
type Kind uint8

const (
	KeyPut    Kind = 1 // Value is the row as mvccpb.KeyValue in wire form; it begins with Key.
	KeyDelete Kind = 2
	RowPut    Kind = 3
	RowDelete Kind = 4
	Compact   Kind = 5 // Value is the compaction revision, 8 bytes, big-endian.
)

// Table names the kind of a small row. The numbers are part of the format, and
// the same as those of package backend.
type Table uint8

const (
	TableLease  Table = 1
	TableUser   Table = 2
	TableRole   Table = 3
	TableMember Table = 4
	TableAlarm  Table = 5
	TableMeta   Table = 6
)

// Mutation is the change of one logical row.
type Mutation struct {
	Kind  Kind
	Table Table // Of rows only.
	Key   []byte
	Value []byte
	Loc   Loc // Where Value lies, for KeyPut. Append fills it.
}

// Group is what one request of an entry changed.
type Group struct {
	Ordinal   uint32         // The request within its entry.
	Revision  ident.Revision // Zero when the request made none.
	Mutations []Mutation
	Digest    ident.Digest // After this group. Append fills it.
}

// Record is what one entry of the Raft log changed.
type Record struct {
	Index      ident.Index
	Term       ident.Term
	Time       int64 // Nanoseconds; grows from entry to entry.
	PrevIndex  ident.Index
	PrevDigest ident.Digest // Append fills both; together they make a gap visible.
	Groups     []Group
}

// Loc is where the value of a put lies.
type Loc struct {
	Segment uint64
	Offset  uint32
	Length  uint32
}

// Mark is a position between two records, and what is known there.
type Mark struct {
	Segment  uint64
	Offset   int64
	Index    ident.Index
	Term     ident.Term
	Digest   ident.Digest
	Revision ident.Revision
}

// AppendBinary appends the record in the form in which it travels: as in a
// segment, but belonging to no place. Digests are taken as they stand.
func (r *Record) AppendBinary(dst []byte) ([]byte, error) {
	if _, err := recordSize(r); err != nil {
		return dst, err
	}
	moved := *r
	moved.Groups = slices.Clone(r.Groups)
	for i := range moved.Groups {
		moved.Groups[i].Mutations = slices.Clone(r.Groups[i].Mutations) // Encoding sets Loc.
	}
	return appendRecord(dst, &moved, Loc{}, 0, false), nil
}

// DecodeRecord reads a record that AppendBinary wrote from the front of data,
// and tells how many bytes it takes. Keys and values share the memory of data.
// The places of its values mean nothing.
func DecodeRecord(data []byte) (*Record, int, error) {
	rec := new(Record)
	n, err := decodeRecord(data, rec, Loc{}, 0)
	if err != nil {
		return nil, 0, err
	}
	if err := verifyDigests(data[:n], rec, new(Group)); err != nil {
		return nil, 0, err
	}
	return rec, n, nil
}

// last returns the state after the record, given that before it.
func (r *Record) last(before Mark, bytes int) Mark {
	after := before
	after.Offset += int64(bytes)
	after.Index, after.Term = r.Index, r.Term
	for i := range r.Groups {
		if r.Groups[i].Revision > 0 {
			after.Revision = r.Groups[i].Revision
		}
	}
	after.Digest = r.Groups[len(r.Groups)-1].Digest
	return after
}

// follows checks that a record may come after a mark.
func (r *Record) follows(before Mark) error {
	if r.Index <= before.Index {
		return fmt.Errorf("entry %d after %d: %w", r.Index, before.Index, ErrInvalid)
	}
	revision := before.Revision
	for i := range r.Groups {
		if next := r.Groups[i].Revision; next > 0 {
			if next <= revision {
				return fmt.Errorf("entry %d: revision %d after %d: %w", r.Index, next, revision, ErrInvalid)
			}
			revision = next
		}
	}
	return nil
}

// MarkBytes is the length of a Mark in binary form.
const MarkBytes = 5*8 + len(ident.Digest{})

// AppendBinary appends the mark, little-endian, in the order of its fields. It
// has no checksum: whoever stores it has one.
func (m Mark) AppendBinary(dst []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint64(dst, m.Segment)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Offset))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Index))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Term))
	dst = append(dst, m.Digest[:]...)
	return binary.LittleEndian.AppendUint64(dst, uint64(m.Revision)), nil
}

// DecodeMark reads what AppendBinary wrote.
func DecodeMark(data []byte) (Mark, error) {
	if len(data) != MarkBytes {
		return Mark{}, malformed("a mark of %d bytes", len(data))
	}
	return Mark{
		Segment:  binary.LittleEndian.Uint64(data),
		Offset:   int64(binary.LittleEndian.Uint64(data[8:])),
		Index:    ident.Index(binary.LittleEndian.Uint64(data[16:])),
		Term:     ident.Term(binary.LittleEndian.Uint64(data[24:])),
		Digest:   ident.Digest(data[32:48]),
		Revision: ident.Revision(binary.LittleEndian.Uint64(data[48:])),
	}, nil
}

func (m Mark) String() string {
	return fmt.Sprintf("entry %d, revision %d, digest %v, segment %d at %d", m.Index, m.Revision, m.Digest, m.Segment, m.Offset)
}

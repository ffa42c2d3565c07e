package backend

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// The file is a bbolt file (its format version 2) with five buckets.
//
//	bucket     key                      payload
//	keys       user key                 mvccpb.KeyValue, user keys up to 1 KiB
//	leasekeys  lease (8, BE) | key      nothing
//	longkeys   ordinal (8, BE)          length of key (4, LE) | key | mvccpb.KeyValue
//	meta       "meta"                   see appendMeta
//	rows       table (1) | key          small row
//
// Each value in bbolt is the payload followed by a checksum:
//
//	+---------+--------+
//	| payload | crc32c |   little-endian
//	+---------+--------+
//
// The checksum covers key and payload, and starts from the number of the
// bucket and the length of the key, so that a row is valid in one place only.
// See docs/format/base.md.
const formatVersion = 1

const checksumBytes = 4

// A section is one bucket. The number enters the checksum of its rows and is
// part of the format.
type section struct {
	name   []byte
	number uint32
}

var (
	sectionKeys      = section{[]byte("keys"), 1}
	sectionLeaseKeys = section{[]byte("leasekeys"), 2}
	sectionLongKeys  = section{[]byte("longkeys"), 3}
	sectionMeta      = section{[]byte("meta"), 4}
	sectionRows      = section{[]byte("rows"), 5}

	sections = []section{sectionKeys, sectionLeaseKeys, sectionLongKeys, sectionMeta, sectionRows}

	metaKey = []byte("meta")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Table names the kind of a small row. The numbers are part of the format, and
// the same as those of package history.
type Table uint8

// The tables of small rows.
const (
	TableLease  Table = 1
	TableUser   Table = 2
	TableRole   Table = 3
	TableMember Table = 4
	TableAlarm  Table = 5
	TableMeta   Table = 6
)

// Point is a position and the revision that it made or followed.
type Point struct {
	Position ident.Position
	Revision ident.Revision
}

// Sum is an additive hash of a set of rows: each of the four lanes of 64 bits
// is the sum of that lane of the SHA-256 of each row. It does not depend on
// order or on the form of the file.
type Sum [32]byte

// add joins a row to the set, sub takes it out.
func (s *Sum) add(row Sum) {
	for i := 0; i < len(s); i += 8 {
		binary.LittleEndian.PutUint64(s[i:], binary.LittleEndian.Uint64(s[i:])+binary.LittleEndian.Uint64(row[i:]))
	}
}

func (s *Sum) sub(row Sum) {
	for i := 0; i < len(s); i += 8 {
		binary.LittleEndian.PutUint64(s[i:], binary.LittleEndian.Uint64(s[i:])-binary.LittleEndian.Uint64(row[i:]))
	}
}

// hashRow hashes one logical row. The buffer is scratch, returned for reuse.
func hashRow(buf, key, payload []byte) (Sum, []byte) {
	buf = binary.BigEndian.AppendUint32(buf[:0], uint32(len(key)))
	buf = append(buf, key...)
	buf = append(buf, payload...)
	return sha256.Sum256(buf), buf
}

// Meta says what state the file holds. Base rows are as of Merged, small rows
// and everything else as of Applied.
type Meta struct {
	Format    uint32
	Applied   ident.Position
	Term      ident.Term
	Time      int64 // Of the last applied entry, nanoseconds since 1970.
	Digest    ident.Digest
	Revision  ident.Revision
	Compacted Point

	HistoryMark []byte // Where durable history ends; package history knows how to read it.
	ConfState   []byte // The Raft configuration, in force at Applied (rule 18).
	Cluster     ident.ClusterID
	Timeline    ident.Timeline

	Merged      Point
	Rows        int64  // Logical rows, long keys included.
	StateHash   Sum    // Over those rows (rule 9).
	LongOrdinal uint64 // The newest ordinal given to a long key.
}

// metaRow is the whole row of bucket meta: what the owner says, and what this
// package needs to notice damage that hides rows.
type metaRow struct {
	Meta
	txID      uint64 // Counts commits, over defragmentations too: bbolt's own number starts again in a new file.
	smallRows int64
	smallHash Sum
	leaseRows int64
	leaseHash Sum
	firstKey  []byte // The ends of bucket keys: a damaged root would show others.
	lastKey   []byte
}

const metaFixedBytes = 4 + 8 + positionBytes + 8 + 8 + 16 + 8 + 2*pointBytes + 8 + 8 + 8 + 32 + 8 + 8 + 32 + 8 + 32

const (
	positionBytes = 8 + 4
	pointBytes    = positionBytes + 8
)

// appendMeta encodes the row: fixed fields, then four with their length.
func appendMeta(b []byte, m *metaRow) []byte {
	b = binary.LittleEndian.AppendUint32(b, m.Format)
	b = binary.LittleEndian.AppendUint64(b, m.txID)
	b = appendPosition(b, m.Applied)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Term))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Time))
	b = append(b, m.Digest[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Revision))
	b = appendPoint(b, m.Compacted)
	b = appendPoint(b, m.Merged)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Cluster))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Timeline))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Rows))
	b = append(b, m.StateHash[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.LongOrdinal)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.smallRows))
	b = append(b, m.smallHash[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.leaseRows))
	b = append(b, m.leaseHash[:]...)
	for _, field := range [][]byte{m.HistoryMark, m.ConfState, m.firstKey, m.lastKey} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

func appendPosition(b []byte, p ident.Position) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Index))
	return binary.LittleEndian.AppendUint32(b, p.Group)
}

func appendPoint(b []byte, p Point) []byte {
	return binary.LittleEndian.AppendUint64(appendPosition(b, p.Position), uint64(p.Revision))
}

// decodeMeta reads what appendMeta wrote. A newer format is refused by name
// before anything else is read: only its place and the checksum are fixed.
func decodeMeta(b []byte) (*metaRow, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("meta row of %d bytes", len(b))
	}
	format := binary.LittleEndian.Uint32(b)
	if format > formatVersion {
		return nil, fmt.Errorf("format %d, this version reads up to %d: %w", format, formatVersion, ErrNewerFormat)
	}
	if format != formatVersion || len(b) < metaFixedBytes {
		return nil, fmt.Errorf("meta row of format %d and %d bytes", format, len(b))
	}
	r := fieldReader{rest: b[4:]}
	m := &metaRow{Meta: Meta{Format: format}}
	m.txID = r.u64()
	m.Applied = r.position()
	m.Term = ident.Term(r.u64())
	m.Time = int64(r.u64())
	r.copy(m.Digest[:])
	m.Revision = ident.Revision(r.u64())
	m.Compacted = r.point()
	m.Merged = r.point()
	m.Cluster = ident.ClusterID(r.u64())
	m.Timeline = ident.Timeline(r.u64())
	m.Rows = int64(r.u64())
	r.copy(m.StateHash[:])
	m.LongOrdinal = r.u64()
	m.smallRows = int64(r.u64())
	r.copy(m.smallHash[:])
	m.leaseRows = int64(r.u64())
	r.copy(m.leaseHash[:])
	for _, field := range []*[]byte{&m.HistoryMark, &m.ConfState, &m.firstKey, &m.lastKey} {
		*field = r.bytes()
	}
	if r.short || len(r.rest) != 0 {
		return nil, fmt.Errorf("meta row of %d bytes does not add up", len(b))
	}
	return m, nil
}

// fieldReader takes fields off the front of a row and remembers when it ran
// out.
type fieldReader struct {
	rest  []byte
	short bool
}

func (r *fieldReader) take(n int) []byte {
	if n > len(r.rest) {
		r.short, r.rest = true, nil
		return make([]byte, min(n, 8))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *fieldReader) u32() uint32     { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *fieldReader) u64() uint64     { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *fieldReader) copy(dst []byte) { copy(dst, r.take(len(dst))) }

func (r *fieldReader) position() ident.Position {
	return ident.Position{Index: ident.Index(r.u64()), Group: r.u32()}
}

func (r *fieldReader) point() Point {
	return Point{Position: r.position(), Revision: ident.Revision(r.u64())}
}

func (r *fieldReader) bytes() []byte {
	n := int(r.u32())
	if n == 0 || n > len(r.rest) {
		r.short = r.short || n > 0
		return nil
	}
	return bytes.Clone(r.take(n))
}

// checksum covers a row. The parts lie next to each other in a page, so that
// reading passes them as one.
func checksum(s section, keyLen int, parts ...[]byte) uint32 {
	crc := s.number<<24 ^ uint32(keyLen)
	for _, p := range parts {
		crc = crc32.Update(crc, castagnoli, p)
	}
	return crc
}

// appendRow appends the value bbolt keeps for a row.
func appendRow(b []byte, s section, key, payload []byte) []byte {
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, checksum(s, len(key), key, payload))
}

// splitRow checks a row as it lies in a page, key and value as one piece of
// memory, and returns its two parts.
func splitRow(s section, row []byte, keyLen int) (key, payload []byte, ok bool) {
	end := len(row) - checksumBytes
	if keyLen > end {
		return nil, nil, false
	}
	if checksum(s, keyLen, row[:end]) != binary.LittleEndian.Uint32(row[end:]) {
		return nil, nil, false
	}
	return row[:keyLen:keyLen], row[keyLen:end:end], true
}

// appendLong encodes the payload of bucket longkeys.
func appendLong(b, key, kv []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
	b = append(b, key...)
	return append(b, kv...)
}

// splitLong takes it apart again.
func splitLong(payload []byte) (key, kv []byte, ok bool) {
	if len(payload) < 4 {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(payload)
	if uint64(n) > uint64(len(payload)-4) {
		return nil, nil, false
	}
	return payload[4 : 4+n : 4+n], payload[4+n:], true
}

func ordinalKey(ordinal uint64) []byte { return binary.BigEndian.AppendUint64(nil, ordinal) }

func leaseKey(id ident.LeaseID, key []byte) []byte {
	b := make([]byte, 0, 8+len(key))
	return append(binary.BigEndian.AppendUint64(b, uint64(id)), key...)
}

// kvLeaseField is the number of the field lease in mvccpb.KeyValue.
const kvLeaseField = 6

// leaseOf reads the lease from a KeyValue in wire form, without decoding the
// rest. The last one counts, as in any protobuf reader.
func leaseOf(kv []byte) (ident.LeaseID, error) {
	var lease ident.LeaseID
	for rest := kv; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return 0, fmt.Errorf("field of KeyValue: %w", ErrBadRow)
		}
		rest = rest[n:]
		if number == kvLeaseField && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(rest)
			if n < 0 {
				return 0, fmt.Errorf("lease of KeyValue: %w", ErrBadRow)
			}
			lease, rest = ident.LeaseID(v), rest[n:]
			continue
		}
		n = protowire.ConsumeFieldValue(number, kind, rest)
		if n < 0 {
			return 0, fmt.Errorf("field %d of KeyValue: %w", number, ErrBadRow)
		}
		rest = rest[n:]
	}
	return lease, nil
}

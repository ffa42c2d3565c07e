package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// A segment is a header and records, without gaps, little-endian.
//
//	0        8         12     16   24      32     40         48       64         72
//	+--------+---------+------+----+-------+------+----------+--------+----------+
//	| magic  | version | crc  | id | index | term | revision | digest | previous |
//	+--------+---------+------+----+-------+------+----------+--------+----------+
//
// Index to digest are the state that the segment begins at. Previous is how
// many bytes the segment before has, so that a shortened one is noticed. The
// crc covers everything after itself.
//
//	0        4     8        16       20      24      32     40     48          64
//	+--------+-----+--------+--------+-------+-------+------+------+-----------+--------+
//	| length | crc | previous index  | flags | index | term | time | previous  | groups |
//	|        |     |        | groups |       |       |      |      | digest    |        |
//	+--------+-----+--------+--------+-------+-------+------+------+-----------+--------+
//
// Length is of the whole record. The crc covers everything after itself and is
// seeded with segment and offset, so that a record in the wrong place is not
// taken for one. Flags are zero.
//
//	group:    ordinal, revision, count (uvarints), mutations, digest (16)
//	mutation: kind (1), then for
//	          KeyPut     uvarint length, value, crc of value (4)
//	          KeyDelete  uvarint length, key
//	          RowPut     table (1), uvarint length, key, uvarint length, value
//	          RowDelete  table (1), uvarint length, key
//	          Compact    revision (8, big-endian)
//
// The key of a KeyPut is not stored again: its value begins with it.
//
// The digest after a group is the first half of SHA-256 over the bytes from
// the previous digest to the end of the group; for the first group of a record
// those begin at the index, so that index, term and time are in it too. All of
// these bytes are the same on every member.
const (
	segmentMagic       = "HFSEGMNT"
	formatVersion      = 1
	segmentHeaderBytes = 72
	recordHeaderBytes  = 64
	digestFrom         = 24 // Of a record: where the digest of its first group begins.

	groupBytesMin  = 3 + len(ident.Digest{})
	recordBytesMin = recordHeaderBytes + groupBytesMin
	valueCRCBytes  = 4
	compactBytes   = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(seed uint32, data []byte) uint32 { return crc32.Update(seed, castagnoli, data) }

// segmentSeed is what the checksums of a segment's records begin with; the
// offset of the record is added to it.
func segmentSeed(id uint64) uint32 {
	return checksum(0, binary.LittleEndian.AppendUint64(nil, id))
}

// segmentHeader is the beginning of a segment file.
type segmentHeader struct {
	start    Mark // Offset is that of the first record.
	previous int64
}

func (h segmentHeader) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, segmentMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, formatVersion)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.start.Segment)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.start.Index))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.start.Term))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.start.Revision))
	dst = append(dst, h.start.Digest[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.previous))
	binary.LittleEndian.PutUint32(dst[at+12:], checksum(0, dst[at+16:]))
	return dst
}

// checkHeader checks version and checksum of a header, which have one place in
// segments and key indexes. A file is only taken for that of a newer program if
// its checksum is not that of this version: newer versions begin theirs with
// their number. So a flipped bit of the version is damage, which the member
// mends, and not a reason to refuse to start.
func checkHeader(header []byte, known uint32) error {
	version, fits := binary.LittleEndian.Uint32(header[8:]), checksum(0, header[16:]) == binary.LittleEndian.Uint32(header[12:])
	switch {
	case version > known && !fits:
		return fmt.Errorf("has version %d, this program knows %d: %w", version, known, ErrVersion)
	case version != known:
		return malformed("version %d of its header", version)
	case !fits:
		return malformed("checksum of its header")
	}
	return nil
}

func decodeSegmentHeader(data []byte) (segmentHeader, error) {
	var h segmentHeader
	if len(data) < segmentHeaderBytes || string(data[:8]) != segmentMagic {
		return h, malformed("no segment header")
	}
	if err := checkHeader(data[:segmentHeaderBytes], formatVersion); err != nil {
		return h, fmt.Errorf("segment %w", err)
	}
	h.start = Mark{
		Segment:  binary.LittleEndian.Uint64(data[16:]),
		Offset:   segmentHeaderBytes,
		Index:    ident.Index(binary.LittleEndian.Uint64(data[24:])),
		Term:     ident.Term(binary.LittleEndian.Uint64(data[32:])),
		Revision: ident.Revision(binary.LittleEndian.Uint64(data[40:])),
		Digest:   ident.Digest(data[48:64]),
	}
	h.previous = int64(binary.LittleEndian.Uint64(data[64:]))
	return h, nil
}

// recordSize checks a record as far as it concerns itself alone, and tells how
// many bytes it takes.
func recordSize(rec *Record) (int, error) {
	if len(rec.Groups) == 0 {
		return 0, fmt.Errorf("entry %d: no groups: %w", rec.Index, ErrInvalid)
	}
	size := recordHeaderBytes
	for i := range rec.Groups {
		g := &rec.Groups[i]
		if i > 0 && g.Ordinal <= rec.Groups[i-1].Ordinal {
			return 0, fmt.Errorf("entry %d: group %d after %d: %w", rec.Index, g.Ordinal, rec.Groups[i-1].Ordinal, ErrInvalid)
		}
		if g.Revision < 0 {
			return 0, fmt.Errorf("entry %d: revision %d: %w", rec.Index, g.Revision, ErrInvalid)
		}
		size += uvarintBytes(uint64(g.Ordinal)) + uvarintBytes(uint64(g.Revision)) +
			uvarintBytes(uint64(len(g.Mutations))) + len(g.Digest)
		for j := range g.Mutations {
			n := mutationSize(&g.Mutations[j], g.Revision)
			if n == 0 {
				return 0, fmt.Errorf("entry %d: group %d: mutation %d of kind %d: %w",
					rec.Index, g.Ordinal, j, g.Mutations[j].Kind, ErrInvalid)
			}
			size += n
		}
		if size > RecordBytesMax {
			return 0, fmt.Errorf("entry %d: more than %d bytes: %w", rec.Index, int64(RecordBytesMax), ErrTooLarge)
		}
	}
	return size, nil
}

// mutationSize returns 0 for what may not be written.
func mutationSize(m *Mutation, revision ident.Revision) int {
	switch m.Kind {
	case KeyPut:
		key, ok := rowKey(m.Value)
		if !ok || revision == 0 || !bytes.Equal(key, m.Key) {
			return 0
		}
		return 1 + sizedBytes(m.Value) + valueCRCBytes
	case KeyDelete:
		if len(m.Key) == 0 || revision == 0 {
			return 0
		}
		return 1 + sizedBytes(m.Key)
	case RowPut:
		return 2 + sizedBytes(m.Key) + sizedBytes(m.Value)
	case RowDelete:
		return 2 + sizedBytes(m.Key)
	case Compact:
		if len(m.Value) != compactBytes {
			return 0
		}
		return 1 + compactBytes
	}
	return 0
}

// appendRecord encodes a record that recordSize has passed, and fills in where
// its values lie. With digests it also computes those, from PrevDigest on.
func appendRecord(dst []byte, rec *Record, place Loc, seed uint32, digests bool) []byte {
	at := len(dst)
	base := place.Offset - uint32(at) // Offset in the segment of dst[0]; wraps back when used.
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(rec.PrevIndex))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(rec.Groups)))
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(rec.Index))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(rec.Term))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(rec.Time))
	dst = append(dst, rec.PrevDigest[:]...)
	from := at + digestFrom
	for i := range rec.Groups {
		g := &rec.Groups[i]
		dst = binary.AppendUvarint(dst, uint64(g.Ordinal))
		dst = binary.AppendUvarint(dst, uint64(g.Revision))
		dst = binary.AppendUvarint(dst, uint64(len(g.Mutations)))
		for j := range g.Mutations {
			m := &g.Mutations[j]
			dst = appendMutation(dst, m)
			if m.Kind == KeyPut {
				m.Loc = Loc{
					Segment: place.Segment,
					Offset:  base + uint32(len(dst)-valueCRCBytes-len(m.Value)),
					Length:  uint32(len(m.Value)),
				}
			}
		}
		if digests {
			g.Digest = digestOf(dst[from:])
		}
		from = len(dst)
		dst = append(dst, g.Digest[:]...)
	}
	rest := dst[at:]
	binary.LittleEndian.PutUint32(rest, uint32(len(rest)))
	binary.LittleEndian.PutUint32(rest[4:], checksum(seed^place.Offset, rest[8:]))
	return dst
}

func appendMutation(dst []byte, m *Mutation) []byte {
	dst = append(dst, byte(m.Kind))
	switch m.Kind {
	case KeyPut:
		dst = appendSized(dst, m.Value)
		return binary.LittleEndian.AppendUint32(dst, checksum(0, m.Value))
	case KeyDelete:
		return appendSized(dst, m.Key)
	case RowPut:
		dst = append(dst, byte(m.Table))
		return appendSized(appendSized(dst, m.Key), m.Value)
	case RowDelete:
		dst = append(dst, byte(m.Table))
		return appendSized(dst, m.Key)
	default:
		return append(dst, m.Value...)
	}
}

func digestOf(data []byte) ident.Digest {
	sum := sha256.Sum256(data)
	return ident.Digest(sum[:])
}

// rowKey returns the key of a row in wire form: its first field.
func rowKey(value []byte) ([]byte, bool) {
	const keyField = 1<<3 | 2
	if len(value) == 0 || value[0] != keyField {
		return nil, false
	}
	key, _, ok := cutSized(value[1:])
	return key, ok && len(key) > 0
}

func appendSized(dst, data []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(data))), data...)
}

func sizedBytes(data []byte) int { return uvarintBytes(uint64(len(data))) + len(data) }

func uvarintBytes(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

// cutUvarint takes a number off the front. It refuses one that is longer than
// it needs to be, so that the same record never has two forms.
func cutUvarint(data []byte) (uint64, []byte, bool) {
	if len(data) > 0 {
		if b := data[0]; b < 0x80 {
			return uint64(b), data[1:], true
		}
	}
	v, n := binary.Uvarint(data)
	if n <= 0 || data[n-1] == 0 {
		return 0, data, false
	}
	return v, data[n:], true
}

func cutSized(data []byte) (value, rest []byte, ok bool) {
	n, rest, ok := cutUvarint(data)
	if !ok || n > uint64(len(rest)) {
		return nil, data, false
	}
	return rest[:n:n], rest[n:], true
}

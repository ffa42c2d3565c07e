package history

import (
	"encoding/binary"
	"math"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// recordLength reads how long the record at the front of data is.
func recordLength(data []byte) (int, error) {
	if len(data) < recordHeaderBytes {
		return 0, malformed("%d bytes where a record should be", len(data))
	}
	n := int64(binary.LittleEndian.Uint32(data))
	if n < int64(recordBytesMin) || n > RecordBytesMax {
		return 0, malformed("a record of %d bytes", n)
	}
	return int(n), nil
}

// decodeRecord reads the record at the front of data into rec, whose slices of
// groups and mutations it uses again. Keys and values share the memory of
// data. It tells how long the record is.
func decodeRecord(data []byte, rec *Record, place Loc, seed uint32) (int, error) {
	n, err := recordLength(data)
	if err != nil {
		return 0, err
	}
	if n > len(data) {
		return 0, malformed("a record of %d bytes where %d are left", n, len(data))
	}
	data = data[:n]
	if checksum(seed^place.Offset, data[8:]) != binary.LittleEndian.Uint32(data[4:]) {
		return 0, malformed("checksum of a record of %d bytes", n)
	}
	if flags := binary.LittleEndian.Uint32(data[20:]); flags != 0 {
		return 0, malformed("flags %x", flags)
	}
	rec.PrevIndex = ident.Index(binary.LittleEndian.Uint64(data[8:]))
	rec.Index = ident.Index(binary.LittleEndian.Uint64(data[24:]))
	rec.Term = ident.Term(binary.LittleEndian.Uint64(data[32:]))
	rec.Time = int64(binary.LittleEndian.Uint64(data[40:]))
	rec.PrevDigest = ident.Digest(data[48:64])
	if rec.Index <= rec.PrevIndex {
		return 0, malformed("entry %d after %d", rec.Index, rec.PrevIndex)
	}
	groups := binary.LittleEndian.Uint32(data[16:])
	if groups == 0 || int64(groups) > int64(n/groupBytesMin) {
		return 0, malformed("%d groups in %d bytes", groups, n)
	}
	d := decoder{rest: data[recordHeaderBytes:], end: uint32(n), place: place}
	rec.Groups = resize(rec.Groups, int(groups))
	for i := range rec.Groups {
		g := &rec.Groups[i]
		if !d.group(g) {
			return 0, malformed("group %d of entry %d, at byte %d of the record", i, rec.Index, n-len(d.rest))
		}
		if i > 0 && g.Ordinal <= rec.Groups[i-1].Ordinal {
			return 0, malformed("group %d after %d in entry %d", g.Ordinal, rec.Groups[i-1].Ordinal, rec.Index)
		}
	}
	if len(d.rest) > 0 {
		return 0, malformed("%d bytes after the last group of entry %d", len(d.rest), rec.Index)
	}
	return n, nil
}

// decoder walks through the groups of one record.
type decoder struct {
	rest  []byte
	end   uint32 // Length of the record: what tells where rest begins in it.
	place Loc    // Of the record.
}

func (d *decoder) group(g *Group) bool {
	ordinal, rest, ok1 := cutUvarint(d.rest)
	revision, rest, ok2 := cutUvarint(rest)
	count, rest, ok3 := cutUvarint(rest)
	if !ok1 || !ok2 || !ok3 || ordinal > math.MaxUint32 || revision > math.MaxInt64 || count > uint64(len(rest)) {
		return false
	}
	d.rest = rest
	g.Ordinal, g.Revision = uint32(ordinal), ident.Revision(revision)
	g.Mutations = g.Mutations[:0]
	for range count {
		g.Mutations = append(g.Mutations, Mutation{})
		if !d.mutation(&g.Mutations[len(g.Mutations)-1], g.Revision) {
			return false
		}
	}
	if len(d.rest) < len(g.Digest) {
		return false
	}
	g.Digest = ident.Digest(d.rest[:len(g.Digest)])
	d.rest = d.rest[len(g.Digest):]
	return true
}

// mutation checks checksums of values too: a row that is handed on from here
// is handed on with the one it has.
func (d *decoder) mutation(m *Mutation, revision ident.Revision) bool {
	if len(d.rest) < 2 {
		return false
	}
	m.Kind = Kind(d.rest[0])
	d.rest = d.rest[1:]
	switch m.Kind {
	case KeyPut:
		return revision > 0 && d.put(m)
	case KeyDelete:
		return d.sized(&m.Key) && len(m.Key) > 0 && revision > 0
	case RowPut:
		m.Table, d.rest = Table(d.rest[0]), d.rest[1:]
		return d.sized(&m.Key) && d.sized(&m.Value)
	case RowDelete:
		m.Table, d.rest = Table(d.rest[0]), d.rest[1:]
		return d.sized(&m.Key)
	case Compact:
		if len(d.rest) < compactBytes {
			return false
		}
		m.Value, d.rest = d.rest[:compactBytes:compactBytes], d.rest[compactBytes:]
		return true
	}
	return false
}

func (d *decoder) put(m *Mutation) bool {
	if !d.sized(&m.Value) || len(d.rest) < valueCRCBytes {
		return false
	}
	m.Loc = Loc{
		Segment: d.place.Segment,
		Offset:  d.place.Offset + d.end - uint32(len(d.rest)+len(m.Value)),
		Length:  uint32(len(m.Value)),
	}
	var ok bool
	if m.Key, ok = rowKey(m.Value); !ok {
		return false
	}
	if checksum(0, m.Value) != binary.LittleEndian.Uint32(d.rest) {
		return false
	}
	d.rest = d.rest[valueCRCBytes:]
	return true
}

func (d *decoder) sized(to *[]byte) bool {
	var ok bool
	*to, d.rest, ok = cutSized(d.rest)
	return ok
}

// verifyDigests recomputes the digest after each group from the bytes that
// decodeRecord has read into rec. It takes them apart into g once more.
func verifyDigests(data []byte, rec *Record, g *Group) error {
	d := decoder{rest: data[recordHeaderBytes:]}
	from := digestFrom
	for range rec.Groups {
		d.group(g)
		end := len(data) - len(d.rest) - len(g.Digest)
		if digestOf(data[from:end]) != g.Digest {
			return malformed("digest after group %d of entry %d", g.Ordinal, rec.Index)
		}
		from = end
	}
	return nil
}

func resize(groups []Group, n int) []Group {
	if n <= cap(groups) {
		return groups[:n] // Beyond the old length lie groups of before, with their memory.
	}
	grown := make([]Group, n)
	copy(grown, groups[:cap(groups)])
	return grown
}

package history

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// A key index file is a header that ties it to its segment, and a table; both
// little-endian.
//
//	0        8         12    16        24    32       48       56
//	+--------+---------+-----+---------+-----+--------+--------+
//	| magic  | version | crc | segment | end | digest | length |
//	+--------+---------+-----+---------+-----+--------+--------+
//
// End and digest are those of the end of the segment: a table made for another
// life of a segment of that number is not taken for its own. Length is that of
// the table. The crc covers everything in the header after itself.
//
//	0     4          8      16         24        32            40        40+length
//	+-----+----------+------+----------+---------+-------------+---------+----------+
//	| crc | restarts | keys | versions | segment | length of   | entries | restarts |
//	|     | count    |      |          |         | the entries |         | (4 each) |
//	+-----+----------+------+----------+---------+-------------+---------+----------+
//
// The crc covers everything after itself. A restart is where every sixteenth
// entry begins, counted from the first.
//
//	entry:   shared, unshared, the unshared rest of the key, count, length,
//	         runs (4 each), versions
//	version: revision << 2 | lease << 1 | tombstone; unless a tombstone
//	         revision - create revision, version, lease if there (8), offset, size
//
// All numbers without a width are uvarints. Shared is how many bytes the key
// has in common with the one before, zero at a restart. Length is of runs and
// versions together. Runs say where, from the first version on, each
// sixteenth version but the first begins. Versions are sorted by revision, the
// newest last. Offset and size are those of the value in the segment.
const (
	indexMagic       = "HFKEYIDX"
	indexVersion     = 1
	indexHeaderBytes = 56
	tableHeaderBytes = 40
)

const (
	flagTombstone = 1
	flagLease     = 2
	flagBits      = 2
	revisionMax   = math.MaxInt64 >> flagBits
)

// indexHeader is the beginning of a key index file.
type indexHeader struct {
	segment uint64
	end     int64
	digest  ident.Digest
	length  uint64
}

func (h indexHeader) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, indexMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, indexVersion)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.segment)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.end))
	dst = append(dst, h.digest[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, h.length)
	binary.LittleEndian.PutUint32(dst[at+12:], checksum(0, dst[at+16:]))
	return dst
}

func decodeIndexHeader(data []byte) (indexHeader, error) {
	if len(data) < indexHeaderBytes || string(data[:8]) != indexMagic {
		return indexHeader{}, malformed("no key index header")
	}
	if err := checkHeader(data[:indexHeaderBytes], indexVersion); err != nil {
		return indexHeader{}, fmt.Errorf("key index %w", err)
	}
	return indexHeader{
		segment: binary.LittleEndian.Uint64(data[16:]),
		end:     int64(binary.LittleEndian.Uint64(data[24:])),
		digest:  ident.Digest(data[32:48]),
		length:  binary.LittleEndian.Uint64(data[48:]),
	}, nil
}

// Version is one version of a key.
type Version struct {
	Mod       ident.Revision
	Create    ident.Revision
	Version   int64
	Lease     ident.LeaseID
	Loc       Loc
	Tombstone bool // Then only Mod counts.
}

// valid tells whether a version can be written into the table of a segment.
func (v *Version) valid(segment uint64) bool {
	if v.Mod <= 0 || v.Mod > revisionMax {
		return false
	}
	if v.Tombstone {
		return *v == Version{Mod: v.Mod, Tombstone: true}
	}
	return v.Create > 0 && v.Create <= v.Mod && v.Version > 0 && v.Loc.Segment == segment
}

func appendVersion(dst []byte, v *Version) []byte {
	head := uint64(v.Mod) << flagBits
	if v.Tombstone {
		return binary.AppendUvarint(dst, head|flagTombstone)
	}
	if v.Lease != 0 {
		head |= flagLease
	}
	dst = binary.AppendUvarint(dst, head)
	dst = binary.AppendUvarint(dst, uint64(v.Mod-v.Create))
	dst = binary.AppendUvarint(dst, uint64(v.Version))
	if v.Lease != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v.Lease))
	}
	dst = binary.AppendUvarint(dst, uint64(v.Loc.Offset))
	return binary.AppendUvarint(dst, uint64(v.Loc.Length))
}

// cutVersion takes a version off the front.
func cutVersion(data []byte, segment uint64, v *Version) ([]byte, bool) {
	head, rest, ok := cutUvarint(data)
	*v = Version{Mod: ident.Revision(head >> flagBits), Tombstone: head&flagTombstone != 0}
	if v.Tombstone {
		return rest, ok && head&flagLease == 0 && v.valid(segment)
	}
	age, rest, ok1 := cutUvarint(rest)
	version, rest, ok2 := cutUvarint(rest)
	if !ok || !ok1 || !ok2 || age >= uint64(v.Mod) || version > math.MaxInt64 {
		return data, false
	}
	v.Create, v.Version = v.Mod-ident.Revision(age), int64(version)
	if head&flagLease != 0 {
		if len(rest) < 8 {
			return data, false
		}
		if v.Lease = ident.LeaseID(binary.LittleEndian.Uint64(rest)); v.Lease == 0 {
			return data, false
		}
		rest = rest[8:]
	}
	return cutPlace(rest, segment, v)
}

// cutPlace takes the place of a version's value.
func cutPlace(data []byte, segment uint64, v *Version) ([]byte, bool) {
	offset, rest, ok1 := cutUvarint(data)
	length, rest, ok2 := cutUvarint(rest)
	if !ok1 || !ok2 || offset > math.MaxUint32 || length > math.MaxUint32 {
		return data, false
	}
	v.Loc = Loc{Segment: segment, Offset: uint32(offset), Length: uint32(length)}
	return rest, v.valid(segment)
}

// runCount is how many versions of a key a search can begin at, besides the
// first.
func runCount(versions uint64) uint64 { return (versions - 1) / runVersions }

// KeyTableBuilder makes a KeyTable out of keys in order.
type KeyTableBuilder struct {
	segment  uint64
	data     []byte
	restarts []uint32
	keys     uint64
	versions uint64
	last     []byte
	runs     []byte
	body     []byte
}

// NewKeyTableBuilder begins the table of a segment.
func NewKeyTableBuilder(segment uint64) *KeyTableBuilder {
	return &KeyTableBuilder{segment: segment, data: make([]byte, tableHeaderBytes)}
}

// Add adds a key, greater than the one before, and its versions, the newest
// last.
func (b *KeyTableBuilder) Add(key []byte, versions []Version) error {
	if len(key) == 0 || len(versions) == 0 || b.keys > 0 && bytes.Compare(key, b.last) <= 0 {
		return fmt.Errorf("key %d of %d versions, not after the one before: %w", b.keys, len(versions), ErrInvalid)
	}
	b.runs, b.body = b.runs[:0], b.body[:0]
	for i := range versions {
		v := &versions[i]
		if !v.valid(b.segment) || i > 0 && v.Mod < versions[i-1].Mod {
			return fmt.Errorf("key %d, version %d of revision %d: %w", b.keys, i, v.Mod, ErrInvalid)
		}
		if i > 0 && i%runVersions == 0 {
			b.runs = binary.LittleEndian.AppendUint32(b.runs, uint32(len(b.body)))
		}
		b.body = appendVersion(b.body, v)
	}
	shared := 0
	if b.keys%restartKeys == 0 {
		b.restarts = append(b.restarts, uint32(len(b.data)-tableHeaderBytes))
	} else {
		shared = commonPrefix(b.last, key)
	}
	b.data = binary.AppendUvarint(b.data, uint64(shared))
	b.data = appendSized(b.data, key[shared:])
	b.data = binary.AppendUvarint(b.data, uint64(len(versions)))
	b.data = binary.AppendUvarint(b.data, uint64(len(b.runs)+len(b.body)))
	b.data = append(append(b.data, b.runs...), b.body...)
	if len(b.data) > math.MaxUint32 {
		return fmt.Errorf("key table of segment %d: %w", b.segment, ErrTooLarge)
	}
	b.last = append(b.last[:0], key...)
	b.keys++
	b.versions += uint64(len(versions))
	return nil
}

// Finish returns the table. The builder is done with.
func (b *KeyTableBuilder) Finish() *KeyTable {
	entries := len(b.data) - tableHeaderBytes
	for _, r := range b.restarts {
		b.data = binary.LittleEndian.AppendUint32(b.data, r)
	}
	binary.LittleEndian.PutUint32(b.data[4:], uint32(len(b.restarts)))
	binary.LittleEndian.PutUint64(b.data[8:], b.keys)
	binary.LittleEndian.PutUint64(b.data[16:], b.versions)
	binary.LittleEndian.PutUint64(b.data[24:], b.segment)
	binary.LittleEndian.PutUint64(b.data[32:], uint64(entries))
	binary.LittleEndian.PutUint32(b.data, checksum(0, b.data[4:]))
	t := newKeyTable(b.data, entries)
	t.slots = newSlots(t)
	return t
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

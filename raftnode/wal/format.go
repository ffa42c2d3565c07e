package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// A segment is a header, then records, then a terminator, then bytes that
// mean nothing: zeroes, or what a recycled file held in an earlier life.
//
//	segment header, 64 bytes
//	0         8         12       16         24                   60    64
//	+---------+---------+--------+----------+--------------------+-----+
//	| "hfwal\0\0\0"     |        |          |                    |     |
//	| magic   | version | salt   | sequence | reserved, zero     | crc |
//	+---------+---------+--------+----------+--------------------+-----+
//
//	record, a multiple of 8 bytes
//	0     4      8        12   13        16         24       28       32
//	+-----+------+--------+----+---------+----------+--------+--------+---------+-----+
//	| crc | prev | length |kind| zero    | sequence | offset | synced | payload | pad |
//	+-----+------+--------+----+---------+----------+--------+--------+---------+-----+
//
// All integers are little-endian, all checksums CRC-32C. The header's covers
// the 60 bytes before it. A record's covers everything after itself, padding
// included, and starts from the checksum of its segment's header: a record
// holds in one segment of one life and nowhere else. prev is the checksum of
// the record before, of the header for the first. sequence and offset say where
// the record was meant to be. synced is the offset below which all of this
// segment was durable when the record was encoded.
//
// The terminator is a record header of zeroes, written with every write:
// without it the end of the log could not be told from a damaged record.
const (
	formatVersion = 1

	headerBytes       = 64
	recordHeaderBytes = 32
	recordAlign       = 8
	terminatorBytes   = recordHeaderBytes
)

var (
	_ [0]struct{} = [headerBytes % recordAlign]struct{}{} // Records stay aligned, so that a search for them can step.
	_ [0]struct{} = [recordHeaderBytes % recordAlign]struct{}{}

	magic      = [8]byte{'h', 'f', 'w', 'a', 'l'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeroRecord [terminatorBytes]byte
)

// kind says what a record's payload is.
type kind uint8

const (
	kindBegin     kind = 1 // First of every segment: all that the segments before it established.
	kindEntry     kind = 2
	kindHardState kind = 3
	kindStart     kind = 4 // Compact: entries up to this one are gone.
	kindNote      kind = 5
	kindEnd       kind = 6 // Close: nothing but its synced mark.
)

func (k kind) String() string {
	switch k {
	case kindBegin:
		return "begin"
	case kindEntry:
		return "entry"
	case kindHardState:
		return "hardstate"
	case kindStart:
		return "start"
	case kindNote:
		return "note"
	case kindEnd:
		return "end"
	}
	return "kind " + strconv.Itoa(int(k))
}

// segmentHeader is what stands at offset 0.
type segmentHeader struct {
	salt     uint32 // Checksum of some record before: keeps users from foreseeing checksums.
	sequence uint64
}

func (h segmentHeader) encode() [headerBytes]byte {
	var b [headerBytes]byte
	copy(b[:], magic[:])
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], h.salt)
	binary.LittleEndian.PutUint64(b[16:], h.sequence)
	binary.LittleEndian.PutUint32(b[headerBytes-4:], crc32.Checksum(b[:headerBytes-4], castagnoli))
	return b
}

// decodeSegmentHeader returns the header and its checksum, the first link of
// the segment's chain.
func decodeSegmentHeader(b []byte) (segmentHeader, uint32, error) {
	if len(b) < headerBytes || [8]byte(b) != magic {
		return segmentHeader{}, 0, fmt.Errorf("does not begin as a segment of a raft log does")
	}
	h := segmentHeader{salt: binary.LittleEndian.Uint32(b[12:]), sequence: binary.LittleEndian.Uint64(b[16:])}
	want, version := h.encode(), binary.LittleEndian.Uint32(b[8:])
	if sum := [4]byte(want[headerBytes-4:]); version > formatVersion && sum != [4]byte(b[headerBytes-4:]) {
		return segmentHeader{}, 0, fmt.Errorf("version %d, this program reads up to %d: %w", version, formatVersion, ErrNewerFormat)
	}
	if want != [headerBytes]byte(b) { // Or of this version, with a version that was damaged.
		return segmentHeader{}, 0, fmt.Errorf("checksum of the segment header does not hold")
	}
	return h, binary.LittleEndian.Uint32(b[headerBytes-4:]), nil
}

// recordHeader is what stands before each payload.
type recordHeader struct {
	crc      uint32
	prev     uint32
	length   uint32 // Of the payload.
	kind     kind
	sequence uint64
	offset   uint32
	synced   uint32
}

// decodeRecordHeader takes at least recordHeaderBytes and believes nothing.
func decodeRecordHeader(b []byte) recordHeader {
	_ = b[recordHeaderBytes-1]
	return recordHeader{
		crc:      binary.LittleEndian.Uint32(b),
		prev:     binary.LittleEndian.Uint32(b[4:]),
		length:   binary.LittleEndian.Uint32(b[8:]),
		kind:     kind(b[12]),
		sequence: binary.LittleEndian.Uint64(b[16:]),
		offset:   binary.LittleEndian.Uint32(b[24:]),
		synced:   binary.LittleEndian.Uint32(b[28:]),
	}
}

func recordBytes(payload int) int {
	return (recordHeaderBytes + payload + recordAlign - 1) &^ (recordAlign - 1)
}

// finishRecord pads and seals the record that begins at from in b, whose
// payload has been appended, and returns b and the record's checksum.
func finishRecord(b []byte, from int, k kind, seed, prev uint32, sequence uint64, offset, synced uint32) ([]byte, uint32) {
	length := len(b) - from - recordHeaderBytes
	for len(b)%recordAlign != from%recordAlign {
		b = append(b, 0)
	}
	r := b[from:]
	binary.LittleEndian.PutUint32(r[4:], prev)
	binary.LittleEndian.PutUint32(r[8:], uint32(length))
	r[12], r[13], r[14], r[15] = byte(k), 0, 0, 0
	binary.LittleEndian.PutUint64(r[16:], sequence)
	binary.LittleEndian.PutUint32(r[24:], offset)
	binary.LittleEndian.PutUint32(r[28:], synced)
	crc := crc32.Update(seed, castagnoli, r[4:])
	binary.LittleEndian.PutUint32(r, crc)
	return b, crc
}

// checkRecord tells whether b, a whole record with padding, is what the log
// wrote at this place. Its link to the record before is the caller's to check.
func checkRecord(b []byte, h recordHeader, seed uint32, sequence uint64, offset int64) bool {
	if h.sequence != sequence || int64(h.offset) != offset || int64(h.synced) > offset {
		return false
	}
	if crc32.Update(seed, castagnoli, b[4:]) != h.crc || b[13]|b[14]|b[15] != 0 {
		return false
	}
	for _, pad := range b[recordHeaderBytes+int(h.length):] {
		if pad != 0 {
			return false
		}
	}
	return true
}

// File names in the folder of a log. Sequences are hexadecimal, so that names
// sort as the log runs.
const (
	segmentSuffix = ".wal"   // Header synced before the file got this name.
	sparePrefix   = "spare-" // Retired, or prepared and never used. Contents mean nothing.
	newPrefix     = "new-"   // Being made.
	cutPrefix     = "cut-"   // A copy of bytes that recovery cut.
	failedName    = "FAILED" // The log failed in this folder; text for people.
	asidePrefix   = "old-"   // Folders of logs that were set aside.
	sequenceWidth = 16
)

func segmentName(sequence uint64) string {
	return fmt.Sprintf("%0*x%s", sequenceWidth, sequence, segmentSuffix)
}
func spareName(sequence uint64) string {
	return fmt.Sprintf("%s%0*x", sparePrefix, sequenceWidth, sequence)
}
func newName(sequence uint64) string {
	return fmt.Sprintf("%s%0*x", newPrefix, sequenceWidth, sequence)
}
func cutName(sequence uint64, offset int64) string {
	return fmt.Sprintf("%s%0*x-%08x", cutPrefix, sequenceWidth, sequence, offset)
}

// sequenceOf returns the sequence in a file's name of any kind above.
func sequenceOf(name string) (sequence uint64, ok bool) {
	for _, prefix := range []string{sparePrefix, newPrefix, cutPrefix} {
		name = strings.TrimPrefix(name, prefix)
	}
	if len(name) < sequenceWidth {
		return 0, false
	}
	sequence, err := strconv.ParseUint(name[:sequenceWidth], 16, 64)
	return sequence, err == nil
}

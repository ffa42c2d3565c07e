package snapshot

// A snapshot:
//
//	0       8         12     16
//	+-------+---------+------+--------+-- … --+-----------+---------+
//	| magic | version | crc  | frame  | frame | zeroes to | SHA-256 |
//	|       |         |      |        |       | 512 bytes |         |
//	+-------+---------+------+--------+-- … --+-----------+---------+
//
// A frame:
//
//	0        4       8      9       10       12    16     20
//	+--------+-------+------+-------+--------+-----+------+--------- … +
//	| length | plain | kind | codec | zeroes | crc | head | content    |
//	+--------+-------+------+-------+--------+-----+------+--------- … +
//
// crc is the CRC32C of the content as stored; head that of the 16 bytes before
// it, begun with the crc of the frame before, so that no frame can be missing,
// doubled or swapped. Integers are little-endian. The frames of one kind
// together are one sequence of items, cut anywhere. docs/format/snapshot.md.

import (
	"encoding/binary"
	"hash/crc32"
)

// FormatVersion of the snapshots written here.
const FormatVersion = 1

const (
	magic           = "HFSNAPSH"
	fileHeaderBytes = 16
	frameHeadBytes  = 20
	padBytes        = 512 // etcdctl takes a file for whole when its size is a multiple of this, and the hash.
	hashBytes       = 32
)

// Kinds of frames, in the order in which they come. 1 and 5 come once.
const (
	kindHeader  = 1 // A holdfastpb.SnapshotHeader.
	kindSmall   = 2 // Small rows: table (1 byte), length and key, length and value.
	kindBase    = 3 // Rows of base by rising key: length and mvccpb.KeyValue.
	kindHistory = 4 // Records: length and record as package history encodes it to travel.
	kindEnd     = 5 // A holdfastpb.SnapshotTrailer.
)

const (
	codecPlain = 0
	codecZstd  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Little-endian numbers.
var order = binary.LittleEndian

func fileHeader() []byte {
	b := append(make([]byte, 0, fileHeaderBytes), magic...)
	b = order.AppendUint32(b, FormatVersion)
	return order.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// frameHead is what stands before the content of a frame.
type frameHead struct {
	length, plain uint32
	kind, codec   byte
	crc           uint32
}

// append encodes the head of a frame that follows one with checksum chain.
func (h frameHead) append(b []byte, chain uint32) []byte {
	start := len(b)
	b = order.AppendUint32(b, h.length)
	b = order.AppendUint32(b, h.plain)
	b = append(b, h.kind, h.codec, 0, 0)
	b = order.AppendUint32(b, h.crc)
	return order.AppendUint32(b, crc32.Update(chain, castagnoli, b[start:]))
}

// decodeFrameHead returns a reason when b is not the head of a frame after chain.
func decodeFrameHead(b []byte, chain uint32) (h frameHead, reason string) {
	if order.Uint32(b[16:]) != crc32.Update(chain, castagnoli, b[:16]) {
		return h, "head of a frame has a wrong checksum"
	}
	h = frameHead{length: order.Uint32(b), plain: order.Uint32(b[4:]), kind: b[8], codec: b[9], crc: order.Uint32(b[12:])}
	switch {
	case b[10] != 0 || b[11] != 0:
		return h, "frame sets reserved bytes"
	case h.kind < kindHeader || h.kind > kindEnd:
		return h, "frame is of an unknown kind"
	case h.codec > codecZstd:
		return h, "frame is encoded in an unknown way"
	case h.length == 0 || h.plain == 0 || h.plain > frameBytes || h.length > storedBytesMax:
		return h, "frame has an impossible length"
	case h.codec == codecPlain && h.length != h.plain:
		return h, "frame without compression has two lengths"
	}
	return h, ""
}

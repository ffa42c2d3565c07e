package archive

// A binary object of the archive: a segment of the log or a piece of a base.
//
//	0       8         12       16     20
//	+-------+---------+--------+------+------+---------+ … +---------+
//	| magic | version | length | crc  | head | frame   |   | SHA-256 |
//	|       |         | of head|      |      |         |   |         |
//	+-------+---------+--------+------+------+---------+ … +---------+
//
// The crc covers everything else before the first frame. The content as stored
// (compressed, then encrypted) is cut into frames of 256 KiB, the last one may be
// shorter:
//
//	+-----------+--------+
//	| crc (4)   | bytes  |
//	+-----------+--------+
//
// The crc of a frame begins with the crc before, so that frames cannot change
// places. The SHA-256 covers everything before it. Integers are little-endian.
// The head is JSON: an object describes itself also to those who only look.
// docs/format/archive.md.

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

const (
	magic          = "HFARCHIV"
	fixedHeadBytes = 20
	frameCRCBytes  = 4
)

// Kinds of objects.
const (
	kindLog  = "log"
	kindPart = "base-part"
)

// Codecs of content, before encryption.
const (
	codecNone = "none"
	codecZstd = "zstd"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.LittleEndian
)

// Sum is a SHA-256.
type Sum [sha256.Size]byte

// UUID names a cluster, and its folder in the archive.
type UUID [16]byte

// MarshalText implements encoding.TextMarshaler.
func (u UUID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, u[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UUID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(u) {
		return fmt.Errorf("cluster UUID %q is not %d bytes in hexadecimal", text, len(u))
	}
	copy(u[:], b)
	return nil
}

func (u UUID) String() string { return hex.EncodeToString(u[:]) }

// head is what an object says of itself.
type head struct {
	Format   int    `json:"format"`
	Kind     string `json:"kind"`
	Cluster  UUID   `json:"cluster"`
	Timeline uint64 `json:"timeline"`

	Plain      int64    `json:"plain"` // Bytes of content.
	Stored     int64    `json:"stored"`
	Codec      string   `json:"codec"`
	Recipients []string `json:"recipients,omitempty"` // Whose keys open it; none: it is not encrypted.

	Log  *logHead  `json:"log,omitempty"`
	Part *partHead `json:"part,omitempty"`
}

// logHead describes a segment of the log.
type logHead struct {
	After   Point `json:"after"` // What the first record follows.
	End     Point `json:"end"`
	Records int   `json:"records"`
}

// partHead describes a piece of a base.
type partHead struct {
	Base   string `json:"base"` // Name of the base's folder.
	Number int    `json:"number"`
	Offset int64  `json:"offset"` // In the base's stream.
}

func (h *head) validate() string {
	switch {
	case h.Kind != kindLog && h.Kind != kindPart || (h.Kind == kindLog) != (h.Log != nil) || (h.Kind == kindPart) != (h.Part != nil):
		return "it is of an unknown kind"
	case h.Codec != codecNone && h.Codec != codecZstd:
		return "its content is encoded in an unknown way"
	case h.Plain <= 0 || h.Plain > recordsBytesMax || h.Stored <= 0 || h.Stored > objectBytesMax:
		return "its head has an impossible length"
	case len(h.Recipients) > recipientsMax:
		return "its head has too many recipients"
	}
	return ""
}

// encodeObject makes an object of a head and its content as stored.
func encodeObject(h head, stored []byte) ([]byte, error) {
	h.Format, h.Stored = FormatVersion, int64(len(stored))
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	frames := (len(stored) + storedFrameBytes - 1) / storedFrameBytes
	size := fixedHeadBytes + len(text) + len(stored) + frames*frameCRCBytes + sha256.Size
	if len(text) > headBytesMax || size > objectBytesMax {
		return nil, fmt.Errorf("%d bytes, at most %d: %w", size, objectBytesMax, ErrTooLarge)
	}
	b := append(make([]byte, 0, size), magic...)
	b = order.AppendUint32(b, FormatVersion)
	b = order.AppendUint32(b, uint32(len(text)))
	crc := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, text)
	b = order.AppendUint32(b, crc)
	b = append(b, text...)
	for len(stored) > 0 {
		part := stored[:min(storedFrameBytes, len(stored))]
		crc = crc32.Update(crc, castagnoli, part)
		b = append(order.AppendUint32(b, crc), part...)
		stored = stored[len(part):]
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// decodeObject takes an object apart and verifies every byte of it. The content
// is as stored, and lies where data did. whole is the SHA-256 of all of data, by
// which a manifest knows it.
func decodeObject(name string, data []byte) (h head, content []byte, whole Sum, err error) {
	h, first, crc, err := decodeHead(name, data)
	if err != nil {
		return h, nil, whole, err
	}
	at := first
	for left := h.Stored; left > 0; {
		n := int(min(storedFrameBytes, left))
		if len(data)-at < frameCRCBytes+n {
			return h, nil, whole, damagef(name, int64(len(data)), "the object ends before its end")
		}
		crc = crc32.Update(crc, castagnoli, data[at+frameCRCBytes:at+frameCRCBytes+n])
		if got := order.Uint32(data[at:]); got != crc {
			return h, nil, whole, damagef(name, int64(at), "frame has checksum %08x, says %08x", crc, got)
		}
		left -= int64(n)
		at += frameCRCBytes + n
	}
	if len(data)-at < sha256.Size {
		return h, nil, whole, damagef(name, int64(len(data)), "the object ends before its end")
	}
	sha := sha256.New()
	sha.Write(data[:at])
	if sum := sha.Sum(nil); string(sum) != string(data[at:at+sha256.Size]) {
		return h, nil, whole, damagef(name, int64(at), "SHA-256 is %x, says %x", sum, data[at:at+sha256.Size])
	}
	sha.Write(data[at : at+sha256.Size])
	sha.Sum(whole[:0])
	if len(data) > at+sha256.Size {
		return h, nil, whole, damagef(name, int64(at+sha256.Size), "bytes after the end")
	}
	stored := data[:0]
	for from := first; from < at; from += frameCRCBytes + storedFrameBytes {
		stored = append(stored, data[from+frameCRCBytes:min(from+frameCRCBytes+storedFrameBytes, at)]...)
	}
	return h, stored, whole, nil
}

// decodeHead reads the beginning of an object, and tells where the first frame
// is and which checksum comes before it.
func decodeHead(name string, data []byte) (h head, at int, crc uint32, err error) {
	if len(data) < fixedHeadBytes {
		return h, 0, 0, damagef(name, int64(len(data)), "the object ends before its end")
	}
	if string(data[:len(magic)]) != magic {
		return h, 0, 0, damagef(name, 0, "it begins with %q and is no object of an archive", data[:len(magic)])
	}
	length := int(order.Uint32(data[12:]))
	if v := order.Uint32(data[8:]); v > FormatVersion {
		return h, 0, 0, fmt.Errorf("object %s has format %d, this program reads %d: %w", name, v, FormatVersion, ErrNewerFormat)
	} else if v != FormatVersion || length > headBytesMax {
		return h, 0, 0, damagef(name, int64(len(magic)), "version %d, head of %d bytes", v, length)
	}
	at = fixedHeadBytes + length
	if len(data) < at {
		return h, 0, 0, damagef(name, 12, "a head of %d bytes, and the object ends before its end", length)
	}
	crc = crc32.Update(crc32.Checksum(data[:16], castagnoli), castagnoli, data[fixedHeadBytes:at])
	if got := order.Uint32(data[16:]); got != crc {
		return h, 0, 0, damagef(name, 0, "head has checksum %08x, says %08x", crc, got)
	}
	if err := json.Unmarshal(data[fixedHeadBytes:at], &h); err != nil {
		return h, 0, 0, damagef(name, fixedHeadBytes, "head does not decode: %v", err)
	}
	if reason := h.validate(); reason != "" {
		return h, 0, 0, damagef(name, fixedHeadBytes, "%s", reason)
	}
	return h, at, crc, nil
}

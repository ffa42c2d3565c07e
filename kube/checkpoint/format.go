package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

//	0       4        5     6          8         12       16
//	+-------+--------+-----+----------+---------+--------+---------+
//	| magic | version| kind| reserved | length  | crc    | payload |   little-endian
//	+-------+--------+-----+----------+---------+--------+---------+
//
// crc is CRC-32C of everything but itself. length is that of the payload, which ends
// the file.
const (
	magic      = "HFCP"
	version    = 1
	headerSize = 16
	crcAt      = 12
)

// Kind says what a file holds.
type Kind byte

// Kinds. Of pods and nodes the payload is the object as it is stored, without its
// resource version; of a history eight bytes.
const (
	Pod     Kind = 1
	Node    Kind = 2
	History Kind = 3
)

func (k Kind) String() string {
	switch k {
	case Pod:
		return "pod"
	case Node:
		return "node"
	case History:
		return "history"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// payloadBytesMax is more than an object may have.
const payloadBytesMax = 4 << 20

// Errors of files.
var (
	ErrDamaged = errors.New("damaged")
	ErrVersion = errors.New("of a newer version: use the program that wrote it, or a newer one")
)

var table = crc32.MakeTable(crc32.Castagnoli)

// Encode makes a file.
func Encode(k Kind, payload []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	copy(b, magic)
	b[4], b[5] = version, byte(k)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b[crcAt:], sum(b))
	return b
}

func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:crcAt], table), table, b[headerSize:])
}

// Decode reads one.
func Decode(b []byte) (Kind, []byte, error) {
	switch {
	case len(b) < headerSize || string(b[:4]) != magic:
		return 0, nil, fmt.Errorf("it does not begin as a checkpoint does: %w", ErrDamaged)
	case b[4] != version:
		return 0, nil, fmt.Errorf("it is of version %d, this program knows %d: %w", b[4], version, ErrVersion)
	case b[6] != 0 || b[7] != 0:
		return 0, nil, fmt.Errorf("its reserved bytes are not zero: %w", ErrDamaged)
	case len(b) > headerSize+payloadBytesMax:
		return 0, nil, fmt.Errorf("it has %d bytes: %w", len(b), ErrDamaged)
	}
	if n := int(binary.LittleEndian.Uint32(b[8:])); n != len(b)-headerSize {
		return 0, nil, fmt.Errorf("it has %d bytes after its header, and says %d: %w", len(b)-headerSize, n, ErrDamaged)
	}
	if is, want := sum(b), binary.LittleEndian.Uint32(b[crcAt:]); is != want {
		return 0, nil, fmt.Errorf("its checksum is %08x, and it says %08x: %w", is, want, ErrDamaged)
	}
	return Kind(b[5]), b[headerSize:], nil
}

// Names of files. Of a pod there are up to four: the one that was written last, the one
// before it, and either put aside because it could not be read.
const (
	podPrefix     = "pod-"
	nodeName      = "node"
	historyName   = "history"
	beforeSuffix  = ".before"
	damagedSuffix = ".damaged"
)

// podSuffixes are those of a pod's files, the best first.
var podSuffixes = []string{"", beforeSuffix, damagedSuffix, beforeSuffix + damagedSuffix}

// uidOf is the uid of a pod's file.
func uidOf(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, podPrefix)
	uid, suffix, dotted := strings.Cut(rest, ".")
	if dotted {
		suffix = "." + suffix
	}
	return uid, ok && uid != "" && slices.Contains(podSuffixes, suffix)
}

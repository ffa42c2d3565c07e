package transport

// Everything on a peer stream is a packet, one gRPC message each:
//
//	0      1                          n-4        n
//	+------+--------------------------+----------+
//	| type | body                     | crc32c   |   crc over type and body, little-endian
//	+------+--------------------------+----------+
//
// Integers of unknown size are varints in their shortest form, identifiers are
// 8 bytes little-endian, byte strings carry their length before them. A decoder
// accepts exactly what the encoder makes: every packet that decodes encodes to
// the same bytes again. docs/format/peer.md has the tables.

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// protocolVersion of packets and handshake. A peer with another is refused by name.
const protocolVersion = 1

const (
	packetHello    = 1  // Dialer's first packet: who I am, whom I expect.
	packetWelcome  = 2  // Answer: who I am.
	packetRefusal  = 3  // Answer instead: why not.
	packetFrames   = 4  // Any number of frames.
	packetPing     = 5  // Dialer's stamp.
	packetPong     = 6  // The same stamp back.
	packetOffer    = 7  // The MsgSnap that a snapshot belongs to.
	packetHave     = 8  // Where the receiver stands.
	packetChunk    = 9  // Offset and bytes of a snapshot.
	packetEnd      = 10 // Length and checksum of the whole snapshot.
	packetResult   = 11 // What the receiver made of it.
	packetQuestion = 12 // Handshake, kind and data of Ask.
	packetReply    = 13 // Data of an answer.
	packetRoster   = 14 // A Roster.
)

const (
	channelControl  = 1
	channelBulk     = 2
	channelSnapshot = 3
	channelAsk      = 4
	channelState    = 5
)

const crcBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal ends the packet that starts at b[start] with its checksum.
func seal(b []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// open checks a packet and returns its type and body.
func open(packet []byte) (byte, []byte, error) {
	if len(packet) < 1+crcBytes {
		return 0, nil, fmt.Errorf("packet of %d bytes: %w", len(packet), ErrDamaged)
	}
	n := len(packet) - crcBytes
	want := binary.LittleEndian.Uint32(packet[n:])
	if got := crc32.Checksum(packet[:n], castagnoli); got != want {
		return 0, nil, fmt.Errorf("packet of %d bytes has checksum %08x, says %08x: %w", len(packet), got, want, ErrDamaged)
	}
	return packet[0], packet[1:n], nil
}

// openAs is open for a packet whose type is known.
func openAs(want byte, packet []byte) ([]byte, error) {
	got, body, err := open(packet)
	if err == nil && got != want {
		err = fmt.Errorf("packet of type %d where %d belongs: %w", got, want, ErrDamaged)
	}
	return body, err
}

func appendBytes(b, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

func appendUint64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

// decoder reads a body from its start. The first failure sticks; after it every
// read returns zero, so that callers check once.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) byte() byte {
	if len(d.rest) < 1 {
		d.failed = true
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

func (d *decoder) uint64() uint64 {
	if len(d.rest) < 8 {
		d.failed, d.rest = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 { // The second: not the shortest form.
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// take returns the next n bytes without copying. The capacity ends with them.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.failed, d.rest = true, nil
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

// count reads a number of things that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.rest)/size) {
		d.failed, d.rest = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) text(bytesMax int) string {
	v := d.bytes()
	if len(v) > bytesMax {
		d.failed = true
		return ""
	}
	return string(v)
}

func (d *decoder) texts(countMax, bytesMax int) []string {
	n := d.count(1)
	if n > countMax {
		d.failed = true
	}
	if d.failed || n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.text(bytesMax)
	}
	return list
}

// end reports whether everything was read, and nothing is left over.
func (d *decoder) end(what string) error {
	if d.failed {
		return fmt.Errorf("%s does not decode: %w", what, ErrDamaged)
	}
	if len(d.rest) > 0 {
		return fmt.Errorf("%d bytes after %s: %w", len(d.rest), what, ErrDamaged)
	}
	return nil
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

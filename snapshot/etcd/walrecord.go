package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// A file of etcd's log is named SEQUENCE-INDEX.wal, both in 16 hexadecimal
// digits: its place among the files, and the first entry that is written to it.
// It holds records; each is
//
//	length 8, little-endian: bytes of the message in the lower 56 bits; when
//	  the highest is set, bytes of padding in the lowest 3 of the top byte
//	walpb.Record: type 1, crc 2, data 3
//	padding to a multiple of 8
//
// crc is the CRC32C of all data up to here, which goes on from file to file; the
// first record of a file (type 4) repeats it. Zeroes follow the last record.
const (
	recordMetadata = 1 // nodeID 1, clusterID 2.
	recordEntry    = 2 // raftpb.Entry.
	recordState    = 3 // raftpb.HardState.
	recordCRC      = 4
	recordSnapshot = 5 // index 1, term 2.

	lengthBytes = 8
	recordAlign = 8
	sectorBytes = 512 // What a disk writes whole.
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one of them, with where it begins.
type record struct {
	kind uint64
	crc  uint32
	data []byte
	next int64
}

// errTorn is beside a damage that looks like a write which a power cut ended:
// it goes to the end of the file, or has a sector that the disk never got.
var errTorn = errors.New("record was written in part")

// readFrame returns message and padding of the record at an offset, and how much
// of it is message. io.EOF: there is none.
func readFrame(f vfs.File, size, offset int64) (b []byte, length int64, err error) {
	damaged := func(format string, args ...any) error {
		return &DamageError{File: f.Name(), Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
	if offset == size {
		return nil, 0, io.EOF
	}
	if size-offset < lengthBytes {
		return nil, 0, damaged("the file ends within the length of a record")
	}
	var head [lengthBytes]byte
	if _, err := f.ReadAt(head[:], offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	field := binary.LittleEndian.Uint64(head[:])
	if field == 0 {
		zero, err := zeroes(f, offset, size)
		if err == nil && !zero {
			err = damaged("a record without length, and more behind it")
		}
		return nil, 0, errors.Join(err, io.EOF)
	}
	pad := int64(0)
	length = int64(field &^ (0xff << 56))
	if field>>63 == 1 {
		pad = int64(field >> 56 & 7)
	}
	switch {
	case (length+pad)%recordAlign != 0:
		return nil, 0, damaged("record of %d bytes and %d of padding", length, pad)
	case length > size-offset-lengthBytes-pad:
		return nil, 0, errors.Join(damaged("the file ends within a record of %d bytes", length), errTorn)
	case length > recordBytesMax:
		return nil, 0, damaged("record of %d bytes", length)
	}
	b = make([]byte, length+pad)
	if _, err := f.ReadAt(b, offset+lengthBytes); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	return b, length, nil
}

// readRecord reads the record at an offset. io.EOF: there is none. A record
// that comes with errTorn has to prove itself by its checksum.
func readRecord(f vfs.File, size, offset int64) (*record, error) {
	b, length, err := readFrame(f, size, offset)
	if err != nil {
		return nil, err
	}
	r := &record{next: offset + lengthBytes + int64(len(b))}
	var torn error
	if hasZeroSector(b, offset+lengthBytes) {
		torn = errTorn
	}
	m, err := decodeFields(b[:length])
	if err == nil && !allZero(b[length:]) { // No checksum covers it.
		err = errors.New("its padding is not zero")
	}
	if err != nil {
		damage := &DamageError{File: f.Name(), Offset: offset, Reason: "record: " + err.Error()}
		if torn == nil {
			return nil, damage
		}
		return r, errors.Join(damage, torn) // Of kind 0, which proves nothing.
	}
	r.kind, r.crc, r.data = m.numbers[1], uint32(m.numbers[2]), m.bytes[3]
	return r, torn
}

// zeroes reports whether nothing was written from an offset on.
func zeroes(f vfs.File, from, size int64) (bool, error) {
	block := make([]byte, min(hashBlockBytes, size-from))
	for at := from; at < size; at += hashBlockBytes {
		part := block[:min(hashBlockBytes, size-at)]
		if _, err := f.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if !allZero(part) {
			return false, nil
		}
	}
	return true, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// hasZeroSector reports whether a sector that bytes at an offset lie in has
// nothing of them: a power cut came before the disk had written it.
func hasZeroSector(b []byte, offset int64) bool {
	for len(b) > 0 {
		n := min(int64(len(b)), sectorBytes-offset%sectorBytes)
		if allZero(b[:n]) {
			return true
		}
		b, offset = b[n:], offset+n
	}
	return false
}

// leadingRecord decodes the record that bytes begin with, without knowing its
// length: type, crc and, in most, data come in this order. Nil: they do not.
func leadingRecord(b []byte) *record {
	r := &record{}
	for number := protowire.Number(1); number <= 3; number++ {
		got, kind, n := protowire.ConsumeTag(b)
		if number == 3 && got != number {
			return r
		}
		if n < 0 || got != number {
			return nil
		}
		b = b[n:]
		var v uint64
		switch {
		case number < 3 && kind == protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case number == 3 && kind == protowire.BytesType:
			r.data, n = protowire.ConsumeBytes(b)
		default:
			return nil
		}
		if n < 0 {
			return nil
		}
		b = b[n:]
		switch number {
		case 1:
			r.kind = v
		case 2:
			r.crc = uint32(v)
		}
	}
	return r
}

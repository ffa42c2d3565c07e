package mvcc

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// A row travels as mvccpb.KeyValue in wire form from the put to the answer of
// a range: encoded once, never decoded on the way. Only one form is accepted,
// the one every protobuf library writes: fields in order, zero fields absent.
// So equal rows are equal bytes, and the row without its value and lease is a
// prefix of the row.
//
//	key=1 ‖ create_revision=2 ‖ mod_revision=3 ‖ version=4 ‖ value=5 ‖ lease=6
const (
	tagKey     = 1<<3 | 2
	tagCreate  = 2 << 3
	tagMod     = 3 << 3
	tagVersion = 4 << 3
	tagValue   = 5<<3 | 2
	tagLease   = 6 << 3
)

// row is a KeyValue in wire form, taken apart without copying.
type row struct {
	key     []byte
	create  ident.Revision
	mod     ident.Revision
	version int64
	value   []byte
	lease   ident.LeaseID

	head int // Bytes before value and lease: the row that keys_only asks for.
}

// kvSizeMax bounds what appendKV adds.
func kvSizeMax(key, value []byte) int {
	return len(key) + len(value) + 2*(1+binary.MaxVarintLen32) + 4*(1+binary.MaxVarintLen64)
}

// appendKV encodes a row.
func appendKV(dst []byte, r *row) []byte {
	dst = appendBytes(dst, tagKey, r.key)
	dst = appendInt(dst, tagCreate, int64(r.create))
	dst = appendInt(dst, tagMod, int64(r.mod))
	dst = appendInt(dst, tagVersion, r.version)
	dst = appendBytes(dst, tagValue, r.value)
	return appendInt(dst, tagLease, int64(r.lease))
}

func appendBytes(dst []byte, tag byte, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = append(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendInt(dst []byte, tag byte, v int64) []byte {
	if v == 0 {
		return dst
	}
	dst = append(dst, tag)
	return binary.AppendUvarint(dst, uint64(v))
}

// parseKV takes a row apart. Its fields point into b.
func parseKV(b []byte) (row, error) {
	p := parser{rest: b}
	r := row{key: p.bytes(tagKey)}
	r.create = ident.Revision(p.int(tagCreate))
	r.mod = ident.Revision(p.int(tagMod))
	r.version = p.int(tagVersion)
	r.head = len(b) - len(p.rest)
	r.value = p.bytes(tagValue)
	r.lease = ident.LeaseID(p.int(tagLease))
	if p.bad || len(p.rest) != 0 || len(r.key) == 0 {
		return row{}, fmt.Errorf("row of %d bytes, %d of them not understood: %w", len(b), len(p.rest), errMalformedRow)
	}
	return r, nil
}

// parser reads fields in their order. A field that is not next is zero.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) int(tag byte) int64 {
	if p.bad || len(p.rest) == 0 || p.rest[0] != tag {
		return 0
	}
	return int64(p.uvarint())
}

func (p *parser) bytes(tag byte) []byte {
	if p.bad || len(p.rest) == 0 || p.rest[0] != tag {
		return nil
	}
	n := p.uvarint()
	if p.bad || n > uint64(len(p.rest)) {
		p.bad = true
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

// uvarint reads the number after a tag. Zero and longer forms than needed are
// not what a field is written as.
func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest[1:])
	if n <= 0 || v == 0 || n > 1 && p.rest[n] == 0 {
		p.bad = true
		return 0
	}
	p.rest = p.rest[1+n:]
	return v
}

// message is the row as others want it; it owns its bytes.
func (r *row) message() *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key:            append([]byte(nil), r.key...),
		CreateRevision: int64(r.create),
		ModRevision:    int64(r.mod),
		Version:        r.version,
		Value:          append([]byte(nil), r.value...),
		Lease:          int64(r.lease),
	}
}

package entry

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// The payload of an ordinary Raft entry, described in docs/format/entry.md:
//
//	0         1        9
//	+---------+--------+---------+---------------+----------+-----------+
//	| version | time   | origins | origin * n    | requests | request*n |
//	+---------+--------+---------+---------------+----------+-----------+
//
//	origin:  member (8) | nonce (8)
//	request: origin number | sequence | length | data
//
// Fixed numbers are little-endian, all others are varints in their shortest
// form. Origins stand in the order of their first use, so that one batch has
// exactly one encoding.
const (
	batchVersion    = 1
	batchHeaderSize = 1 + 8
	originSize      = 8 + 8
	requestSizeMin  = 3 // Origin number, sequence and length of an empty request.
)

// ErrBatch is matched by every error of DecodeBatch.
var ErrBatch = errors.New("entry: not a batch of this version")

// AppendBatch appends the binary form of b to dst.
func AppendBatch(dst []byte, b *Batch) []byte {
	origins := make([]origin, 0, 8)
	for i := range b.Requests {
		origins, _ = numberOf(origins, originOf(&b.Requests[i]))
	}
	dst = append(dst, batchVersion)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(b.Time))
	dst = binary.AppendUvarint(dst, uint64(len(origins)))
	for _, o := range origins {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o.member))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o.nonce))
	}
	dst = binary.AppendUvarint(dst, uint64(len(b.Requests)))
	for i := range b.Requests {
		request := &b.Requests[i]
		_, number := numberOf(origins, originOf(request))
		dst = binary.AppendUvarint(dst, uint64(number))
		dst = binary.AppendUvarint(dst, request.ID.Sequence)
		dst = binary.AppendUvarint(dst, uint64(len(request.Data)))
		dst = append(dst, request.Data...)
	}
	return dst
}

// BatchSizeMax bounds the bytes that AppendBatch adds for b.
func BatchSizeMax(b *Batch) int {
	size := batchHeaderSize + 2*binary.MaxVarintLen64
	for i := range b.Requests {
		size += RequestSizeMax(&b.Requests[i])
	}
	return size
}

// RequestSizeMax bounds what one request adds to a batch.
func RequestSizeMax(r *Request) int {
	return originSize + 3*binary.MaxVarintLen64 + len(r.Data)
}

// DecodeBatch reads a batch. Its requests are appended to reuse[:0], and their
// data are slices of data: both stay valid only as long as the caller keeps
// the two untouched.
func DecodeBatch(data []byte, reuse []Request) (Batch, error) {
	if len(data) < batchHeaderSize {
		return Batch{}, fmt.Errorf("%d bytes, a header has %d: %w", len(data), batchHeaderSize, ErrBatch)
	}
	if data[0] != batchVersion {
		return Batch{}, fmt.Errorf("version %d, this program reads %d: %w", data[0], batchVersion, ErrBatch)
	}
	r := reader{rest: data[batchHeaderSize:]}
	batch := Batch{Time: int64(binary.LittleEndian.Uint64(data[1:]))}
	var fixed [8]origin
	origins := r.origins(fixed[:0])
	count := r.count(requestSizeMin)
	batch.Requests = reuse[:0]
	if cap(batch.Requests) < count {
		batch.Requests = make([]Request, 0, count)
	}
	used := 0 // Origins met so far.
	for range count {
		number := r.uvarint()
		sequence := r.uvarint()
		body := r.bytes(r.uvarint())
		if r.failed || number > uint64(used) || number >= uint64(len(origins)) {
			r.failed = true
			break
		}
		if number == uint64(used) {
			used++
		}
		batch.Requests = append(batch.Requests, Request{
			ID:   ident.RequestID{Member: origins[number].member, Nonce: origins[number].nonce, Sequence: sequence},
			Data: body,
		})
	}
	if r.failed || used != len(origins) || len(r.rest) != 0 {
		return Batch{}, fmt.Errorf("malformed near byte %d of %d: %w", len(data)-len(r.rest), len(data), ErrBatch)
	}
	return batch, nil
}

// origin is one boot of one member.
type origin struct {
	member ident.MemberID
	nonce  ident.Nonce
}

func originOf(r *Request) origin { return origin{member: r.ID.Member, nonce: r.ID.Nonce} }

// numberOf finds o, adding it when new. A batch has as many origins as members
// that forwarded something: a handful.
func numberOf(origins []origin, o origin) ([]origin, int) {
	for i := range origins {
		if origins[i] == o {
			return origins, i
		}
	}
	return append(origins, o), len(origins)
}

// reader takes a batch apart. After a failure it returns zeroes.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) uvarint() uint64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 {
		v := r.rest[0]
		r.rest = r.rest[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || r.rest[n-1] == 0 { // Cut, too long, or not the shortest form.
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads a number of things that take at least sizeMin bytes each, so
// that a few bytes can never ask for much memory.
func (r *reader) count(sizeMin int) int {
	v := r.uvarint()
	if v > uint64(len(r.rest)/sizeMin) {
		r.failed = true
		return 0
	}
	return int(v)
}

func (r *reader) origins(into []origin) []origin {
	for range r.count(originSize) {
		o := origin{
			member: ident.MemberID(binary.LittleEndian.Uint64(r.rest)),
			nonce:  ident.Nonce(binary.LittleEndian.Uint64(r.rest[8:])),
		}
		r.rest = r.rest[originSize:]
		before := len(into)
		if into, _ = numberOf(into, o); len(into) == before {
			r.failed = true // Listed twice.
		}
	}
	return into
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

package codec

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Ready is an answer made mostly of bytes that are encoded already.
type Ready interface {
	// ReadySize is the length of what EncodeReady writes.
	ReadySize() int
	EncodeReady(*Encoder)
}

// Encoder collects the encoding of one message. Small parts are copied into
// pooled chunks; a large one is referred to where it lies, so its owner must
// never write to it again.
type Encoder struct {
	pool mem.BufferPool
	out  mem.BufferSlice

	left   int        // Of the promised size, not written yet.
	chunk  mem.Buffer // Holds copies. Nil before the first one.
	bytes  []byte     // Of chunk, to write to.
	filled int        // Bytes of chunk written.
	sent   int        // Bytes of chunk that out refers to.
}

// Message writes a field that is a message, itself in wire form.
func (e *Encoder) Message(field protowire.Number, wire []byte) {
	size := messageSize(field, len(wire))
	if len(wire) < spliceBytesMin {
		b := e.Reserve(size)[:0]
		b = protowire.AppendTag(b, field, protowire.BytesType)
		protowire.AppendBytes(b, wire)
		return
	}
	b := e.Reserve(size - len(wire))[:0]
	b = protowire.AppendTag(b, field, protowire.BytesType)
	protowire.AppendVarint(b, uint64(len(wire)))
	e.flush()
	e.out = append(e.out, mem.SliceBuffer(wire))
	e.left -= len(wire)
}

// Reserve returns the next size bytes of the encoding for the caller to fill.
func (e *Encoder) Reserve(size int) []byte {
	if len(e.bytes)-e.filled < size {
		e.release()
		e.chunk, e.bytes = newBuffer(e.pool, max(size, min(e.left, chunkBytes)))
		e.filled, e.sent = 0, 0
	}
	b := e.bytes[e.filled:][:size:size]
	e.filled += size
	e.left -= size
	return b
}

// messageSize is what Message writes for wire bytes of a length.
func messageSize(field protowire.Number, wireBytes int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(wireBytes)
}

// flush lets out refer to what was copied since the last time.
func (e *Encoder) flush() {
	if e.sent < e.filled {
		e.out = append(e.out, e.chunk.Slice(e.sent, e.filled))
		e.sent = e.filled
	}
}

// release gives the chunk over to out, which frees it once it is sent.
func (e *Encoder) release() {
	e.flush()
	if e.chunk != nil {
		e.chunk.Free()
	}
	e.chunk, e.bytes = nil, nil
}

// newBuffer returns a buffer of exactly size, and its bytes to fill.
func newBuffer(pool mem.BufferPool, size int) (mem.Buffer, []byte) {
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, size)
		return mem.SliceBuffer(b), b
	}
	p := pool.Get(size)
	return mem.NewBuffer(p, pool), *p
}

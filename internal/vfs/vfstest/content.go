package vfstest

import (
	"bytes"
	"encoding/binary"
	"hash"
)

const chunkBytes = 4096

var zeroChunk [chunkBytes]byte

// content is the bytes of a file. Chunks never written are nil and read as
// zeroes, so that preallocated files cost nothing.
type content struct {
	chunks []chunk
	size   int64
}

// chunk is a part of a file. A clone takes it along and nothing is copied until
// one of the two writes: crash images are many and differ by little.
type chunk struct {
	b      []byte
	shared bool // Another content has it too, or had: copied before it is written.
}

func (c *content) readAt(p []byte, off int64) int {
	n := 0
	for n < len(p) && off < c.size {
		from := int(off % chunkBytes)
		part := min(len(p)-n, chunkBytes-from, int(c.size-off))
		if chunk := c.chunks[off/chunkBytes].b; chunk != nil {
			copy(p[n:n+part], chunk[from:])
		} else {
			clear(p[n : n+part])
		}
		n += part
		off += int64(part)
	}
	return n
}

func (c *content) writeAt(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if end := off + int64(len(p)); end > c.size {
		c.resize(end)
	}
	for len(p) > 0 {
		i, from := off/chunkBytes, int(off%chunkBytes)
		n := copy(c.own(i)[from:], p)
		p = p[n:]
		off += int64(n)
	}
}

// own is a chunk that may be written.
func (c *content) own(i int64) []byte {
	at := &c.chunks[i]
	switch {
	case at.b == nil:
		*at = chunk{b: make([]byte, chunkBytes)}
	case at.shared:
		*at = chunk{b: append([]byte(nil), at.b...)}
	}
	return at.b
}

// resize cuts, or grows with zeroes.
func (c *content) resize(size int64) {
	count := int((size + chunkBytes - 1) / chunkBytes)
	for len(c.chunks) < count {
		c.chunks = append(c.chunks, chunk{})
	}
	clear(c.chunks[count:])
	c.chunks = c.chunks[:count]
	// What was cut off must not come back when the file grows again.
	if from := int(size % chunkBytes); size < c.size && from > 0 && c.chunks[count-1].b != nil {
		clear(c.own(int64(count - 1))[from:])
	}
	c.size = size
}

func (c *content) clone() content {
	for i := range c.chunks {
		c.chunks[i].shared = true
	}
	return content{chunks: append([]chunk(nil), c.chunks...), size: c.size}
}

// hash adds the bytes to h; chunks of zeroes are as if never written.
func (c *content) hash(h hash.Hash) {
	var head [16]byte
	for i, chunk := range c.chunks {
		if chunk.b == nil || bytes.Equal(chunk.b, zeroChunk[:]) {
			continue
		}
		binary.LittleEndian.PutUint64(head[:], uint64(i))
		h.Write(head[:8])
		h.Write(chunk.b)
	}
	binary.LittleEndian.PutUint64(head[:], ^uint64(0)) // No chunk has this number.
	binary.LittleEndian.PutUint64(head[8:], uint64(c.size))
	h.Write(head[:])
}

func (c *content) flip(offset int64, bit uint) {
	if offset < c.size {
		var b [1]byte
		c.readAt(b[:], offset)
		b[0] ^= 1 << (bit % 8)
		c.writeAt(b[:], offset)
	}
}

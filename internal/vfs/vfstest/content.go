package vfstest

const chunkBytes = 4096

// content is the bytes of a file. Chunks never written are nil and read as
// zeroes, so that preallocated files cost nothing.
type content struct {
	chunks [][]byte
	size   int64
}

func (c *content) readAt(p []byte, off int64) int {
	n := 0
	for n < len(p) && off < c.size {
		from := int(off % chunkBytes)
		part := min(len(p)-n, chunkBytes-from, int(c.size-off))
		if chunk := c.chunks[off/chunkBytes]; chunk != nil {
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
		if c.chunks[i] == nil {
			c.chunks[i] = make([]byte, chunkBytes)
		}
		n := copy(c.chunks[i][from:], p)
		p = p[n:]
		off += int64(n)
	}
}

// resize cuts, or grows with zeroes.
func (c *content) resize(size int64) {
	count := int((size + chunkBytes - 1) / chunkBytes)
	for len(c.chunks) < count {
		c.chunks = append(c.chunks, nil)
	}
	clear(c.chunks[count:])
	c.chunks = c.chunks[:count]
	// What was cut off must not come back when the file grows again.
	if from := int(size % chunkBytes); size < c.size && from > 0 && c.chunks[count-1] != nil {
		clear(c.chunks[count-1][from:])
	}
	c.size = size
}

func (c *content) clone() content {
	out := content{chunks: make([][]byte, len(c.chunks)), size: c.size}
	for i, chunk := range c.chunks {
		if chunk != nil {
			out.chunks[i] = append([]byte(nil), chunk...)
		}
	}
	return out
}

func (c *content) flip(offset int64, bit uint) {
	if offset < c.size {
		var b [1]byte
		c.readAt(b[:], offset)
		b[0] ^= 1 << (bit % 8)
		c.writeAt(b[:], offset)
	}
}

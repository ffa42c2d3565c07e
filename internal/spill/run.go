package spill

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// A run is records one after the other: length of key (4), length of value (4),
// CRC32C of lengths and bytes (4), key, value; little-endian. It is read by the
// process that wrote it and by nobody else, so it has no version.
const (
	headBytes   = 12
	bufferBytes = 256 << 10 // Of one run while it is written or read.
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type runWriter struct {
	file   vfs.File
	buffer []byte
	offset int64
}

func (w *runWriter) add(key, value []byte) error {
	head := make([]byte, 0, headBytes)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(key)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(value)))
	head = binary.LittleEndian.AppendUint32(head, checksum(head, key, value))
	for _, part := range [][]byte{head, key, value} {
		w.buffer = append(w.buffer, part...)
	}
	if len(w.buffer) >= bufferBytes {
		return w.flush()
	}
	return nil
}

func checksum(lengths, key, value []byte) uint32 {
	return crc32.Update(crc32.Update(crc32.Checksum(lengths[:8], castagnoli), castagnoli, key), castagnoli, value)
}

func (w *runWriter) flush() error {
	_, err := w.file.WriteAt(w.buffer, w.offset)
	w.offset += int64(len(w.buffer))
	w.buffer = w.buffer[:0]
	return err
}

type runReader struct {
	file   vfs.File
	buffer []byte // Read and not yet used.
	offset int64  // In the file, behind the buffer.
	size   int64
}

func newRunReader(f vfs.File) *runReader { return &runReader{file: f, size: -1} }

// next returns a record, a nil key after the last. The bytes are good until the
// next call.
func (r *runReader) next() (key, value []byte, err error) {
	if r.size < 0 {
		if r.size, err = r.file.Size(); err != nil {
			return nil, nil, err
		}
	}
	if len(r.buffer) == 0 && r.offset == r.size {
		return nil, nil, nil
	}
	if err := r.need(headBytes); err != nil {
		return nil, nil, err
	}
	keyLen, valueLen := int64(binary.LittleEndian.Uint32(r.buffer)), int64(binary.LittleEndian.Uint32(r.buffer[4:]))
	if err := r.need(headBytes + keyLen + valueLen); err != nil {
		return nil, nil, err
	}
	key, value = r.buffer[headBytes:headBytes+keyLen:headBytes+keyLen], r.buffer[headBytes+keyLen:headBytes+keyLen+valueLen]
	if checksum(r.buffer, key, value) != binary.LittleEndian.Uint32(r.buffer[8:]) {
		return nil, nil, fmt.Errorf("%s before offset %d: %w", r.file.Name(), r.offset, ErrDamaged)
	}
	r.buffer = r.buffer[headBytes+keyLen+valueLen:]
	return key, value, nil
}

// need makes the buffer hold n bytes at least.
func (r *runReader) need(n int64) error {
	have := int64(len(r.buffer))
	if have >= n {
		return nil
	}
	if n-have > r.size-r.offset {
		return fmt.Errorf("%s ends at offset %d within a record: %w", r.file.Name(), r.size, ErrDamaged)
	}
	grown := make([]byte, have+min(max(n-have, bufferBytes), r.size-r.offset))
	copy(grown, r.buffer)
	if _, err := r.file.ReadAt(grown[have:], r.offset); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.offset += int64(len(grown)) - have
	r.buffer = grown
	return nil
}

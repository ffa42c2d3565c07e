package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Value returns the value at a place that Append or a Reader has told. What
// still is in memory is not copied, so the result must not be changed, and
// keeps a block of the ring alive for as long as it is held.
func (l *Log) Value(loc Loc) ([]byte, error) {
	offset := int64(loc.Offset)
	if b := l.blocks.Load().find(loc.Segment, offset); b != nil {
		from := offset - b.start
		to := from + int64(loc.Length)
		if to <= b.published.Load() {
			return b.data[from:to:to], nil
		}
		return nil, damagef(b.segment.name, offset, "a value of %d bytes runs past its block", loc.Length)
	}
	s := l.find(loc.Segment)
	if s == nil {
		return nil, fmt.Errorf("value in segment %d: %w", loc.Segment, ErrDropped)
	}
	f, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	return readValue(f, s, loc)
}

func readValue(f vfs.File, s *segment, loc Loc) ([]byte, error) {
	offset, n := int64(loc.Offset), int64(loc.Length)
	if offset+n+valueCRCBytes > s.flushed.Load() {
		return nil, damagef(s.name, offset, "a value of %d bytes runs past the end at %d", n, s.flushed.Load())
	}
	data := make([]byte, n+valueCRCBytes)
	if err := readFull(f, data, offset); err != nil {
		return nil, fmt.Errorf("read %s at %d: %w", s.name, offset, err)
	}
	value := data[:n:n]
	if checksum(0, value) != binary.LittleEndian.Uint32(data[n:]) {
		return nil, damagef(s.name, offset, "checksum of a value of %d bytes", n)
	}
	return value, nil
}

// readFull reads all of data. A file that ends early has been shortened by
// somebody else, which is damage.
func readFull(f vfs.File, data []byte, offset int64) error {
	n, err := f.ReadAt(data, offset)
	if n == len(data) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damagef(f.Name(), offset+int64(n), "the file ends here, %d bytes are missing", len(data)-n)
	}
	return err
}

// SegmentFile lends the file of a sealed segment to who copies it. The file
// stays readable until closed, also when it is dropped meanwhile.
type SegmentFile struct {
	io.ReaderAt
	Info    SegmentInfo
	segment *segment
}

// OpenSegment lends the file of a sealed segment, flushed whole.
func (l *Log) OpenSegment(id uint64) (*SegmentFile, error) {
	s, end, err := l.sealedSegment(id)
	if err != nil {
		return nil, err
	}
	if s.flushed.Load() < end.Offset {
		if err := l.Flush(); err != nil {
			return nil, err
		}
	}
	f, err := s.acquire()
	if err != nil {
		return nil, err
	}
	return &SegmentFile{ReaderAt: f, Info: s.info(&end, end), segment: s}, nil
}

// Close gives the file back. Once.
func (f *SegmentFile) Close() { f.segment.release() }

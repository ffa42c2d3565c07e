package history

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

const (
	segmentSuffix = ".seg"
	indexSuffix   = ".idx"
	scratchSuffix = ".tmp"
)

// SegmentName is the base name of a segment's file.
func SegmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, segmentSuffix) }

// IndexName is the base name of the key index of a sealed segment.
func IndexName(id uint64) string { return fmt.Sprintf("%016x%s", id, indexSuffix) }

// parseName is the reverse; only the exact form counts.
func parseName(name, suffix string) (uint64, bool) {
	var id uint64
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	if _, err := fmt.Sscanf(hex, "%016x", &id); err != nil || fmt.Sprintf("%016x", id) != hex {
		return 0, false
	}
	return id, true
}

// segment is one file, which may not exist yet: the writer begins segments in
// memory, a flush creates them.
type segment struct {
	id    uint64
	name  string // Path.
	start Mark
	seed  uint32

	flushed atomic.Int64         // Bytes in the file. Grows only.
	sealed  atomic.Pointer[Mark] // Where it ends. Nil while the writer appends to it.

	indexBytes atomic.Int64 // Of the key index beside it.

	file struct {
		sync.Mutex
		f     vfs.File // Nil until created.
		users int
		gone  bool // Dropped or closed: the last user closes f.
	}

	points struct { // Where a scan may begin, in order.
		sync.Mutex
		list []Mark
	}

	// Owned by whoever flushes.
	allocated int64
	dirty     bool // Written since the last sync.
}

func newSegment(dir string, start Mark) *segment {
	return &segment{
		id:    start.Segment,
		name:  dir + "/" + SegmentName(start.Segment),
		start: start,
		seed:  segmentSeed(start.Segment),
	}
}

var errNotCreated = errors.New("history segment is in memory only")

// acquire lends the file; it stays open until released, also when the segment
// is dropped meanwhile.
func (s *segment) acquire() (vfs.File, error) {
	s.file.Lock()
	defer s.file.Unlock()
	if s.file.gone {
		return nil, fmt.Errorf("segment %d: %w", s.id, ErrDropped)
	}
	if s.file.f == nil {
		return nil, errNotCreated
	}
	s.file.users++
	return s.file.f, nil
}

func (s *segment) release() {
	s.file.Lock()
	s.file.users--
	f := s.closableLocked()
	s.file.Unlock()
	if f != nil {
		_ = f.Close() // Only read from since its last sync.
	}
}

// retire closes the file as soon as nobody uses it.
func (s *segment) retire() error {
	s.file.Lock()
	s.file.gone = true
	f := s.closableLocked()
	s.file.Unlock()
	if f == nil {
		return nil
	}
	return f.Close()
}

func (s *segment) closableLocked() vfs.File {
	if !s.file.gone || s.file.users > 0 {
		return nil
	}
	f := s.file.f
	s.file.f = nil
	return f
}

func (s *segment) setFile(f vfs.File) {
	s.file.Lock()
	defer s.file.Unlock()
	s.file.f = f
}

// note remembers where a record begins, unless one close before is known.
func (s *segment) note(at Mark) {
	s.points.Lock()
	defer s.points.Unlock()
	last := s.start
	if n := len(s.points.list); n > 0 {
		last = s.points.list[n-1]
	}
	if at.Segment == s.id && at.Offset >= last.Offset+waypointBytes {
		s.points.list = append(s.points.list, at)
	}
}

// point returns the last known mark that is before what is looked for.
func (s *segment) point(before func(Mark) bool) Mark {
	s.points.Lock()
	defer s.points.Unlock()
	i := sort.Search(len(s.points.list), func(i int) bool { return !before(s.points.list[i]) })
	if i == 0 {
		return s.start
	}
	return s.points.list[i-1]
}

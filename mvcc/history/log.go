package history

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Config says where a history lives and how large its parts are.
type Config struct {
	FS           vfs.FS
	Dir          string       // A folder of its own.
	SegmentBytes int64        // Size of a segment; zero means SegmentBytesDefault. Smaller ones give space back sooner.
	RingBytes    int64        // Memory for the newest records; zero means RingBytesDefault. Readers further behind read files.
	Logger       hclog.Logger // Required.
	// Filling says that much is written and little synced before it is closed: files
	// are not extended ahead, which writes every byte twice to make syncs quick.
	Filling bool

	// Merged is a revision that base covers: segments that end below it are not
	// needed, and what a Drop that was cut short has left of them goes at Open.
	// What follows it must be there. Below 0: base covers nothing; 0: nobody says.
	Merged ident.Revision
}

// Validate reports all that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.FS == nil || c.Dir == "" || c.Logger == nil {
		errs = append(errs, errors.New("history: FS, Dir and Logger are required"))
	}
	if c.SegmentBytes != 0 && (c.SegmentBytes < SegmentBytesMin || c.SegmentBytes > SegmentBytesMax) {
		errs = append(errs, fmt.Errorf("history: SegmentBytes %d is not within %d and %d", c.SegmentBytes, SegmentBytesMin, int64(SegmentBytesMax)))
	}
	if c.RingBytes != 0 && c.RingBytes < RingBytesMin {
		errs = append(errs, fmt.Errorf("history: RingBytes %d is below %d", c.RingBytes, RingBytesMin))
	}
	return errors.Join(errs...)
}

// Log is the history of one member.
//
// Append and Seal belong to one goroutine, the writer. Everything else may be
// called from any. It has more fields than most because three parties work on
// it side by side: the writer, whoever flushes, and readers.
type Log struct {
	cfg        Config // With defaults filled in.
	blockBytes int64

	blocks   atomic.Pointer[ring]
	segments atomic.Pointer[[]*segment] // In order, at least one; the last is active.
	bytes    atomic.Int64               // Written into segments and key indexes that are kept.
	behind   atomic.Int64               // Published bytes that are not in files yet.
	failed   atomic.Pointer[error]      // Invariant I-10: once set, nothing more is written.
	closed   atomic.Bool

	writer struct { // Owned by the writer.
		block     *block // Nil until the first append.
		end       Mark
		ringBytes int64
		noteAt    int64 // Offset from which on the next waypoint is due.
	}

	mu struct { // Guards the end for others, the list of segments and who holds them.
		sync.Mutex
		end   Mark
		holds []uint64 // First segments that may not go; one each time.
	}

	flush struct { // Held while writing to files.
		sync.Mutex
		open    []*segment // Those that more may be written to, or that need trimming.
		created bool       // Files whose names are not synced.
	}
	syncing  sync.Mutex // Held while syncing, so that marks are returned in order.
	dropping sync.Mutex // Held while segments or key indexes come or go.
}

// Create makes a new history that begins after start, of which Offset is of no
// interest and Segment may be zero. It is durable when Create returns.
func Create(cfg Config, start Mark) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("create history: %w", err)
	}
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("create history: %w", err)
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("create history in %s, which has %s: %w", cfg.Dir, names[0], ErrNotEmpty)
	}
	start.Segment = max(start.Segment, 1)
	start.Offset = segmentHeaderBytes
	l := newLog(cfg)
	seg := newSegment(cfg.Dir, start)
	l.segments.Store(&[]*segment{seg})
	b := &block{segment: seg, data: make([]byte, l.blockBytes), cost: l.blockBytes}
	l.begin(b, start, 0)
	if _, err := l.Sync(); err != nil {
		return nil, fmt.Errorf("create history: %w", errors.Join(err, l.Close()))
	}
	if err := cfg.FS.SyncDir(filepath.Dir(cfg.Dir)); err != nil {
		return nil, fmt.Errorf("create history: %w", errors.Join(err, l.Close()))
	}
	return l, nil
}

func newLog(cfg Config) *Log {
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = SegmentBytesDefault
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = RingBytesDefault
	}
	l := &Log{cfg: cfg, blockBytes: min(max(cfg.RingBytes/8, blockBytesMin), blockBytesMax)}
	l.blocks.Store(&ring{})
	l.segments.Store(&[]*segment{})
	return l
}

// End is where the last published record ends.
func (l *Log) End() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.end
}

// Bytes is how much is kept: segments as far as they are written, in memory or
// file, and key indexes. Preallocated space does not count.
func (l *Log) Bytes() int64 { return l.bytes.Load() }

// Unflushed is how many published bytes are in memory only.
func (l *Log) Unflushed() int64 { return l.behind.Load() }

// SegmentInfo describes a segment. One without records has its last index and
// revision just below the first.
type SegmentInfo struct {
	ID            uint64
	Sealed        bool
	FirstIndex    ident.Index // The smallest that can be in it.
	LastIndex     ident.Index // That of its last record.
	FirstRevision ident.Revision
	LastRevision  ident.Revision
	Bytes         int64
	Start         Mark
	End           Mark
}

// Segments lists what is kept, in order. The last one is active.
func (l *Log) Segments() []SegmentInfo {
	end := l.End() // First: a segment sealed from here on has its own end.
	list := *l.segments.Load()
	infos := make([]SegmentInfo, 0, len(list))
	for _, s := range list {
		sealed := s.sealed.Load()
		if sealed == nil && s.id != end.Segment {
			break // Begun after we looked.
		}
		infos = append(infos, s.info(sealed, end))
	}
	return infos
}

func (s *segment) info(sealed *Mark, end Mark) SegmentInfo {
	if sealed != nil {
		end = *sealed
	}
	return SegmentInfo{
		ID: s.id, Sealed: sealed != nil,
		FirstIndex: s.start.Index + 1, LastIndex: end.Index,
		FirstRevision: s.start.Revision + 1, LastRevision: end.Revision,
		Bytes: end.Offset, Start: s.start, End: end,
	}
}

// find returns the segment of an id, nil when it is not kept.
func (l *Log) find(id uint64) *segment {
	list := *l.segments.Load()
	if first := list[0].id; id >= first && id-first < uint64(len(list)) {
		return list[id-first]
	}
	return nil
}

// sealedSegment returns a segment that no longer changes.
func (l *Log) sealedSegment(id uint64) (*segment, Mark, error) {
	s := l.find(id)
	if s == nil {
		return nil, Mark{}, fmt.Errorf("segment %d: %w", id, ErrDropped)
	}
	end := s.sealed.Load()
	if end == nil {
		return nil, Mark{}, fmt.Errorf("segment %d: %w", id, ErrNotSealed)
	}
	return s, *end, nil
}

// Hold keeps the segments from an id on from being dropped until released.
func (l *Log) Hold(segment uint64) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holdLocked(segment)
}

func (l *Log) holdLocked(segment uint64) (release func()) {
	l.mu.holds = append(l.mu.holds, segment)
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.Index(l.mu.holds, segment)
		l.mu.holds = slices.Delete(l.mu.holds, i, i+1)
	})
}

// Drop removes the sealed segments before an id, up to the first that somebody
// holds, and tells how many bytes went. The caller has made sure that what is
// in them is in the base, durably.
func (l *Log) Drop(below uint64) (freed int64, err error) {
	l.dropping.Lock()
	defer l.dropping.Unlock()
	for {
		s := l.takeFirst(below)
		if s == nil {
			return freed, nil
		}
		// One by one and oldest first, each made durable: whatever a crash
		// leaves has no gap.
		if err := l.unlink(s); err != nil {
			l.putFirst(s)
			return freed, fmt.Errorf("drop segment %d: %w", s.id, err)
		}
		bytes := s.sealed.Load().Offset + s.indexBytes.Load()
		l.bytes.Add(-bytes)
		freed += bytes
		if err := s.retire(); err != nil {
			return freed, fmt.Errorf("drop segment %d: %w", s.id, err)
		}
	}
}

// BytesBelow is what Bytes counts of the segments before an id.
func (l *Log) BytesBelow(id uint64) (n int64) {
	for _, s := range *l.segments.Load() {
		end := s.sealed.Load()
		if s.id >= id || end == nil {
			break
		}
		n += end.Offset + s.indexBytes.Load()
	}
	return n
}

// takeFirst takes the oldest segment off the list if it may go.
func (l *Log) takeFirst(below uint64) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, held := range l.mu.holds {
		below = min(below, held)
	}
	list := *l.segments.Load()
	s := list[0]
	end := s.sealed.Load()
	if end == nil || s.id >= below || s.flushed.Load() < end.Offset || l.closed.Load() {
		return nil
	}
	rest := slices.Clone(list[1:])
	l.segments.Store(&rest)
	return s
}

func (l *Log) putFirst(s *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Insert(slices.Clone(*l.segments.Load()), 0, s)
	l.segments.Store(&list)
}

func (l *Log) unlink(s *segment) error {
	fail.Here("history/drop/before")
	if err := removeFile(l.cfg.FS, filepath.Join(l.cfg.Dir, IndexName(s.id))); err != nil {
		return err
	}
	fail.Here("history/drop/index")
	if err := removeFile(l.cfg.FS, filepath.Join(l.cfg.Dir, SegmentName(s.id))); err != nil {
		return err
	}
	fail.Here("history/drop/after")
	return l.cfg.FS.SyncDir(l.cfg.Dir)
}

// Close gives the files back. It does not sync: what no Mark covers is
// replayed.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.flush.Lock()
	defer l.flush.Unlock()
	l.mu.Lock()
	list := *l.segments.Load()
	l.mu.Unlock()
	var errs []error
	for _, s := range list {
		errs = append(errs, s.retire())
	}
	return errors.Join(errs...)
}

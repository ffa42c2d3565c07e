package watch

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
)

// Request says what a watcher wants.
type Request struct {
	ID       int64 // 0: one is chosen.
	Key, End []byte
	Start    ident.Revision // The first revision of interest. 0: the next one.
	PrevKV   bool
	NoPut    bool
	NoDelete bool
}

// Kind says what a batch is.
type Kind uint8

// The kinds.
const (
	Created  Kind = iota + 1 // First of a watcher.
	Events                   // Events of one or more whole revisions.
	Progress                 // Everything up to Revision was delivered.
	Canceled                 // Last of a watcher.
	Refused                  // Instead of Created.
)

// AllWatchers is the ID in a progress mark for all watchers of a stream, and
// in a refusal.
const AllWatchers = -1

// Batch is one answer of a stream.
type Batch struct {
	Kind     Kind
	ID       int64
	Revision ident.Revision // For the header. Of Events: everything up to it was delivered to this watcher. 0 for Canceled.
	Events   [][]byte       // Each an mvccpb.Event in wire form, shared and read-only. The slice itself is good until the next call.
	Compact  ident.Revision // Of Canceled: C, when what the watcher wanted was compacted.
	Err      error          // Of Refused, and of Canceled when something failed.
	Shared   *Shared        // Of Events that other streams may get alike; may be nil.
}

// Shared keeps the encoding of an answer for all streams that send the same.
type Shared struct {
	last atomic.Pointer[encoding]
}

// Form is what an encoding depends on, beside the events.
type Form struct {
	ID          int64 // Of the watcher.
	Term        uint64
	Compression string // Of the stream.
}

type encoding struct {
	form Form
	is   any
}

// Encoding returns the answer in a form, encoded now unless it was before. What is
// kept is read by many.
func (s *Shared) Encoding(form Form, encode func() (any, error)) (any, error) {
	if e := s.last.Load(); e != nil && e.form == form {
		return e.is, nil
	}
	is, err := encode()
	if err == nil {
		s.last.Store(&encoding{form, is})
	}
	return is, err
}

// Stream carries the answers of any number of watchers to one client. Next
// belongs to one goroutine; everything else may be called from any.
type Stream struct {
	hub   *Hub
	ready chan struct{} // Holds a token when Next should look again.
	room  chan struct{} // Holds a token when Room should.

	mu struct { // Taken inside Hub.mu.
		sync.Mutex
		watchers map[int64]*watcher
		nextID   int64
		queue    []item
		head     int   // Of queue: items before it were taken.
		bytes    int   // Waiting in queue.
		answers  int   // Items in queue that are no events.
		waiting  bool  // Next waits for ready.
		starved  bool  // A watcher reads on once there is room.
		refused  int   // Bytes that did not fit when they were offered last.
		err      error // Why the stream ended.

		marked ident.Revision // Of the last progress mark for all in the queue, 0 when there is none.
	}

	out      [][]byte        // Owned by Next, as is what follows.
	ctx      context.Context // That wakes Next when it ends.
	unfollow func() bool
}

// item waits to be sent.
type item struct {
	batch   Batch    // Of all kinds but Events.
	watcher *watcher // Nil for marks of all watchers and refusals.
	frame   *frame   // Of Events.
	from    int      // The first event of frame.
	through ident.Revision
}

// watcher is one watch of a stream.
type watcher struct {
	stream *Stream
	id     int64
	asked  ident.Revision // Start, as requested.
	choice choice

	// Guarded by Hub.mu.
	group    *group
	behindAt int // Place in Hub.mu.behind.

	served uint64 // Turn of the catch-up that it last had a part in. Owned by that.

	// Guarded by Stream.mu. Invariant: everything wanted before next is in the
	// queue or was delivered; nothing from next on is.
	state  state
	next   ident.Revision
	marked bool // A progress mark is in the queue.
}

// state says who feeds a watcher.
type state uint8

const (
	live   state = iota // The pump, in the index of live watchers.
	behind              // The catch-up, in the index of those behind.
	done
)

// NewStream begins a stream. Close it.
func (h *Hub) NewStream() *Stream {
	s := &Stream{hub: h, ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	s.mu.watchers = make(map[int64]*watcher)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.err != nil {
		s.mu.err = h.mu.err
		return s
	}
	h.mu.streams[s] = struct{}{}
	return s
}

// Watch begins a watcher and returns its ID. The stream's next answer for it
// says so; events come after that.
func (s *Stream) Watch(r Request) (int64, error) {
	if r.Start < 0 {
		return 0, fmt.Errorf("watch from revision %d: %w", r.Start, mvcc.ErrCompacted)
	}
	span := newSpan(r.Key, r.End)
	if span.empty() {
		return 0, fmt.Errorf("keys of %d and %d bytes: %w", len(r.Key), len(r.End), ErrEmptyRange)
	}
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.err != nil {
		return 0, s.mu.err
	}
	id := r.ID
	if id == 0 {
		for s.mu.watchers[s.mu.nextID] != nil {
			s.mu.nextID++
		}
		id = s.mu.nextID
		s.mu.nextID++
	}
	if s.mu.watchers[id] != nil {
		return 0, fmt.Errorf("watch ID %d: %w", id, ErrDuplicateID)
	}
	// Not below what was shown to others: the header of Created must not be
	// older than events that they have.
	revision := max(h.mu.store.Head(), h.mu.at)
	w := &watcher{stream: s, id: id, asked: r.Start, next: r.Start, choice: r.choice()}
	if r.Start == 0 {
		w.next = revision + 1
	}
	s.mu.watchers[id] = w
	s.enqueueLocked(item{batch: Batch{Kind: Created, ID: id, Revision: revision}, watcher: w})
	h.insertLocked(w, span)
	return id, nil
}

// Refuse has the stream answer that a watcher was not created.
func (s *Stream) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueueLocked(item{batch: Batch{Kind: Refused, ID: AllWatchers, Err: err}})
}

// Cancel ends a watcher; the stream says so after what waits. It reports
// whether there was one.
func (s *Stream) Cancel(id int64) bool {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.mu.watchers[id]
	if w == nil {
		return false
	}
	h.endLocked(w, Batch{Kind: Canceled, ID: id})
	return true
}

// Close ends the stream and all its watchers.
func (s *Stream) Close() { s.hub.closeStream(s, ErrClosed) }

// Room returns once fewer than AnswersMax answers wait that are no events, or the
// stream has ended. Who calls it before each request lets a client that asks and does
// not read wait, as nothing else bounds what it is to be told. It belongs to one
// goroutine.
func (s *Stream) Room(ctx context.Context) error {
	for {
		s.mu.Lock()
		free := s.mu.answers < AnswersMax || s.mu.err != nil
		s.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Stream) freeLocked() {
	select {
	case s.room <- struct{}{}:
	default: // It will look anyway.
	}
}

// enqueueLocked appends to the queue.
func (s *Stream) enqueueLocked(it item) {
	s.mu.queue = append(s.mu.queue, it)
	if it.frame == nil {
		s.mu.answers++
	}
	s.wakeLocked()
}

func (s *Stream) wakeLocked() {
	if s.mu.waiting {
		s.mu.waiting = false
		select {
		case s.ready <- struct{}{}:
		default: // Next was told already, and came back for another reason.
		}
	}
}

// Next returns the next answer, waiting for it. After an error there is none.
func (s *Stream) Next(ctx context.Context) (Batch, error) {
	if s.ctx != ctx {
		s.follow(ctx)
	}
	for {
		b, ok, err := s.poll()
		if ok || err != nil {
			return b, err
		}
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		<-s.ready // Of a stream that is closed, or whose context ended, too.
	}
}

// follow has the end of a context wake Next. To wait for it beside ready would
// cost more each time than all else that Next does.
func (s *Stream) follow(ctx context.Context) {
	if s.unfollow != nil {
		s.unfollow()
	}
	s.ctx = ctx
	s.unfollow = context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wakeLocked()
	})
}

// Poll returns the next answer if there is one. It belongs to the goroutine of
// Next.
func (s *Stream) Poll() (b Batch, ok bool, err error) { return s.poll() }

// poll takes the next answer off the queue, or notes that Next waits.
func (s *Stream) poll() (b Batch, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.err != nil {
		return Batch{}, false, s.mu.err
	}
	if s.mu.head == len(s.mu.queue) {
		s.mu.waiting = true
		s.readOnLocked()
		return Batch{}, false, nil
	}
	if first := &s.mu.queue[s.mu.head]; first.frame != nil {
		if to := first.frame.cut(first.from); to < len(first.frame.events) {
			return s.cutLocked(first, to), true, nil
		}
	}
	it := s.popLocked()
	if it.frame != nil {
		return s.joinLocked(it), true, nil // Even if the watcher was canceled since: a mark behind it counts on it.
	}
	if it.batch.Kind == Progress {
		s.unmarkLocked(it)
	}
	return it.batch, true, nil
}

// popLocked takes one item. When there is room again, those who wait for it may
// read on.
func (s *Stream) popLocked() item {
	it := s.mu.queue[s.mu.head]
	s.mu.queue[s.mu.head] = item{}
	if s.mu.head++; 2*s.mu.head >= len(s.mu.queue) { // What was taken is at least half: close up.
		n := copy(s.mu.queue, s.mu.queue[s.mu.head:])
		clear(s.mu.queue[n:])
		s.mu.queue, s.mu.head = s.mu.queue[:n], 0
	}
	if it.frame != nil {
		s.mu.bytes -= it.frame.size(it.from)
		s.hub.letGo(it.frame)
	} else if s.mu.answers--; s.mu.answers == AnswersMax-1 {
		s.freeLocked()
	}
	s.readOnLocked()
	return it
}

// readOnLocked has a stream read on that waited for room, if there is.
func (s *Stream) readOnLocked() {
	if s.mu.starved && s.roomyLocked() {
		s.mu.starved = false
		s.hub.kickCatchUp()
	}
}

// cutLocked makes an answer of the beginning of an item that is too large for one.
func (s *Stream) cutLocked(it *item, to int) Batch {
	f := it.frame
	b := Batch{Kind: Events, ID: it.watcher.id, Revision: f.revisions[to-1], Events: f.events[it.from:to:to]}
	s.mu.bytes -= f.size(it.from) - f.size(to)
	it.from = to
	return b
}

// joinLocked makes one answer of what waits for the same watcher next to each
// other, within the bounds of a window.
func (s *Stream) joinLocked(first item) Batch {
	w := first.watcher
	b := Batch{Kind: Events, ID: w.id, Revision: first.through, Events: first.frame.events[first.from:]}
	if first.from == 0 && first.frame.size(0) <= sharedBytesMax {
		b.Shared = &first.frame.shared
	}
	revisions, size := first.frame.count(first.from), first.frame.size(first.from)
	joined := false
	for s.mu.head < len(s.mu.queue) {
		it := &s.mu.queue[s.mu.head]
		if it.watcher != w || it.frame == nil {
			break
		}
		revisions += it.frame.count(it.from)
		size += it.frame.size(it.from)
		if revisions > windowRevisionsMax || size > windowBytesMax {
			break
		}
		if !joined {
			joined = true
			s.out = append(s.out[:0], b.Events...)
		}
		more := s.popLocked()
		s.out = append(s.out, more.frame.events[more.from:]...)
		b.Events, b.Revision, b.Shared = s.out, more.through, nil
	}
	return b
}

// push offers what a window has for a watcher of the given state, and reports
// false when there was no room: then the watcher stands at the first event that
// did not fit.
func (s *Stream) push(w *watcher, fed state, f *frame, through ident.Revision) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.state != fed {
		return true
	}
	if f != nil {
		from := f.from(w.next)
		if size := f.size(from); from < len(f.events) {
			if !s.fitsLocked(size) {
				s.mu.starved, s.mu.refused = true, size
				w.next = f.revisions[from]
				return false
			}
			s.mu.refused = 0
			s.mu.bytes += size
			s.hub.hold(f)
			s.enqueueLocked(item{watcher: w, frame: f, from: from, through: through})
		}
	}
	w.next = max(w.next, through+1)
	return true
}

// roomLocked reports whether the stream takes more from history. If not, Next
// says so later.
func (s *Stream) roomLocked() bool {
	s.mu.starved = !s.roomyLocked()
	return !s.mu.starved
}

// roomyLocked reports whether half of the share is free, and what was refused
// would fit: or it would be read again and again in vain.
func (s *Stream) roomyLocked() bool {
	return s.fitsLocked(s.mu.refused) && (s.mu.bytes == 0 || s.mu.bytes <= s.hub.share()/2)
}

// fitsLocked reports whether something may be put into the queue. One answer always
// fits into an empty one, or nothing large would ever come; but where all streams
// together have no room, only of one whose client has taken what came before.
func (s *Stream) fitsLocked(size int) bool {
	share := s.hub.share()
	if s.mu.bytes == 0 {
		return share > 0 || s.mu.waiting
	}
	return s.mu.bytes+size <= share
}

// span is the keys that a watcher wants.
type span struct {
	key    []byte
	end    []byte // Exclusive. Nil: no bound.
	single bool   // key alone.
}

func newSpan(key, end []byte) span {
	sp := span{key: bytes.Clone(key)}
	switch {
	case len(end) == 0:
		sp.single = true
	case len(end) == 1 && end[0] == 0:
	default:
		sp.end = bytes.Clone(end)
	}
	return sp
}

func (sp *span) empty() bool {
	return !sp.single && sp.end != nil && bytes.Compare(sp.key, sp.end) >= 0
}

// Package watch tells clients what changes.
//
// Server code opens a stream for each client and watchers on it. Everything
// they get is read from history, never handed over by those who write: a
// watcher can make nobody wait.
//
// Two goroutines feed all streams. The pump follows the end of history; each
// event is matched once against all live watchers, and encoded once for all
// that want it in the same form. The catch-up serves those who begin in the
// past or whose stream could not take more: by one scan of history for all that
// stand at about the same place, or, for few keys in a long history, through
// the key indexes. It takes no more than its share of CPU and disk. A watcher that reaches the pump's
// position goes over to it, and back when its stream is full.
//
// Always true: a watcher gets every revision from its start on, whole, once and
// in order (I-8, W1 to W4), or is canceled with the compaction revision: never
// a gap in silence. A stream holds at most its budget of bytes, and all together
// theirs, besides one answer each. Nothing here is durable; a crash leaves nothing, clients resume at
// the revision after the last they saw.
package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Config says how a hub works.
type Config struct {
	// StreamBytes may wait in one stream before it falls back to reading history.
	// Zero means StreamBytesDefault.
	StreamBytes int
	// Bytes may wait in all streams, what several wait for counted once. As it fills
	// up, streams fall back to reading history sooner, and at its end a client gets
	// something once it has taken what it had. Zero means BytesDefault.
	Bytes  int
	Clock  clock.Clock  // Times how much the catch-up works. Required, unless Manual.
	Logger hclog.Logger // Required.

	// Manual leaves the turns of pump and catch-up to the owner, who calls Step,
	// and takes answers with Poll: a simulation decides when what happens.
	Manual bool

	// scanCost is what scanning a byte of history counts for beside the other
	// costs of a catch-up. Tests raise it; zero means 1.
	scanCost int64
}

// Hub feeds all streams of a member.
type Hub struct {
	cfg   Config
	tasks *task.Group
	kick  chan struct{} // Holds a token when the catch-up should look again.

	manual []*feeding // Of the owner of a manual hub: whose turn is next comes first.

	// using is held shared by who reads the store, so that Swap can wait for
	// them.
	using sync.RWMutex

	mu struct { // Never held while reading history or sending.
		sync.Mutex
		store   *mvcc.Store
		swapped chan struct{} // Closed when another store takes its place.
		streams map[*Stream]struct{}
		live    *index
		behind  *index
		late    []*watcher // All in behind.
		count   int
		err     error

		// Invariant: pushed ≤ at. Everything up to at is matched: a watcher of a
		// later revision may join. Everything up to pushed is in the queues.
		at     ident.Revision
		pushed ident.Revision
		wanted []wish // Progress marks to be made when the pump is through.
	}

	waiting   atomic.Int64 // Bytes of frames in queues.
	delivered atomic.Int64
	scanned   atomic.Int64
	looked    atomic.Int64
}

// NewHub begins to feed watchers from a store.
func NewHub(cfg Config, store *mvcc.Store) *Hub {
	if cfg.StreamBytes == 0 {
		cfg.StreamBytes = StreamBytesDefault
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = BytesDefault
	}
	cfg.scanCost = max(cfg.scanCost, 1)
	h := &Hub{cfg: cfg, tasks: task.New(context.Background()), kick: make(chan struct{}, 1)}
	h.mu.store, h.mu.swapped = store, make(chan struct{})
	h.mu.streams = make(map[*Stream]struct{})
	h.mu.live, h.mu.behind = newIndex(), newIndex()
	h.mu.at = store.Head()
	h.mu.pushed = h.mu.at
	pump, catchUp := &feeding{feeder: &pump{hub: h}}, &feeding{feeder: &catchUp{hub: h}}
	if cfg.Manual {
		h.manual = []*feeding{pump, catchUp}
		return h
	}
	h.tasks.Go("watch pump", func(ctx context.Context) error { return h.run(ctx, pump) })
	h.tasks.Go("watch catch-up", func(ctx context.Context) error { return h.run(ctx, catchUp) })
	return h
}

// Step gives the pump or the catch-up of a manual hub, in turns, one turn, and
// tells whether there may be more to do. After an error the hub has ended.
func (h *Hub) Step(ctx context.Context) (more bool, err error) {
	for range h.manual {
		f := h.manual[0]
		h.manual[0], h.manual[1] = h.manual[1], f
		if more, _, _, err = h.turn(ctx, f); err != nil || more {
			return more, err
		}
	}
	return false, nil
}

// Swap puts another store in the place of the present one, after a snapshot was
// installed. When it returns, nothing of the hub reads the old one. Watchers go
// on, or are canceled if the new one has compacted what they still want.
func (h *Hub) Swap(store *mvcc.Store) {
	h.using.Lock()
	defer h.using.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.store = store
	close(h.mu.swapped)
	h.mu.swapped = make(chan struct{})
}

// Stats is what there is to do.
type Stats struct {
	Watchers  int
	Slow      int // Of them, those that read history.
	Streams   int
	Delivered int64 // Events put into queues since the start.

	WaitingBytes int64 // In the queues of all streams.

	// Bytes that the catch-up has read since the start: of history in sequence,
	// and of single values found through the key indexes.
	ScannedBytes int64
	LookedBytes  int64
}

// Stats counts.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Watchers: h.mu.count, Slow: len(h.mu.late), Streams: len(h.mu.streams), Delivered: h.delivered.Load(), WaitingBytes: h.waiting.Load(),
		ScannedBytes: h.scanned.Load(), LookedBytes: h.looked.Load()}
}

// Done is closed when the hub ended, by Close or because history could not be
// read.
func (h *Hub) Done() <-chan struct{} { return h.tasks.Context().Done() }

// Close ends all streams and waits for the goroutines. It returns why the hub
// failed, if it did.
func (h *Hub) Close() error {
	h.tasks.Stop()
	err := h.tasks.Wait()
	h.end(ErrClosed)
	for _, f := range h.manual {
		f.leave()
	}
	return err
}

// end closes all streams.
func (h *Hub) end(err error) {
	h.mu.Lock()
	if h.mu.err == nil {
		h.mu.err = err
	}
	var streams []*Stream
	for s := range h.mu.streams { //tidy:ordered all are closed
		streams = append(streams, s)
	}
	h.mu.Unlock()
	for _, s := range streams {
		h.closeStream(s, err)
	}
}

// feeder is the pump or the catch-up: both take turns at reading a store.
type feeder interface {
	// turn does a bounded piece of work and reports whether there may be more.
	turn(ctx context.Context, store *mvcc.Store) (more bool, err error)
	// wakeup is what to wait for when there is no more; changed is another entry.
	wakeup(changed <-chan struct{}) <-chan struct{}
	// leave lets go of the store.
	leave()
}

// feeding is a feeder and the store that it reads.
type feeding struct {
	feeder
	store *mvcc.Store
}

// turn gives a feeder one turn, at the store in force. changed and swapped tell
// when it is worth another one.
func (h *Hub) turn(ctx context.Context, f *feeding) (more bool, changed, swapped <-chan struct{}, err error) {
	h.using.RLock()
	defer h.using.RUnlock()
	store, swapped := h.current()
	if store != f.store {
		f.leave()
		f.store = store
	}
	changed = store.Notify() // Before the turn, or an entry may be missed.
	more, err = f.feeder.turn(ctx, store)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		h.end(fmt.Errorf("%w: %w", ErrClosed, err))
	}
	return more, changed, swapped, err
}

// run gives a feeder its turns.
func (h *Hub) run(ctx context.Context, f *feeding) error {
	defer f.leave()
	for {
		more, changed, swapped, err := h.turn(ctx, f)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-f.wakeup(changed):
		case <-swapped:
		case <-ctx.Done():
		}
	}
}

func (h *Hub) current() (*mvcc.Store, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.store, h.mu.swapped
}

// published waits until the store shows a revision that history has already.
func published(ctx context.Context, store *mvcc.Store, revision ident.Revision) error {
	for {
		changed := store.Notify()
		if store.Head() >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pump feeds live watchers from the end of history.
type pump struct {
	hub    *Hub
	reader *history.Reader
	at     ident.Revision // Everything up to here was matched; Hub.mu.at for others.
	window window
	late   []*watcher // Whose stream had no room in this turn.
}

func (p *pump) wakeup(changed <-chan struct{}) <-chan struct{} { return changed }

func (p *pump) leave() {
	if p.reader != nil {
		p.reader.Close()
		p.reader = nil
	}
}

func (p *pump) turn(ctx context.Context, store *mvcc.Store) (more bool, err error) {
	h, w := p.hub, &p.window
	if p.reader == nil {
		if err := p.open(store); err != nil {
			return false, err
		}
	}
	if err := w.fill(p.reader, p.at+1); err != nil {
		return false, fmt.Errorf("watch: %w", err)
	}
	if w.last == 0 {
		h.settle()
		return !w.ended, nil
	}
	if err := published(ctx, store, w.last); err != nil {
		return false, err
	}
	h.mu.Lock()
	live := h.mu.live
	live.match(w)
	p.at, h.mu.at = w.last, w.last
	h.mu.Unlock()
	defer live.forget()
	defer w.release()
	for _, g := range live.groups {
		if err := p.feed(ctx, store, g); err != nil {
			return false, err
		}
	}
	h.demote(p.late)
	clear(p.late)
	p.late = p.late[:0]
	h.settle()
	return true, nil
}

// open begins after what was matched last. When that is compacted, or in a
// store that has it not, all watchers have to look for themselves.
func (p *pump) open(store *mvcc.Store) (err error) {
	h := p.hub
	h.mu.Lock()
	p.at = h.mu.at
	h.mu.Unlock()
	if p.at+1 >= store.Compacted() {
		p.reader, err = store.Events(p.at + 1)
	}
	if p.reader != nil || err != nil && !errors.Is(err, history.ErrDropped) {
		return err
	}
	p.at = h.demoteAll(store)
	p.reader, err = store.Events(p.at + 1)
	return err
}

// feed pushes what a group wants to its watchers.
func (p *pump) feed(ctx context.Context, store *mvcc.Store, g *group) error {
	for _, w := range g.matched {
		f, err := p.window.frame(ctx, store, g, w.choice)
		if err != nil {
			return err
		}
		if f == nil {
			continue
		}
		p.hub.delivered.Add(int64(len(f.events)))
		if !w.stream.push(w, live, f, p.window.last) {
			p.late = append(p.late, w)
		}
	}
	return nil
}

// demote hands watchers whose stream had no room to the catch-up.
func (h *Hub) demote(late []*watcher) {
	if len(late) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range late {
		w.stream.mu.Lock()
		if w.state == live { // Else it ended meanwhile.
			h.moveLocked(w, h.mu.live, h.mu.behind, behind)
		}
		w.stream.mu.Unlock()
	}
	h.kickCatchUp()
}

// demoteAll hands all live watchers to the catch-up, and goes on at the head.
func (h *Hub) demoteAll(store *mvcc.Store) ident.Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*watcher
	for s := range h.mu.streams { //tidy:ordered all of them
		s.mu.Lock()
		for _, w := range s.mu.watchers { //tidy:ordered all of them
			if w.state == live {
				w.next = max(w.next, h.mu.at+1)
				all = append(all, w)
			}
		}
		s.mu.Unlock()
	}
	for _, w := range all {
		w.stream.mu.Lock()
		h.moveLocked(w, h.mu.live, h.mu.behind, behind)
		w.stream.mu.Unlock()
	}
	h.mu.at = max(h.mu.at, store.Head())
	h.mu.pushed = h.mu.at
	h.kickCatchUp()
	return h.mu.at
}

// insertLocked puts a new watcher into the index that feeds it.
func (h *Hub) insertLocked(w *watcher, sp span) {
	h.mu.count++
	if w.next > h.mu.at {
		w.state = live
		h.mu.live.add(w, sp)
		return
	}
	w.state = behind
	h.mu.behind.add(w, sp)
	h.addLateLocked(w)
	h.kickCatchUp()
}

// moveLocked moves a watcher from one index to the other. Its stream is locked
// too.
func (h *Hub) moveLocked(w *watcher, from, to *index, s state) {
	sp := w.group.span
	from.remove(w)
	to.add(w, sp)
	w.state = s
	if s == behind {
		h.addLateLocked(w)
	} else {
		h.removeLateLocked(w)
	}
}

func (h *Hub) addLateLocked(w *watcher) {
	w.behindAt = len(h.mu.late)
	h.mu.late = append(h.mu.late, w)
}

func (h *Hub) removeLateLocked(w *watcher) {
	n := len(h.mu.late) - 1
	moved := h.mu.late[n]
	h.mu.late[w.behindAt], moved.behindAt = moved, w.behindAt
	h.mu.late = slices.Delete(h.mu.late, n, n+1)
}

// endLocked ends a watcher, with a last answer. Its stream is locked too.
func (h *Hub) endLocked(w *watcher, last Batch) {
	h.dropLocked(w)
	delete(w.stream.mu.watchers, w.id)
	w.stream.enqueueLocked(item{batch: last, watcher: w})
}

func (h *Hub) dropLocked(w *watcher) {
	if w.state == behind {
		h.mu.behind.remove(w)
		h.removeLateLocked(w)
	} else {
		h.mu.live.remove(w)
	}
	w.state = done
	h.mu.count--
}

func (h *Hub) closeStream(s *Stream, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.err != nil {
		return
	}
	s.mu.err = err
	delete(h.mu.streams, s)
	for _, w := range s.mu.watchers { //tidy:ordered all of them
		index := h.mu.live
		if w.state == behind {
			index = h.mu.behind
			h.removeLateLocked(w)
		}
		if w.group != nil { // Else it went with another of the same keys.
			index.removeStream(w.group, s)
		}
		w.state = done
	}
	h.mu.count -= len(s.mu.watchers)
	clear(s.mu.watchers)
	for i := range s.mu.queue[s.mu.head:] {
		h.letGo(s.mu.queue[s.mu.head+i].frame)
	}
	s.mu.queue, s.mu.head, s.mu.bytes, s.mu.answers = nil, 0, 0, 0
	s.wakeLocked()
	s.freeLocked()
}

// hold and letGo count a frame as long as it waits in a queue.
func (h *Hub) hold(f *frame) {
	if f.queues.Add(1) == 1 {
		h.waiting.Add(int64(f.size(0)))
	}
}

func (h *Hub) letGo(f *frame) {
	if f != nil && f.queues.Add(-1) == 0 {
		h.waiting.Add(-int64(f.size(0)))
	}
}

// share is what one stream may have waiting now. No number of clients that do not
// read takes all there is: each gets a part of what the others have left.
func (h *Hub) share() int {
	free := max(h.cfg.Bytes-int(h.waiting.Load()), 0)
	return min(h.cfg.StreamBytes, free/shareMin)
}

func (h *Hub) kickCatchUp() {
	select {
	case h.kick <- struct{}{}:
	default: // It will look anyway.
	}
}

package history

import (
	"fmt"
	"slices"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/fail"
)

// Append adds a record and lets readers see it. It fills in what the record
// follows, the digests of its groups and where its values lie. It writes to a
// file only when too much is waiting for a flush. After an error nothing was
// added.
func (l *Log) Append(rec *Record) error {
	if err := l.usable(); err != nil {
		return err
	}
	w := &l.writer
	if err := rec.follows(w.end); err != nil {
		return err
	}
	size, err := recordSize(rec)
	if err != nil {
		return err
	}
	if err := l.makeRoom(int64(size)); err != nil {
		return fmt.Errorf("append entry %d: %w", rec.Index, err)
	}
	at, b := w.end, w.block
	used := at.Offset - b.start
	rec.PrevIndex, rec.PrevDigest = at.Index, at.Digest
	place := Loc{Segment: at.Segment, Offset: uint32(at.Offset)}
	out := appendRecord(b.data[:used], rec, place, b.segment.seed, true)
	if int64(len(out)) != used+int64(size) {
		assert.Failf("record of entry %d takes %d bytes, not %d", rec.Index, int64(len(out))-used, size)
	}
	if at.Offset >= w.noteAt {
		b.segment.note(at)
		w.noteAt = at.Offset + waypointBytes
	}
	w.end = rec.last(at, size)
	l.publish(b, int64(len(out)))
	return nil
}

// Seal ends the active segment, begins another and returns the id of the ended
// one. When the active one is empty nothing happens, and the one before it is
// returned.
func (l *Log) Seal() (uint64, error) {
	if err := l.usable(); err != nil {
		return 0, err
	}
	if l.writer.end.Offset > segmentHeaderBytes {
		if err := l.roll(); err != nil {
			return 0, fmt.Errorf("seal: %w", err)
		}
	}
	return l.writer.end.Segment - 1, nil
}

// publish shows the writer's end and the bytes of a block to everybody.
func (l *Log) publish(b *block, bytes int64) {
	grown := bytes - b.published.Load()
	l.behind.Add(grown) // Before the bytes can be flushed, or it would fall below zero.
	l.bytes.Add(grown)
	b.published.Store(bytes)
	l.mu.Lock()
	l.mu.end = l.writer.end
	l.mu.Unlock()
}

// makeRoom sees to it that a record of that size fits the writer's block.
func (l *Log) makeRoom(size int64) error {
	w := &l.writer
	if w.end.Offset+size > l.cfg.SegmentBytes && w.end.Offset > segmentHeaderBytes {
		if err := l.roll(); err != nil {
			return err
		}
	}
	if w.block != nil && w.end.Offset-w.block.start+size <= int64(len(w.block.data)) {
		return nil
	}
	data, err := l.memory(size)
	if err != nil {
		return err
	}
	segments := *l.segments.Load()
	l.add(&block{segment: segments[len(segments)-1], start: w.end.Offset, data: data, cost: int64(len(data))})
	return nil
}

// roll begins the next segment and seals the one before.
func (l *Log) roll() error {
	w := &l.writer
	b, err := l.nextBlock()
	if err != nil {
		return err
	}
	end := w.end
	start := end
	start.Segment++
	start.Offset = segmentHeaderBytes
	b.segment = newSegment(l.cfg.Dir, start)

	l.mu.Lock()
	list := *l.segments.Load()
	last := list[len(list)-1]
	list = append(slices.Clone(list), b.segment)
	l.segments.Store(&list)
	l.mu.Unlock()

	fail.Here("history/seal/before")
	// After the list: whoever sees that a segment has ended finds the next one.
	// Before the new end is published: whoever syncs up to it trims this one.
	last.sealed.Store(&end)
	l.begin(b, start, end.Offset)
	return nil
}

// begin makes a block with the header of a new segment the writer's.
func (l *Log) begin(b *block, start Mark, previous int64) {
	header := segmentHeader{start: start, previous: previous}.append(b.data[:0])
	l.add(b)
	l.writer.end = start
	l.writer.noteAt = start.Offset + waypointBytes
	l.publish(b, int64(len(header)))
}

// nextBlock is what the writer's block has left, or a new one: otherwise many
// small segments would fill the ring with nothing.
func (l *Log) nextBlock() (*block, error) {
	if old := l.writer.block; old != nil {
		used := old.published.Load()
		if rest := old.data[used:]; len(rest) >= blockBytesMin {
			b := &block{data: rest, cost: old.cost - used}
			old.cost = used
			return b, nil
		}
	}
	data, err := l.memory(l.blockBytes)
	if err != nil {
		return nil, err
	}
	return &block{data: data, cost: int64(len(data))}, nil
}

// add makes a block the newest of the ring.
func (l *Log) add(b *block) {
	blocks := append(slices.Clone(*l.blocks.Load()), b)
	l.blocks.Store(&blocks)
	l.writer.block = b
	l.writer.ringBytes = 0
	for _, b := range blocks {
		l.writer.ringBytes += b.cost
	}
}

// memory returns room for at least so many bytes, and lets go of the oldest
// blocks for it. Only what is in a file may leave: when too little is, the
// writer itself flushes.
func (l *Log) memory(bytes int64) ([]byte, error) {
	bytes = max(bytes, l.blockBytes)
	fits := l.evict(bytes)
	if !fits || l.behind.Load() > l.cfg.RingBytes/2 {
		if err := l.Flush(); err != nil {
			return nil, err
		}
		l.evict(bytes)
	}
	return make([]byte, bytes), nil
}

// evict drops blocks until so many bytes more fit, and tells whether they do.
// Never the newest: should what follows fail, the writer goes on in it.
func (l *Log) evict(bytes int64) bool {
	blocks := *l.blocks.Load()
	n, left := 0, l.writer.ringBytes
	for n < len(blocks)-1 && left+bytes > l.cfg.RingBytes && blocks[n].flushed.Load() == blocks[n].published.Load() {
		left -= blocks[n].cost
		n++
	}
	if n > 0 {
		rest := slices.Clone(blocks[n:])
		l.blocks.Store(&rest)
		l.writer.ringBytes = left
	}
	return left+bytes <= l.cfg.RingBytes
}

func (l *Log) usable() error {
	if failed := l.failed.Load(); failed != nil {
		return fmt.Errorf("%w: %w", ErrFailed, *failed)
	}
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

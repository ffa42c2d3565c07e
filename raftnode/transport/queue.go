package transport

import "sync"

// queue holds frames between Send and the stream. Frames are taken in the
// order they were put.
type queue struct {
	framesMax, bytesMax int
	wake                chan struct{} // Holds one token while there may be frames.

	mu struct {
		sync.Mutex
		open   bool // Only while the stream is up: what waits for a lost peer is stale when it returns.
		frames []Frame
		count  int // Of frames and of their bytes, those that are being sent included.
		bytes  int
	}
}

func newQueue(framesMax, bytesMax int) *queue {
	return &queue{framesMax: framesMax, bytesMax: bytesMax, wake: make(chan struct{}, 1)}
}

// put reports whether there was room.
func (q *queue) put(f Frame) bool {
	size := f.size()
	q.mu.Lock()
	if !q.mu.open || q.mu.count >= q.framesMax || q.mu.bytes+size > q.bytesMax && q.mu.bytes > 0 {
		q.mu.Unlock()
		return false
	}
	q.mu.frames = append(q.mu.frames, f)
	q.mu.count++
	q.mu.bytes += size
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// swap takes all frames and leaves spare, which the caller is done with. The
// frames keep their room until they are sent.
func (q *queue) swap(spare []Frame) []Frame {
	clear(spare)
	q.mu.Lock()
	defer q.mu.Unlock()
	frames := q.mu.frames
	q.mu.frames = spare[:0]
	return frames
}

// sent gives back the room of frames.
func (q *queue) sent(count, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.count -= count
	q.mu.bytes -= bytes
}

// setOpen opens or closes the queue and returns how many frames that dropped.
func (q *queue) setOpen(open bool) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped := q.mu.count
	q.mu.open, q.mu.frames, q.mu.count, q.mu.bytes = open, nil, 0, 0
	return dropped
}

//go:build linux

package supervisor

import (
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task/plain"
)

const (
	// sinkFrames wait for one who is attached, each as long as what is read at once.
	sinkFrames = 16
	// sinkPatience is how long one who is attached may take nothing. As long as he takes
	// something his container goes at his pace, as with a terminal: what it writes into a
	// pipe of his shall not be lost to him. Once he takes nothing he is let go.
	sinkPatience = time.Second
	// farewellMax is how long is waited for somebody to hear how his call has ended.
	farewellMax = 5 * time.Second
)

// sink writes to one who is attached, so that nobody waits for him but who must.
type sink struct {
	conn  *conn
	queue chan []byte
	done  chan struct{} // Closed when nothing more is written.

	rest []byte // What he has not taken of the frame at which he was let go. Read when done.
}

func newSink(c *conn, time clock.Clock) *sink {
	k := &sink{conn: c, queue: make(chan []byte, sinkFrames), done: make(chan struct{})}
	plain.Go("sink", func() { k.run(time) })
	return k
}

func (k *sink) run(time clock.Clock) {
	defer close(k.done)
	for text := range k.queue {
		_ = k.conn.SetWriteDeadline(time.Wall().Add(sinkPatience))
		if n, err := k.conn.Write(text); err != nil {
			k.rest = text[n:]
			return
		}
	}
}

// offer queues bytes if there is room.
func (k *sink) offer(text []byte) bool {
	select {
	case k.queue <- text:
		return true
	default:
		return false
	}
}

// give waits for room, as long as he is not let go.
func (k *sink) give(text []byte) bool {
	select {
	case k.queue <- text:
		return true
	case <-k.done:
		return false
	}
}

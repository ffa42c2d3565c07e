package watch

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// catchUp feeds watchers that are behind. Each turn is for one of them, and
// goes one of two ways, whichever costs less. Wide: it reads one window of
// history, beginning where the watcher stands, for all who stand within it.
// Narrow: it asks the key indexes what happened to the watcher's keys, and
// reads only that, for all who want the same keys. Turns go round, the lowest
// revision first, so that who has little to read does not wait for who has much.
type catchUp struct {
	hub    *Hub
	reader *history.Reader
	next   ident.Revision // Where reader stands: it has everything from here on.
	window window
	turns  []*watcher // Who takes part in this turn.
	spans  int        // How many spans of keys they want.
	round  uint64     // Counts turns.
	narrow narrow
	pace   pace
}

// wakeup does without entries: when there is nothing to do, all who are behind lack
// room, of which each of them tells. To look at thousands of them at each entry
// would hold up those who read.
func (c *catchUp) wakeup(<-chan struct{}) <-chan struct{} { return c.hub.kick }

// leave closes the reader, which keeps segments from being dropped.
func (c *catchUp) leave() {
	c.narrow.forget()
	c.leaveReader()
}

func (c *catchUp) leaveReader() {
	if c.reader != nil {
		c.reader.Close()
		c.reader = nil
	}
}

func (c *catchUp) turn(ctx context.Context, store *mvcc.Store) (more bool, err error) {
	if c.hub.cfg.Manual { // Its owner paces it.
		return c.step(ctx, store)
	}
	began := c.hub.cfg.Clock.Mono()
	if more, err = c.step(ctx, store); !more || err != nil {
		return more, err
	}
	now := c.hub.cfg.Clock.Mono()
	if rest := c.pace.rest(began, now); rest > 0 {
		select {
		case <-c.hub.cfg.Clock.After(rest):
		case <-ctx.Done():
		}
	}
	return true, nil
}

func (c *catchUp) step(ctx context.Context, store *mvcc.Store) (more bool, err error) {
	first, from := c.choose(store)
	if first == nil {
		c.leave()
		return false, nil
	}
	done, err := c.turnNarrow(ctx, store, first, from)
	if done || err != nil {
		return true, err
	}
	through, err := c.read(ctx, store, from)
	if errors.Is(err, history.ErrDropped) && from < store.Compacted() {
		c.leave()
		return true, nil // Compacted since we looked: the next turn tells them.
	}
	if err != nil {
		return false, fmt.Errorf("watch from revision %d: %w", from, err)
	}
	return true, c.feed(ctx, store, nil, from, through)
}

// choose sorts out who is behind: who reached the pump joins it, who wants what
// is compacted is canceled, who has room takes part. It returns whose turn it
// is, and where that watcher stands.
func (c *catchUp) choose(store *mvcc.Store) (first *watcher, from ident.Revision) {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	compacted := store.Compacted()
	clear(c.turns)
	c.turns, c.spans = c.turns[:0], 0
	c.round++
	for i := len(h.mu.late) - 1; i >= 0; i-- {
		w := h.mu.late[i]
		w.stream.mu.Lock()
		switch {
		case w.next < compacted:
			h.endLocked(w, Batch{Kind: Canceled, ID: w.id, Compact: compacted})
		case w.next > h.mu.at:
			h.moveLocked(w, h.mu.behind, h.mu.live, live)
		case w.stream.roomLocked():
			c.turns = append(c.turns, w)
			if w.group.round != c.round {
				w.group.round = c.round
				c.spans++
			}
			if first == nil || w.served < first.served || w.served == first.served && w.next < first.next {
				first = w
			}
		}
		w.stream.mu.Unlock()
	}
	if first != nil {
		first.served = c.round
		from = first.next
	}
	return first, from
}

// read fills the window from a revision on, and returns up to where it is
// complete.
func (c *catchUp) read(ctx context.Context, store *mvcc.Store, from ident.Revision) (through ident.Revision, err error) {
	if c.reader == nil || c.next != from {
		c.leaveReader()
		if c.reader, err = store.Events(from); err != nil {
			return 0, err
		}
	}
	head := store.Head() // Before reading: history has at least that much.
	scanned := c.reader.Scanned()
	err = c.window.fill(c.reader, from)
	c.hub.scanned.Add(c.reader.Scanned() - scanned)
	if err != nil {
		return 0, err
	}
	through = c.window.last
	if c.window.ended && through < head {
		if at := c.reader.Mark().Revision; at < head {
			return 0, fmt.Errorf("at revision %d, head is %d: %w", at, head, errGap)
		}
		through = head
	}
	c.next = through + 1
	return through, published(ctx, store, through)
}

// feed pushes the window to those who stand within it: of one group, when the
// window was read for that alone.
func (c *catchUp) feed(ctx context.Context, store *mvcc.Store, only *group, from, through ident.Revision) error {
	h := c.hub
	h.mu.Lock()
	index := h.mu.behind
	if only == nil {
		index.match(&c.window)
	} else {
		index.take(only, &c.window)
	}
	groups := make([]*group, len(c.turns))
	for i, w := range c.turns {
		if groups[i] = w.group; w.group == nil || only != nil && w.group != only || !c.within(w, from, through) {
			groups[i] = nil
		}
	}
	h.mu.Unlock()
	defer index.forget()
	defer c.window.release()
	for i, w := range c.turns {
		g := groups[i]
		if g == nil {
			continue // Ended, or elsewhere.
		}
		w.served = c.round
		var f *frame
		if len(g.hits) > 0 {
			var err error
			if f, err = c.window.frame(ctx, store, g, w.choice); err != nil {
				return err
			}
		}
		if w.stream.push(w, behind, f, through) && f != nil {
			h.delivered.Add(int64(len(f.events)))
		}
	}
	return nil
}

// within reports whether a watcher stands in a window. Nobody but us moves it
// while it is behind, and from where it stands.
func (c *catchUp) within(w *watcher, from, through ident.Revision) bool {
	w.stream.mu.Lock()
	defer w.stream.mu.Unlock()
	return w.state == behind && w.next >= from && w.next <= through
}

package mvcc

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Scrub is one pass over what lies still on disk: rows of base, sealed segments
// of history and their key tables. It reads them again before somebody needs
// them, so that damage is found while others still have what is lost here. It
// belongs to one goroutine, which decides how fast it goes.
type Scrub struct {
	store *Store

	view  *backend.View // Kept over steps for a while, so that count and hash of the rows can be compared.
	since time.Duration
	base  backend.Scrub
	read  bool // Base is done.

	segment uint64 // Done up to here.
	reader  *history.Reader

	Progress ScrubProgress
}

// ScrubProgress is what a pass has read.
type ScrubProgress struct {
	BaseBytes    int64
	HistoryBytes int64
	Segments     int
	Whole        bool // Count and hash of the rows were compared, not only checksums.
	Tables       int  // Key tables that were damaged and made anew: they are derived.
}

// Scrub begins a pass. Close it.
func (s *Store) Scrub() *Scrub { return &Scrub{store: s} }

// Close ends a pass, wherever it is.
func (c *Scrub) Close() {
	if c.view != nil {
		c.view.Release()
		c.view = nil
	}
	if c.reader != nil {
		c.reader.Close()
		c.reader = nil
	}
}

// Step reads about so many bytes, and tells how many it was and whether the pass
// is over. An error is damage: the file, and where in it.
func (c *Scrub) Step(bytesMax int64) (read int64, done bool, err error) {
	if !c.read {
		read, err = c.stepBase(bytesMax)
		c.Progress.BaseBytes += read
		return read, false, err
	}
	for c.reader == nil {
		if done, err = c.nextSegment(); done || err != nil {
			return 0, done, err
		}
	}
	read, err = c.stepSegment(bytesMax)
	c.Progress.HistoryBytes += read
	return read, false, err
}

func (c *Scrub) stepBase(bytesMax int64) (int64, error) {
	now := c.store.cfg.Clock.Mono()
	if c.view != nil && now-c.since >= scrubViewMax {
		c.view.Release() // Its pages are wanted.
		c.view = nil
	}
	if c.view == nil {
		c.view, c.since = c.store.db.View(), now
	}
	read, done, err := c.view.Scrub(&c.base, bytesMax)
	if done || err != nil {
		c.view.Release()
		c.view = nil
	}
	if done {
		c.read, c.Progress.Whole = true, c.base.Whole()
	}
	return read, err
}

// nextSegment begins the next sealed segment that is in its file.
func (c *Scrub) nextSegment() (done bool, err error) {
	for _, info := range c.store.history.Segments() {
		if info.ID <= c.segment || !info.Sealed {
			continue
		}
		c.segment = info.ID
		c.reader, err = c.store.history.ScanFile(info.ID)
		if errors.Is(err, history.ErrNotSealed) || errors.Is(err, history.ErrDropped) {
			return false, nil // Too new, or gone meanwhile.
		}
		return false, err
	}
	return true, nil
}

func (c *Scrub) stepSegment(bytesMax int64) (read int64, err error) {
	began := c.reader.Mark().Offset
	for read < bytesMax {
		_, err := c.reader.Next()
		read = c.reader.Mark().Offset - began
		if errors.Is(err, io.EOF) {
			c.reader.Close()
			c.reader = nil
			c.Progress.Segments++
			return read, c.checkTable(c.segment)
		}
		if err != nil {
			return read, err
		}
	}
	return read, nil
}

// checkTable reads the key table of a segment. It is derived: one that is
// damaged is made again from the segment, which has just been verified.
func (c *Scrub) checkTable(id uint64) error {
	h := c.store.history
	_, err := h.ReadIndex(id)
	if err == nil || errors.Is(err, history.ErrNoIndex) || errors.Is(err, history.ErrDropped) {
		return nil
	}
	c.store.cfg.Logger.Warn("key index of a history segment is damaged and made anew", "segment", id, "error", err)
	t, err := h.RebuildIndex(id)
	if errors.Is(err, history.ErrDropped) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.WriteIndex(id, t); err != nil && !errors.Is(err, history.ErrDropped) {
		return fmt.Errorf("write the key index of segment %d: %w", id, err)
	}
	c.Progress.Tables++
	return nil
}

package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// look learns from a list where the log ends. False: it has no base to follow.
// The list may take minutes: during is called now and then meanwhile.
func (w *Writer) look(ctx context.Context, during func() error) (bool, error) {
	c, err := w.archive.list(ctx, "", func(c *Catalogue) error {
		c.spare(w.at.timeline)
		return during()
	})
	if err != nil {
		return false, err
	}
	w.ceiling = max(w.ceiling, c.Ceiling)
	t := c.find(w.at.timeline)
	if t == nil {
		return false, nil
	}
	for _, x := range t.Conflicts() {
		w.alarm(fmt.Errorf("objects %s and %s hold two pasts of entry %d: %w", x.A.Name, x.B.Name, x.A.Last, ErrDisagree))
	}
	runs := t.Runs()
	if len(runs) == 0 {
		return false, nil
	}
	run := runs[len(runs)-1] // It reaches furthest.
	m, err := w.noteBase(ctx, run.Base)
	if err != nil {
		return false, err
	}
	if w.base.need {
		w.shipped = 0 // What this member has shipped behind a gap is no part of that.
	}
	w.base.need = false // From here on another's log counts.
	w.last, w.lastName = m.tail(), ""
	if n := len(run.Log); n > 0 {
		return true, w.lookAt(ctx, run.Log[n-1].Name)
	}
	return true, nil
}

// noteBase notes when a base was made.
func (w *Writer) noteBase(ctx context.Context, b *Base) (*Manifest, error) {
	m, err := w.archive.Manifest(ctx, w.at.timeline, b)
	if err != nil {
		return nil, err
	}
	made, err := time.Parse(time.RFC3339, m.Made)
	if err != nil {
		return nil, damagef(b.Name+manifestName, 0, "it was made at %q", m.Made)
	}
	w.base.have, w.base.made = true, made
	return m, nil
}

// lookAgain is look for a member that is to ship. One that has looked on until now
// needs no list of all the log, which would keep who waits for the archive waiting:
// of what came since, and of the bases.
func (w *Writer) lookAgain(ctx context.Context, during func() error) (bool, error) {
	if w.lastName == "" || w.base.need {
		return w.look(ctx, during)
	}
	found, err := w.lookAfter(ctx, during)
	if err != nil || !found {
		return found, err
	}
	bases, err := w.archive.list(ctx, timelinePath(w.at.timeline)+baseFolder, func(*Catalogue) error { return during() })
	if err != nil {
		return false, err
	}
	t := bases.find(w.at.timeline)
	if t == nil || len(t.Runs()) == 0 {
		return false, nil
	}
	runs := t.Runs()
	_, err = w.noteBase(ctx, runs[len(runs)-1].Base)
	return true, err
}

// lookAt takes a segment for the last one. Its head can be read without a key.
func (w *Writer) lookAt(ctx context.Context, name string) error {
	data, err := w.cfg.Store.GetRange(ctx, w.archive.path(name), 0, fixedHeadBytes+headBytesMax)
	if err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	h, _, _, err := decodeHead(name, data)
	if err != nil {
		return err
	}
	if id := locate(name).segment; h.Log == nil || h.Log.End.Index != id.Last || h.Log.End.Digest != id.Digest {
		return fmt.Errorf("object %s is another than its name says: %w", name, ErrForeign)
	}
	w.last, w.lastName = h.Log.End, name
	return nil
}

// follow keeps up with the member that ships, for one interval, and holds what
// is not archived.
func (w *Writer) follow(ctx context.Context) error {
	if err := w.lookOn(ctx); err != nil {
		return err
	}
	if w.tooFarBehind() && w.cfg.Policy == PolicyGap {
		w.letGo()
	}
	wait := followEvery
	if w.hurried() {
		wait = followSoon
	}
	select {
	case <-w.mu.wanted:
		// Looked at soon, and not at once: whoever ships needs a moment.
		select {
		case <-w.cfg.Clock.After(followSoon):
		case <-ctx.Done():
		}
	case <-w.cfg.Clock.After(wait):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// lookOn looks for segments after the last that is known.
func (w *Writer) lookOn(ctx context.Context) error {
	before := w.last
	if w.lastName == "" {
		if found, err := w.look(ctx, nothing); err != nil || !found {
			return err
		}
	} else if _, err := w.lookAfter(ctx, nothing); err != nil {
		return err
	}
	if w.last != before || w.records == nil {
		return w.hold()
	}
	return nil
}

// lookAfter looks for what continues the last segment. Where there is more, and it
// does not, the log has a gap: then all is looked at anew, since what follows a
// gap counts with its base alone. False: as of look.
func (w *Writer) lookAfter(ctx context.Context, during func() error) (bool, error) {
	next := Timeline{Number: w.at.timeline}
	folder := w.archive.path(timelinePath(w.at.timeline) + logFolder)
	err := w.cfg.Store.List(ctx, folder, w.archive.path(w.lastName), func(o blobstore.Object) error {
		name := o.Name[len(folder):]
		if id, ok := parseSegmentName(name); ok && id.Last > w.last.Index {
			next.Log = append(next.Log, Segment{Name: timelinePath(next.Number) + logFolder + name, First: id.First, Last: id.Last})
		}
		return during()
	})
	if err != nil || len(next.Log) == 0 {
		return true, err
	}
	if chain := next.chain(w.last.Index); len(chain) > 0 { // A list is in the order of names, as chain wants it.
		return true, w.lookAt(ctx, chain[len(chain)-1].Name)
	}
	return w.look(ctx, during)
}

func nothing() error { return nil }

// hold keeps what the archive does not have, and compares where both join.
func (w *Writer) hold() error {
	applied, _ := w.cfg.Source.Applied()
	next, err := join(w.cfg.Source, w.last)
	w.letGo()
	if errors.Is(err, history.ErrDropped) {
		return nil // There is nothing to keep. If this member is to ship, it begins with a base.
	}
	if err != nil {
		return err
	}
	w.records = next
	rec, err := next.next()
	if err != nil {
		return err
	}
	through := w.last.Index
	if rec == nil {
		through = max(through, applied)
	}
	if applied >= w.last.Index {
		w.reached(through)
	}
	return nil
}

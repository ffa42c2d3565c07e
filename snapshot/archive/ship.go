package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

var errLostLease = errors.New("another member owns the archive")

// round is what is done until something goes wrong: take the lease and ship, or
// follow the one who does.
func (w *Writer) round(ctx context.Context, tasks *task.Group) error {
	if err := w.introduce(ctx); err != nil {
		return err
	}
	for {
		owner, err := w.lease.try(ctx, w.cfg.Reluctant != nil && w.cfg.Reluctant())
		if err != nil {
			return err
		}
		if owner {
			w.metrics.Owner.Store(true)
			err := w.own(ctx, tasks)
			w.metrics.Owner.Store(false)
			return err
		}
		if err := w.follow(ctx); err != nil {
			return err
		}
	}
}

// introduce writes what describes the archive, or finds it as it must be.
func (w *Writer) introduce(ctx context.Context) error {
	if w.introduced {
		return nil
	}
	meta, err := encodeText(Meta{FormatVersion, w.cfg.Cluster})
	if err != nil {
		return err
	}
	if err := w.put(ctx, metaName, meta); err != nil {
		return err
	}
	text, err := encodeText(w.cfg.History)
	if err != nil {
		return err
	}
	if err := w.put(ctx, timelinePath(w.at.timeline)+historyName, text); err != nil {
		return err
	}
	w.introduced = true
	return nil
}

// put writes an object that only members with our past may have written before.
func (w *Writer) put(ctx context.Context, name string, data []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	timer := w.cfg.Clock.AfterFunc(putTimeout, cancel)
	defer timer.Stop()
	defer cancel()
	err := putAbsent(ctx, w.cfg.Store, w.archive.path(name), data)
	if err != nil {
		return fmt.Errorf("write object %s: %w", name, err)
	}
	return nil
}

// own ships until the lease is lost or something fails.
func (w *Writer) own(ctx context.Context, tasks *task.Group) error {
	w.cfg.Logger.Info("this member archives", "archive", w.cfg.Store.String(), "cluster", w.cfg.Cluster.String())
	if err := w.resume(ctx, tasks); err != nil {
		return err
	}
	seg := &segment{}
	seg.begin(w.last)
	for {
		if err := w.renew(ctx); err != nil {
			return err
		}
		if err := w.upkeep(ctx, tasks, seg); err != nil {
			return err
		}
		if err := w.step(ctx, tasks, seg); err != nil {
			return err
		}
	}
}

// renew keeps the lease. It may have run out, where something took long: then it
// goes on if nobody else has taken it, or a store that is slow, or large, would
// be shipped to by nobody.
func (w *Writer) renew(ctx context.Context) error {
	now := w.cfg.Clock.Mono()
	if now-w.renewed < renewEvery && w.lease.valid() {
		return nil
	}
	ok, err := w.lease.try(ctx, false)
	switch {
	case ok:
		w.renewed = now
		return nil
	case err != nil:
		return fmt.Errorf("keep the ownership: %w", err)
	}
	return errLostLease
}

// step reads what there is, ships the segment if it is due, and waits for more.
func (w *Writer) step(ctx context.Context, tasks *task.Group, seg *segment) error {
	applied, changed := w.cfg.Source.Applied()
	now := w.cfg.Clock.Mono()
	if seg.records == 0 {
		w.oldest = now
	}
	drained, err := w.fill(seg)
	if err != nil {
		return err
	}
	if due := len(seg.plain) >= SegmentBytes || now-w.oldest >= SegmentDelay || w.cfg.Sync || w.hurried(); seg.records > 0 && due {
		if err := w.ship(ctx, tasks, seg); err != nil {
			return err
		}
		seg.begin(w.last)
	}
	if !drained {
		return nil
	}
	if seg.records == 0 {
		w.reached(applied) // What changed nothing has no record.
	}
	return w.pause(ctx, seg.records > 0, changed, SegmentDelay-(now-w.oldest))
}

// pause waits until there is something to do. While a segment fills, new entries
// do not wake it: there are many, and it will be read with them.
func (w *Writer) pause(ctx context.Context, filling bool, changed <-chan struct{}, left time.Duration) error {
	wait := renewEvery
	if filling {
		wait, changed = max(left, 0), nil
	}
	select {
	case <-changed:
	case <-w.mu.wanted:
	case <-w.cfg.Clock.After(wait):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// fill reads what there is into a segment, until it is full. It reports whether
// all was read.
func (w *Writer) fill(seg *segment) (drained bool, err error) {
	for len(seg.plain) < SegmentBytes {
		rec, err := w.records.next()
		if err != nil || rec == nil {
			return rec == nil, err
		}
		if err := seg.add(rec); err != nil {
			return false, err
		}
	}
	return false, nil
}

// ship puts a segment. One that fits no object is a gap.
func (w *Writer) ship(ctx context.Context, tasks *task.Group, seg *segment) error {
	name, data, err := seg.seal(w.at, w.sealer)
	if errors.Is(err, ErrTooLarge) {
		return w.gap(tasks, err)
	}
	if err != nil {
		return err
	}
	name = timelinePath(w.at.timeline) + logFolder + name
	if err := w.put(ctx, name, data); errors.Is(err, blobstore.ErrCondition) {
		// Equal names are equal pasts; the bytes may differ, as ciphertext does, but
		// only a whole object is there.
		w.cfg.Logger.Debug("segment was there", "name", name)
	} else if err != nil {
		return err
	}
	w.last, w.lastName = seg.end, name
	w.metrics.Segments.Add(1)
	w.metrics.SegmentBytes.Add(int64(len(data)))
	w.reached(seg.end.Index)
	return w.records.Settle()
}

// resume finds where the archive ends and goes on there, with a new base where
// this member cannot.
func (w *Writer) resume(ctx context.Context, tasks *task.Group) error {
	w.renewed = w.cfg.Clock.Mono()
	found, err := w.lookAgain(ctx, func() error { return w.renew(ctx) })
	if err != nil {
		return err
	}
	if !found {
		return w.restart(tasks)
	}
	next, err := join(w.cfg.Source, w.last)
	if errors.Is(err, history.ErrDropped) {
		return w.gap(tasks, err)
	}
	if err != nil {
		return err
	}
	w.letGo() // Only now: nothing may be dropped in between.
	w.records = next
	return nil
}

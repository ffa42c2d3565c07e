package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
)

// upkeep does what is due now and then: limits, bases, ceilings.
func (w *Writer) upkeep(ctx context.Context, tasks *task.Group, seg *segment) error {
	if w.tooFarBehind() && w.cfg.Policy == PolicyGap {
		err := w.gap(tasks, fmt.Errorf("%d bytes of history wait, the limit is %d", w.metrics.BehindBytes.Load(), w.cfg.LimitBytes))
		if err == nil {
			seg.begin(w.last)
		}
		return err
	}
	if err := w.baseEnded(); err != nil {
		return err
	}
	if w.base.busy == nil && (!w.base.have || w.base.need || w.cfg.Clock.Wall().Sub(w.base.made) >= w.cfg.BaseInterval) && w.cfg.Clock.Mono() >= w.base.retry {
		if _, err := w.beginBase(tasks); err != nil {
			return err
		}
	}
	w.reserve(ctx)
	return nil
}

// tooFarBehind measures what waits, and says to others whether writes may go on.
func (w *Writer) tooFarBehind() bool {
	behind := int64(0)
	if w.records != nil {
		behind = w.records.Behind()
	}
	w.metrics.BehindBytes.Store(behind)
	w.mu.Lock()
	defer w.mu.Unlock()
	if behind > w.cfg.LimitBytes {
		w.mu.stop = w.cfg.Policy == PolicyStopWrites
		return true
	}
	if behind <= w.cfg.LimitBytes/2 { // Not to and fro.
		w.mu.stop = false
	}
	return false
}

// beginBase freezes the state and ships it beside the log. It tells what the
// log goes on after.
func (w *Writer) beginBase(tasks *task.Group) (Point, error) {
	if w.base.busy != nil { // A gap while one is on its way: it is not the one we need.
		w.base.cancel()
	}
	f, release, err := w.cfg.Source.Freeze()
	if err != nil {
		return Point{}, fmt.Errorf("freeze the state for a base: %w", err)
	}
	tail := pointOf(f.State)
	tail.Index = f.End().Index
	through := make(chan error, 1)
	w.base.busy = through
	ctx, cancel := context.WithCancel(tasks.Context())
	w.base.cancel = cancel
	tasks.Go("base", func(context.Context) error {
		defer release()
		defer cancel()
		s, err := newSealer(w.cfg.Recipients)
		if err == nil {
			var m Manifest
			m, err = writeBase(ctx, w.cfg.Store, w.archive.path(""), w.at, f, s, baseOptions{w.cfg.Member, w.cfg.Clock, w.cfg.BaseBytesPerSecond, w.cfg.BasePause})
			if err == nil {
				w.metrics.Bases.Add(1)
				w.metrics.BaseBytes.Add(m.Bytes)
				w.metrics.BaseUnix.Store(w.cfg.Clock.Wall().Unix())
			}
		}
		through <- err
		select {
		case w.mu.wanted <- struct{}{}: // The base is through.
		default:
		}
		return nil
	})
	return tail, nil
}

// baseEnded takes note of a base that is through.
func (w *Writer) baseEnded() error {
	select {
	case err := <-w.base.busy:
		w.base.busy = nil
		if err == nil {
			w.base.have, w.base.made, w.base.need = true, w.cfg.Clock.Wall(), false
			w.reached(w.shipped)
			return nil
		}
		w.base.retry = w.cfg.Clock.Mono() + retryMax
		if errors.Is(err, mvcc.ErrOverdue) {
			w.base.retry += mergePause // Or the next one would hold the same merge up again.
		}
		if errors.Is(err, ErrDisagree) {
			return err
		}
		w.cfg.Logger.Warn("a base could not be archived", "error", err)
	default:
	}
	return nil
}

// reserve sees to it that revisions are reserved far ahead.
func (w *Writer) reserve(ctx context.Context) {
	if w.last.Revision+ceilingBlock/2 <= w.ceiling || w.cfg.Clock.Mono() < w.ceilingRetry {
		return
	}
	next := w.last.Revision + ceilingBlock
	text, err := encodeText(Ceiling{FormatVersion, w.at.timeline, next})
	if err == nil {
		err = w.put(ctx, ceilingName(next), text)
	}
	if err == nil {
		w.ceiling = next
		return
	}
	w.ceilingRetry = w.cfg.Clock.Mono() + retryMax
	w.metrics.CeilingsUnmet.Add(1)
	w.alarm(fmt.Errorf("revisions up to %d could not be reserved, up to %d are: %w", next, w.ceiling, err))
}

// Ceiling is the content of ceiling/<n>.json: revisions up to it may have been
// used, whatever the log shows.
type Ceiling struct {
	Format   int            `json:"format"`
	Timeline ident.Timeline `json:"timeline"`
	Revision ident.Revision `json:"revision"`
}

// restart begins the log anew with a base.
func (w *Writer) restart(tasks *task.Group) error {
	tail, err := w.beginBase(tasks)
	if err != nil {
		return err
	}
	w.letGo()
	w.last, w.lastName = tail, ""
	w.base.need = true
	w.records, err = join(w.cfg.Source, tail)
	return err
}

// gap gives up a stretch of history.
func (w *Writer) gap(tasks *task.Group, why error) error {
	w.metrics.Gaps.Add(1)
	from := w.last.Index
	if err := w.restart(tasks); err != nil {
		return err
	}
	err := fmt.Errorf("entries between %d and %d are not in the archive, %w: %w", from, w.last.Index, ErrGap, why)
	w.cfg.Logger.Error("the archive has a gap, a new base follows it", "after", from, "before", w.last.Index, "error", why)
	w.alarm(err)
	return nil
}

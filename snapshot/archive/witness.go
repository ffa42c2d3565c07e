package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Tip is the newest point of a timeline to which its log leads; false where
// nothing of it can be restored.
func (a *Archive) Tip(ctx context.Context, c *Catalogue, t ident.Timeline) (Point, bool, error) {
	tl := c.find(t)
	if tl == nil {
		return Point{}, false, nil
	}
	runs := tl.Runs()
	if len(runs) == 0 {
		return Point{}, false, nil
	}
	p := &planner{archive: a, ctx: ctx, timeline: t}
	tip, err := p.end(runs[len(runs)-1])
	return tip, err == nil, err
}

// DigestAt is the digest after an entry, which is that after the last record up
// to it; false where the archive does not reach there, or no identity opens the
// segment.
func (a *Archive) DigestAt(ctx context.Context, c *Catalogue, t ident.Timeline, index ident.Index) (Digest, bool, error) {
	tl := c.find(t)
	if tl == nil {
		return Digest{}, false, nil
	}
	for _, s := range tl.Log {
		switch {
		case s.Last == index:
			return s.Digest, true, nil // Its name says it.
		case s.First <= index && index < s.Last:
			return a.digestWithin(ctx, t, s, index)
		}
	}
	return Digest{}, false, nil
}

// digestWithin reads a segment up to an entry.
func (a *Archive) digestWithin(ctx context.Context, t ident.Timeline, s Segment, index ident.Index) (Digest, bool, error) {
	seg, err := a.segment(ctx, t, s)
	if errors.Is(err, ErrNoKey) {
		return Digest{}, false, nil
	}
	if err != nil {
		return Digest{}, false, fmt.Errorf("digest at entry %d: %w", index, err)
	}
	digest := seg.after.Digest
	err = seg.each(s.Name, func(rec *history.Record) error {
		if rec.Index <= index {
			digest = Digest(rec.Groups[len(rec.Groups)-1].Digest)
		}
		return nil
	})
	return digest, err == nil, err
}

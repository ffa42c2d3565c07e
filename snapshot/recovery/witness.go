package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

// Fence is the archive of the old cluster in a plan, and the epoch that Apply
// takes in it before it builds anything.
type Fence struct {
	URL   string         `json:"url"`
	Epoch ident.Timeline `json:"epoch"` // Also the timeline of the new cluster.
	// Sync says that what the archive does not hold was never acknowledged, by the
	// word of the operator.
	Sync bool `json:"sync,omitempty"`
}

// ArchiveFacts are what an archive says of the survivors' cluster. They are a
// Witness.
type ArchiveFacts struct {
	tip     Mark
	digests map[ident.Index]ident.Digest
	sync    bool
	newest  ident.Timeline // Epoch.
}

// AskArchive collects from an archive what is needed to judge facts. synchronous
// is what the operator says of all members of the old cluster: that they ran in
// mode sync.
func AskArchive(ctx context.Context, a *archive.Archive, f *Facts, synchronous bool) (*ArchiveFacts, error) {
	w := &ArchiveFacts{digests: map[ident.Index]ident.Digest{}, sync: synchronous}
	var err error
	if w.newest, err = a.NewestEpoch(ctx); err != nil {
		return nil, err
	}
	catalogue, err := a.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	for i := range f.Members {
		m := &f.Members[i]
		tip, found, err := a.Tip(ctx, catalogue, m.Timeline)
		if err != nil {
			return nil, err
		}
		if !found && synchronous {
			return nil, fmt.Errorf("the archive holds nothing of timeline %d: it can not have been in mode sync", m.Timeline)
		}
		if at := (Mark{tip.Index, tip.Term}); found && w.tip.Index < at.Index {
			w.tip = at
		}
		if m.State == nil {
			continue
		}
		digest, known, err := a.DigestAt(ctx, catalogue, m.Timeline, m.State.changed())
		if err != nil {
			return nil, err
		}
		if known {
			w.digests[m.State.changed()] = ident.Digest(digest)
		}
	}
	return w, nil
}

// Tip implements Witness.
func (w *ArchiveFacts) Tip() Mark { return w.tip }

// DigestAt implements Witness.
func (w *ArchiveFacts) DigestAt(i ident.Index) (ident.Digest, bool) {
	d, known := w.digests[i]
	return d, known
}

// Synchronous implements Witness.
func (w *ArchiveFacts) Synchronous() bool { return w.sync }

// NewestEpoch is the number of the newest epoch in the archive, 0 where there is
// none.
func (w *ArchiveFacts) NewestEpoch() ident.Timeline { return w.newest }

// fence plans the epoch. One that is there already is another recovery's, or one
// of ours that was given up: only the operator knows.
func (j *judge) fence() error {
	if j.ask.ArchiveURL == "" || j.ask.NewestEpoch == 0 || j.ask.Supersede {
		return nil
	}
	return refuse("the archive has epoch %d: another recovery of this cluster is done or under way; --supersede-epoch if you know that it was given up", j.ask.NewestEpoch)
}

// takeEpoch is where a second operator loses. What was staged is given up then;
// the source stays frozen.
func (a *applier) takeEpoch(ctx context.Context) error {
	if a.plan.Fence == nil || a.NoEpoch {
		return nil
	}
	if a.Archive == nil {
		return fmt.Errorf("the plan takes epoch %d in %s, which was not opened: %w", a.plan.Fence.Epoch, a.plan.Fence.URL, ErrDocument)
	}
	// Before the epoch, too: it would silence a cluster that goes on.
	if err := a.outgrown(ctx, "it is not given up yet, and may go on"); err != nil {
		return err
	}
	e, err := a.Archive.TakeEpoch(ctx, archive.Epoch{
		Number: a.plan.Fence.Epoch, Successor: a.next.Cluster.String(), Plan: a.plan.ID, By: a.By, Made: a.Clock.Wall().UTC().Format("2006-01-02T15:04:05Z"),
	})
	if errors.Is(err, archive.ErrEpochTaken) {
		return errors.Join(fmt.Errorf("%w: %w; this plan is given up, and %s stays frozen until `holdfastctl recover thaw`", ErrRefused, err, a.plan.Source.DataDir), giveUp(a.FS, a.plan))
	}
	if err != nil {
		return err
	}
	if err := a.step("epoch %d is ours, the fence of the old cluster is %s", e.Number, e.Fence); err != nil {
		return err
	}
	if a.reliesOnArchive() && e.Fence == archive.FenceOn {
		if err := a.step("waiting %s until no member of the old cluster acknowledges anything", silentAfter); err != nil {
			return err
		}
		select {
		case <-a.Clock.After(silentAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return a.outgrown(ctx, "it is silent now: restore from the archive")
}

// silentAfter an epoch members that look for it acknowledge nothing, and what they
// had acknowledged before is in an archive in mode sync.
const silentAfter = archive.EpochTTL + time.Second

// reliesOnArchive reports whether a plan says that nothing is lost on the ground
// that the archive held all that was ever acknowledged.
func (a *applier) reliesOnArchive() bool { return a.plan.Fence.Sync && !a.plan.Loss.Possible }

// outgrown refuses such a plan where the archive holds more by now: the members
// that were taken for dead went on.
func (a *applier) outgrown(ctx context.Context, hint string) error {
	if !a.reliesOnArchive() {
		return nil
	}
	catalogue, err := a.Archive.Catalogue(ctx)
	if err != nil {
		return err
	}
	tip, found, err := a.Archive.Tip(ctx, catalogue, a.plan.OldTimeline)
	if err == nil && !found {
		err = fmt.Errorf("the archive holds nothing of timeline %d any more: %w", a.plan.OldTimeline, ErrStale)
	}
	if err != nil || a.plan.keeps(Mark{tip.Index, tip.Term}) {
		return err
	}
	return errors.Join(fmt.Errorf("%w: the old cluster went on after plan %s was made, up to entry %d of term %d in the archive; %s; "+
		"the plan is given up, and %s stays frozen until `holdfastctl recover thaw`: %w", ErrRefused, a.plan.ID, tip.Index, tip.Term, hint, a.plan.Source.DataDir, ErrStale), giveUp(a.FS, a.plan))
}

// keeps reports whether an entry that was committed may lie in the log that is kept.
func (p *Plan) keeps(at Mark) bool {
	kept := Log{Last: p.Keep, Terms: p.Terms}
	term := kept.termAt(at.Index)
	return at == p.Keep || at.Index < p.Keep.Index && (term == 0 || term == at.Term)
}

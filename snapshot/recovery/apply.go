package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

// ApplyConfig is what Apply stands on.
type ApplyConfig struct {
	Config
	Random io.Reader // Of incarnations.
	// AcceptLoss is the ID of the plan, where it may lose something: whoever read it
	// knows it.
	AcceptLoss string
	// Archive is that of the plan's Fence. NoEpoch leaves the epoch out, where the
	// archive is lost as well: then it keeps nobody from answering.
	Archive *archive.Archive
	NoEpoch bool
	By      string // Who applies, for people.
	// Step is called after each step, once it is durable. An error of it ends
	// Apply there, as a crash would.
	Step func(name string) error
}

// Apply carries a plan out. It may be cut off anywhere and run again: then it
// goes on, until the new directories have their places. Before that the old ones
// are as they were, but for the marker that keeps their member from starting.
func Apply(ctx context.Context, cfg ApplyConfig, p *Plan) (err error) {
	next, err := p.check(cfg.AcceptLoss)
	if err != nil {
		return err
	}
	lock, err := lockJournal(cfg.FS, p.Source.DataDir)
	if err != nil {
		return fmt.Errorf("apply plan %s: %w", p.ID, err)
	}
	a := &applier{ApplyConfig: cfg, plan: p, next: next}
	if err := errors.Join(a.run(ctx), lock.Close()); err != nil {
		return fmt.Errorf("apply plan %s: %w", p.ID, err)
	}
	return nil
}

// check refuses a plan that is not what its ID says, or costs more than was
// accepted.
func (p *Plan) check(accepted string) (*snapshot.Plan, error) {
	id, err := p.computeID()
	if err != nil {
		return nil, err
	}
	if id != p.ID {
		return nil, fmt.Errorf("the plan says that its ID is %s, by its contents it is %s: %w", p.ID, id, ErrDocument)
	}
	if p.Running {
		return nil, fmt.Errorf("member %s ran when plan %s was made: freeze it with `holdfastctl recover collect --freeze %s`, and plan again: %w", p.Member, p.ID, p.Source.DataDir, ErrStale)
	}
	if p.Loss.Possible && accepted != p.ID {
		return nil, fmt.Errorf("plan %s: %w: read it, then accept that with --accept-loss %s", p.ID, ErrLoss, p.ID)
	}
	return p.Targets()
}

type applier struct {
	ApplyConfig
	plan    *Plan
	next    *snapshot.Plan
	journal journal
}

func (a *applier) run(ctx context.Context) error {
	var err error
	if a.journal, err = readJournal(a.FS, a.plan.Source.DataDir); err != nil {
		return err
	}
	if err := a.resume(); err != nil {
		return err
	}
	if a.journal.Stage == stageNone {
		if err := a.to(stageStaged); err != nil {
			return err
		}
		if err := a.step("plan %s is staged", a.plan.ID); err != nil {
			return err
		}
	}
	if a.journal.Stage == stageStaged {
		if err := a.build(ctx); err != nil {
			return err
		}
	}
	if a.journal.Stage == stageBuilt {
		return a.install()
	}
	return nil
}

// resume takes up what an earlier run has left. What it planned counts: IDs
// that were drawn once stay.
func (a *applier) resume() error {
	j := &a.journal
	switch {
	case j.Stage == stageNone:
		return nil
	case j.Plan.ID == a.plan.ID:
		a.plan = j.Plan
		var err error
		a.next, err = a.plan.Targets()
		return err
	case j.Stage != stageDone:
		return fmt.Errorf("plan %s is staged for %s: %w", j.Plan.ID, a.plan.Source.DataDir, ErrStaged)
	}
	path := filepath.Join(journalDir(a.plan.Source.DataDir), journalName)
	if err := a.FS.Rename(path, path+"-done-"+j.Plan.ID); err != nil {
		return err
	}
	*j = journal{}
	return a.FS.SyncDir(journalDir(a.plan.Source.DataDir))
}

func (a *applier) to(s stage) error {
	a.journal = journal{Stage: s, Plan: a.plan}
	return a.journal.write(a.FS, a.plan.Source.DataDir)
}

func (a *applier) step(format string, args ...any) error {
	if a.Step == nil {
		return nil
	}
	return a.Step(fmt.Sprintf(format, args...))
}

// unchanged makes sure that the source is what the plan was made from. If not,
// the plan is given up; the source stays frozen.
func (a *applier) unchanged(ctx context.Context) error {
	now, err := Collect(ctx, a.Config, a.plan.Source)
	if err != nil {
		return err
	}
	print, err := now.fingerprint()
	if err != nil {
		return err
	}
	if print != a.plan.Fingerprint {
		if err := giveUp(a.FS, a.plan); err != nil {
			return err
		}
		return fmt.Errorf("%s is not as it was when plan %s was made: %w", a.plan.Source.DataDir, a.plan.ID, ErrStale)
	}
	return nil
}

// build makes all new directories beside their targets, verified to the last
// byte.
func (a *applier) build(ctx context.Context) error {
	if err := Freeze(a.Config, a.plan.Source, "recovery by plan "+a.plan.ID); err != nil {
		return err
	}
	if err := a.step("%s is frozen", a.plan.Source.DataDir); err != nil {
		return err
	}
	if err := a.unchanged(ctx); err != nil {
		return err
	}
	if err := a.takeEpoch(ctx); err != nil {
		return err
	}
	err := snapshot.Rebuild(ctx, a.restoreConfig(), a.source(), wal.Mark(a.plan.Keep),
		filepath.Join(journalDir(a.plan.Source.DataDir), copyName), a.next)
	if err != nil {
		return err
	}
	if err := a.step("the new directories are complete and verified"); err != nil {
		return err
	}
	if err := a.to(stageBuilt); err != nil {
		return err
	}
	return a.step("that is noted")
}

func (a *applier) restoreConfig() snapshot.RestoreConfig {
	return snapshot.RestoreConfig{FS: a.FS, Clock: a.Clock, Logger: a.Logger, Random: a.Random}
}

func (a *applier) source() snapshot.DirSource {
	return snapshot.DirSource{FS: a.FS, Clock: a.Clock, Logger: a.Logger, DataDir: a.plan.Source.DataDir, WALDir: a.plan.Source.WALDir}
}

// install gives the new directories their names. What was there is renamed
// aside, and stays frozen.
func (a *applier) install() error {
	err := snapshot.Install(a.restoreConfig(), a.next, func(m snapshot.PlannedMember) error {
		return a.step("member %s is in its place, %s", m.Name, m.DataDir)
	})
	if err != nil {
		return err
	}
	if err := a.to(stageDone); err != nil {
		return err
	}
	return a.step("plan %s is done", a.plan.ID)
}

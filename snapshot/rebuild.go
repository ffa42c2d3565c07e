package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// Rebuild makes the data directories of a plan out of a stopped member's, which
// is only read: its state is copied into the folder scratch, and the copy takes
// in the log up to and with the entry until. Everything goes through the same
// verification as a restore. The directories are left complete beside their
// targets, for Install; after a crash Rebuild is run again.
//
// The plan's header need not say more than PlanRestore wants; it is replaced by
// that of the state which was found.
func Rebuild(ctx context.Context, cfg RestoreConfig, src DirSource, until wal.Mark, scratch string, p *Plan) error {
	store, err := openCopy(ctx, cfg, src, until, scratch)
	if err != nil {
		return fmt.Errorf("rebuild from %s: %w", src.DataDir, err)
	}
	frozen, err := store.Freeze()
	if err == nil {
		err = errors.Join(rebuild(ctx, cfg, frozen, p), frozen.Close())
	}
	if err = errors.Join(err, store.Close()); err != nil {
		return fmt.Errorf("rebuild from %s: %w", src.DataDir, err)
	}
	return cfg.FS.RemoveAll(scratch)
}

// rebuild builds what a plan says out of a frozen state.
func rebuild(ctx context.Context, cfg RestoreConfig, frozen *mvcc.Frozen, p *Plan) error {
	head := &writer{ctx: ctx, frozen: frozen}
	header, err := head.header(false)
	if err != nil {
		return err
	}
	p.Header = header
	r := &restorer{ctx: ctx, cfg: cfg, plan: p}
	defer r.unlock()
	if err := r.prepareAll(); err != nil {
		return err
	}
	rd, w := io.Pipe()
	group := task.New(ctx)
	group.Go("write state", func(context.Context) error {
		w.CloseWithError(writeLocal(ctx, w, frozen)) // nil is the end.
		return nil
	})
	in, err := newReader(rd)
	if err == nil {
		in.frames.sha = nil
	}
	err = r.make(in, err)
	rd.CloseWithError(io.ErrClosedPipe)
	return errors.Join(err, group.Wait())
}

// openCopy copies the state of a stopped member into scratch, opens the copy
// and applies the log up to an entry. It holds the directory's lock meanwhile.
func openCopy(ctx context.Context, cfg RestoreConfig, src DirSource, until wal.Mark, scratch string) (store *mvcc.Store, err error) {
	dir, err := datadir.Open(src.FS, src.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	generation, err := dir.Current()
	if err != nil {
		return nil, err
	}
	if err := cfg.FS.RemoveAll(scratch); err != nil { // Of one that was cut short.
		return nil, err
	}
	if err := copyTree(ctx, cfg.FS, dir.Generation(generation), scratch, false); err != nil {
		return nil, err
	}
	c := mvcc.Config{FS: cfg.FS, Dir: scratch, Clock: cfg.Clock, Logger: cfg.Logger}
	if cfg.Tune != nil {
		cfg.Tune(&c)
	}
	if store, err = mvcc.Open(lean(c)); err != nil {
		return nil, err
	}
	if err := src.catchUp(dir, store, until); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// catchUp applies the log up to an entry, and makes sure that it is the one
// which was meant.
func (src *DirSource) catchUp(dir *datadir.Dir, store *mvcc.Store, until wal.Mark) (err error) {
	if store.Applied().Position.Index < until.Index {
		logDir := src.WALDir
		if logDir == "" {
			logDir = dir.WAL()
		}
		log, _, err := wal.OpenRead(wal.Config{FS: src.FS, Dir: logDir, Logger: src.Logger})
		if err != nil {
			return err
		}
		err = replayLog(log, store, func(*raftpb.ConfState) ident.Index { return until.Index })
		if err = errors.Join(err, log.Close()); err != nil {
			return err
		}
	}
	if st := store.Applied(); st.Position.Index != until.Index || st.Term != until.Term {
		return fmt.Errorf("state ends with entry %d of term %d, should with %s: %w", st.Position.Index, st.Term, until, ErrInvalid)
	}
	return nil
}

// Install gives the directories that Rebuild left their names; what was there is
// renamed aside. done is called after each. After a crash, or an error of done,
// it is run again: what is in its place stays.
func Install(cfg RestoreConfig, p *Plan, done func(PlannedMember) error) error {
	r := &restorer{ctx: context.Background(), cfg: cfg, plan: p}
	defer r.unlock()
	for _, m := range p.Members {
		if !m.Make {
			continue
		}
		err := r.installMade(m)
		if err == nil {
			err = done(m)
		}
		if err != nil {
			return fmt.Errorf("install member %s: %w", m.Name, err)
		}
	}
	return nil
}

func (r *restorer) installMade(m PlannedMember) error {
	s := &site{member: m, scratch: m.DataDir + scratchSuffix, log: m.WALDir, newLog: m.WALDir}
	if m.WALDir != "" {
		made, err := vfs.Exists(r.cfg.FS, m.WALDir+scratchSuffix)
		if err != nil {
			return err
		}
		if made {
			s.newLog += scratchSuffix
		}
	}
	made, err := vfs.Exists(r.cfg.FS, s.scratch)
	if err != nil {
		return err
	}
	if !made { // In its place, or never made.
		return r.inPlace(m)
	}
	if s.dir, err = datadir.Open(r.cfg.FS, s.scratch); err != nil { // Another restore may be at work there.
		return err
	}
	r.sites = append(r.sites, s)
	if err := r.isPlanned(s.dir, m); err != nil {
		return err
	}
	there, err := vfs.Exists(r.cfg.FS, m.DataDir)
	if err != nil {
		return err
	}
	if there {
		if s.old, err = datadir.Open(r.cfg.FS, m.DataDir); err != nil { // So that nobody lives there.
			return err
		}
	}
	return r.install(s)
}

// inPlace makes sure that a target is the member that was planned.
func (r *restorer) inPlace(m PlannedMember) error {
	if there, err := vfs.Exists(r.cfg.FS, m.DataDir); err != nil || !there {
		return errors.Join(fmt.Errorf("%s and %s are missing: %w", m.DataDir, filepath.Base(m.DataDir)+scratchSuffix, ErrInvalid), err)
	}
	dir, err := datadir.Open(r.cfg.FS, m.DataDir)
	if errors.Is(err, datadir.ErrLocked) { // It runs already: then it was in its place, and looking can wait.
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(r.isPlanned(dir, m), dir.Close())
}

// isPlanned compares who lives in a directory with a member of the plan.
func (r *restorer) isPlanned(dir *datadir.Dir, m PlannedMember) error {
	id, err := dir.Identity()
	if err != nil {
		return err
	}
	if id.Cluster != r.plan.Cluster || id.Member != m.ID || id.Timeline != r.plan.Timeline {
		return fmt.Errorf("%s is member %s of cluster %s on timeline %d, should be %s of %s on %d: %w",
			dir.Path(), id.Member, id.Cluster, id.Timeline, m.ID, r.plan.Cluster, r.plan.Timeline, ErrInvalid)
	}
	return nil
}

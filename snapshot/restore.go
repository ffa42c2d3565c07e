package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// RestoreConfig is what a restore stands on.
type RestoreConfig struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger
	Random io.Reader // Of incarnations.

	SkipHashCheck bool                    // The SHA-256 at the end of the file may be missing.
	Progress      func(done, total int64) // Of the file; nil means nobody listens.

	// Tune changes the configuration of a store before it is made: bbolt wants a
	// real file, and a simulation leaves no background to itself. May be nil.
	Tune func(c *mvcc.Config)
}

// ReadHeader returns the header of a snapshot file, for PlanRestore. Nothing
// but the header was verified.
func ReadHeader(fsys vfs.FS, path string) (*Status, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	h, err := HeaderOf(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	return &Status{Totals: Totals{Bytes: size}, Header: h}, nil
}

// HeaderOf returns the header that a snapshot begins with, and reads no further.
func HeaderOf(from io.Reader) (*holdfastpb.SnapshotHeader, error) {
	r, err := newReader(from)
	if err != nil {
		return nil, err
	}
	r.close()
	return r.header, nil
}

// Restore makes the data directories of a plan. Each is made beside its target
// and takes the name only when all are complete, verified and synced; what was
// there is renamed aside. After a crash it is run again; if that came while
// directories took their names, some of them are there and Replace is needed.
func Restore(ctx context.Context, cfg RestoreConfig, path string, p *Plan) error {
	r := &restorer{ctx: ctx, cfg: cfg, plan: p}
	defer r.unlock()
	err := r.run(func() error { return r.makeOf(path) })
	if err != nil {
		return fmt.Errorf("restore %s: %w", path, err)
	}
	return nil
}

// RestoreExtended is Restore for a snapshot that comes from anywhere, and the
// records after it. Its caller tells of progress.
func RestoreExtended(ctx context.Context, cfg RestoreConfig, base io.Reader, x Extension, p *Plan) error {
	r := &restorer{ctx: ctx, cfg: cfg, plan: p}
	defer r.unlock()
	return r.run(func() error { return r.make(newExtended(base, &x)) })
}

// makeOf makes directories of a file.
func (r *restorer) makeOf(path string) error {
	f, err := r.cfg.FS.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	return r.make(newReader(&progressReader{r: io.NewSectionReader(f, 0, size), total: size, ctx: r.ctx, tell: r.cfg.Progress}))
}

func (r *restorer) run(fill func() error) error {
	if err := r.prepareAll(); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	for _, s := range r.sites {
		if err := r.install(s); err != nil {
			return fmt.Errorf("member %s: %w", s.member.Name, err)
		}
	}
	return nil
}

type restorer struct {
	ctx   context.Context
	cfg   RestoreConfig
	plan  *Plan
	sites []*site
}

// site is one directory being made.
type site struct {
	member  PlannedMember
	scratch string // Where it is made: the target itself when that is an empty folder, as a mount point is.
	dir     *datadir.Dir
	old     *datadir.Dir // What the target holds, locked. Nil: nothing.
	log     string       // Of the member; within dir when it has no place of its own.
	newLog  string       // Where it is made.
}

const (
	scratchSuffix = ".restoring"
	oldSuffix     = ".old"
	// The bump needs a second generation; then it is the one that stays.
	firstGeneration  = 1
	secondGeneration = 2
)

// prepareAll looks at all targets.
func (r *restorer) prepareAll() error {
	for _, m := range r.plan.Members {
		if !m.Make {
			continue
		}
		if err := r.prepare(m); err != nil {
			return fmt.Errorf("member %s: %w", m.Name, err)
		}
	}
	if len(r.sites) == 0 {
		return fmt.Errorf("no member is to be made here: %w", ErrInvalid)
	}
	return nil
}

// make leaves complete directories, verified and synced, beside their targets.
// It takes what a reader could be opened with.
func (r *restorer) make(in *reader, err error) error {
	if err != nil {
		return err
	}
	defer in.close()
	generation, err := r.generations(in)
	if err != nil {
		return errors.Join(err, r.forget())
	}
	for _, s := range r.sites {
		if err := r.complete(s, generation); err != nil {
			return fmt.Errorf("member %s: %w", s.member.Name, err)
		}
	}
	return nil
}

// generations gives every site its state, and tells in which generation.
func (r *restorer) generations(in *reader) (generation int, err error) {
	first := r.sites[0]
	if generation, err = r.build(in, first); err != nil {
		return 0, fmt.Errorf("member %s: %w", first.member.Name, err)
	}
	// What the first member has is closed: its base is read again as it lies there
	// while the others get their copies.
	tasks := task.New(r.ctx)
	tasks.Go("verify "+first.member.Name, func(ctx context.Context) error {
		return mvcc.VerifyBase(ctx, r.store(first, generation))
	})
	for _, s := range r.sites[1:] {
		tasks.Go("copy to "+s.member.Name, func(ctx context.Context) error {
			return copyTree(ctx, r.cfg.FS, first.dir.Generation(generation), s.dir.Generation(generation), true)
		})
	}
	return generation, errors.Join(tasks.Wait(), r.ctx.Err()) // Who was told to end has not failed, and is not through.
}

// forget removes generations that were not finished. Nothing says yet that they
// are anybody's, and the next try would only put them aside: a target that was an
// empty folder would fill up.
func (r *restorer) forget() error {
	var errs []error
	for _, s := range r.sites {
		for _, generation := range []int{firstGeneration, secondGeneration} {
			errs = append(errs, r.cfg.FS.RemoveAll(s.dir.Generation(generation)))
		}
	}
	return errors.Join(errs...)
}

// unlock gives back what run has locked.
func (r *restorer) unlock() {
	for _, s := range r.sites {
		if s.dir != nil {
			s.dir.Close()
		}
		if s.old != nil {
			s.old.Close()
		}
	}
}

// prepare looks at a target and makes the scratch directory.
func (r *restorer) prepare(m PlannedMember) error {
	s := &site{member: m, scratch: m.DataDir + scratchSuffix}
	r.sites = append(r.sites, s)
	there, err := vfs.Exists(r.cfg.FS, m.DataDir)
	if err == nil && there {
		err = r.prepareTarget(s)
	}
	if err != nil {
		return err
	}
	if s.dir == nil {
		if s.dir, err = datadir.Open(r.cfg.FS, s.scratch); err != nil { // Locked first: another restore may be at work there.
			return err
		}
		if err := r.clear(s.scratch); err != nil {
			return err
		}
	}
	if s.log, s.newLog = m.WALDir, m.WALDir; m.WALDir == "" {
		s.log, s.newLog = s.dir.WAL(), s.dir.WAL()
		return s.dir.SetAside()
	}
	names, err := listIfThere(r.cfg.FS, s.log)
	if err == nil && len(names) > 0 {
		s.newLog += scratchSuffix
		if !r.plan.Replace {
			err = fmt.Errorf("%s: %w", s.log, ErrNotEmpty)
		}
	}
	return errors.Join(err, s.dir.SetAside())
}

// clear removes what a restore that was cut short has left in its scratch, but the
// lock, which is held.
func (r *restorer) clear(scratch string) error {
	names, err := r.cfg.FS.List(scratch)
	for _, name := range names {
		if name != "LOCK" {
			err = errors.Join(err, r.cfg.FS.RemoveAll(filepath.Join(scratch, name)))
		}
	}
	return err
}

// prepareTarget decides what to do with a folder that exists.
func (r *restorer) prepareTarget(s *site) error {
	names, err := r.cfg.FS.List(s.member.DataDir)
	if err != nil {
		return err
	}
	if begun(names) {
		s.scratch = s.member.DataDir
		s.dir, err = datadir.Open(r.cfg.FS, s.scratch)
		return err
	}
	if !r.plan.Replace {
		return fmt.Errorf("%s: %w", s.member.DataDir, ErrNotEmpty)
	}
	s.old, err = datadir.Open(r.cfg.FS, s.member.DataDir) // So that nobody lives there.
	return err
}

// begun reports whether a folder is empty, but for what the root of a file system
// has, or holds only what an earlier restore into it left when it was cut short:
// anything but an identity.
func begun(names []string) bool {
	for _, name := range names {
		known := slices.Contains([]string{"LOCK", "CURRENT", "CURRENT.tmp", "IDENTITY.copy.tmp", "STARTING", "wal", "lost+found"}, name)
		for _, prefix := range []string{"gen-", "old-"} {
			known = known || len(name) > len(prefix) && name[:len(prefix)] == prefix
		}
		if !known {
			return false
		}
	}
	return true
}

func listIfThere(fsys vfs.FS, dir string) ([]string, error) {
	there, err := vfs.Exists(fsys, dir)
	if err != nil || !there {
		return nil, err
	}
	return fsys.List(dir)
}

// complete makes the log and says which generation is the one in force. The
// identity is last: until then the directory counts as empty.
func (r *restorer) complete(s *site, generation int) error {
	if err := r.cfg.FS.RemoveAll(s.log + scratchSuffix); err != nil {
		return err
	}
	if err := r.cfg.FS.MkdirAll(s.newLog); err != nil {
		return err
	}
	log, err := wal.Create(wal.Config{FS: r.cfg.FS, Dir: s.newLog, SegmentBytes: logSegmentBytes, Logger: r.cfg.Logger}, wal.Mark{Index: r.plan.At, Term: r.plan.Term})
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	if err := s.dir.SetCurrent(generation, datadir.Began{Index: r.plan.At, Term: r.plan.Term}); err != nil {
		return err
	}
	var incarnation [8]byte
	if _, err := io.ReadFull(r.cfg.Random, incarnation[:]); err != nil {
		return fmt.Errorf("draw an incarnation: %w", err)
	}
	return s.dir.SetIdentity(datadir.Identity{
		Cluster: r.plan.Cluster, Member: s.member.ID, Timeline: r.plan.Timeline,
		Incarnation: max(binary.BigEndian.Uint64(incarnation[:]), 1),
	})
}

// install puts a finished directory in its place.
func (r *restorer) install(s *site) error {
	fail.Here("snapshot/restore/current")
	if s.newLog != s.log {
		if err := r.setAside(s.log); err != nil {
			return err
		}
		if err := r.cfg.FS.Rename(s.newLog, s.log); err != nil {
			return err
		}
		if err := r.cfg.FS.SyncDir(filepath.Dir(s.log)); err != nil {
			return err
		}
	}
	if s.scratch == s.member.DataDir {
		return nil
	}
	if s.old != nil {
		if err := r.setAside(s.member.DataDir); err != nil {
			return err
		}
	}
	if err := r.cfg.FS.Rename(s.scratch, s.member.DataDir); err != nil {
		return err
	}
	r.cfg.Logger.Info("restored", "member", s.member.ID, "dir", s.member.DataDir)
	return r.cfg.FS.SyncDir(filepath.Dir(s.member.DataDir))
}

// setAside renames what is at a path, if anything is.
func (r *restorer) setAside(path string) error {
	names, err := listIfThere(r.cfg.FS, path)
	if err != nil || len(names) == 0 {
		return err
	}
	aside := path + oldSuffix
	for n := 2; ; n++ {
		taken, err := vfs.Exists(r.cfg.FS, aside)
		if err != nil {
			return err
		}
		if !taken {
			break
		}
		aside = fmt.Sprintf("%s%s-%d", path, oldSuffix, n)
	}
	if err := r.cfg.FS.Rename(path, aside); err != nil {
		return fmt.Errorf("rename %s aside: %w", path, err)
	}
	r.cfg.Logger.Info("renamed what was there", "from", path, "to", aside)
	return r.cfg.FS.SyncDir(filepath.Dir(path))
}

// build makes the new cluster's state in a site and returns its generation.
func (r *restorer) build(in *reader, s *site) (generation int, err error) {
	in.hashed = !r.cfg.SkipHashCheck
	cfg := r.store(s, firstGeneration)
	cfg.BaseNoSync = cfg.BaseNoSync || r.plan.Bump > 0 // Only the second one stays.
	b, err := beginStore(in, cfg, mvcc.Identity{Cluster: r.plan.Cluster, Timeline: r.plan.Timeline})
	if err != nil {
		return 0, err
	}
	err = b.finish()
	if err == nil && !sameHeader(in.header, r.plan.Header) {
		err = fmt.Errorf("it is not the snapshot that was planned for: %w", ErrInvalid)
	}
	if err == nil {
		err = r.rewrite(b.store)
	}
	generation = firstGeneration
	if err == nil && r.plan.Bump > 0 {
		generation = secondGeneration
		err = r.bump(b.store, s)
	}
	if err = errors.Join(err, b.store.Close()); err != nil {
		return 0, err
	}
	if generation == secondGeneration {
		return generation, r.cfg.FS.RemoveAll(s.dir.Generation(firstGeneration))
	}
	return generation, nil
}

func (r *restorer) store(s *site, generation int) mvcc.Config {
	c := mvcc.Config{FS: r.cfg.FS, Dir: s.dir.Generation(generation), Clock: r.cfg.Clock, Logger: r.cfg.Logger}
	if r.cfg.Tune != nil {
		r.cfg.Tune(&c)
	}
	return c
}

// progressReader tells how far it was read.
type progressReader struct {
	r     io.Reader
	ctx   context.Context
	tell  func(done, total int64)
	done  int64
	told  int64
	total int64
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.done += int64(n)
	if p.done-p.told >= progressBytes || p.done == p.total {
		p.told = p.done
		if p.tell != nil {
			p.tell(p.done, p.total)
		}
		if p.ctx.Err() != nil {
			return n, p.ctx.Err()
		}
	}
	return n, err
}

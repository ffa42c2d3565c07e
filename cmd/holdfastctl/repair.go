package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

// repairFlags say where another state comes from.
type repairFlags struct {
	archiveFlags
	from, walDir string
	dryRun       bool
}

func (c *ctl) repairCommand() *cobra.Command {
	var f repairFlags
	cmd := &cobra.Command{
		Use:   "repair <data-dir> [--archive URL | --from SNAPSHOT]",
		Short: "Gives a stopped member whose state is damaged another one, out of an archive or a snapshot",
		Long: `Verifies the base and the history of a stopped member, and where they are damaged puts
another state in their place: out of an archive or a snapshot of the same cluster, at a
position that lies within the member's own Raft log. Log, vote and identity stay, and what
the log holds beyond that position is applied when the member starts. What was damaged is
renamed aside. Without --archive and --from the damage is shown, and nothing is done.

It is for a member that nobody else gives a state: it is alone, or all are damaged. With
others a damaged member gets one from them when it starts, without any command.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("repair takes one data directory")
			}
			if f.url != "" && f.from != "" {
				return badArguments("--archive and --from do not go together: name one of them")
			}
			err := c.repair(cmd.Context(), args[0], &f)
			if coded := (*exitError)(nil); errors.As(err, &coded) {
				return err
			}
			return exit(exitFailed, err)
		},
	}
	cmd.Flags().StringVar(&f.url, "archive", "", "URL of the archive to take the newest state from that the log goes on from")
	cmd.Flags().StringVar(&f.from, "from", "", "snapshot file to take the state from")
	cmd.Flags().StringVar(&f.walDir, "wal-dir", "", "where the log is, if it is elsewhere")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what would be done")
	f.declareObjects(cmd.Flags())
	return cmd
}

func (c *ctl) repair(ctx context.Context, path string, f *repairFlags) (err error) {
	if there, err := holdsMember(path); err != nil || !there {
		return cmp.Or(err, fmt.Errorf("%s: %w: name the --data-dir of one", path, datadir.ErrEmpty))
	}
	dir, err := datadir.Open(vfs.OS(), path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	s, err := replica.OpenStopped(replica.Config{FS: vfs.OS(), Dir: dir, WALDir: f.walDir, Clock: clock.Real(), Logger: c.logger()})
	if errors.Is(err, datadir.ErrFrozen) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w; without a log and an identity that can be read nobody knows what this member has promised: where others are a quorum "+
			"'member remove' it and 'member add' it anew, else 'restore'", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	damage, err := s.Damage(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "member %s of cluster %s, timeline %d, in %s\n", s.ID.Member, s.ID.Cluster, s.ID.Timeline, dir.Path())
	if damage == nil {
		fmt.Fprintln(c.out, "Base and history are whole. Nothing was done.")
		return nil
	}
	fmt.Fprintf(c.out, "damage   %s\n", damage)
	fmt.Fprintf(c.out, "log      goes on from entry %d to %d, known as committed through %d; it stays, and so does the vote\n", s.Log.Start.Index, s.Log.Last.Index, s.Log.HardState.Commit)
	switch {
	case f.from != "":
		return c.repairFromFile(ctx, dir, s, f)
	case f.url != "":
		return c.repairFromArchive(ctx, dir, s, f)
	}
	return fmt.Errorf("the state of %s is damaged, and nothing was done: give --archive URL or --from SNAPSHOT; with other members just start it, and it gets a state from them", path)
}

func (c *ctl) repairFromFile(ctx context.Context, dir *datadir.Dir, s *replica.Stopped, f *repairFlags) error {
	st, err := c.statusOf(ctx, f.from, false)
	if err != nil {
		return err
	}
	h := st.Header
	if err := sameCluster(s, f.from, ident.ClusterID(h.ClusterId), ident.Timeline(h.Timeline.GetNumber())); err != nil {
		return err
	}
	at := wal.Mark{Index: ident.Index(h.Applied.GetIndex()), Term: ident.Term(h.Term)}
	if err := s.Joins(at); err != nil {
		return fmt.Errorf("%s can not repair this member: %w", f.from, err)
	}
	fmt.Fprintf(c.out, "from     %s: entry %d, revision %d, %d keys\n", f.from, at.Index, h.Revision, st.Keys)
	return c.replaceState(ctx, dir, s, f, at.Index, replica.Source{Committed: at.Index, Write: func(w io.Writer, conf []byte) error {
		if conf != nil {
			return fmt.Errorf("%s has another configuration of Raft than members: %w", f.from, snapshot.ErrInvalid)
		}
		file, err := os.Open(f.from)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(w, file)
		return err
	}})
}

func sameCluster(s *replica.Stopped, from string, cluster ident.ClusterID, timeline ident.Timeline) error {
	if cluster != s.ID.Cluster || timeline != s.ID.Timeline {
		return fmt.Errorf("%s is of cluster %s on timeline %d, this member is of cluster %s on timeline %d: only a state of its own past can repair it; "+
			"to make a new cluster of another one there is 'restore'", from, cluster, timeline, s.ID.Cluster, s.ID.Timeline)
	}
	return nil
}

func (c *ctl) repairFromArchive(ctx context.Context, dir *datadir.Dir, s *replica.Stopped, f *repairFlags) error {
	a, store, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	plan, err := pointInLog(ctx, a, s)
	if err != nil {
		return fmt.Errorf("%s can not repair this member: %w", f.url, err)
	}
	fmt.Fprintf(c.out, "from     the archive of cluster %s: base at entry %d, %d segments of log, %d objects, %s to read\n", plan.Cluster, plan.Base.At.Index, len(plan.Log), len(plan.Objects), sizeText(plan.Bytes))
	fmt.Fprintf(c.out, "to       %s, digest %s; the archive ends at entry %d\n", plan.To, plan.To.Digest, plan.End.Index)
	err = c.replaceState(ctx, dir, s, f, plan.To.Index, replica.Source{Committed: plan.End.Index, Write: func(w io.Writer, conf []byte) error {
		plan.Conf = conf
		_, err := a.Restore(ctx, w, plan)
		return err
	}})
	if errors.Is(err, raftnode.ErrLogLost) {
		err = fmt.Errorf("%w; the archive has more than this member, which is lost if it goes on: 'holdfastctl restore --from %s' makes a new cluster of all of it", err, f.url)
	}
	return err
}

// pointInLog finds the newest point of an archive that the log goes on from. An
// archive may reach beyond the log of a member that was away, and the end of that
// log may hold entries that others have replaced; what it knows as committed is
// the past of all.
func pointInLog(ctx context.Context, a *archive.Archive, s *replica.Stopped) (*archive.Plan, error) {
	try := func(text string) (*archive.Plan, error) {
		target, err := archive.ParseTarget(text)
		if err != nil {
			return nil, err
		}
		p, err := a.Plan(ctx, s.ID.Timeline, target)
		if err != nil {
			return nil, err
		}
		if err := sameCluster(s, "the archive", p.Base.ClusterID, p.Timeline); err != nil {
			return nil, err
		}
		return p, s.Joins(wal.Mark{Index: p.To.Index, Term: p.To.Term})
	}
	p, err := try("latest")
	for _, at := range []ident.Index{s.Log.Last.Index, s.Log.HardState.Commit} {
		if p != nil && err != nil && at < p.To.Index {
			p, err = try(fmt.Sprintf("index=%d", at))
		}
	}
	return p, err
}

// replaceState does what was planned.
func (c *ctl) replaceState(ctx context.Context, dir *datadir.Dir, s *replica.Stopped, f *repairFlags, at ident.Index, from replica.Source) error {
	if last := s.Log.Last.Index; at < last {
		fmt.Fprintf(c.out, "then     entries %d to %d of the log follow when the member starts\n", at+1, last)
	}
	if f.dryRun {
		fmt.Fprintln(c.out, "Nothing was done: --dry-run.")
		return nil
	}
	st, compared, err := s.Replace(ctx, from)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "Repaired: the state of entry %d, revision %d, digest %s is in force, what was there is renamed aside in %s.\n", st.Position.Index, st.Revision, st.Digest, dir.Path())
	if compared {
		fmt.Fprintln(c.out, "The history that was here has the same digest at that entry.")
	} else {
		fmt.Fprintln(c.out, "What was here could not be read at that entry, so that its digest was compared with that of the source alone.")
	}
	fmt.Fprintln(c.out, "Start the member as before.")
	return nil
}

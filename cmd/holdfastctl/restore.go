package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// pointFlags are the flags of restore that say what, and what of it.
type pointFlags struct {
	archiveFlags
	from, to, member string
	prefix           string
	keepRevision     bool
	facts            []string
}

func (c *ctl) restoreCommand() *cobra.Command {
	var f restoreFlags
	var p pointFlags
	cmd := &cobra.Command{
		Use:   "restore --from SNAPSHOT|ARCHIVE-URL [--to TARGET] --cluster SPEC.yaml | --prefix P",
		Short: "Makes the data directories of a new cluster as of any point in time, or takes keys back to it",
		Long: `Makes the data directories of all members of a new cluster, or of one (--member), from
a snapshot file or from an archive, as of a point in time:

  latest               the newest that there is
  index=N[.GROUP]      after an entry of the log, or one request of it
  revision=N           right after the request that made a revision
  before-revision=N    right before it
  time=RFC3339         after the last request up to a time

The plan is printed first; --dry-run ends there. Every byte is verified, and nothing is
installed unless the digest at the end is right. What a target holds is left alone, or
renamed aside (--replace).

Where revisions beyond the target may have been used, the new cluster begins above them
and what is older counts as compacted, so that no revision ever has two contents.

  holdfastctl restore --from s3://backups/prod?region=eu-1 --to before-revision=48211 --cluster SPEC.yaml

With --prefix no cluster is made: the running one at --endpoints takes the keys under the
prefix back to what they were. What was deleted since comes back, what was changed changes
back, and what is new goes, each only if nobody writes it meanwhile; --dry-run prints
these lines alone. --prefix "" is every key. Keys come back without their leases.

  holdfastctl restore --from s3://backups/prod --to time=2026-11-28T09:00:00Z --prefix /registry/pods/
`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.restoreTo(cmd, args, &p, &f) },
	}
	f.declare(cmd.Flags())
	for _, name := range []string{"data-dir", "wal-dir", "name", "initial-cluster", "initial-advertise-peer-urls", "bump-revision", "mark-compacted", "skip-hash-check"} {
		_ = cmd.Flags().MarkHidden(name) // Of snapshot restore, which speaks etcdutl's language.
	}
	p.declareRest(cmd.Flags())
	cmd.Flags().StringVar(&p.from, "from", "", "snapshot file, or URL of an archive")
	cmd.Flags().StringVar(&p.to, "to", "latest", "the point in time")
	cmd.Flags().StringVar(&p.prefix, "prefix", "", "take the keys that begin with this back to what they were, in the running cluster")
	cmd.Flags().StringVar(&p.member, "member", "", "make only this member of --cluster here")
	cmd.Flags().String("scratch", "", "folder for the state on its way")
	_ = cmd.Flags().MarkDeprecated("scratch", "what comes from an archive needs no place on its way any more")
	cmd.Flags().StringSliceVar(&p.facts, "facts", nil, "files of 'recover collect --freeze' from all members of the old cluster: the revision stays if they prove that the archive has everything")
	cmd.Flags().BoolVar(&p.keepRevision, "keep-revision", false, "go on with the target's revision: only if nobody has ever seen a later one")
	return cmd
}

func (c *ctl) restoreTo(cmd *cobra.Command, args []string, p *pointFlags, f *restoreFlags) error {
	if len(args) != 0 {
		return badArguments("restore takes no arguments: --from names what to restore")
	}
	fs := cmd.Flags()
	back := fs.Changed("prefix")
	if p.from == "" {
		return badArguments("--from is missing: the URL of an archive or a snapshot file, and then --cluster or --prefix")
	}
	if back == (f.spec != "") {
		return badArguments("either --cluster SPEC.yaml, for the directories of a new cluster, or --prefix P, to take keys of the running one back")
	}
	if back {
		return c.takeBack(cmd.Context(), p, f.dryRun)
	}
	if err := c.needForm(formSimple); err != nil {
		return err
	}
	if p.member != "" {
		if err := fs.Set("name", p.member); err != nil {
			return badArguments("--member: %w", err)
		}
	}
	if p.member != "" && f.nonce == "" {
		return badArguments("--member needs --nonce WORD, the same for every member: the IDs of the new cluster follow from it")
	}
	o, err := f.options(fs)
	if err != nil {
		return err
	}
	if !strings.Contains(p.from, "://") {
		if p.to != "latest" {
			return badArguments("--to %s: a snapshot file holds one point; give the URL of an archive", p.to)
		}
		if p.member != "" {
			f.others = otherMembers(p, f, "")
		}
		return c.restore(cmd.Context(), f, p.from, o)
	}
	p.url = p.from
	return c.restorePoint(cmd.Context(), p, f, o)
}

// complete tells whether facts prove that nothing lies beyond a point: where
// nothing was lost, nothing is bumped.
func (p *pointFlags) complete(plan *archive.Plan) (bool, error) {
	if len(p.facts) == 0 {
		return false, nil
	}
	all := &recovery.Facts{}
	for _, file := range p.facts {
		facts, err := recovery.ReadFacts(vfs.OS(), file)
		if err != nil {
			return false, exit(exitFailed, err)
		}
		all.Members = append(all.Members, facts.Members...)
	}
	if err := all.Complete(plan.Cluster, plan.Timeline, ident.Digest(plan.To.Digest)); err != nil {
		return false, exit(exitFailed, fmt.Errorf("--facts: %w; without --facts the cluster begins above every revision that may have been used", err))
	}
	return true, nil
}

// otherMembers is the command for those that are made elsewhere.
func otherMembers(p *pointFlags, f *restoreFlags, point string) string {
	words := []string{"holdfastctl restore --from", p.from, point, "--cluster", f.spec, "--nonce", f.nonce, "--member NAME"}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

func sameRevision(o snapshot.RestoreOptions) string {
	if o.BumpRevision > 0 {
		return fmt.Sprintf("--bump-revision %d --mark-compacted", o.BumpRevision)
	}
	return "--keep-revision"
}

// restorePoint restores from an archive.
func (c *ctl) restorePoint(ctx context.Context, p *pointFlags, f *restoreFlags, o snapshot.RestoreOptions) error {
	target, err := archive.ParseTarget(p.to)
	if err != nil {
		return exit(exitArguments, err)
	}
	a, store, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	plan, err := a.Plan(ctx, ident.Timeline(p.timeline), target)
	if err != nil {
		return exit(exitFailed, err)
	}
	complete, err := p.complete(plan)
	if err != nil {
		return err
	}
	if plan.Outage(clock.Real().Wall()); p.keepRevision || complete {
		plan.Ceiling = 0
	}
	if bump := plan.Bump(); bump > 0 && f.bump == 0 {
		o.BumpRevision, o.MarkCompacted = bump, true
	}
	members, err := snapshot.PlanRestore(plan.Header(), o)
	switch {
	case errors.Is(err, snapshot.ErrInvalid):
		return exit(exitArguments, err)
	case err != nil:
		return exit(exitFailed, err)
	}
	fmt.Fprintf(c.out, "%s%s", plan, members)
	if f.dryRun {
		fmt.Fprintln(c.out, "Nothing was done: --dry-run.")
		return nil
	}
	return c.restoreAs(ctx, a, plan, members, p, f, o)
}

// restoreAs does what the plans say.
func (c *ctl) restoreAs(ctx context.Context, a *archive.Archive, plan *archive.Plan, members *snapshot.Plan, p *pointFlags, f *restoreFlags, o snapshot.RestoreOptions) error {
	if o.Only != "" { // The archive may go on: all of them stand at the same point, with the same revision.
		f.others = otherMembers(p, f, fmt.Sprintf("--to index=%s %s", plan.To.Position(), sameRevision(o)))
	}
	return c.makeMembers(f, members, o, func(cfg snapshot.RestoreConfig) error { return a.RestoreTo(ctx, cfg, plan, members) })
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// archiveFlags say which archive, and how it is opened.
type archiveFlags struct {
	url, cluster, identity string
	timeline               uint64
}

func (f *archiveFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.url, "archive", "", "URL of the archive: file:///folder or s3://bucket/prefix?region=…&endpoint=…")
	f.declareRest(fs)
}

// declareRest declares all but the URL.
func (f *archiveFlags) declareRest(fs *pflag.FlagSet) {
	f.declareObjects(fs)
	fs.Uint64Var(&f.timeline, "timeline", 0, "which life of the cluster's history (default the newest)")
}

// declareObjects declares what it takes to read objects of all timelines.
func (f *archiveFlags) declareObjects(fs *pflag.FlagSet) {
	fs.StringVar(&f.cluster, "cluster-uuid", "", "whose archive, where the URL holds those of several clusters")
	fs.StringVar(&f.identity, "identity", "", "age identity file that opens encrypted objects")
}

// open opens the archive. Close the store when done.
func (f *archiveFlags) open(ctx context.Context) (*archive.Archive, blobstore.Store, error) {
	if f.url == "" {
		return nil, nil, badArguments("--archive is required: file:///folder or s3://bucket/prefix?region=…&endpoint=…")
	}
	var cluster archive.UUID
	if f.cluster != "" {
		if err := cluster.UnmarshalText([]byte(f.cluster)); err != nil {
			return nil, nil, badArguments("--cluster-uuid: %w", err)
		}
		if cluster == (archive.UUID{}) { // It would mean any.
			return nil, nil, badArguments("--cluster-uuid %s is no cluster's: leave it out where the URL holds the archive of one", f.cluster)
		}
	}
	ids, err := readIdentities(f.identity)
	if err != nil {
		return nil, nil, badArguments("--identity: %w", err)
	}
	a, store, err := archive.OpenURL(ctx, f.url, cluster, ids)
	switch {
	case errors.Is(err, archive.ErrStore):
		return nil, nil, exit(exitArguments, err)
	case err != nil:
		return nil, nil, exit(exitFailed, err)
	}
	return a, store, nil
}

func readIdentities(file string) (archive.Identities, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return archive.ParseIdentities(f)
}

func (c *ctl) backupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "backup <subcommand>", Short: "Shows and thins out the archive of a cluster"}
	cmd.AddCommand(c.backupListCommand(), c.backupCostCommand())
	cmd.AddCommand(c.textOnly(c.backupPruneCommand())...)
	return cmd
}

func (c *ctl) backupListCommand() *cobra.Command {
	var f archiveFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "Shows which points in time can be restored",
		Long: `Shows what an archive holds, by timeline: its bases, the log after each, what is
missing, and the last drill. Any position between a base and the end of the log after
it can be restored (holdfastctl restore).
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return badArguments("backup ls takes no arguments: the archive is --archive")
			}
			if err := c.needForm(formSimple, formTable, formJSON); err != nil {
				return err
			}
			a, store, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer store.Close()
			list, err := backupsOf(cmd.Context(), a)
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.print(answer{json: list, table: list.grid(), simple: list.simple})
		},
	}
	f.declare(cmd.Flags())
	return cmd
}

// backups is what backup ls shows.
type backups struct {
	Cluster   archive.UUID     `json:"cluster"`
	Bases     []backup         `json:"bases"`
	Windows   []archive.Window `json:"windows"`
	Gaps      []string         `json:"gaps"`
	Conflicts []string         `json:"conflicts"`
	Foreign   []string         `json:"foreign"`
	LastDrill *archive.Drill   `json:"last_drill"`
	Ceiling   ident.Revision   `json:"ceiling"`
	Objects   int              `json:"objects"`
	Bytes     int64            `json:"bytes"`
}

// backup is a base and how far the log after it goes.
type backup struct {
	Timeline  ident.Timeline `json:"timeline"`
	Index     ident.Index    `json:"index"`
	Revision  ident.Revision `json:"revision"`
	Time      string         `json:"time"` // Of the state.
	Bytes     int64          `json:"bytes"`
	Through   ident.Index    `json:"through"` // The log goes on to here without a gap.
	Shipped   time.Time      `json:"shipped"` // When the last of it was written there, by the store's clock.
	LogBytes  int64          `json:"log_bytes"`
	Incorrect string         `json:"error,omitempty"` // Why its manifest does not read.
	Verified  string         `json:"verified,omitempty"`
}

func backupsOf(ctx context.Context, a *archive.Archive) (*backups, error) {
	cat, err := a.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	drills, err := a.Drills(ctx, cat)
	if err != nil {
		return nil, err
	}
	b := &backups{Cluster: cat.Cluster, Foreign: cat.Foreign, Ceiling: cat.Ceiling}
	b.Objects, b.Bytes = cat.Total()
	verified := map[string]string{}
	for _, d := range drills {
		b.LastDrill = d
		if d.OK {
			verified[d.Base] = d.Began
		}
	}
	for _, t := range cat.Timelines {
		for _, r := range t.Runs() {
			one := backup{
				Timeline: t.Number, Index: r.Base.Index, Revision: r.Base.Revision, Bytes: r.Base.Bytes, Through: r.Last, Verified: verified[r.Base.Name],
			}
			one.Shipped = r.Base.Modified.UTC()
			for _, s := range r.Log {
				one.LogBytes += s.Bytes
				one.Shipped = s.Modified.UTC()
			}
			if m, err := a.Manifest(ctx, t.Number, r.Base); err != nil {
				one.Incorrect = err.Error()
			} else {
				one.Time = m.At.Wall().Format(time.RFC3339)
			}
			b.Bases = append(b.Bases, one)
		}
		if w, ok := t.Window(); ok {
			b.Windows = append(b.Windows, w)
		}
		b.Gaps = append(b.Gaps, gapsOf(t)...)
		for _, x := range t.Conflicts() {
			b.Conflicts = append(b.Conflicts, fmt.Sprintf("two pasts of entry %d: %s and %s", x.A.Last, x.A.Name, x.B.Name))
		}
	}
	return b, nil
}

// gapsOf says for people what is missing in a timeline.
func gapsOf(t *archive.Timeline) (gaps []string) {
	for _, g := range t.Gaps() {
		gaps = append(gaps, fmt.Sprintf("timeline %d, between entries %d and %d", t.Number, g.After, g.Before))
	}
	return gaps
}

func (b *backups) grid() *grid {
	g := &grid{head: []string{"timeline", "base at entry", "revision", "time", "size", "log through entry", "log size", "shipped", "verified"}}
	for _, x := range b.Bases {
		when := x.Time
		if x.Incorrect != "" {
			when = x.Incorrect
		}
		g.add(fmt.Sprint(x.Timeline), fmt.Sprint(x.Index), fmt.Sprint(x.Revision), when, sizeText(x.Bytes), fmt.Sprint(x.Through), sizeText(x.LogBytes), x.Shipped.Format(time.RFC3339), x.Verified)
	}
	return g
}

// simple is the table, and what else people should know.
func (b *backups) simple(p *page) {
	fmt.Fprintf(p, "archive of cluster %s: %d objects, %s\n", b.Cluster, b.Objects, sizeText(b.Bytes))
	p.table(b.grid())
	for _, w := range b.Windows {
		fmt.Fprintf(p, "can be restored: %s\n", w)
	}
	for _, list := range []struct {
		what  string
		names []string
	}{{"missing: ", b.Gaps}, {"CONTRADICTION: ", b.Conflicts}, {"not of an archive: ", b.Foreign}} {
		for _, name := range list.names {
			fmt.Fprintf(p, "%s%s\n", list.what, name)
		}
	}
	switch d := b.LastDrill; {
	case d == nil:
		fmt.Fprintln(p, "never verified: holdfastctl archive verify")
	case d.OK:
		fmt.Fprintf(p, "last verified %s at entry %d\n", d.Began, d.To.Index)
	default:
		fmt.Fprintf(p, "LAST DRILL FAILED %s: %s\n", d.Began, d.Error)
	}
}

func (c *ctl) backupPruneCommand() *cobra.Command {
	var f archiveFlags
	var r archive.Retention
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Removes what the promised window does not need",
		Long: `Removes bases and log that are older than what is promised, in two phases: the first
run lists what is to go under trash/, a run after --grace removes what was listed and
is still not needed. Nothing that the window or the last good drill needs is touched;
without a good drill nothing is (holdfastctl archive verify).
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return badArguments("backup prune takes no arguments: the archive is --archive")
			}
			if r.Window < 0 || r.Grace < 0 || r.Bases < 1 {
				return badArguments("--keep %s and --grace %s must not be negative, --keep-bases %d not below 1", r.Window, r.Grace, r.Bases)
			}
			a, store, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer store.Close()
			return exit(exitFailed, c.prune(cmd.Context(), a, r, dryRun))
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().DurationVar(&r.Window, "keep", 30*24*time.Hour, "how far back every position can be restored")
	cmd.Flags().IntVar(&r.Bases, "keep-bases", 2, "how many bases are kept at least")
	cmd.Flags().DurationVar(&r.Grace, "grace", 24*time.Hour, "time between listing and removing")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would go")
	return cmd
}

func (c *ctl) prune(ctx context.Context, a *archive.Archive, r archive.Retention, dryRun bool) error {
	facts, err := a.PruneFacts(ctx, clock.Real().Wall())
	if err != nil {
		return err
	}
	plan := archive.PlanPrune(facts, r)
	if plan.Keep != nil {
		fmt.Fprintf(c.out, "kept: the base at entry %d and all after it (%s)\n", plan.Keep.Index, plan.Why)
	} else {
		fmt.Fprintf(c.out, "nothing goes: %s\n", plan.Why)
	}
	fmt.Fprintf(c.out, "not needed: %d objects, %s\n", len(plan.Objects), sizeText(plan.Bytes))
	if dryRun {
		for _, name := range plan.Objects {
			fmt.Fprintf(c.out, "  %s\n", name)
		}
		fmt.Fprintln(c.out, "Nothing was done: --dry-run.")
		return nil
	}
	removed, err := a.Prune(ctx, facts, r)
	fmt.Fprintf(c.out, "removed: %d objects; the others are listed, and go with a run after %s\n", removed, r.Grace)
	return err
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// probeMax bounds the look whether a member that is said to be dead listens.
const probeMax = 2 * time.Second

func (c *ctl) recoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover <subcommand>",
		Short: "Brings a cluster back that has lost its quorum",
		Long: `Brings a cluster back that has lost its quorum, out of the survivors' own disks.

Stop what still runs of it. Where all survivors' directories are on this host:

  holdfastctl recover auto --dead m2,m3 /var/lib/m1

It prints the plan: whose log is kept, what of it is uncertain, what may be lost.
A plan that may lose something is applied only with --accept-loss and its ID.
The new cluster has other IDs, so that members of the old one cannot disturb it;
the old directory is renamed aside.

On several hosts: collect on each, carry the files together, plan, and apply on
the host of the source.
`,
	}
	cmd.AddCommand(c.recoverCollectCommand(), c.recoverVerifyCommand(), c.recoverSalvageCommand())
	cmd.AddCommand(c.textOnly(c.recoverPlanCommand(), c.recoverApplyCommand(), c.recoverAutoCommand(), c.recoverThawCommand())...)
	if c.tool == nil {
		cmd.AddCommand(c.objectCommand(cluster.RecoverPods(), "recover", "pods"))
	}
	return cmd
}

func (c *ctl) recovery() recovery.Config {
	return recovery.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger()}
}

// sources are the data directories of the arguments. A log that lies elsewhere
// is named after its directory: DATA-DIR,WAL-DIR.
func sources(args []string) ([]recovery.Source, error) {
	var list []recovery.Source
	for _, arg := range args {
		dir, log, elsewhere := strings.Cut(arg, ",")
		s := recovery.Source{}
		var err error
		if s.DataDir, err = filepath.Abs(dir); err == nil && elsewhere {
			s.WALDir, err = filepath.Abs(log)
		}
		if err != nil {
			return nil, badArguments("%q: %w", arg, err)
		}
		list = append(list, s)
	}
	return list, nil
}

func (c *ctl) recoverCollectCommand() *cobra.Command {
	var out string
	var freeze bool
	cmd := &cobra.Command{
		Use:   "collect <data-dir>[,<wal-dir>] ...",
		Short: "Reads the data directories of members, and says what they hold",
		Long: `Reads the data directories of members that are stopped, every byte, and says what they
hold. One that runs is asked by the socket in its directory; what it says moves on, so
that a plan can be made of it and not be applied. --freeze ends a running member first.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArguments("recover collect requires the data directories of members")
			}
			list, err := sources(args)
			if err != nil {
				return err
			}
			if freeze {
				for _, s := range list {
					if err := c.freeze(cmd.Context(), s); err != nil {
						return exit(exitFailed, err)
					}
				}
			}
			facts, err := c.collect(cmd.Context(), list, true)
			if err != nil {
				return err
			}
			text, err := recovery.EncodeFacts(facts)
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.keep(out, text)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the facts (default: standard output)")
	cmd.Flags().BoolVar(&freeze, "freeze", false, "end these members, and keep them from starting until a plan is applied or 'recover thaw' is called")
	return cmd
}

// collect reads directories. With ask, members that run are asked themselves.
func (c *ctl) collect(ctx context.Context, list []recovery.Source, ask bool) (*recovery.Facts, error) {
	facts := &recovery.Facts{}
	for _, s := range list {
		m, err := recovery.Collect(ctx, c.recovery(), s)
		if errors.Is(err, datadir.ErrLocked) {
			if ask {
				m, err = askFacts(ctx, s, err)
			} else {
				err = fmt.Errorf("%s: %w; or freeze it with 'recover collect --freeze'", s.DataDir, err)
			}
		}
		if err != nil {
			return nil, exit(exitFailed, err)
		}
		for _, d := range m.Damage {
			fmt.Fprintf(c.err, "Warning: %s of %s: %s\n", d.Part, s.DataDir, d.What)
		}
		facts.Members = append(facts.Members, *m)
	}
	return facts, nil
}

// keep writes a document to a file, or prints it.
func (c *ctl) keep(file string, text []byte) error {
	if file == "" {
		_, err := c.out.Write(text)
		return exit(exitFailed, err)
	}
	if err := vfs.ReplaceFile(vfs.OS(), file, text); err != nil {
		return exit(exitFailed, err)
	}
	fmt.Fprintf(c.err, "Written to %s\n", file)
	return nil
}

// planFlags say what the new cluster shall be.
type planFlags struct {
	dead    []string
	spec    string
	noProbe bool
	bump    uint64

	archive   archiveFlags
	wasSync   bool
	supersede bool
}

func (f *planFlags) declare(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.dead, "dead", nil, "names or IDs of the members that will not come back")
	fs.StringVar(&f.spec, "cluster", "", "YAML file that describes the new cluster, as for 'snapshot restore': make all its members here (default: the source alone, in its own place)")
	fs.Uint64Var(&f.bump, "bump-revision", 0, "raise the revision by so much and compact all before, so that whoever saw writes that are lost is told")
	fs.StringVar(&f.archive.url, "archive", "", "URL of the old cluster's archive: it is asked what it knows, and apply takes an epoch in it, which ends the old members that look for one")
	fs.StringVar(&f.archive.identity, "identity", "", "age identity file that opens encrypted objects")
	fs.BoolVar(&f.wasSync, "archive-was-sync", false, "all members of the old cluster ran with --archive-mode sync: what the archive does not hold was not acknowledged")
	fs.BoolVar(&f.supersede, "supersede-epoch", false, "the epoch that the archive has is of a recovery that was given up: take the next one")
	fs.BoolVar(&f.noProbe, "no-probe", false, "do not look whether somebody listens at the peer URLs of the dead")
}

func (c *ctl) plan(ctx context.Context, facts *recovery.Facts, f *planFlags) (*recovery.Plan, error) {
	ask := recovery.Ask{Dead: f.dead, Now: clock.Real().Wall(), BumpRevision: int64(f.bump)}
	if ask.BumpRevision < 0 {
		return nil, badArguments("--bump-revision %d is more than any revision can be", f.bump)
	}
	var err error
	if f.spec != "" {
		var data []byte
		if data, err = os.ReadFile(f.spec); err == nil {
			ask.Members, err = snapshot.ParseSpec(data)
		}
		if err != nil {
			return nil, badArguments("--cluster: %w", err)
		}
		for i := range ask.Members {
			m := &ask.Members[i]
			m.DataDir = absolute(m.DataDir)
			if m.WALDir != "" {
				m.WALDir = absolute(m.WALDir)
			}
		}
	}
	if err := c.askArchive(ctx, facts, f, &ask); err != nil {
		return nil, err
	}
	if !f.noProbe {
		ask.Answering = answering(ctx, facts, f.dead)
	}
	if ask.Nonce, err = snapshot.NewNonce(rand.Reader); err != nil {
		return nil, exit(exitFailed, err)
	}
	plan, err := recovery.NewPlan(facts, ask)
	return plan, exit(exitFailed, err)
}

// askArchive makes the archive a witness.
func (c *ctl) askArchive(ctx context.Context, facts *recovery.Facts, f *planFlags, ask *recovery.Ask) error {
	if f.archive.url == "" {
		if f.wasSync || f.supersede || f.archive.identity != "" {
			return badArguments("--archive-was-sync, --supersede-epoch and --identity need --archive")
		}
		return nil
	}
	for i := range facts.Members {
		if uuid := facts.Members[i].UUID; uuid != "" {
			f.archive.cluster = uuid // More than one: the plan is refused.
		}
	}
	if f.archive.cluster == "" {
		return exit(exitFailed, errors.New("no directory tells the UUID of its cluster, so its archive is not known: leave --archive out"))
	}
	a, store, err := f.archive.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	witness, err := recovery.AskArchive(ctx, a, facts, f.wasSync)
	if err != nil {
		return exit(exitFailed, err)
	}
	ask.Archive, ask.ArchiveURL, ask.NewestEpoch, ask.Supersede = witness, f.archive.url, witness.NewestEpoch(), f.supersede
	return nil
}

// answering finds those of the dead at whose peer URLs somebody listens.
func answering(ctx context.Context, facts *recovery.Facts, dead []string) []string {
	var list []string
	for _, m := range facts.Members {
		for _, p := range m.Peers {
			for _, word := range []string{p.Name, p.ID.String()} {
				if slices.Contains(dead, word) && !slices.Contains(list, word) && slices.ContainsFunc(p.PeerURLs, func(u string) bool { return listens(ctx, u) }) {
					list = append(list, word)
				}
			}
		}
	}
	return list
}

func listens(ctx context.Context, raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	defer conn.Close()
	return conn.LocalAddr().String() != conn.RemoteAddr().String() // Where nobody listens, a port may reach itself.
}

func (c *ctl) recoverPlanCommand() *cobra.Command {
	var f planFlags
	var out string
	cmd := &cobra.Command{
		Use:   "plan <facts> ...",
		Short: "Says what a recovery would keep, lose and make",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArguments("recover plan requires the files of 'recover collect'")
			}
			all := &recovery.Facts{}
			for _, file := range args {
				facts, err := recovery.ReadFacts(vfs.OS(), file)
				if err != nil {
					return exit(exitFailed, err)
				}
				all.Members = append(all.Members, facts.Members...)
			}
			plan, err := c.plan(cmd.Context(), all, &f)
			if err != nil {
				return err
			}
			if err := c.showPlan(plan); err != nil || out == "" {
				return err
			}
			text, err := recovery.EncodePlan(plan)
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.keep(out, text)
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().StringVar(&out, "out", "", "file for the plan, for 'recover apply'")
	return cmd
}

func (c *ctl) showPlan(plan *recovery.Plan) error {
	text, err := plan.Text()
	if err != nil {
		return exit(exitFailed, err)
	}
	fmt.Fprintln(c.out, text)
	return nil
}

func (c *ctl) recoverThawCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "thaw <data-dir> ...",
		Short: "Lets frozen members start again, and gives up a plan that has built nothing",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArguments("recover thaw requires the data directories of frozen members")
			}
			list, err := sources(args)
			if err != nil {
				return err
			}
			var errs []error
			for _, s := range list {
				errs = append(errs, recovery.Thaw(c.recovery(), s))
			}
			return exit(exitFailed, errors.Join(errs...))
		},
	}
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// applyFlags say how a plan is carried out.
type applyFlags struct {
	accept  string
	noEpoch bool
}

func (f *applyFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.accept, "accept-loss", "", "the ID of the plan, if it may lose acknowledged writes: you have read it")
	fs.BoolVar(&f.noEpoch, "no-epoch", false, "take no epoch in the archive, because that is lost as well: nothing then keeps old members that still run from answering")
}

func (c *ctl) recoverApplyCommand() *cobra.Command {
	var how applyFlags
	cmd := &cobra.Command{
		Use:   "apply <plan>",
		Short: "Carries a plan out; run it again if it was cut off",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("recover apply requires the file of 'recover plan --out'")
			}
			plan, err := recovery.ReadPlan(vfs.OS(), args[0])
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.apply(cmd.Context(), plan, how)
		},
	}
	how.declare(cmd.Flags())
	return cmd
}

func (c *ctl) recoverAutoCommand() *cobra.Command {
	var f planFlags
	var how applyFlags
	var out string
	cmd := &cobra.Command{
		Use:   "auto <data-dir>[,<wal-dir>] ...",
		Short: "Collects, plans and applies, where all survivors' directories are on this host",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badArguments("recover auto requires the data directories of the survivors")
			}
			list, err := sources(args)
			if err != nil {
				return err
			}
			plan, err := c.underWay(list)
			if err != nil {
				return err
			}
			if plan != nil { // It was accepted when it began.
				fmt.Fprintf(c.err, "Plan %s is under way, going on with it\n", plan.ID)
				how.accept = plan.ID
				return c.apply(cmd.Context(), plan, how)
			}
			facts, err := c.collect(cmd.Context(), list, false)
			if err != nil {
				return err
			}
			if plan, err = c.plan(cmd.Context(), facts, &f); err != nil {
				return err
			}
			if err := c.showPlan(plan); err != nil {
				return err
			}
			if out != "" {
				text, err := recovery.EncodePlan(plan)
				if err != nil {
					return exit(exitFailed, err)
				}
				if err := c.keep(out, text); err != nil {
					return err
				}
			}
			return c.apply(cmd.Context(), plan, how)
		},
	}
	f.declare(cmd.Flags())
	how.declare(cmd.Flags())
	cmd.Flags().StringVar(&out, "out", "", "file for the plan, for 'recover verify' and 'recover salvage'")
	return cmd
}

// underWay finds the plan that was cut off while it was applied to one of the
// directories.
func (c *ctl) underWay(list []recovery.Source) (*recovery.Plan, error) {
	for _, s := range list {
		if plan, err := recovery.UnderWay(c.recovery(), s); err != nil || plan != nil {
			return plan, exit(exitFailed, err)
		}
	}
	return nil, nil
}

// openFence opens the archive in which a plan takes its epoch. Close the store.
func openFence(ctx context.Context, plan *recovery.Plan) (*archive.Archive, blobstore.Store, error) {
	f := archiveFlags{url: plan.Fence.URL, cluster: plan.UUID}
	a, store, err := f.open(ctx)
	if err != nil {
		err = fmt.Errorf("%w; if the archive is lost as well, --no-epoch goes on without it", err)
	}
	return a, store, err
}

func (c *ctl) apply(ctx context.Context, plan *recovery.Plan, how applyFlags) error {
	var fence *archive.Archive
	if plan.Fence != nil && !how.noEpoch {
		a, store, err := openFence(ctx, plan)
		if err != nil {
			return exit(exitFailed, err)
		}
		defer store.Close()
		fence = a
	}
	host, _ := os.Hostname() // For people.
	debug.SetGCPercent(snapshot.FillGCPercent)
	err := recovery.Apply(ctx, recovery.ApplyConfig{
		Config: c.recovery(), Random: rand.Reader, AcceptLoss: how.accept, Archive: fence, NoEpoch: how.noEpoch, By: "holdfastctl on " + host,
		Step: func(name string) error { fmt.Fprintln(c.err, name); return ctx.Err() },
	}, plan)
	if errors.Is(err, recovery.ErrStaged) {
		err = fmt.Errorf("%w; a second operator may be at work", err)
	}
	if err != nil {
		return exit(exitFailed, err)
	}
	next, err := plan.Targets()
	if err != nil {
		return exit(exitFailed, err)
	}
	c.restored(next, snapshot.RestoreOptions{}, "")
	fmt.Fprintf(c.out, "Then `holdfastctl recover verify`. More members join with `member add --learner` and `member promote`.\n")
	return nil
}

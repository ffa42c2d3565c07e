package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

const acceptUsage = "the ID of the plan, if it may lose acknowledged writes: you have read it"

func (c *ctl) recoverApplyCommand() *cobra.Command {
	var accept string
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
			return c.apply(cmd.Context(), plan, accept)
		},
	}
	cmd.Flags().StringVar(&accept, "accept-loss", "", acceptUsage)
	return cmd
}

func (c *ctl) recoverAutoCommand() *cobra.Command {
	var f planFlags
	var accept, out string
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
				return c.apply(cmd.Context(), plan, plan.ID)
			}
			facts, err := c.collect(cmd.Context(), list)
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
			return c.apply(cmd.Context(), plan, accept)
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().StringVar(&accept, "accept-loss", "", acceptUsage)
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

func (c *ctl) apply(ctx context.Context, plan *recovery.Plan, accept string) error {
	err := recovery.Apply(ctx, recovery.ApplyConfig{
		Config: c.recovery(), Random: rand.Reader, AcceptLoss: accept,
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
	c.restored(next, snapshot.RestoreOptions{})
	fmt.Fprintf(c.out, "Then `holdfastctl recover verify`. More members join with `member add --learner` and `member promote`.\n")
	return nil
}

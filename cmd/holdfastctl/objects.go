package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

const groupObjects = "objects"

// objects says where the verbs for objects of a cluster find what they need.
func (c *ctl) objects() cluster.Config {
	return cluster.Config{Program: "holdfastctl", In: c.in, Out: c.out, Err: c.err, Getenv: c.getenv, FS: vfs.OS(), Clock: clock.Real()}
}

// runObjects runs a command line that is for objects; false: it is not. Under the
// names of etcd's tools nothing is.
func (c *ctl) runObjects(ctx context.Context, args []string) (code int, ok bool) {
	if c.tool != nil || !cluster.Means(c.objects(), args) {
		return 0, false
	}
	return cluster.Run(ctx, c.objects(), args), true
}

// objectCommands are listed in help, and run when they are abbreviated. Their flags
// are their own: those of the store mean nothing to them.
func (c *ctl) objectCommands() []*cobra.Command {
	var all []*cobra.Command
	for _, verb := range cluster.Verbs() {
		all = append(all, c.objectCommand(verb, verb.Name()))
	}
	return all
}

// objectCommand stands for a command of the objects, which is called as path says.
func (c *ctl) objectCommand(verb *cobra.Command, path ...string) *cobra.Command {
	stub := &cobra.Command{
		Use: verb.Use, Short: verb.Short, DisableFlagParsing: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := cluster.Run(cmd.Context(), c.objects(), append(slices.Clone(path), args...)); code != exitSuccess {
				return &exitError{code: code}
			}
			return nil
		},
	}
	stub.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		cluster.Run(cmd.Context(), c.objects(), append(slices.Clone(path), "--help"))
	})
	return stub
}

// getHelp says what get is for.
func (c *ctl) getHelp() string {
	if c.tool != nil {
		return ""
	}
	return `Gets the key or a range of keys.

Where there is a context (~/.holdfast/config), a first argument that names a kind of
objects ("get pods", "get deployment web", "get pod/web-1") gets the objects of that
cluster instead, in kubectl's words and flags: -o, -w, -l, -A, -n. Flags of the store,
as --endpoints, mean keys; and "kv get" always does.
`
}

// kvCommand has the verbs for keys under a name that can mean nothing else: "get
// pods" is for the objects of a cluster where there is a context.
func (c *ctl) kvCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kv <subcommand>",
		Short: "Key-value commands, also for keys that are called like kinds of objects",
	}
	cmd.AddCommand(c.getCommand(), c.putCommand(), c.delCommand(), c.txnCommand(), c.watchCommand(), c.leaseCommand(), c.compactionCommand())
	return cmd
}

package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

func (c *ctl) archiveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "archive <subcommand>", Short: "Verifies the archive of a cluster"}
	cmd.AddCommand(c.archiveVerifyCommand())
	return cmd
}

func (c *ctl) archiveVerifyCommand() *cobra.Command {
	var f archiveFlags
	var scratch string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Restores the newest point into a scratch folder and checks it",
		Long: `The drill: restores the newest point of an archive into a scratch folder, as a restore
would, with every byte verified; opens the state, compares its digest, and reads a
sample of its keys. The result is kept in the archive, and shown by backup ls. Give it
the key file that a restore would use: a lost key is lost data.
`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) != 0 {
				return badArguments("archive verify takes no arguments: the archive is --archive")
			}
			if err := c.needForm(formSimple, formJSON); err != nil {
				return err
			}
			a, store, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer store.Close()
			folder, err := os.MkdirTemp(scratch, "holdfast-drill-")
			if err != nil {
				return badArguments("--scratch: %w", err)
			}
			defer os.RemoveAll(folder)
			debug.SetGCPercent(snapshot.FillGCPercent)
			host, _ := os.Hostname() // For people.
			d, err := a.Drill(cmd.Context(), archive.DrillConfig{
				FS: vfs.OS(), Scratch: folder, Clock: clock.Real(), Logger: c.logger(), Timeline: ident.Timeline(f.timeline), By: "holdfastctl on " + host,
			})
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.print(answer{json: d, simple: func(p *page) {
				fmt.Fprintf(p, "verified timeline %d at %s\n", d.Timeline, d.To)
				fmt.Fprintf(p, "%d objects, %s; %d keys, %d read back; digest %s; took %s\n", d.Objects, sizeText(d.Bytes), d.Keys, d.Sampled, d.To.Digest, d.Took)
				fmt.Fprintf(p, "result %s\n", d.Name)
			}})
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().StringVar(&scratch, "scratch", "", "folder in which to make the scratch folder, with room for the state (default the system's)")
	return cmd
}

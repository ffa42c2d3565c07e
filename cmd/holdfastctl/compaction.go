package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) compactionCommand() *cobra.Command {
	var physical bool
	cmd := &cobra.Command{
		Use:   "compaction [options] <revision>",
		Short: "Compacts the event history in the store",
		Long: `Gives up the history before a revision, which itself stays readable.
The space is freed in the background; with --physical the command waits for that.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("compaction command needs 1 argument")
			}
			revision, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return exit(exitFailed, fmt.Errorf("%w; give a revision as a number", err))
			}
			_, err = ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.CompactionResponse, error) {
				return cl.Compact(ctx, revision, physical)
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.out, "compacted revision", revision)
			return nil
		},
	}
	cmd.Flags().BoolVar(&physical, "physical", false, "wait until the space is free")
	return cmd
}

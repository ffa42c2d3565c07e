package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Answers about downgrades have no fields in etcdctl.
var downgradeForms = []string{formSimple, formJSON, formProtobuf}

func (c *ctl) downgradeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "downgrade <TARGET_VERSION>",
		Short: "Downgrade related commands",
		Long: `Asks the cluster about going back to the version before.

A cluster of holdfast needs no preparation for that, as each file names the version of
its format: enable and cancel change nothing there. On an etcd they do.
`,
	}
	cmd.AddCommand(
		c.downgradeVerb("validate", "Validate downgrade capability before starting downgrade", pb.DowngradeRequest_VALIDATE),
		c.downgradeVerb("enable", "Start a downgrade action to cluster", pb.DowngradeRequest_ENABLE),
		c.downgradeVerb("cancel", "Cancel the ongoing downgrade action to cluster", pb.DowngradeRequest_CANCEL))
	return cmd
}

func (c *ctl) downgradeVerb(name, short string, action pb.DowngradeRequest_DowngradeAction) *cobra.Command {
	use := name + " <TARGET_VERSION>"
	if action == pb.DowngradeRequest_CANCEL {
		use = name
	}
	return &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			version := ""
			switch {
			case action == pb.DowngradeRequest_CANCEL:
			case len(args) == 0:
				return badArguments("TARGET_VERSION not provided")
			case len(args) > 1:
				return badArguments("too many arguments")
			case args[0] == "":
				return badArguments("target version not provided")
			default:
				version = args[0]
			}
			if err := c.needForm(downgradeForms...); err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c, func(ctx context.Context, cl *client.Client) (*pb.DowngradeResponse, error) {
				return cl.Downgrade(ctx, action, version)
			})
			if err != nil {
				return err
			}
			return c.print(answer{
				simple: func(p *page) { p.printf("Downgrade %s success, cluster version %s\n", name, r.Version) },
				json:   r, proto: r,
			})
		},
	}
}

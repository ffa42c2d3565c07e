package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) moveLeaderCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "move-leader <transferee-member-id>",
		Short: "Transfers leadership to another member.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("move-leader command needs 1 argument")
			}
			to, err := strconv.ParseUint(args[0], 16, 64)
			if err != nil {
				return badArguments("%w, expecting ID in Hex", err)
			}
			if err := c.needForm(formSimple, formJSON, formProtobuf); err != nil {
				return err
			}
			return c.moveLeader(cmd.Context(), to)
		},
	}
}

// moveLeader looks for the leader among the endpoints, which alone takes the call.
func (c *ctl) moveLeader(ctx context.Context, to uint64) error {
	var failures error
	for _, e := range c.globals.endpoints {
		var leader uint64
		r, err := askOne(ctx, c, e, func(ctx context.Context, cl *client.Client) (*pb.MoveLeaderResponse, error) {
			s, err := cl.Status(ctx)
			if err != nil || s.Leader != s.Header.GetMemberId() {
				return nil, err
			}
			leader = s.Leader
			return cl.MoveLeader(ctx, to)
		})
		switch {
		case err != nil && leader != 0:
			return exit(exitFailed, err)
		case err != nil:
			failures = errors.Join(failures, err)
		case leader != 0:
			return c.print(answer{
				simple: func(p *page) { p.printf("Leadership transferred from %x to %x\n", leader, to) },
				json:   r, proto: r,
			})
		}
	}
	if failures != nil {
		return exit(exitFailed, failures)
	}
	return badArguments("no leader endpoint given at %v: name all members in --endpoints", c.globals.endpoints)
}

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/recipe"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// electTTL in seconds, as etcdctl's.
const electTTL = 60

func (c *ctl) electCommand() *cobra.Command {
	var listen bool
	cmd := &cobra.Command{
		Use:   "elect <election-name> [proposal]",
		Short: "Observes and participates in leader election",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return badArguments("elect takes one election name argument and an optional proposal argument")
			}
			if err := c.needForm(requestForms...); err != nil {
				return err
			}
			if listen {
				return c.observe(cmd.Context(), args[0])
			}
			if len(args) != 2 {
				return badArguments("no proposal argument but -l not set")
			}
			return c.campaign(cmd.Context(), args[0], args[1])
		},
	}
	cmd.Flags().BoolVarP(&listen, "listen", "l", false, "print each leader and each proposal, and do not stand")
	return cmd
}

func (c *ctl) campaign(ctx context.Context, name, proposal string) (err error) {
	cl, session, err := c.session(ctx, electTTL)
	if err != nil {
		return err
	}
	defer cl.Close()
	defer func() { err = errors.Join(err, c.endSession(ctx, session)) }()
	e := recipe.NewElection(session, name)
	if err := e.Campaign(ctx, proposal); err != nil {
		return exit(exitFailed, err)
	}
	r, err := cl.Get(ctx, client.Get{Range: client.One(e.Key())})
	if err != nil {
		return exit(exitFailed, err)
	}
	if err := c.printRange(r); err != nil {
		return err
	}
	return untilEnough(ctx, session, errors.New("elect: session expired"))
}

func (c *ctl) observe(ctx context.Context, name string) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	defer c.tellUnreached(ctx, cl)()
	err = recipe.Observe(ctx, cl, name, func(kv *mvccpb.KeyValue) error {
		return c.printRange(&pb.RangeResponse{Header: &pb.ResponseHeader{Revision: kv.ModRevision}, Kvs: []*mvccpb.KeyValue{kv}, Count: 1})
	})
	if ctx.Err() != nil {
		return nil
	}
	return exit(exitFailed, err)
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) defragCommand() *cobra.Command {
	var cluster bool
	cmd := &cobra.Command{
		Use:   "defrag",
		Short: "Defragments the storage of the members with given endpoints",
		RunE: func(cmd *cobra.Command, args []string) error {
			endpoints, err := c.eachEndpoint(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			return c.defrag(cmd.Context(), endpoints)
		},
	}
	cmd.Flags().BoolVar(&cluster, "cluster", false, "use all endpoints of the cluster's members")
	return cmd
}

func (c *ctl) defrag(ctx context.Context, endpoints []string) error {
	failed := false
	for _, e := range endpoints {
		start := time.Now()
		_, err := askOne(ctx, c, e, func(ctx context.Context, cl *client.Client) (*pb.DefragmentResponse, error) {
			return cl.Defragment(ctx)
		})
		took := time.Since(start)
		if err != nil {
			fmt.Fprintf(c.err, "Failed to defragment etcd member[%s]. took %s. (%s)\n", e, took, c.explain(err, e))
			failed = true
			continue
		}
		fmt.Fprintf(c.out, "Finished defragmenting etcd member[%s]. took %s\n", e, took)
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}

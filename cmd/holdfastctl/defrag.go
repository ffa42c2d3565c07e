package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) defragCommand() *cobra.Command {
	var cluster bool
	var dataDir string
	cmd := &cobra.Command{
		Use:   "defrag",
		Short: "Defragments the storage of the members with given endpoints",
		Long: `Defragments the storage of the members at the endpoints, or of a stopped member. Readers
and writers go on meanwhile; where a quarter of the file or less is free, nothing is done.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dataDir != "" {
				if cluster {
					return badArguments("--data-dir and --cluster do not go together: name one of them")
				}
				return c.defragDir(cmd.Context(), dataDir)
			}
			if c.is(etcdutl) {
				return exit(exitFailed, errors.New(`required flag(s) "data-dir" not set`))
			}
			endpoints, err := c.eachEndpoint(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			return c.defrag(cmd.Context(), endpoints)
		},
	}
	cmd.Flags().BoolVar(&cluster, "cluster", false, "use all endpoints of the cluster's members")
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "defragment this data directory of a stopped member, not the members at the endpoints")
	if !c.is(etcdutl) {
		c.lockWaitFlag(cmd.Flags())
	}
	return cmd
}

// defragDir rewrites the base of a stopped member, if it has enough free pages.
func (c *ctl) defragDir(ctx context.Context, path string) error {
	err := c.waiting(ctx, func() error {
		o, err := openDataDir(path)
		if err != nil {
			return err
		}
		if o == nil {
			return fmt.Errorf("%s holds no member: name the --data-dir of one", path)
		}
		db, err := backend.Open(backend.Config{FS: vfs.OS(), Path: o.base(), Logger: c.logger()})
		if err == nil {
			err = errors.Join(db.Defragment(ctx), db.Close())
		}
		return errors.Join(mended(err), o.dir.Close())
	})
	if err != nil {
		err = fmt.Errorf("failed to defragment etcd data[%s] (%w)", path, err)
	}
	return exit(exitFailed, err)
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

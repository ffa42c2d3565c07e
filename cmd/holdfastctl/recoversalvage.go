package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

func (c *ctl) recoverSalvageCommand() *cobra.Command {
	var write bool
	var keys []string
	cmd := &cobra.Command{
		Use:   "salvage <plan> <data-dir>[,<wal-dir>]",
		Short: "Finds what the directory of a member that was given up has beyond the fork",
		Long: `Lists the keys that a member which was given up, and turned up later, changed beyond
the log that was kept, with values, and compares them with the new cluster at
--endpoints:

  missing   the key is as it was at the fork: --apply writes it
  same      the new cluster has the same value
  conflict  the key has changed since the fork: it is never written

What stands at "uncertain" may never have been acknowledged. --apply writes what is
missing, all of it or the keys of --only, each guarded by the revision that
had changed it last. Leases are not attached again.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return badArguments("recover salvage requires the file of the plan and a data directory")
			}
			if err := c.needForm(formSimple, formJSON); err != nil {
				return err
			}
			plan, err := recovery.ReadPlan(vfs.OS(), args[0])
			if err != nil {
				return exit(exitFailed, err)
			}
			list, err := sources(args[1:])
			if err != nil {
				return err
			}
			found, err := recovery.Salvage(cmd.Context(), c.recovery(), plan, list[0])
			if err != nil {
				return exit(exitFailed, err)
			}
			return c.salvage(cmd.Context(), found, keys, write)
		},
	}
	cmd.Flags().BoolVar(&write, "apply", false, "write what is missing to the new cluster")
	cmd.Flags().StringArrayVar(&keys, "only", nil, "only this key; may be given more than once")
	return cmd
}

// salvagedKey is one key as it is printed.
type salvagedKey struct {
	Key       []byte `json:"key"`
	Value     []byte `json:"value,omitempty"`
	Deleted   bool   `json:"deleted,omitempty"`
	Index     uint64 `json:"index"`
	Revision  int64  `json:"revision"`
	Committed bool   `json:"committed"`
	State     string `json:"state"` // missing, same, conflict or written.
}

func (c *ctl) salvage(ctx context.Context, s *recovery.Salvaged, only []string, write bool) error {
	list := []salvagedKey{}
	for _, k := range s.Keys {
		if len(only) > 0 && !slices.Contains(only, string(k.Key)) {
			continue
		}
		state, err := c.compareSalvaged(ctx, &k)
		if err == nil && write && state == "missing" {
			state, err = c.writeSalvaged(ctx, &k)
		}
		if err != nil {
			return err
		}
		list = append(list, salvagedKey{k.Key, k.Value, k.Deleted, uint64(k.Index), int64(k.Revision), k.Index <= s.Committed, state})
	}
	return c.print(answer{json: list, simple: func(p *page) {
		for _, k := range list {
			sure := "uncertain"
			if k.Committed {
				sure = "committed"
			}
			what := fmt.Sprintf("put %q %q", k.Key, k.Value)
			if k.Deleted {
				what = fmt.Sprintf("delete %q", k.Key)
			}
			p.printf("%-8s %s entry %d revision %d: %s\n", k.State, sure, k.Index, k.Revision, what)
		}
		p.printf("%d keys changed beyond entry %d, its log ends with entry %d\n", len(list), s.Fork, s.End.Index)
	}})
}

// compareSalvaged looks what the new cluster has.
func (c *ctl) compareSalvaged(ctx context.Context, k *snapshot.KeyChange) (string, error) {
	now, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.RangeResponse, error) {
		return cl.Get(ctx, client.Get{Range: client.One(string(k.Key))})
	})
	switch {
	case err != nil:
		return "", err
	case len(now.Kvs) == 0 && k.Deleted, len(now.Kvs) == 1 && !k.Deleted && string(now.Kvs[0].Value) == string(k.Value):
		return "same", nil
	case len(now.Kvs) == 0 && k.Before == 0, len(now.Kvs) == 1 && now.Kvs[0].ModRevision == int64(k.Before):
		return "missing", nil
	}
	return "conflict", nil
}

// writeSalvaged writes a key, unless it has changed since the fork.
func (c *ctl) writeSalvaged(ctx context.Context, k *snapshot.KeyChange) (string, error) {
	key := string(k.Key)
	var op client.Op = client.Put{Key: key, Value: k.Value}
	if k.Deleted {
		op = client.Delete{Range: client.One(key)}
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.TxnResponse, error) {
		return cl.Txn(ctx, client.Txn{If: []client.Compare{client.IfModified(key, client.Equal, int64(k.Before))}, Then: []client.Op{op}})
	})
	switch {
	case err != nil:
		return "", err
	case r.Succeeded:
		return "written", nil
	}
	return "conflict", nil
}

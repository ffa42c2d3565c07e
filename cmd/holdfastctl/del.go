package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// delWait is how long a range can be taken back, as in etcdctl.
const delWait = 2 * time.Second

type delFlags struct {
	prefix, prevKV, fromKey, isRange bool
}

func (f *delFlags) declare(fs *pflag.FlagSet) {
	fs.BoolVar(&f.prefix, "prefix", false, "delete all keys that begin with the given one")
	fs.BoolVar(&f.prevKV, "prev-kv", false, "print what is deleted")
	fs.BoolVar(&f.fromKey, "from-key", false, "delete all keys from the given one on")
	fs.BoolVar(&f.isRange, "range", false, "delete a range without waiting")
}

func (f *delFlags) request(args []string) (client.Delete, error) {
	if len(args) == 0 || len(args) > 2 {
		return client.Delete{}, badArguments("del command needs one argument as key and an optional argument as range_end")
	}
	keys, err := keyRange(args, f.prefix, f.fromKey)
	return client.Delete{Range: keys, PrevKV: f.prevKV}, err
}

func (c *ctl) delCommand() *cobra.Command {
	var f delFlags
	cmd := &cobra.Command{
		Use:   "del [options] <key> [range_end]",
		Short: "Removes the specified key or range of keys [key, range_end)",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.del(cmd.Context(), &f, args)
		},
	}
	f.declare(cmd.Flags())
	return cmd
}

func (c *ctl) del(ctx context.Context, f *delFlags, args []string) error {
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	request, err := f.request(args)
	if err != nil {
		return err
	}
	if len(args) > 1 && !f.isRange {
		fmt.Fprintf(c.err, "Warning: Keys between %q and %q will be deleted. Please interrupt the command within next 2 seconds to cancel. "+
			"You can provide `--range` flag to avoid the delay.\n", args[0], args[1])
		select {
		case <-time.After(delWait):
		case <-ctx.Done():
			return exit(exitInterrupted, fmt.Errorf("interrupted, nothing was deleted"))
		}
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.DeleteRangeResponse, error) {
		return cl.Delete(ctx, request)
	})
	if err != nil {
		return err
	}
	return c.print(answer{
		simple: func(p *page) { p.delSimple(r) },
		fields: func(p *page) { p.delFields(r) }, json: r, proto: r,
	})
}

func (p *page) delSimple(r *pb.DeleteRangeResponse) {
	p.line(r.Deleted)
	p.kvs(r.PrevKvs)
}

func (p *page) delFields(r *pb.DeleteRangeResponse) {
	p.headerFields(r.Header)
	p.field("Deleted", r.Deleted)
	for _, kv := range r.PrevKvs {
		p.kvFields("Prev", kv)
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

type putFlags struct {
	lease                            string
	prevKV, ignoreValue, ignoreLease bool
}

func (f *putFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.lease, "lease", "0", "lease ID (in hexadecimal) to attach to the key")
	fs.BoolVar(&f.prevKV, "prev-kv", false, "print what the key held before")
	fs.BoolVar(&f.ignoreValue, "ignore-value", false, "keep the value that the key has")
	fs.BoolVar(&f.ignoreLease, "ignore-lease", false, "keep the lease that the key has")
}

// request makes the request of flags and arguments. A value that is not among
// them is read from in.
func (f *putFlags) request(args []string, in io.Reader) (client.Put, error) {
	var p client.Put
	if len(args) == 0 || len(args) > 2 {
		return p, badArguments("put command needs 1 argument and input from stdin or 2 arguments")
	}
	if f.ignoreValue && len(args) > 1 {
		return p, badArguments("put command needs only 1 argument when 'ignore-value' is set")
	}
	lease, err := strconv.ParseInt(f.lease, 16, 64)
	if err != nil {
		return p, badArguments("bad lease ID (%w), expecting ID in Hex", err)
	}
	p = client.Put{Key: args[0], Lease: lease, PrevKV: f.prevKV, IgnoreValue: f.ignoreValue, IgnoreLease: f.ignoreLease}
	switch {
	case f.ignoreValue:
	case len(args) > 1:
		p.Value = []byte(args[1])
	default:
		if p.Value, err = io.ReadAll(in); err != nil {
			return p, badArguments("put command: read the value from standard input: %w", err)
		}
		if len(p.Value) == 0 {
			return p, badArguments("put command needs 1 argument and input from stdin or 2 arguments")
		}
	}
	return p, nil
}

func (c *ctl) putCommand() *cobra.Command {
	var f putFlags
	cmd := &cobra.Command{
		Use:   "put [options] <key> <value> (<value> can also be given from stdin)",
		Short: "Puts the given key into the store",
		Long: `Puts the given key into the store.

A value that begins with '-' would be taken for a flag. Put '--' before it:

  put <key> -- <value>

Without a value, and without --ignore-value, the value is read from standard input:

  cat file | holdfastctl put <key>
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.put(cmd.Context(), &f, args)
		},
	}
	f.declare(cmd.Flags())
	return cmd
}

func (c *ctl) put(ctx context.Context, f *putFlags, args []string) error {
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	request, err := f.request(args, c.in)
	if err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.PutResponse, error) { return cl.Put(ctx, request) })
	if err != nil {
		return err
	}
	return c.print(answer{
		simple: func(p *page) { p.putSimple(r) },
		fields: func(p *page) { p.putFields(r) }, json: r, proto: r,
	})
}

func (p *page) putSimple(r *pb.PutResponse) {
	p.line("OK")
	if r.PrevKv != nil {
		p.kv(r.PrevKv)
	}
}

func (p *page) putFields(r *pb.PutResponse) {
	p.headerFields(r.Header)
	if r.PrevKv != nil {
		p.kvFields("Prev", r.PrevKv)
	}
}

// leaseID reads the ID of a lease as people write it.
func leaseID(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 16, 64)
	if err != nil {
		return 0, badArguments("%w", fmt.Errorf("bad lease ID arg (%w), expecting ID in Hex", err))
	}
	return id, nil
}

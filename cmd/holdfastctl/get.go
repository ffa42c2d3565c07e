package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/cmd/holdfastctl/cluster"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

type getFlags struct {
	consistency, order, sortBy     string
	limit, rev                     int64
	prefix, fromKey                bool
	keysOnly, countOnly, valueOnly bool
	stream                         bool
	minCreateRev, maxCreateRev     int64
	minModRev, maxModRev           int64
}

func (f *getFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.consistency, "consistency", "l", "Linearizable(l) or Serializable(s)")
	fs.StringVar(&f.order, "order", "", "order of results: ASCEND or DESCEND (ASCEND by default)")
	fs.StringVar(&f.sortBy, "sort-by", "", "what to sort by: CREATE, KEY, MODIFY, VALUE or VERSION")
	fs.Int64Var(&f.limit, "limit", 0, "greatest number of results")
	fs.BoolVar(&f.prefix, "prefix", false, "get all keys that begin with the given one")
	fs.BoolVar(&f.fromKey, "from-key", false, "get all keys from the given one on")
	fs.Int64Var(&f.rev, "rev", 0, "read as of this revision")
	fs.BoolVar(&f.keysOnly, "keys-only", false, "get only the keys")
	fs.BoolVar(&f.countOnly, "count-only", false, "get only the count")
	fs.BoolVar(&f.valueOnly, "print-value-only", false, `print only values; for the form "simple"`)
	fs.BoolVar(&f.stream, "stream", false, "get the keys in parts, so that they need not fit into memory; not sorted and not filtered by revision")
	fs.Int64Var(&f.minCreateRev, "min-create-rev", 0, "least create revision")
	fs.Int64Var(&f.maxCreateRev, "max-create-rev", 0, "greatest create revision")
	fs.Int64Var(&f.minModRev, "min-mod-rev", 0, "least mod revision")
	fs.Int64Var(&f.maxModRev, "max-mod-rev", 0, "greatest mod revision")
}

var sortTargets = map[string]pb.RangeRequest_SortTarget{
	"": pb.RangeRequest_KEY, "KEY": pb.RangeRequest_KEY, "CREATE": pb.RangeRequest_CREATE,
	"MODIFY": pb.RangeRequest_MOD, "VALUE": pb.RangeRequest_VALUE, "VERSION": pb.RangeRequest_VERSION,
}

var sortOrders = map[string]pb.RangeRequest_SortOrder{
	"": pb.RangeRequest_NONE, "ASCEND": pb.RangeRequest_ASCEND, "DESCEND": pb.RangeRequest_DESCEND,
}

// request makes the request of flags and arguments.
func (f *getFlags) request(args []string) (client.Get, error) {
	var g client.Get
	if len(args) == 0 || len(args) > 2 {
		return g, badArguments("get command needs one argument as key and an optional argument as range_end")
	}
	if f.keysOnly && f.countOnly {
		return g, badArguments("`--keys-only` and `--count-only` cannot be set at the same time, choose one")
	}
	serializable, err := isSerializable(f.consistency)
	if err != nil {
		return g, err
	}
	keys, err := keyRange(args, f.prefix, f.fromKey)
	if err != nil {
		return g, err
	}
	target, ok := sortTargets[strings.ToUpper(f.sortBy)]
	if !ok {
		return g, badFeature("bad sort target %v: use CREATE, KEY, MODIFY, VALUE or VERSION", f.sortBy)
	}
	order, ok := sortOrders[strings.ToUpper(f.order)]
	if !ok {
		return g, badFeature("bad sort order %v: use ASCEND or DESCEND", f.order)
	}
	if f.maxCreateRev > 0 && f.minCreateRev > f.maxCreateRev {
		return g, badFeature("--min-create-rev %d is above --max-create-rev %d", f.minCreateRev, f.maxCreateRev)
	}
	if f.maxModRev > 0 && f.minModRev > f.maxModRev {
		return g, badFeature("--min-mod-rev %d is above --max-mod-rev %d", f.minModRev, f.maxModRev)
	}
	return client.Get{
		Range: keys, Limit: f.limit, Revision: max(f.rev, 0), SortBy: target, Order: order, Serializable: serializable,
		KeysOnly: f.keysOnly, CountOnly: f.countOnly,
		MinModRevision: max(f.minModRev, 0), MaxModRevision: max(f.maxModRev, 0),
		MinCreateRevision: max(f.minCreateRev, 0), MaxCreateRevision: max(f.maxCreateRev, 0),
	}, nil
}

func isSerializable(consistency string) (bool, error) {
	switch consistency {
	case "s":
		return true, nil
	case "l":
		return false, nil
	}
	return false, badFeature("unknown consistency flag %q: use l or s", consistency)
}

// keyRange is what a key, perhaps an end, and two flags name.
func keyRange(args []string, prefix, fromKey bool) (client.Range, error) {
	switch {
	case prefix && fromKey:
		return client.Range{}, badArguments("`--prefix` and `--from-key` cannot be set at the same time, choose one")
	case len(args) > 1 && (prefix || fromKey):
		return client.Range{}, badArguments("too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
	case len(args) > 1:
		return client.Between(args[0], args[1]), nil
	case prefix:
		return client.Prefix(args[0]), nil
	case fromKey:
		return client.From(args[0]), nil
	}
	return client.One(args[0]), nil
}

func (c *ctl) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get [options] <key> [range_end]",
		Short: "Gets the key or a range of keys",
		Long:  c.getHelp(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.get(cmd.Context(), &f, args)
		},
	}
	f.declare(cmd.Flags())
	return cmd
}

func (c *ctl) get(ctx context.Context, f *getFlags, args []string) error {
	request, err := f.request(args)
	if err != nil {
		return err
	}
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	if f.countOnly && c.globals.form != formFields {
		return badArguments("--count-only is only for `--write-out=fields`")
	}
	if f.valueOnly && c.globals.form != formSimple {
		return badArguments("print-value-only is only for `--write-out=simple`")
	}
	if f.stream {
		return c.getStream(ctx, request, f.valueOnly)
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.RangeResponse, error) { return cl.Get(ctx, request) })
	if err != nil {
		c.sayKey(err, args[0])
		return err
	}
	return c.print(answer{
		simple: func(p *page) {
			p.valueOnly = f.valueOnly
			p.kvs(r.Kvs)
		},
		fields: func(p *page) { p.rangeFields(r) }, json: r, proto: r,
	})
}

// sayKey tells who works with objects, and got no answer from a store, that a store
// was asked.
func (c *ctl) sayKey(err error, key string) {
	if errors.Is(err, context.DeadlineExceeded) && c.tool == nil && cluster.HasContext(c.objects()) {
		fmt.Fprintf(c.err, "%q was taken for a key of the store: for objects name a kind ('api-resources' lists them), without flags of the store ('-o json', not '-w json')\n", key)
	}
}

// getStream prints the parts as they come, in the simple form; the others are of
// one piece. It may take longer than a short command.
func (c *ctl) getStream(ctx context.Context, request client.Get, valueOnly bool) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var all []*mvccpb.KeyValue
	r, err := cl.GetStream(ctx, request, func(kvs []*mvccpb.KeyValue) error {
		if c.globals.form != formSimple {
			all = append(all, kvs...)
			return nil
		}
		return c.print(answer{simple: func(p *page) {
			p.valueOnly = valueOnly
			p.kvs(kvs)
		}})
	})
	if err != nil {
		return exit(exitFailed, err)
	}
	if c.globals.form == formSimple {
		return nil
	}
	r.Kvs = all
	return c.printRange(r)
}

func (p *page) rangeFields(r *pb.RangeResponse) {
	p.headerFields(r.Header)
	for _, kv := range r.Kvs {
		p.kvFields("", kv)
	}
	p.field("More", r.More)
	p.field("Count", r.Count)
}

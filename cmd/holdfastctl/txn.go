package main

import (
	"bufio"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func (c *ctl) txnCommand() *cobra.Command {
	var interactive bool
	cmd := &cobra.Command{
		Use:   "txn [options]",
		Short: "Txn processes all the requests in one transaction",
		Long: `Txn reads requests from standard input and makes them one atomic transaction:
a list of comparisons, a list of requests for the case that all of them hold, and
a list for the case that one does not. An empty line ends each list.

  holdfastctl txn <<'END'
  mod("key1") > "0"

  put key1 "overwrote-key1"

  put key1 "created-key1"
  put key2 "some extra key"

  END

Comparisons: version, create, mod, value or lease of a key; =, !=, < or > a value.
Requests: put, get and del, with the flags of these commands.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("txn command does not accept argument")
			}
			return c.txn(cmd.Context(), interactive)
		},
	}
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "say what is to be entered next")
	return cmd
}

func (c *ctl) txn(ctx context.Context, interactive bool) error {
	if err := c.needForm(requestForms...); err != nil {
		return err
	}
	t, err := readTxn(bufio.NewReader(c.in), func(what string) {
		if interactive {
			fmt.Fprintln(c.out, what)
		}
	})
	if err != nil {
		return err
	}
	r, err := ask(ctx, c, func(ctx context.Context, cl *client.Client) (*pb.TxnResponse, error) { return cl.Txn(ctx, t) })
	if err != nil {
		return err
	}
	return c.print(answer{
		simple: func(p *page) { p.txnSimple(r) },
		fields: func(p *page) { p.txnFields(r) }, json: txnToJSON(r), proto: r,
	})
}

func (p *page) txnSimple(r *pb.TxnResponse) {
	if r.Succeeded {
		p.line("SUCCESS")
	} else {
		p.line("FAILURE")
	}
	for _, op := range r.Responses {
		p.line()
		switch op := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			p.kvs(op.ResponseRange.Kvs)
		case *pb.ResponseOp_ResponsePut:
			p.putSimple(op.ResponsePut)
		case *pb.ResponseOp_ResponseDeleteRange:
			p.delSimple(op.ResponseDeleteRange)
		}
	}
}

func (p *page) txnFields(r *pb.TxnResponse) {
	p.headerFields(r.Header)
	p.field("Succeeded", r.Succeeded)
	for _, op := range r.Responses {
		switch op := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			p.rangeFields(op.ResponseRange)
		case *pb.ResponseOp_ResponsePut:
			p.putFields(op.ResponsePut)
		case *pb.ResponseOp_ResponseDeleteRange:
			p.delFields(op.ResponseDeleteRange)
		}
	}
}

// txnJSON is the answer to a transaction as etcdctl writes it: the name of the
// kind of answer stands one level below "Response".
type txnJSON struct {
	Header    *pb.ResponseHeader `json:"header,omitempty"`
	Succeeded bool               `json:"succeeded,omitempty"`
	Responses []txnOpJSON        `json:"responses,omitempty"`
}

type txnOpJSON struct {
	Response struct {
		Range  *pb.RangeResponse       `json:"response_range,omitempty"`
		Put    *pb.PutResponse         `json:"response_put,omitempty"`
		Delete *pb.DeleteRangeResponse `json:"response_delete_range,omitempty"`
	}
}

func txnToJSON(r *pb.TxnResponse) txnJSON {
	j := txnJSON{Header: r.Header, Succeeded: r.Succeeded}
	for _, op := range r.Responses {
		var o txnOpJSON
		o.Response.Range = op.GetResponseRange()
		o.Response.Put = op.GetResponsePut()
		o.Response.Delete = op.GetResponseDeleteRange()
		j.Responses = append(j.Responses, o)
	}
	return j
}

package client

import (
	"context"
	"net"

	"google.golang.org/grpc"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Get reads keys. A key that does not exist is no error: the answer is empty.
func (c *Client) Get(ctx context.Context, g Get) (*pb.RangeResponse, error) {
	if !g.Serializable {
		ctx = requireLeader(ctx)
	}
	return call(ctx, c, reads, c.kv.Range, g.message())
}

// Put writes a key.
func (c *Client) Put(ctx context.Context, p Put) (*pb.PutResponse, error) {
	return call(requireLeader(ctx), c, writes, c.kv.Put, p.message())
}

// Delete removes keys. That there are none is no error.
func (c *Client) Delete(ctx context.Context, d Delete) (*pb.DeleteRangeResponse, error) {
	return call(requireLeader(ctx), c, writes, c.kv.DeleteRange, d.message())
}

// Txn executes a transaction. That its conditions do not hold is no error: see
// Succeeded of the answer.
func (c *Client) Txn(ctx context.Context, t Txn) (*pb.TxnResponse, error) {
	if c.config.Txn != nil {
		return call(ctx, c, t.effect(), c.txnInside, t.message())
	}
	return call(requireLeader(ctx), c, t.effect(), c.kv.Txn, t.message())
}

// txnInside is the call without a connection: the member is always reached, and says
// itself when it did nothing, as for want of a leader.
func (c *Client) txnInside(ctx context.Context, r *pb.TxnRequest, options ...grpc.CallOption) (*pb.TxnResponse, error) {
	for _, o := range options {
		if p, ok := o.(grpc.PeerCallOption); ok {
			p.PeerAddr.Addr = &net.UnixAddr{Name: "inside", Net: "unix"}
		}
	}
	ctx, err := c.withToken(ctx)
	if err != nil {
		return nil, err
	}
	return c.config.Txn(ctx, r)
}

// Compact gives up the history before a revision, which stays readable itself.
// With physical it returns when the space is free again, which may take long.
func (c *Client) Compact(ctx context.Context, revision int64, physical bool) (*pb.CompactionResponse, error) {
	request := &pb.CompactionRequest{Revision: revision, Physical: physical}
	if physical {
		return slowCall(requireLeader(ctx), c, writes, c.kv.Compact, request)
	}
	return call(requireLeader(ctx), c, writes, c.kv.Compact, request)
}

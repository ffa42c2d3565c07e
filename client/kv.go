package client

import (
	"context"

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
	return call(requireLeader(ctx), c, t.effect(), c.kv.Txn, t.message())
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

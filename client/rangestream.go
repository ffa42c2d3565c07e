package client

import (
	"context"
	"errors"
	"io"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// GetStream reads keys in the order of keys and hands them to f in parts, so
// that nobody holds all of them. The answer is that of Get without the keys. It
// has no time limit but ctx's.
//
// Nothing is asked twice once f has seen a part: an error then leaves f with
// the first keys of one revision.
func (c *Client) GetStream(ctx context.Context, g Get, f func([]*mvccpb.KeyValue) error) (*pb.RangeResponse, error) {
	if !g.Serializable {
		ctx = requireLeader(ctx)
	}
	delay := retryDelayMin
	for logins := 0; ; {
		begun := false
		attemptCtx, made := c.attempt(ctx)
		answer, err := c.getStream(attemptCtx, g, func(kvs []*mvccpb.KeyValue) error {
			begun = true
			return f(kvs)
		})
		if err == nil || begun {
			return answer, err
		}
		again := judge(err, reads, true).again
		if logins < loginsMax && c.tokenRefused(err, made) {
			logins++
			again = true
		}
		if !again || !c.pause(ctx, &delay) {
			return answer, err
		}
	}
}

func (c *Client) getStream(ctx context.Context, g Get, f func([]*mvccpb.KeyValue) error) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.kv.RangeStream(ctx, g.message())
	if err != nil {
		return nil, fromWire(err)
	}
	var answer *pb.RangeResponse
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && answer != nil:
			return answer, nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, fromWire(err)
		}
		r := part.RangeResponse
		if len(r.GetKvs()) > 0 {
			if err := f(r.Kvs); err != nil {
				return nil, err
			}
		}
		if r.GetHeader() != nil {
			answer = &pb.RangeResponse{Header: r.Header, More: r.More, Count: r.Count}
		}
	}
}

package server

import (
	"time"

	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// tellSlow says what was slow about a request, without keys or values of
// users: where it may have waited, and how large it was.
func (c *core) tellSlow(method string, req, answer any, took time.Duration, err error) {
	args := []any{"method", method, "took", took, "limit", c.cfg.SlowRequest, "applied-behind", c.node.Status().Commit - c.node.Status().Applied}
	switch r := req.(type) {
	case *pb.RangeRequest:
		args = append(args, "range", len(r.RangeEnd) > 0, "limit-keys", r.Limit, "revision", r.Revision, "serializable", r.Serializable, "count-only", r.CountOnly)
	case *pb.PutRequest:
		args = append(args, "key-bytes", len(r.Key), "value-bytes", len(r.Value), "lease", r.Lease != 0)
	case *pb.DeleteRangeRequest:
		args = append(args, "range", len(r.RangeEnd) > 0)
	case *pb.TxnRequest:
		args = append(args, "compares", len(r.Compare), "success-ops", len(r.Success), "failure-ops", len(r.Failure), "bytes", r.SizeVT())
	case *pb.CompactionRequest:
		args = append(args, "revision", r.Revision, "physical", r.Physical)
	}
	if a, ok := answer.(*codec.RangeReady); ok && a != nil {
		size := 0
		for _, kv := range a.KVs {
			size += len(kv)
		}
		args = append(args, "keys", len(a.KVs), "answer-bytes", size)
	}
	if err != nil {
		args = append(args, "error", err)
	}
	c.log.Warn("request was slow", args...)
}

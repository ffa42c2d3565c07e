package check

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// same compares answers of the key-value service without reflection, which is
// what a check of millions of them spends its time on. Of headers only the
// revision counts.
func same(a, b proto.Message) bool {
	switch x := a.(type) {
	case *pb.RangeResponse:
		y, ok := b.(*pb.RangeResponse)
		return ok && sameRange(x, y)
	case *pb.PutResponse:
		y, ok := b.(*pb.PutResponse)
		return ok && samePut(x, y)
	case *pb.DeleteRangeResponse:
		y, ok := b.(*pb.DeleteRangeResponse)
		return ok && sameDelete(x, y)
	case *pb.TxnResponse:
		y, ok := b.(*pb.TxnResponse)
		return ok && sameTxn(x, y)
	}
	return proto.Equal(a, b)
}

func sameHeader(a, b *pb.ResponseHeader) bool { return a.GetRevision() == b.GetRevision() }

func sameRange(a, b *pb.RangeResponse) bool {
	return sameHeader(a.GetHeader(), b.GetHeader()) && a.GetCount() == b.GetCount() && a.GetMore() == b.GetMore() && sameKVs(a.GetKvs(), b.GetKvs())
}

func samePut(a, b *pb.PutResponse) bool {
	return sameHeader(a.GetHeader(), b.GetHeader()) && sameKV(a.GetPrevKv(), b.GetPrevKv())
}

func sameDelete(a, b *pb.DeleteRangeResponse) bool {
	return sameHeader(a.GetHeader(), b.GetHeader()) && a.GetDeleted() == b.GetDeleted() && sameKVs(a.GetPrevKvs(), b.GetPrevKvs())
}

func sameTxn(a, b *pb.TxnResponse) bool {
	return sameHeader(a.GetHeader(), b.GetHeader()) && a.GetSucceeded() == b.GetSucceeded() &&
		slices.EqualFunc(a.GetResponses(), b.GetResponses(), sameOp)
}

func sameOp(a, b *pb.ResponseOp) bool {
	switch x := a.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		y, ok := b.GetResponse().(*pb.ResponseOp_ResponseRange)
		return ok && sameRange(x.ResponseRange, y.ResponseRange)
	case *pb.ResponseOp_ResponsePut:
		y, ok := b.GetResponse().(*pb.ResponseOp_ResponsePut)
		return ok && samePut(x.ResponsePut, y.ResponsePut)
	case *pb.ResponseOp_ResponseDeleteRange:
		y, ok := b.GetResponse().(*pb.ResponseOp_ResponseDeleteRange)
		return ok && sameDelete(x.ResponseDeleteRange, y.ResponseDeleteRange)
	case *pb.ResponseOp_ResponseTxn:
		y, ok := b.GetResponse().(*pb.ResponseOp_ResponseTxn)
		return ok && sameTxn(x.ResponseTxn, y.ResponseTxn)
	}
	return b.GetResponse() == nil
}

func sameKVs(a, b []*mvccpb.KeyValue) bool { return slices.EqualFunc(a, b, sameKV) }

func sameKV(a, b *mvccpb.KeyValue) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a == b || a.ModRevision == b.ModRevision && a.CreateRevision == b.CreateRevision && a.Version == b.Version && a.Lease == b.Lease &&
		bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

func sameEvents(a, b []*mvccpb.Event) bool { return slices.EqualFunc(a, b, sameEvent) }

// sameEvent leaves the previous value out: that is a matter of watches.
func sameEvent(a, b *mvccpb.Event) bool { return a.Type == b.Type && sameKV(a.Kv, b.Kv) }

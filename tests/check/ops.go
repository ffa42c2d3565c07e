package check

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// kind is what an operation is to the checkers.
type kind uint8

const (
	other kind = iota // Only shown.
	read              // Range and read-only Txn.
	write             // Put, DeleteRange and Txn.
	compaction
	grant
	revoke
	renewal
	timeToLive
)

// info is what the checkers keep of an operation.
type info struct {
	kind         kind
	serializable bool
	wrote        bool  // It made a revision.
	rev          int64 // Of the header. 0: none.
	known        int64 // The highest revision that had been seen when it was called.
}

func kindOf(req proto.Message) (kind, bool) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return read, r.Serializable
	case *pb.PutRequest, *pb.DeleteRangeRequest:
		return write, false
	case *pb.TxnRequest:
		return kindOfTxn(r)
	case *pb.CompactionRequest:
		return compaction, false
	case *pb.LeaseGrantRequest:
		return grant, false
	case *pb.LeaseRevokeRequest:
		return revoke, false
	case *pb.LeaseKeepAliveRequest:
		return renewal, false
	case *pb.LeaseTimeToLiveRequest:
		return timeToLive, false
	}
	return other, false
}

// kindOfTxn calls a transaction a read if it holds nothing but ranges: that is
// when a server answers it without the log. One without operations is one too.
func kindOfTxn(t *pb.TxnRequest) (k kind, serializable bool) {
	serializable = true
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			r := op.GetRequestRange()
			if r == nil {
				return write, false
			}
			serializable = serializable && r.Serializable
		}
	}
	return read, serializable
}

// answers tells whether a response is one to a request.
func answers(req, res proto.Message) bool {
	ok := false
	switch req.(type) {
	case *pb.RangeRequest:
		_, ok = res.(*pb.RangeResponse)
	case *pb.PutRequest:
		_, ok = res.(*pb.PutResponse)
	case *pb.DeleteRangeRequest:
		_, ok = res.(*pb.DeleteRangeResponse)
	case *pb.TxnRequest:
		_, ok = res.(*pb.TxnResponse)
	case *pb.CompactionRequest:
		_, ok = res.(*pb.CompactionResponse)
	case *pb.LeaseGrantRequest:
		_, ok = res.(*pb.LeaseGrantResponse)
	case *pb.LeaseRevokeRequest:
		_, ok = res.(*pb.LeaseRevokeResponse)
	case *pb.LeaseKeepAliveRequest:
		_, ok = res.(*pb.LeaseKeepAliveResponse)
	case *pb.LeaseTimeToLiveRequest:
		_, ok = res.(*pb.LeaseTimeToLiveResponse)
	}
	return ok
}

// wrote tells whether a response says that something was written.
func wrote(res proto.Message) bool {
	switch r := res.(type) {
	case *pb.PutResponse:
		return true
	case *pb.DeleteRangeResponse:
		return r.Deleted > 0
	case *pb.TxnResponse:
		for _, op := range r.Responses {
			if op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 ||
				op.GetResponseTxn() != nil && wrote(op.GetResponseTxn()) {
				return true
			}
		}
	}
	return false
}

// index sorts everything by what it is and by revision.
func (c *checker) index() {
	c.Counts.Ops = len(c.h.Ops)
	c.head = max(c.h.Head, 1)
	for _, e := range c.h.Log {
		c.head = max(c.head, e.Kv.ModRevision)
		c.leased = c.leased || e.Kv.Lease != 0
	}
	c.Counts.Head = c.head
	c.log = make([][]*mvccpb.Event, c.head+2)
	c.indexLog()
	c.owner = make([]int32, c.head+2)
	for i := range c.owner {
		c.owner[i] = none
	}
	c.info = make([]info, len(c.h.Ops))
	c.slot = make([][]int32, c.head+2)
	size := make([]int, c.head+2)
	for i := range c.h.Ops {
		c.classify(i)
		if in := &c.info[i]; in.rev > 0 {
			size[in.rev]++
		}
	}
	all := make([]int32, 0, len(c.h.Ops))
	for rev := range c.slot { // One piece of memory for all.
		from := len(all)
		all = all[:from+size[rev]]
		c.slot[rev] = all[from:from:len(all)]
	}
	for i := range c.info {
		if rev := c.info[i].rev; rev > 0 {
			c.slot[rev] = append(c.slot[rev], int32(i))
		}
	}
	c.narrow.index(c.h.Ops, c.info)
	c.compact.index(c.h, c.info)
	c.indexLeases()
}

// indexLog cuts the log into revisions. There is an event for each, and each
// comes once.
func (c *checker) indexLog() {
	rev, from := int64(1), 0
	for i, e := range c.h.Log {
		if e.Kv.ModRevision == rev && i > 0 {
			continue
		}
		c.log[rev] = c.h.Log[from:i]
		if e.Kv.ModRevision != rev+1 {
			c.add(Violation{Rule: "A3", Revision: e.Kv.ModRevision, Text: fmt.Sprintf("the log goes from revision %d to %d", rev, e.Kv.ModRevision)})
		}
		if e.Kv.ModRevision <= rev {
			c.head = rev // The rest makes no sense.
			c.log = c.log[:c.head+2]
			return
		}
		rev, from = e.Kv.ModRevision, i
	}
	if from < len(c.h.Log) {
		c.log[rev] = c.h.Log[from:]
	}
	if rev < c.head {
		c.add(Violation{Rule: "A3", Revision: c.head, Text: fmt.Sprintf("the log ends at revision %d, the head is %d", rev, c.head)})
	}
}

func (c *checker) classify(i int) {
	op, in := &c.h.Ops[i], &c.info[i]
	in.kind, in.serializable = kindOf(op.Request)
	if in.serializable {
		c.Counts.Serializable++
	}
	switch op.Outcome {
	case Refused:
		c.Counts.Refused++
		return
	case Unknown:
		c.Counts.Unknown++
		return
	}
	c.Counts.Acknowledged++
	if in.kind == other {
		return
	}
	header, _ := op.Response.(interface{ GetHeader() *pb.ResponseHeader })
	if !answers(op.Request, op.Response) || header.GetHeader() == nil || op.Return < op.Call {
		c.add(Violation{Rule: "K1", Ops: []int{op.ID}, Text: fmt.Sprintf("%T is answered with %T, called at %d, returned at %d", op.Request, op.Response, op.Call, op.Return)})
		in.kind = other
		return
	}
	in.rev = header.GetHeader().Revision
	in.wrote = in.kind == write && wrote(op.Response)
	if in.rev < 1 || in.rev > c.head {
		rule, text := "K1", "an answer has revision %d, the log ends at %d"
		if in.wrote {
			rule, text = "K2", "an acknowledged write at revision %d is lost, the log ends at %d"
		}
		c.add(Violation{Rule: rule, Ops: []int{op.ID}, Text: fmt.Sprintf(text, in.rev, c.head)})
		in.kind, in.rev, in.wrote = other, 0, false
	}
}

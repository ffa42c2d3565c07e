package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// compactions are what is known of compacted revisions over time. They make no
// revision, so that only bounds can be told.
type compactions struct {
	asked    []sighting // When one can have happened at the earliest, and the highest by then.
	returned []sighting // When one had happened at the latest, and the highest by then.
	applied  []sighting // The same by revision of the header: members that are behind have them in the order of the log.
}

func (x *compactions) index(h *History, infos []info) {
	for i := range h.Ops {
		op, in := &h.Ops[i], &infos[i]
		if in.kind != compaction || op.Outcome == Refused {
			continue
		}
		rev := op.Request.(*pb.CompactionRequest).Revision
		x.asked = append(x.asked, sighting{op.Call, rev})
		if in.rev > 0 {
			x.returned = append(x.returned, sighting{op.Return, rev})
			x.applied = append(x.applied, sighting{in.rev, rev})
		}
	}
	for _, e := range h.Compactions {
		x.asked = append(x.asked, sighting{e.NotBefore, e.Revision})
	}
	for _, list := range [][]sighting{x.asked, x.returned, x.applied} {
		slices.SortFunc(list, func(a, b sighting) int { return cmp.Compare(a.time, b.time) })
		for i := 1; i < len(list); i++ {
			list[i].rev = max(list[i].rev, list[i-1].rev)
		}
	}
}

// neverCompacted is what a fresh store has compacted.
const neverCompacted = -1

// upTo returns the last of a list that lies before a time.
func upTo(list []sighting, before int64) int64 {
	n, _ := slices.BinarySearchFunc(list, before, func(s sighting, t int64) int { return cmp.Compare(s.time, t) })
	if n == 0 {
		return neverCompacted
	}
	return max(list[n-1].rev, neverCompacted) // One that was asked for below that is refused, or had no answer.
}

// possibly is the highest revision that can have been compacted at a time.
func (x *compactions) possibly(time int64) int64 { return upTo(x.asked, time+1) }

// surely is the highest that was compacted before a time.
func (x *compactions) surely(time int64) int64 { return upTo(x.returned, time) }

// behind is the highest that a member has compacted that has come to a
// revision.
func (x *compactions) behind(revision int64) int64 { return upTo(x.applied, revision) }

// eachRevision calls fn for each revision that a request names.
func eachRevision(req proto.Message, fn func(rev int64)) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		if r.Revision > 0 {
			fn(r.Revision)
		}
	case *pb.CompactionRequest:
		fn(r.Revision)
	case *pb.TxnRequest:
		for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
			for _, op := range ops {
				switch v := op.Request.(type) {
				case *pb.RequestOp_RequestRange:
					if v.RequestRange.Revision != 0 {
						fn(v.RequestRange.Revision)
					}
				case *pb.RequestOp_RequestTxn:
					eachRevision(v.RequestTxn, fn)
				}
			}
		}
	}
}

func lowest(req proto.Message) int64 {
	low := int64(math.MaxInt64)
	eachRevision(req, func(rev int64) { low = min(low, rev) })
	return low
}

func highest(req proto.Message) int64 {
	high := int64(math.MinInt64)
	eachRevision(req, func(rev int64) { high = max(high, rev) })
	return high
}

// checkCompactions checks that nothing was read that had been compacted, and
// that compactions were right to be acknowledged.
func (c *checker) checkCompactions() {
	for i := range c.h.Ops {
		op, in := &c.h.Ops[i], &c.info[i]
		if in.rev == 0 {
			continue
		}
		limit := c.compact.behind(in.rev)
		if !in.serializable {
			limit = max(limit, c.compact.surely(op.Call))
		}
		switch r := op.Response.(type) {
		case *pb.CompactionResponse:
			rev := op.Request.(*pb.CompactionRequest).Revision
			if rev > in.rev || rev <= limit {
				c.add(Violation{Rule: "K7", Ops: []int{op.ID}, Revision: in.rev, Text: fmt.Sprintf("a compaction at %d was acknowledged, %d was compacted before", rev, limit)})
			}
		case *pb.RangeResponse:
			if rev := lowest(op.Request); rev < limit {
				c.readCompacted(op, rev, limit)
			}
		case *pb.TxnResponse:
			if rev := lowestTaken(op.Request.(*pb.TxnRequest), r); rev < limit {
				c.readCompacted(op, rev, limit)
			}
		}
	}
}

func (c *checker) readCompacted(op *Op, rev, limit int64) {
	c.add(Violation{Rule: "K7", Ops: []int{op.ID}, Revision: rev, Text: fmt.Sprintf("read at revision %d, but %d had been compacted", rev, limit)})
}

// lowestTaken is the lowest revision in the branches that were taken.
func lowestTaken(t *pb.TxnRequest, r *pb.TxnResponse) int64 {
	low, ops := int64(math.MaxInt64), t.Success
	if !r.Succeeded {
		ops = t.Failure
	}
	for i, op := range ops {
		if q := op.GetRequestRange(); q.GetRevision() != 0 {
			low = min(low, q.Revision)
		}
		if inner := op.GetRequestTxn(); inner != nil && i < len(r.Responses) && r.Responses[i].GetResponseTxn() != nil {
			low = min(low, lowestTaken(inner, r.Responses[i].GetResponseTxn()))
		}
	}
	return low
}

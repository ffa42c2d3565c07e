package check

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

// sighting is a revision that somebody had seen at a time.
type sighting struct{ time, rev int64 }

// times finds out when revisions were there: not before the call of the request
// that made them, and since the first answer that names them or a later one.
func (c *checker) times() {
	c.exists, c.seenBy = make([]int64, c.head+2), make([]int64, c.head+2)
	for rev := range c.seenBy {
		c.exists[rev], c.seenBy[rev] = never*-1, never
	}
	seen := make([]sighting, 0, len(c.h.Ops))
	see := func(time, rev int64) {
		if rev > 0 && rev <= c.head {
			seen = append(seen, sighting{time, rev})
			c.seenBy[rev] = min(c.seenBy[rev], time)
		}
	}
	for i := range c.h.Ops {
		if in := &c.info[i]; in.rev > 0 {
			see(c.h.Ops[i].Return, in.rev)
			if in.wrote {
				c.exists[in.rev] = max(c.exists[in.rev], c.h.Ops[i].Call)
			}
		}
	}
	for i := range c.h.Watches {
		for _, s := range c.h.Watches[i].Seen {
			rev := s.Response.GetHeader().GetRevision()
			for _, e := range s.Response.Events {
				rev = max(rev, e.GetKv().GetModRevision())
			}
			see(s.Time, rev)
		}
	}
	for rev := range c.head {
		c.exists[rev+1] = max(c.exists[rev+1], c.exists[rev])
		c.seenBy[c.head-rev] = min(c.seenBy[c.head-rev], c.seenBy[c.head-rev+1])
	}
	slices.SortFunc(seen, func(a, b sighting) int { return cmp.Compare(a.time, b.time) })
	order := make([]int32, len(c.h.Ops))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(c.h.Ops[a].Call, c.h.Ops[b].Call) })
	known, next := int64(1), 0
	for _, i := range order {
		for ; next < len(seen) && seen[next].time < c.h.Ops[i].Call; next++ {
			known = max(known, seen[next].rev)
		}
		c.info[i].known = known
	}
}

const never = int64(1) << 62

// highestBy is the highest revision that there can have been at a time.
func (c *checker) highestBy(time int64) int64 {
	at, _ := slices.BinarySearchFunc(c.exists[1:c.head+1], time+1, cmp.Compare[int64])
	return int64(at)
}

// replay goes through the revisions. At each it finds who made it, executes
// that on the model, and has the model answer what was answered at that
// revision. Compactions hide nothing from the model; what they had to refuse is
// checked elsewhere.
func (c *checker) replay() {
	begin := c.refusals()
	for rev := int64(1); rev <= c.head; rev++ {
		if rev > 1 {
			c.make(rev)
		}
		for _, i := range c.slot[rev] {
			if in := &c.info[i]; in.kind == read || in.kind == write && !in.wrote {
				c.answer(i, rev)
			}
		}
		for len(begin) > 0 && c.info[begin[0]].known <= rev {
			c.waiting = append(c.waiting, begin[0])
			begin = begin[1:]
		}
		c.waiting = slices.DeleteFunc(c.waiting, func(i int32) bool { return c.reasoned(i, rev) })
	}
	c.narrow.finish(c)
}

// make brings the model to the next revision.
func (c *checker) make(rev int64) {
	events := c.log[rev]
	makers := 0
	for _, i := range c.slot[rev] {
		if !c.info[i].wrote {
			continue
		}
		if makers++; makers > 1 {
			c.add(Violation{Rule: "A3", Revision: rev, Ops: []int{c.h.Ops[c.owner[rev]].ID, c.h.Ops[i].ID}, Text: "two writes were acknowledged at one revision"})
			continue
		}
		c.owner[rev] = i
		if c.answer(i, rev) {
			if made := c.m.Events(rev, rev); !sameEvents(made, events) {
				rule := "K2"
				if _, ok := c.h.Ops[i].Request.(*pb.TxnRequest); ok {
					rule = "K6"
				}
				c.add(Violation{Rule: rule, Revision: rev, Ops: []int{c.h.Ops[i].ID}, Text: fmt.Sprintf("the log has %v for an acknowledged write that makes %v", events, made)})
			}
		}
	}
	if makers == 0 {
		c.explain(rev)
	}
	c.leaseEvents(rev)
	if makers == 1 && c.m.Revision() == rev && sameEvents(c.m.Events(rev, rev), events) {
		return
	}
	if c.m.Revision() == rev {
		c.m.Undo()
	}
	c.m.Force(events)
}

// answer has the model answer an acknowledged request. If that was a write, the
// model is at its revision afterwards.
func (c *checker) answer(i int32, rev int64) bool {
	op, in := &c.h.Ops[i], &c.info[i]
	if in.wrote && c.m.Revision() == rev {
		return false // Two of them: it was reported.
	}
	c.grantFor(op.Request)
	before := c.m.Revision()
	want, err := c.m.Execute(op.Request)
	if err == nil && in.wrote && c.m.Revision() == before {
		err = fmt.Errorf("it should have written nothing, and says %v", op.Response)
	}
	if !in.wrote && c.m.Revision() != before {
		c.m.Undo()
		if err == nil {
			err = fmt.Errorf("it should have written, and says %v", op.Response)
		}
	}
	switch {
	case err != nil:
		c.add(Violation{Rule: ruleOf(op.Request, in), Revision: rev, Ops: []int{op.ID}, Text: fmt.Sprintf("%v was acknowledged: %v", op.Request, err)})
		return false
	case !same(want, op.Response):
		c.add(Violation{Rule: ruleOf(op.Request, in), Revision: rev, Ops: []int{op.ID}, Text: fmt.Sprintf("%v is answered with %v, right is %v", op.Request, op.Response, want)})
	}
	return true
}

// ruleOf names the rule that a wrong answer breaks.
func ruleOf(req proto.Message, in *info) string {
	switch r := req.(type) {
	case *pb.TxnRequest:
		return "K6"
	case *pb.RangeRequest:
		switch {
		case in.serializable:
			return "K5"
		case r.Revision > 0:
			return "K7"
		case len(r.RangeEnd) > 0:
			return "K8"
		}
		return "K2"
	}
	return "K1"
}

// grantFor has the leases exist in the model that a request puts keys on:
// whether they did exist is checked elsewhere.
func (c *checker) grantFor(req proto.Message) {
	eachPut(req, func(p *pb.PutRequest) {
		if p.Lease != 0 {
			c.grantID(p.Lease)
		}
	})
}

func (c *checker) grantID(id int64) {
	_, _ = c.m.Execute(&pb.LeaseGrantRequest{ID: id}) // An error says that it is there.
}

func eachPut(req proto.Message, fn func(p *pb.PutRequest)) {
	switch r := req.(type) {
	case *pb.PutRequest:
		fn(r)
	case *pb.TxnRequest:
		for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
			for _, op := range ops {
				switch v := op.Request.(type) {
				case *pb.RequestOp_RequestPut:
					fn(v.RequestPut)
				case *pb.RequestOp_RequestTxn:
					eachPut(v.RequestTxn, fn)
				}
			}
		}
	}
}

// realTime checks that what had been seen before a request was sent has a lower
// revision than what it makes, and none higher than what it is answered at.
func (c *checker) realTime() {
	for i := range c.h.Ops {
		op, in := &c.h.Ops[i], &c.info[i]
		if in.rev == 0 || in.serializable || in.kind == renewal || in.kind == timeToLive {
			continue
		}
		if in.wrote && in.rev <= in.known {
			c.add(Violation{Rule: "K1", Ops: []int{op.ID}, Revision: in.rev, Text: fmt.Sprintf("a write was ordered before revision %d, which had been seen before it was sent", in.known)})
		} else if in.rev < in.known {
			c.add(Violation{Rule: "K2", Ops: []int{op.ID}, Revision: in.rev, Text: fmt.Sprintf("an answer is stale: revision %d had been seen before it was asked for", in.known)})
		}
	}
}

// sessions checks that serializable reads of one client from one member do not
// go back.
func (c *checker) sessions() {
	type session struct{ client, member, connection int }
	ops := map[session][]int32{}
	for i := range c.h.Ops {
		if op, in := &c.h.Ops[i], &c.info[i]; in.rev > 0 && in.kind == read {
			s := session{op.Client, op.Member, op.Connection}
			ops[s] = append(ops[s], int32(i))
		}
	}
	for _, list := range ops {
		byReturn := slices.Clone(list)
		slices.SortFunc(list, func(a, b int32) int { return cmp.Compare(c.h.Ops[a].Call, c.h.Ops[b].Call) })
		slices.SortFunc(byReturn, func(a, b int32) int { return cmp.Compare(c.h.Ops[a].Return, c.h.Ops[b].Return) })
		newest, next := none, 0
		for _, i := range list {
			for ; c.h.Ops[byReturn[next]].Return < c.h.Ops[i].Call; next++ {
				if newest == none || c.info[byReturn[next]].rev > c.info[newest].rev {
					newest = byReturn[next]
				}
			}
			if newest != none && c.info[i].serializable && c.info[i].rev < c.info[newest].rev {
				c.add(Violation{Rule: "K5", Revision: c.info[i].rev, Ops: []int{c.h.Ops[newest].ID, c.h.Ops[i].ID}, Text: fmt.Sprintf(
					"serializable reads go back from revision %d to %d", c.info[newest].rev, c.info[i].rev)})
			}
		}
	}
}

// refusals checks what needs no state, and returns the refused operations whose
// reason must be found in a state, in the order in which to look for it.
func (c *checker) refusals() (begin []int32) {
	for i := range c.h.Ops {
		op, in := &c.h.Ops[i], &c.info[i]
		if in.kind == other {
			continue
		}
		invalid := model.Validate(op.Request)
		if g, ok := op.Request.(*pb.LeaseGrantRequest); ok && g.TTL > model.TTLMax {
			invalid = model.ErrLeaseTTL
		}
		switch {
		case invalid != nil && op.Outcome == Acknowledged:
			c.add(Violation{Rule: "K1", Ops: []int{op.ID}, Text: fmt.Sprintf("%v was acknowledged, which is invalid: %v", op.Request, invalid)})
			in.kind, in.wrote = other, false
		case op.Outcome != Refused:
		case stateless(op.Error) && (invalid == nil || invalid.Error() != op.Error):
			c.unreasoned(op, fmt.Sprintf("right is %v", invalid))
		case invalid != nil && op.Error == model.ErrKeyNotFound.Error():
		case op.Error == model.ErrKeyNotFound.Error():
			begin = append(begin, int32(i))
		default:
			c.checkRefusal(op, in)
		}
	}
	slices.SortFunc(begin, func(a, b int32) int { return cmp.Compare(c.info[a].known, c.info[b].known) })
	return begin
}

func stateless(text string) bool {
	return slices.ContainsFunc([]error{
		model.ErrEmptyKey, model.ErrValueProvided, model.ErrLeaseProvided, model.ErrTooManyOps, model.ErrDuplicateKey, model.ErrSortOption, model.ErrLeaseTTL,
	}, func(err error) bool { return err.Error() == text })
}

func (c *checker) unreasoned(op *Op, why string) {
	c.add(Violation{Rule: "K3", Ops: []int{op.ID}, Text: fmt.Sprintf("%v was refused without a reason: %s; %s", op.Request, op.Error, why)})
}

// checkRefusal looks at reasons that lie in revisions and leases. Any other
// error needs none: that there is no leader, say.
func (c *checker) checkRefusal(op *Op, in *info) {
	switch op.Error {
	case model.ErrFutureRevision.Error():
		if highest(op.Request) <= in.known && !in.serializable { // A member may be behind.
			c.unreasoned(op, fmt.Sprintf("revision %d had been seen before", in.known))
		}
	case model.ErrCompacted.Error():
		if limit := c.compact.possibly(op.Return); lowest(op.Request) >= limit && (in.kind != compaction || highest(op.Request) > limit) {
			c.unreasoned(op, fmt.Sprintf("nothing above %d can have been compacted", limit))
		}
	case model.ErrLeaseNotFound.Error():
		absent := false
		for _, id := range leasesOf(op.Request) {
			absent = absent || c.possiblyAbsent(c.lease(id), op)
		}
		if !absent {
			c.unreasoned(op, "its leases were there")
		}
	case model.ErrLeaseExists.Error():
		if g, ok := op.Request.(*pb.LeaseGrantRequest); !ok || g.ID != 0 && !c.lease(g.ID).grantedBy(op) {
			c.unreasoned(op, "nobody had asked for it before")
		}
	}
}

// reasoned tells whether a refused request needs not be looked at any more.
func (c *checker) reasoned(i int32, rev int64) bool {
	op := &c.h.Ops[i]
	if rev < c.info[i].known {
		return false
	}
	c.grantFor(op.Request)
	_, err := c.m.Execute(op.Request)
	if c.m.Revision() > rev {
		c.m.Undo()
	}
	if err != nil && err.Error() == op.Error {
		return true
	}
	if rev < min(c.highestBy(op.Return), c.head) {
		return false
	}
	c.unreasoned(op, fmt.Sprintf("it would have succeeded at all revisions from %d to %d", c.info[i].known, rev))
	return true
}

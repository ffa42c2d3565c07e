package check

import (
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// lease is what a history says of one lease ID. Leases come and go without a
// revision, so that only bounds are known: what is reported is what can not
// have been so in any order.
type lease struct {
	id       int64
	ttl      int64  // Seconds, the longest that was granted.
	ttlMin   int64  // And the shortest: an ID may be granted again.
	grants   []life // Not refused.
	revokes  []life // Not refused.
	renewals []life // Acknowledged, with time left.
	expired  []int64
	unknown  bool // A renewal has no answer: when it was the last is not known.

	keys  int // That hang on it, while replaying.
	since int64
	held  []held
}

// life is an operation on a lease. ret is never if it may still be under way.
type life struct {
	call, ret, rev int64
	ttl            int64 // Of a grant.
	op             *Op
}

// held says that keys hung on a lease from a revision until before another.
type held struct{ from, to int64 }

func (c *checker) lease(id int64) *lease {
	l := c.leases[id]
	if l == nil {
		l = &lease{id: id}
		c.leases[id] = l
	}
	return l
}

func (c *checker) indexLeases() {
	c.leases = map[int64]*lease{}
	for i := range c.h.Ops {
		op, in := &c.h.Ops[i], &c.info[i]
		if op.Outcome == Refused {
			continue
		}
		at := life{call: op.Call, ret: never, rev: in.rev, op: op}
		if op.Outcome == Acknowledged {
			at.ret = op.Return
		}
		switch r := op.Request.(type) {
		case *pb.LeaseGrantRequest:
			id, ttl := r.ID, r.TTL
			if res, ok := op.Response.(*pb.LeaseGrantResponse); ok {
				id, ttl = res.ID, res.TTL
			}
			l := c.lease(id)
			if len(l.grants) == 0 {
				l.ttl, l.ttlMin = ttl, ttl
			}
			at.ttl = ttl
			l.ttl, l.ttlMin, l.grants = max(l.ttl, ttl), min(l.ttlMin, ttl), append(l.grants, at)
		case *pb.LeaseRevokeRequest:
			l := c.lease(r.ID)
			l.revokes = append(l.revokes, at)
		case *pb.LeaseKeepAliveRequest:
			l := c.lease(r.ID)
			if op.Outcome == Unknown {
				l.unknown = true
			} else if op.Response.(*pb.LeaseKeepAliveResponse).GetTTL() > 0 {
				l.renewals = append(l.renewals, at)
			}
		}
	}
}

func leasesOf(req proto.Message) (ids []int64) {
	switch r := req.(type) {
	case *pb.LeaseRevokeRequest:
		return []int64{r.ID}
	case *pb.LeaseKeepAliveRequest:
		return []int64{r.ID}
	case *pb.LeaseTimeToLiveRequest:
		return []int64{r.ID}
	}
	eachPut(req, func(p *pb.PutRequest) {
		if p.Lease != 0 {
			ids = append(ids, p.Lease)
		}
	})
	return ids
}

// lasts is the least time that so many seconds can be.
func (o *Options) lasts(seconds int64) int64 {
	return int64(float64(seconds) * (1 - o.ClockError) * float64(time.Second))
}

// renewedBy is when a lease was given its time for the last time, at the
// earliest, of all that had returned before a moment.
func (l *lease) renewedBy(before int64) int64 {
	last := int64(math.MinInt64)
	for _, list := range [][]life{l.grants, l.renewals} {
		for _, at := range list {
			if at.ret < before {
				last = max(last, at.call)
			}
		}
	}
	return last
}

// possiblyAbsent tells whether a lease may not have existed at some moment of
// an operation.
func (c *checker) possiblyAbsent(l *lease, op *Op) bool {
	last := l.renewedBy(op.Call)
	if last == math.MinInt64 || op.Return >= last+c.opt.lasts(l.ttlMin) {
		return true
	}
	for _, v := range l.revokes {
		if v.op != op && v.call <= op.Return && !slices.ContainsFunc(l.grants, func(g life) bool { return g.call > v.ret && g.ret < op.Call }) {
			return true
		}
	}
	return slices.ContainsFunc(l.expired, func(rev int64) bool { return c.exists[rev] <= op.Return })
}

// possiblyThere tells whether a lease may have existed at some moment of an
// operation.
func (c *checker) possiblyThere(l *lease, op *Op) bool {
	for _, g := range l.grants {
		if g.call <= op.Return && !c.surelyGone(l, g, op) {
			return true
		}
	}
	return false
}

// surelyGone tells whether what a grant brought had gone before an operation.
func (c *checker) surelyGone(l *lease, g life, op *Op) bool {
	for _, v := range l.revokes {
		if v.op != op && v.ret < op.Call && v.call > g.ret {
			return true
		}
	}
	return slices.ContainsFunc(l.expired, func(rev int64) bool { return g.rev != 0 && g.rev < rev && c.seenBy[rev] < op.Call })
}

// leaseEvents follows which keys hang on which leases. Called before the model
// has the events.
func (c *checker) leaseEvents(rev int64) {
	if !c.leased {
		return
	}
	for _, e := range c.log[rev] {
		if old := c.m.Get(string(e.Kv.Key), rev-1); old != nil && old.Lease != 0 {
			l := c.lease(old.Lease)
			if l.keys--; l.keys == 0 {
				l.held = append(l.held, held{l.since, rev})
			}
		}
		if e.Type == mvccpb.Event_PUT && e.Kv.Lease != 0 {
			l := c.lease(e.Kv.Lease)
			if l.keys++; l.keys == 1 {
				l.since = rev
			}
			c.leaseUse(l, rev)
		}
	}
}

// leaseUse checks that a lease that a key was put on can have existed.
func (c *checker) leaseUse(l *lease, rev int64) {
	op := c.maker(rev)
	for _, g := range l.grants {
		gone := slices.ContainsFunc(l.expired, func(at int64) bool { return g.rev != 0 && g.rev < at && at < rev })
		if g.rev < rev && !gone && (op == nil || g.call <= op.Return && !c.surelyGone(l, g, op)) {
			return
		}
	}
	v := Violation{Rule: "L4", Revision: rev, Text: fmt.Sprintf("a key was put on lease %x, which did not exist", l.id)}
	if op != nil {
		v.Ops = []int{op.ID}
	}
	c.add(v)
}

// maker is the acknowledged operation that made a revision, or nil.
func (c *checker) maker(rev int64) *Op {
	if i := c.owner[rev]; i != none && c.h.Ops[i].Outcome == Acknowledged {
		return &c.h.Ops[i]
	}
	return nil
}

// expiry tells which leases, by running out, can have made the next revision:
// it takes all keys away that hang on them, lease by lease and sorted, and
// nothing else. If that was too early, early says so.
func (c *checker) expiry(rev int64) (ids []int64, early *Violation) {
	events := c.log[rev]
	for len(events) > 0 {
		kv := c.m.Get(string(events[0].Kv.Key), rev-1)
		if events[0].Type != mvccpb.Event_DELETE || kv == nil || kv.Lease == 0 {
			return nil, nil
		}
		keys := c.m.LeaseKeys(kv.Lease)
		if len(keys) > len(events) {
			return nil, nil
		}
		for i, key := range keys {
			if events[i].Type != mvccpb.Event_DELETE || string(events[i].Kv.Key) != key {
				return nil, nil
			}
		}
		ids, events = append(ids, kv.Lease), events[len(keys):]
	}
	for _, id := range ids {
		l := c.lease(id)
		if v := c.tooEarly(l, rev); v != nil {
			early = v
		}
	}
	return ids, early
}

// noteExpired remembers that leases are gone, once it is clear that nobody else
// deleted their keys.
func (c *checker) noteExpired(ids []int64, rev int64) {
	for _, id := range ids {
		l := c.lease(id)
		l.expired = append(l.expired, rev)
	}
	c.Counts.Expired++
}

func (c *checker) tooEarly(l *lease, rev int64) *Violation {
	next := never // When a later life of the lease may have begun.
	for _, g := range l.grants {
		if g.rev == 0 || g.rev >= rev {
			next = min(next, g.call)
		}
	}
	allowed := never
	for _, g := range l.grants {
		if g.rev >= rev || slices.ContainsFunc(l.grants, func(x life) bool { return x.rev != 0 && x.rev < rev && x.call > g.ret }) {
			continue
		}
		last := g.call
		for _, at := range l.renewals {
			if at.call > g.ret && at.ret < next {
				last = max(last, at.call)
			}
		}
		allowed = min(allowed, last+c.opt.lasts(g.ttl))
	}
	if allowed == never || c.seenBy[rev] >= allowed {
		return nil
	}
	return &Violation{Rule: "L1", Revision: rev, Text: fmt.Sprintf("lease %x of %d s ran out by %v, it had time until %v",
		l.id, l.ttl, time.Duration(c.seenBy[rev]), time.Duration(allowed))}
}

// checkLeases checks the answers about leases, and that none outlived its time
// by far.
func (c *checker) checkLeases() {
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		if c.info[i].rev == 0 {
			continue
		}
		there := true // As it says.
		switch r := op.Response.(type) {
		case *pb.LeaseGrantResponse:
			c.checkGrant(op, r)
			continue
		case *pb.LeaseRevokeResponse:
		case *pb.LeaseKeepAliveResponse:
			there = r.TTL > 0
		case *pb.LeaseTimeToLiveResponse:
			there = r.TTL >= 0
		default:
			continue
		}
		l := c.lease(leasesOf(op.Request)[0])
		if there && !c.possiblyThere(l, op) {
			c.add(Violation{Rule: "L4", Ops: []int{op.ID}, Text: fmt.Sprintf("%v is answered with %v, but lease %x was gone", op.Request, op.Response, l.id)})
		}
		if !there && !c.possiblyAbsent(l, op) {
			c.add(Violation{Rule: "L1", Ops: []int{op.ID}, Text: fmt.Sprintf("%v is answered with %v, but lease %x was there", op.Request, op.Response, l.id)})
		}
	}
	if c.opt.ElectionTimeout > 0 {
		for _, l := range c.leases {
			c.tooLate(l)
		}
	}
}

func (c *checker) checkGrant(op *Op, r *pb.LeaseGrantResponse) {
	req := op.Request.(*pb.LeaseGrantRequest)
	if r.ID == 0 || req.ID != 0 && r.ID != req.ID || r.TTL < req.TTL || r.TTL <= 0 {
		c.add(Violation{Rule: "L1", Ops: []int{op.ID}, Text: fmt.Sprintf("%v is answered with %v", req, r)})
	}
	l := c.lease(r.ID)
	for _, g := range l.grants {
		if g.op != op && g.op.Outcome == Acknowledged && g.ret < op.Call && !c.possiblyAbsent(l, op) {
			c.add(Violation{Rule: "L4", Ops: []int{g.op.ID, op.ID}, Text: fmt.Sprintf("lease %x was granted while it was there", l.id)})
			return
		}
	}
}

// grantedBy tells whether somebody else may have been granted a lease by the
// end of an operation.
func (l *lease) grantedBy(op *Op) bool {
	return slices.ContainsFunc(l.grants, func(g life) bool { return g.op != op && g.call <= op.Return })
}

// tooLate looks for somebody who, long after a lease should have run out, was
// answered in a state that still had its keys.
func (c *checker) tooLate(l *lease) {
	if l.unknown || slices.ContainsFunc(l.grants, func(g life) bool { return g.ret == never }) {
		return
	}
	if l.keys > 0 {
		l.held = append(l.held, held{l.since, c.head + 1})
	}
	deadline := c.deadline(l)
	for _, h := range l.held {
		for rev := h.from; rev < h.to; rev++ {
			for _, i := range c.slot[rev] {
				if in := &c.info[i]; in.serializable || in.kind == renewal || in.kind == timeToLive || c.h.Ops[i].Call <= deadline {
					continue
				}
				c.add(Violation{Rule: "L3", Ops: []int{c.h.Ops[i].ID}, Revision: rev, Text: fmt.Sprintf(
					"lease %x of %d s should have run out by %v; its keys are there at %v", l.id, l.ttl, time.Duration(deadline), time.Duration(c.h.Ops[i].Call))})
				return
			}
		}
	}
}

// deadline is when a lease must have run out. A new leader gives it its whole
// time again, and nothing is promised while faults go on.
func (c *checker) deadline(l *lease) int64 {
	grace := l.ttl*int64(time.Second)*101/100 + int64(2*c.opt.ElectionTimeout+time.Second)
	deadline := int64(math.MinInt64)
	for _, list := range [][]life{l.grants, l.renewals} {
		for _, at := range list {
			deadline = max(deadline, at.ret+grace)
		}
	}
	for again := true; again; {
		again = false
		for _, s := range c.h.Spans {
			end := s.From
			if s.Fault {
				end = s.To
			}
			if s.From <= deadline && end+grace > deadline && (s.Fault || s.Lane == "leader") {
				deadline, again = end+grace, true
			}
		}
	}
	return deadline
}

package check

import (
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

// narrowing finds which request without an answer made which revision. Several
// may fit one, so it keeps all that fit and looks for a matching: that none is
// found then means that there is none.
type narrowing struct {
	puts   map[string][]int32 // Unknown operations by what they may put: see putOf.
	others []int32            // Unknown operations that delete or revoke.
	fits   map[int64][]int32  // By revision.
	made   map[int32]int64    // By operation.
}

func (n *narrowing) index(ops []Op, infos []info) {
	n.puts = map[string][]int32{}
	n.fits, n.made = map[int64][]int32{}, map[int32]int64{}
	for i := range ops {
		k := infos[i].kind
		if k != write && k != revoke || ops[i].Outcome != Unknown || model.Validate(ops[i].Request) != nil {
			continue
		}
		eachPut(ops[i].Request, func(p *pb.PutRequest) {
			what := putOf(p.Key, p.Value)
			if p.IgnoreValue {
				what = string(p.Key)
			}
			n.puts[what] = append(n.puts[what], int32(i))
		})
		if deletes(ops[i].Request) {
			n.others = append(n.others, int32(i))
		}
	}
}

// putOf is a key with a value, under which a put is found. One that keeps the
// value there is is found under the key alone.
func putOf(key, value []byte) string {
	return strconv.Itoa(len(key)) + string(key) + string(value)
}

// deletes tells whether a request may take keys away.
func deletes(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.DeleteRangeRequest, *pb.LeaseRevokeRequest:
		return true
	case *pb.TxnRequest:
		for _, op := range append(slices.Clone(r.Success), r.Failure...) {
			if op.GetRequestDeleteRange() != nil || op.GetRequestTxn() != nil && deletes(op.GetRequestTxn()) {
				return true
			}
		}
	}
	return false
}

// explain finds out who made a revision that no write was acknowledged at.
func (c *checker) explain(rev int64) {
	events := c.log[rev]
	if len(events) == 0 {
		return // A gap: it was reported.
	}
	for _, i := range c.slot[rev] { // A revocation has its revision only if keys hung on the lease.
		if c.info[i].kind == revoke && c.fit(i, rev) {
			c.owner[rev], c.info[i].wrote = i, true
			return
		}
	}
	expired, early := c.expiry(rev)
	for _, i := range c.candidates(rev) {
		if c.h.Ops[i].Call <= c.seenBy[rev] && c.fit(i, rev) {
			c.narrow.fits[rev] = append(c.narrow.fits[rev], i)
		}
	}
	fits := len(c.narrow.fits[rev]) > 0
	if len(expired) > 0 && early == nil {
		delete(c.narrow.fits, rev) // Who of them it was is not known.
		if !fits {
			c.noteExpired(expired, rev)
		}
		return
	}
	if c.narrow.augment(rev, map[int32]bool{}) {
		return
	}
	if early != nil {
		c.add(*early)
		return
	}
	c.unexplained(rev)
}

// candidates are the unknown operations that may have made the first event of a
// revision.
func (c *checker) candidates(rev int64) []int32 {
	first := c.log[rev][0]
	if first.Type == mvccpb.Event_DELETE {
		return c.narrow.others
	}
	return append(slices.Clip(c.narrow.puts[putOf(first.Kv.Key, first.Kv.Value)]), c.narrow.puts[string(first.Kv.Key)]...)
}

// fit tells whether a request, executed now, makes the events of the next
// revision.
func (c *checker) fit(i int32, rev int64) bool {
	req := c.h.Ops[i].Request
	if r, ok := req.(*pb.LeaseRevokeRequest); ok {
		c.grantID(r.ID)
	}
	c.grantFor(req)
	before := c.m.Revision()
	_, err := c.m.Execute(req)
	if err != nil || c.m.Revision() == before {
		return false
	}
	fits := sameEvents(c.m.Events(rev, rev), c.log[rev])
	c.m.Undo()
	return fits
}

// augment finds an operation for a revision, moving others if need be.
func (n *narrowing) augment(rev int64, tried map[int32]bool) bool {
	for _, i := range n.fits[rev] {
		if tried[i] {
			continue
		}
		tried[i] = true
		if taken, ok := n.made[i]; !ok || n.augment(taken, tried) {
			n.made[i] = rev
			return true
		}
	}
	return false
}

// finish notes who made what, now that nobody is moved any more.
func (n *narrowing) finish(c *checker) {
	for i, rev := range n.made {
		c.owner[rev] = i
		c.Counts.Resolved++
	}
}

// lookedAtMax is how many violations are looked into: each look has all
// operations executed.
const lookedAtMax = 5

// unexplained says of a revision that nobody made what can be said.
func (c *checker) unexplained(rev int64) {
	v := Violation{Rule: "K1", Revision: rev, Text: fmt.Sprintf("nobody asked for %v", c.log[rev])}
	if fits := c.narrow.fits[rev]; len(fits) > 0 {
		v.Rule, v.Text = "K4", fmt.Sprintf("a request of unknown outcome took effect again, the first time at revision %d", c.narrow.made[fits[0]])
		v.Ops = []int{c.h.Ops[fits[0]].ID}
		c.add(v)
		return
	}
	for _, i := range c.candidates(rev) {
		if op := &c.h.Ops[i]; op.Call > c.seenBy[rev] && c.fit(i, rev) {
			v.Rule, v.Text, v.Ops = "K4", "a request of unknown outcome took effect before it was sent", []int{op.ID}
			c.add(v)
			return
		}
	}
	for i := range c.h.Ops {
		op, in := &c.h.Ops[i], &c.info[i]
		if c.Found >= lookedAtMax {
			break
		}
		if in.kind != write && in.kind != revoke || op.Outcome == Unknown || !c.fit(int32(i), rev) {
			continue
		}
		v.Ops = []int{op.ID}
		if op.Outcome == Refused {
			v.Rule, v.Text = "K3", fmt.Sprintf("a refused request took effect: %s", op.Error)
		} else {
			v.Text = fmt.Sprintf("an acknowledged request took effect again, the first time at revision %d", in.rev)
		}
		c.add(v)
		return
	}
	c.add(v)
}

package differential

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const (
	clients        = 8
	clientRequests = 700 // Of each.
	clientsShort   = 250 // With -short.
)

// Clients with keys of their own see the same at whatever moments the others
// write: what they put, in their order. Only revisions depend on the others.
// Each client therefore calls a revision by the number of its own request that
// made it, the same on both sides, and all others by one name.
func TestConcurrentClientsWithKeysOfTheirOwnSeeTheSame(t *testing.T) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = rand.Uint64N(1<<32) + 1
	}
	t.Logf("again: go test -C tests/compat ./differential -run TestConcurrent -seed=%d", s)
	n := clientRequests
	if testing.Short() {
		n = clientsShort
	}
	p := newPair(t, options{})
	var wg sync.WaitGroup
	for i := range clients {
		c := newClient(p, s, i)
		wg.Go(func() { c.run(n) })
	}
	wg.Wait()
}

// client is one of those who have keys of their own.
type client struct {
	*pair
	*rand.Rand
	prefix string
	lease  int64
	made   int64 // Revisions so far.
	watch  *watchPair
}

// newClient gives a client names of its own for revisions, on both sides.
func newClient(p *pair, seed uint64, number int) *client {
	c := &client{
		pair:   &pair{t: p.t, options: p.options},
		Rand:   rand.New(rand.NewPCG(seed, uint64(number))),
		prefix: fmt.Sprintf("client%d/", number),
		lease:  int64(100 + number),
	}
	ours, theirs := *p.ours, *p.theirs
	c.ours, c.theirs = &ours, &theirs
	for _, side := range c.sides() {
		side.names = newNames(side)
		c.introduce(side)
		side.names.revisions = true
	}
	c.ours.names.first = true
	c.stopAfter = 3
	return c
}

func (c *client) key() []byte { return fmt.Append(nil, c.prefix, c.IntN(6)) }

func (c *client) all() (key, end []byte) {
	return []byte(c.prefix), []byte(c.prefix[:len(c.prefix)-1] + "0")
}

// at is a revision that this client has made, or none.
func (c *client) at() int64 {
	if c.made == 0 || c.IntN(3) > 0 {
		return 0
	}
	return revisionNames + 1 + c.Int64N(c.made)
}

func (c *client) run(n int) {
	c.call(&pb.LeaseGrantRequest{ID: c.lease, TTL: 10_000})
	c.watch = emptyWatchPair(c.pair)
	key, end := c.all()
	c.watch.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: key, RangeEnd: end, PrevKv: true},
	}})
	for _, w := range c.watch.sides() {
		if !w.wait(settleTimeout, func() bool { return len(w.created) == 1 }) {
			c.t.Errorf("%s: no watch of %s", w.side.side, c.prefix)
		}
	}
	for c.sent = 0; c.sent < n && !c.spent(); c.sent++ {
		c.call(c.request())
	}
	if c.parted.Load() {
		return // What follows differs for the reason that a row gives.
	}
	c.call(&pb.DeleteRangeRequest{Key: key, RangeEnd: end})
	c.call(put(c.prefix, "last"))
	for _, w := range c.watch.sides() {
		last := revisionNames + c.made
		if !w.wait(settleTimeout, func() bool { return w.side.names.revision(w.last[0]) == last }) {
			c.t.Errorf("%s: the watch of %s ends at %d, want %x", w.side.side, c.prefix, w.last[0], last)
		}
		for _, event := range w.logs[0] {
			w.side.names.inward(event)
		}
	}
	c.watch.compareLogs()
}

// call sends a request and names the revision that it made, before the
// answers are compared.
func (c *client) call(req proto.Message) {
	c.t.Helper()
	name, m := methodOf(req)
	ours, theirs := both(c.pair, func(side *target) answer { return side.call(c.t.Context(), m, req) })
	covered.request(name, req)
	covered.answer(ours)
	c.made++
	mine, other := c.header(c.pair.ours, ours), c.header(c.pair.theirs, theirs)
	if writes(req, ours) {
		c.pair.ours.names.learn(revision, uint64(mine), uint64(revisionNames+c.made))
		c.pair.theirs.names.learn(revision, uint64(other), uint64(revisionNames+c.made))
	} else {
		c.made--
	}
	c.compare(name, req, c.rename(c.pair.ours, ours), c.rename(c.pair.theirs, theirs))
	if (ours.msg == nil) != (theirs.msg == nil) { // By a row of those where one side writes.
		c.parted.Store(true)
	}
}

// header takes the revision out of the header of an answer: where others write
// meanwhile it is nobody's.
func (c *client) header(side *target, a answer) int64 {
	if a.msg == nil {
		return 0
	}
	h := a.msg.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
	at := h.Revision
	h.Revision = 0
	return at
}

func (c *client) rename(side *target, a answer) answer {
	if a.msg != nil {
		if r, isTxn := a.msg.(*pb.TxnResponse); isTxn {
			forget(r)
		}
		side.names.inward(a.msg)
	}
	return a
}

// forget takes the revisions out of the headers of a transaction's parts.
func forget(r *pb.TxnResponse) {
	for _, op := range r.Responses {
		for _, part := range []interface{ GetHeader() *pb.ResponseHeader }{
			op.GetResponseRange(), op.GetResponsePut(), op.GetResponseDeleteRange(), op.GetResponseTxn(),
		} {
			if h := part.GetHeader(); h != nil {
				h.Revision = 0
			}
		}
		if inner := op.GetResponseTxn(); inner != nil {
			forget(inner)
		}
	}
}

// writes tells whether a request made a revision.
func writes(req proto.Message, a answer) bool {
	switch r := a.msg.(type) {
	case *pb.PutResponse:
		return true
	case *pb.DeleteRangeResponse:
		return r.Deleted > 0
	case *pb.TxnResponse:
		for _, op := range r.Responses {
			if op.GetResponsePut() != nil || op.GetResponseDeleteRange().GetDeleted() > 0 ||
				op.GetResponseTxn() != nil && writes(nil, answer{msg: op.GetResponseTxn()}) {
				return true
			}
		}
	}
	return false
}

func (c *client) request() proto.Message {
	key, end := c.all()
	switch n := c.IntN(100); {
	case n < 25:
		return c.put()
	case n < 35:
		return &pb.RangeRequest{Key: c.key(), Revision: c.at()}
	case n < 55:
		r := &pb.RangeRequest{
			Key: key, RangeEnd: end, Revision: c.at(), Limit: c.Int64N(4), CountOnly: n == 35, KeysOnly: n == 36,
			SortTarget: pb.RangeRequest_SortTarget(c.IntN(5)), SortOrder: pb.RangeRequest_SortOrder(c.IntN(3)), MinModRevision: c.at(), MaxCreateRevision: c.at(),
		}
		return r
	case n < 65:
		return &pb.DeleteRangeRequest{Key: c.key(), PrevKv: true}
	case n < 66:
		return &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: true}
	case n < 70:
		return &pb.LeaseTimeToLiveRequest{ID: c.lease, Keys: true}
	}
	return c.txn(2)
}

func (c *client) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: c.key(), Value: fmt.Append(nil, c.IntN(3)), PrevKv: c.IntN(2) == 0}
	switch c.IntN(6) {
	case 0:
		r.Lease = c.lease
	case 1:
		r.IgnoreLease = true
	case 2:
		r.IgnoreValue, r.Value = true, nil
	}
	return r
}

func (c *client) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range c.IntN(3) {
		cmp := &pb.Compare{Key: c.key(), Result: pb.Compare_CompareResult(c.IntN(4))}
		switch cmp.Target = pb.Compare_CompareTarget(c.IntN(5)); cmp.Target {
		case pb.Compare_VERSION:
			cmp.TargetUnion = &pb.Compare_Version{Version: c.Int64N(3)}
		case pb.Compare_CREATE:
			cmp.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.at()}
		case pb.Compare_MOD:
			cmp.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.at()}
		case pb.Compare_VALUE:
			cmp.TargetUnion = &pb.Compare_Value{Value: fmt.Append(nil, c.IntN(3))}
		case pb.Compare_LEASE:
			cmp.TargetUnion = &pb.Compare_Lease{Lease: c.lease}
		}
		t.Compare = append(t.Compare, cmp)
	}
	for _, branch := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		for range c.IntN(3) {
			switch n := c.IntN(6); {
			case n < 2:
				*branch = append(*branch, putOp(c.put()))
			case n == 2:
				*branch = append(*branch, deleteOp(&pb.DeleteRangeRequest{Key: c.key(), PrevKv: true}))
			case n == 3 && depth > 0:
				*branch = append(*branch, txnOp(c.txn(depth-1)))
			default:
				key, end := c.all()
				*branch = append(*branch, rangeOp(&pb.RangeRequest{Key: key, RangeEnd: end}))
			}
		}
	}
	return t
}

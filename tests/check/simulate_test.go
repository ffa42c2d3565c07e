package check

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

const ms = int64(1e6)

// cluster makes right histories: clients that call at the same time, each
// request taking effect on a model at some moment between call and return, or
// later if nobody waits for it.
type cluster struct {
	*rand.Rand
	d     *model.Draw
	m     *model.Store
	h     *History
	now   int64
	queue []job
	heads []sighting      // When the model came to a revision.
	ends  map[int64]int64 // When leases run out.
	ttls  map[int64]int64
	calm  bool // Keys only: no leases, compactions, failures that need a reason, or stale reads.
	plain bool // Puts and gets of one key at a time.
}

type job struct {
	at int64
	do func()
}

func newCluster(seed uint64) *cluster {
	r := rand.New(rand.NewPCG(seed, 0))
	c := &cluster{Rand: r, d: model.NewDraw(r), m: model.New(), h: &History{}, ends: map[int64]int64{}, ttls: map[int64]int64{}}
	c.m.TTLMin = 1
	c.heads = []sighting{{0, 1}}
	return c
}

func (c *cluster) later(delay int64, do func()) { c.queue = append(c.queue, job{c.now + delay, do}) }

// run has clients send so many requests in all.
func (c *cluster) run(clients, ops int) *History {
	for client := range clients {
		c.later(c.Int64N(10*ms), func() { c.client(client, ops) })
	}
	for len(c.queue) > 0 {
		i := 0
		for j := range c.queue {
			if c.queue[j].at < c.queue[i].at {
				i = j
			}
		}
		next := c.queue[i]
		c.queue = slices.Delete(c.queue, i, i+1)
		c.now = next.at
		next.do()
		if rev := c.m.Revision(); rev > c.heads[len(c.heads)-1].rev {
			c.heads = append(c.heads, sighting{c.now, rev})
		}
	}
	c.h.Log = c.m.Events(1, c.m.Revision())
	c.h.Head = c.m.Revision()
	return c.h
}

func (c *cluster) client(client, ops int) {
	if len(c.h.Ops) >= ops {
		return
	}
	i := len(c.h.Ops)
	c.h.Ops = append(c.h.Ops, Op{ID: i, Client: client, Member: client % 3, Call: c.now, Request: c.request()})
	again := func() { c.later(1+c.Int64N(5*ms), func() { c.client(client, ops) }) }
	switch n := c.IntN(100); {
	case n < 3 && !c.calm:
		c.later(1+c.Int64N(5*ms), func() {
			c.h.Ops[i].Outcome, c.h.Ops[i].Error, c.h.Ops[i].Return = Refused, "etcdserver: no leader", c.now
			again()
		})
	case n < 8: // No answer comes, and it takes effect or not.
		if n > 5 {
			c.later(1+c.Int64N(200*ms), func() {
				res, _ := c.m.Execute(c.h.Ops[i].Request)
				c.granted(res)
			})
		}
		c.later(5*ms, func() { c.client(client, ops) })
	default:
		c.later(1+c.Int64N(5*ms), func() {
			c.execute(i)
			c.later(1+c.Int64N(5*ms), func() {
				c.h.Ops[i].Return = c.now
				again()
			})
		})
	}
}

func (c *cluster) request() proto.Message {
	if c.plain {
		key := c.d.Keys[c.IntN(len(c.d.Keys))]
		if c.IntN(2) == 0 {
			return &pb.RangeRequest{Key: key}
		}
		return &pb.PutRequest{Key: key, Value: []byte{byte(c.IntN(256)), byte(c.IntN(256)), byte(c.IntN(256))}}
	}
	for {
		switch r := c.d.Request(c.m).(type) {
		case *pb.LeaseGrantRequest, *pb.LeaseRevokeRequest, *pb.CompactionRequest:
			if !c.calm {
				return r
			}
		case *pb.RangeRequest:
			if c.calm {
				r.Serializable = false
			}
			return r
		case *pb.TxnRequest:
			if _, serializable := kindOf(r); !c.calm || !serializable {
				return r
			}
		default:
			return r
		}
	}
}

// execute has a request take effect now.
func (c *cluster) execute(i int) {
	op := &c.h.Ops[i]
	if r, ok := op.Request.(*pb.RangeRequest); ok && r.Serializable && r.Revision == 0 && c.IntN(2) == 0 {
		c.stale(op, r)
		return
	}
	if r, ok := op.Request.(*pb.LeaseRevokeRequest); ok && c.IntN(3) == 0 {
		op.Request = &pb.LeaseKeepAliveRequest{ID: r.ID}
		c.renew(op, r.ID)
		return
	}
	res, err := c.m.Execute(op.Request)
	if err != nil {
		op.Outcome, op.Error = Refused, err.Error()
		return
	}
	op.Outcome, op.Response = Acknowledged, res
	c.granted(res)
}

func (c *cluster) granted(res proto.Message) {
	if g, ok := res.(*pb.LeaseGrantResponse); ok {
		c.lease(g.ID, g.TTL)
	}
}

// stale answers as a member does that is behind.
func (c *cluster) stale(op *Op, r *pb.RangeRequest) {
	rev := max(c.m.Revision()-c.Int64N(3), c.m.Compacted(), 1)
	for i := range c.h.Ops { // Never behind what it showed before.
		if o := &c.h.Ops[i]; o.Member == op.Member && o.Client == op.Client && o.Outcome == Acknowledged {
			rev = max(rev, o.Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision())
		}
	}
	then := proto.Clone(r).(*pb.RangeRequest)
	then.Revision = rev
	res, err := c.m.Execute(then)
	if err != nil {
		op.Outcome, op.Error = Refused, err.Error()
		return
	}
	res.(*pb.RangeResponse).Header.Revision = rev
	op.Outcome, op.Response = Acknowledged, res
}

func (c *cluster) renew(op *Op, id int64) {
	res := &pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{Revision: c.m.Revision()}, ID: id}
	if slices.Contains(c.m.Leases(), id) {
		res.TTL = c.ttls[id]
		c.lease(id, res.TTL)
	}
	op.Outcome, op.Response = Acknowledged, res
}

// lease gives a lease its time.
func (c *cluster) lease(id, ttl int64) {
	c.ttls[id] = ttl
	end := c.now + ttl*int64(1e9) + c.Int64N(500*ms)
	c.ends[id] = end
	if ttl > 10 {
		return
	}
	c.later(end-c.now, func() {
		if c.ends[id] == c.now && slices.Contains(c.m.Leases(), id) {
			c.m.Expire(id)
		}
	})
}

// watch adds a watcher that saw everything, in answers of several revisions.
func (c *cluster) watch(id int, req *pb.WatchCreateRequest) {
	at := c.heads[c.IntN(len(c.heads))]
	w := Watch{ID: id, Client: 100 + id, Request: req, Call: at.time, Open: true}
	see := func(time int64, r *pb.WatchResponse) { w.Seen = append(w.Seen, WatchSeen{time, r}) }
	see(at.time+1, &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: at.rev}, Created: true})
	start := req.StartRevision
	if start == 0 {
		start = at.rev + 1
	}
	f := &follower{asked: req}
	r := &pb.WatchResponse{Header: &pb.ResponseHeader{}}
	flush := func(rev int64) {
		i, _ := slices.BinarySearchFunc(c.heads, rev, func(s sighting, rev int64) int { return cmp.Compare(s.rev, rev) })
		r.Header.Revision = rev
		if time := max(at.time+2, c.heads[i].time+ms); len(r.Events) > 0 || rev >= req.StartRevision {
			see(time, r)
		}
		r = &pb.WatchResponse{Header: &pb.ResponseHeader{}}
	}
	for rev := start; rev <= c.m.Revision(); rev++ {
		for _, e := range c.m.Events(rev, rev) {
			if !f.matches(e) {
				continue
			}
			seen := &mvccpb.Event{Type: e.Type, Kv: e.Kv}
			if req.PrevKv {
				seen.PrevKv = c.m.Get(string(e.Kv.Key), rev-1)
			}
			r.Events = append(r.Events, seen)
		}
		if c.IntN(4) == 0 || rev == c.m.Revision() {
			flush(rev)
		}
	}
	c.h.Watches = append(c.h.Watches, w)
}

func (c *cluster) watches(n int) {
	for i := range n {
		req := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: i%2 == 0}
		switch i % 5 {
		case 1:
			req.Key, req.RangeEnd = []byte("dir/"), []byte("dir0")
		case 2:
			req.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_FilterType(c.IntN(2))}
		case 3:
			req.Key, req.RangeEnd = c.d.Keys[c.IntN(len(c.d.Keys))], nil
		}
		if i%3 > 0 {
			req.StartRevision = 1 + c.Int64N(c.m.Revision()+5)
		}
		c.watch(i+1, req)
	}
}

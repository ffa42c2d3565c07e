package sim

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/auth"
	"github.com/holdfast-db/holdfast/tests/check"
)

// client asks one member after the other, one request at a time, as long as the
// world lets it. What it asks comes from its own chance.
type client struct {
	w      *World
	id     int
	chance *raftnodetest.Random
	at     ident.MemberID
	serial int // Of the request under way: late answers are for nobody.
	quiet  bool

	shown   map[ident.MemberID]shown // What serializable reads have shown.
	leases  []*heldLease
	watches []*watcher
	named   int

	user  string // Empty: nobody.
	token uint64 // The revision of users and roles that its token is good for.
}

// shown is the revision that a boot of a member has shown.
type shown struct {
	boot     uint64
	revision int64
}

// heldLease is a lease that a client keeps alive for a while.
type heldLease struct {
	id    int64
	ttl   int64
	until int64
}

func (w *World) addClients() {
	for i := range w.cfg.Clients {
		c := &client{w: w, id: i, chance: stream(w.cfg.Seed, "client "+itoa(i)), shown: map[ident.MemberID]shown{}}
		if w.cfg.Users > 0 {
			if c.user = auth.Root; i%2 > 0 {
				c.user = "u" + itoa(i/2%w.cfg.Users)
			}
		}
		w.clients = append(w.clients, c)
		w.after(w.between(0, second), c.next)
		if i < w.cfg.Watchers {
			w.after(w.between(0, second), c.watch)
		}
	}
	w.addAuthority()
}

// member is the one that the client talks to; another one when that is no use.
func (c *client) member(other bool) *Member {
	if m := c.w.members[c.at]; !other && m != nil && m.serves() {
		return m
	}
	ids := c.w.ids
	c.at = ids[c.chance.Below(len(ids))]
	return c.w.members[c.at]
}

// serves reports whether clients can connect.
func (m *Member) serves() bool {
	return m.alive && m.ready && !m.shown.Learner && !m.leaving
}

// next asks the next thing.
func (c *client) next() {
	if c.quiet {
		return
	}
	c.w.note(6, uint64(c.id))
	m := c.member(false)
	if !m.serves() {
		c.w.count.Ops["refused: no connection"]++
		c.at = 0
		c.think(4)
		return
	}
	req := c.request()
	if c.chance.Chance(30) {
		c.at = 0 // The next one goes to another member.
	}
	c.call(m, req)
}

// think waits before the next request.
func (c *client) think(factor int64) {
	lo, hi := c.w.cfg.ThinkMin, c.w.cfg.ThinkMax
	d := lo
	if hi > lo {
		d += int64(c.chance.Next() % uint64(hi-lo))
	}
	c.w.after(d*factor, c.next)
}

// call sends a request and goes on when it is answered, or has taken too long.
func (c *client) call(m *Member, req proto.Message) {
	w := c.w
	c.serial++
	serial := c.serial
	rec := len(w.history.Ops)
	w.history.Ops = append(w.history.Ops, check.Op{
		ID: rec + 1, Client: c.id, Member: int(m.id), Call: w.now * 1000, Request: req,
	})
	done := false
	finish := func(answer proto.Message, err error) {
		if done {
			return
		}
		done = true
		o := &w.history.Ops[rec]
		o.Return = w.now*1000 + 1
		o.Outcome, o.Error = c.w.outcomeOf(err)
		if err == nil {
			o.Response = answer
		}
		w.note(7, uint64(c.id), uint64(o.Outcome), hashText(o.Error))
		w.answered(o)
		if c.serial == serial {
			factor := int64(1)
			if o.Outcome == check.Unknown {
				c.at, factor = 0, 3
			}
			c.think(factor)
		}
	}
	w.after(w.cfg.ClientTimeout, func() { finish(nil, context.DeadlineExceeded) })
	if m.paused(func() {
		if m.serves() {
			c.ask(m, req, finish)
			m.settle()
		} else {
			finish(nil, errConnection)
		}
	}) {
		return
	}
	c.ask(m, req, finish)
	m.settle()
}

// answered counts an outcome. Clients of the whole world see the phases.
func (w *World) answered(o *check.Op) {
	name := fmt.Sprintf("%s %s", o.Outcome, o.Request.ProtoReflect().Descriptor().Name())
	w.count.Ops[name]++
	if o.Outcome != check.Acknowledged {
		return
	}
	w.acknowledged++
	switch w.phase {
	case safety:
		w.ackedUnderFaults++
	case majority, healed:
		w.ackedHealed++
	}
}

// ask has a member do a request, as the services of package server do.
func (c *client) ask(m *Member, req proto.Message, then func(proto.Message, error)) {
	floor := uint64(c.w.check.Acknowledged)
	switch r := req.(type) {
	case *pb.RangeRequest:
		if r.Serializable {
			c.read(m, r, 0, then)
			return
		}
		m.read(func() { c.read(m, r, floor, then) })
	case *pb.TxnRequest:
		if !statemachine.ReadOnly(r) {
			c.propose(m, req, then)
			return
		}
		if statemachine.Serializable(r) {
			c.readTxn(m, r, 0, then)
			return
		}
		m.read(func() { c.readTxn(m, r, floor, then) })
	default:
		c.propose(m, req, then)
	}
}

func (c *client) propose(m *Member, req proto.Message, then func(proto.Message, error)) {
	m.propose(c.sign(m, c.w.command(req)), func(value any, err error) {
		if err != nil {
			if errors.Is(err, auth.ErrOldRevision) {
				c.token = 0 // It logs in again.
			}
			then(nil, err)
			return
		}
		answer := value.(proto.Message)
		if g, ok := answer.(*pb.LeaseGrantResponse); ok {
			c.hold(g)
		}
		then(answer, nil)
	})
}

func (c *client) read(m *Member, r *pb.RangeRequest, floor uint64, then func(proto.Message, error)) {
	if err := c.denied(m, r, floor); err != nil {
		then(nil, err)
		return
	}
	answer, err := m.rangeOf(r)
	c.w.shadow.checkRange(m, r, answer, err)
	if err == nil {
		c.sees(m, answer.Header.Revision)
	}
	then(answer, err)
}

// sees checks that one member does not go back in the eyes of one client.
func (c *client) sees(m *Member, revision int64) {
	c.w.check.Fired["K5"]++
	old := c.shown[m.id]
	if old.boot == m.boot && revision < old.revision {
		c.w.fail("K5: member %s shows client %d revision %d after %d", m.id, c.id, revision, old.revision)
	}
	c.shown[m.id] = shown{m.boot, revision}
}

func (m *Member) rangeOf(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	store, err := m.replica.Use()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	v := store.View()
	defer v.Release()
	res, err := v.Range(context.Background(), statemachine.RangeArgs(r))
	if err != nil {
		return nil, err
	}
	answer := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: int64(res.Revision)}, More: res.More, Count: res.Count}
	for _, row := range res.KVs {
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(row); err != nil {
			m.w.fail("S1: member %s serves a row that cannot be read: %v", m.id, err)
		}
		answer.Kvs = append(answer.Kvs, kv)
	}
	return answer, nil
}

func (c *client) readTxn(m *Member, r *pb.TxnRequest, floor uint64, then func(proto.Message, error)) {
	if err := c.denied(m, r, floor); err != nil {
		then(nil, err)
		return
	}
	m.readTxn(r, then)
}

func (m *Member) readTxn(r *pb.TxnRequest, then func(proto.Message, error)) {
	store, err := m.replica.Use()
	if err != nil {
		then(nil, err)
		return
	}
	defer store.Release()
	v := store.View()
	defer v.Release()
	answer, err := statemachine.ReadTxn(context.Background(), v, r)
	same := int64(v.Compacted()) == m.w.shadow.model.Compacted() // A compaction makes no revision.
	if err == nil && same && answer.Header.Revision == m.w.shadow.model.Revision() {
		want, modelErr := m.w.shadow.model.Execute(r)
		m.w.check.Fired["K6"]++
		if modelErr != nil || !proto.Equal(want, answer) {
			m.w.fail("K6: member %s answers %v with %v, expected %v, %v", m.id, r, answer, want, modelErr)
		}
	}
	if err != nil && m.blame(err) == "" {
		if _, outcome := inWords(err); !outcome {
			m.w.fail("S1: member %s cannot read: %v", m.id, err)
		}
	}
	then(answer, err)
}

// hold keeps a lease alive for a while.
func (c *client) hold(g *pb.LeaseGrantResponse) {
	l := &heldLease{id: g.ID, ttl: g.TTL, until: c.w.now + int64(c.chance.Below(12))*second}
	c.leases = append(c.leases, l)
	c.w.after(g.TTL*second/3, func() { c.keepAlive(l) })
}

func (c *client) keepAlive(l *heldLease) {
	if c.quiet || c.w.now > l.until {
		return
	}
	m := c.member(c.chance.Chance(20))
	if !m.serves() || m.pausedUntil > c.w.now {
		c.w.after(200*millisecond, func() { c.keepAlive(l) })
		return
	}
	w := c.w
	rec := len(w.history.Ops)
	w.history.Ops = append(w.history.Ops, check.Op{
		ID: rec + 1, Client: c.id, Member: int(m.id), Call: w.now * 1000, Request: &pb.LeaseKeepAliveRequest{ID: l.id},
	})
	head := int64(m.replica.Store().Head())
	m.renew(ident.LeaseID(l.id), func(ttl int64, err error) {
		o := &w.history.Ops[rec]
		o.Return = w.now*1000 + 1
		o.Outcome, o.Error = c.w.outcomeOf(err)
		if err == nil {
			o.Response = &pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{Revision: head}, ID: l.id, TTL: ttl}
		}
		w.answered(o)
	})
	m.settle()
	w.after(l.ttl*second/3, func() { c.keepAlive(l) })
}

package sim

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/tests/model"
)

// Shadow executes the log on the model, at the moment the first member applies
// an entry, and holds every member's answers against what the model answered. So
// it knows what the state is at each revision, and checks reads and watches.
type Shadow struct {
	w       *World
	model   *model.Store
	next    ident.Index
	answers map[ident.Index][]expected // Of entries with requests.
	leases  map[int64]*leaseTime
	rights  []since // Who might do what, from the first on.
	reads   int     // Checked.
	writes  int     // Requests executed.
}

// expected is what a request must be answered with.
type expected struct {
	known bool // Not one of those that manage the cluster.
	value []byte
	err   string
	deny  error // It is not permitted.
}

// leaseTime is when a lease may run out.
type leaseTime struct {
	ttl     int64
	renewed int64 // When a member last handled a grant or renewal that was acknowledged.
}

func newShadow(w *World) *Shadow {
	s := &Shadow{w: w, model: model.New(), next: start.Index + 1, answers: map[ident.Index][]expected{}, leases: map[int64]*leaseTime{}}
	s.rights = []since{{0, noRights()}}
	s.model.TTLMin = leaseTTLMin
	return s
}

// stateOf is equal where members have applied the same.
func (w *World) stateOf(store *mvcc.Store) uint64 {
	s := store.Applied()
	h := hashBytes(s.Digest[:])
	for _, v := range []uint64{uint64(s.Position.Index), uint64(s.Term), uint64(s.Time), uint64(s.Revision), uint64(s.Compacted), hashBytes(s.ConfState)} {
		h = (h ^ v) * fnvPrime
		h ^= h >> 29
	}
	return h
}

// applied checks the answers of a member to a run of entries.
func (s *Shadow) applied(m *Member, entries []entry.Entry, answers []entry.Answer) {
	for i := range entries {
		e := &entries[i]
		n := len(e.Requests)
		if e.Conf != nil {
			n++
		}
		if len(answers) < n {
			s.w.fail("member %s answers %d requests of entry %d with %d", m.id, n, e.Index, len(answers))
		}
		if e.Conf == nil {
			s.entry(m, e, answers[:n])
		} else if e.Index == s.next {
			s.next++
		}
		answers = answers[n:]
	}
}

func (s *Shadow) entry(m *Member, e *entry.Entry, answers []entry.Answer) {
	if e.Index == s.next {
		s.next++
		if len(e.Requests) > 0 {
			list := make([]expected, len(e.Requests))
			for i := range e.Requests {
				list[i] = s.execute(e, &e.Requests[i], &answers[i])
			}
			s.answers[e.Index] = list
		}
	}
	if e.Index >= s.next {
		s.w.fail("member %s applies entry %d, nobody has applied %d", m.id, e.Index, s.next)
	}
	for i, want := range s.answers[e.Index] {
		s.w.check.Fired["A3"]++
		if err := want.differs(&answers[i]); err != nil {
			s.w.fail("A3: member %s, entry %d, request %d: %v", m.id, e.Index, i, err)
		}
	}
}

// execute runs a request on the model. What changes users and roles is done if
// the first member says so: the others have the same digest.
func (s *Shadow) execute(e *entry.Entry, r *entry.Request, first *entry.Answer) expected {
	cmd := &holdfastpb.Command{}
	if err := cmd.UnmarshalVT(r.Data); err != nil {
		s.w.fail("decode the command of entry %d: %v", e.Index, err)
	}
	if err := s.permitted(cmd); err != nil {
		return expected{known: true, deny: err}
	}
	var req proto.Message
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Put:
		req = c.Put
	case *holdfastpb.Command_DeleteRange:
		req = c.DeleteRange
	case *holdfastpb.Command_Txn:
		req = c.Txn
	case *holdfastpb.Command_Compaction:
		req = c.Compaction
	case *holdfastpb.Command_LeaseGrant:
		req = &pb.LeaseGrantRequest{ID: c.LeaseGrant.Id, TTL: c.LeaseGrant.Ttl}
	case *holdfastpb.Command_LeaseRevoke:
		req = &pb.LeaseRevokeRequest{ID: c.LeaseRevoke.Id}
	case *holdfastpb.Command_LeaseExpire:
		return s.expire(e, c.LeaseExpire)
	default:
		if first.Err == nil {
			s.changed(uint64(e.Index), cmd)
		}
		return expected{}
	}
	s.writes++
	before := s.model.Revision()
	answer, err := s.model.Execute(req)
	s.w.check.Fired["A3 revision"]++
	if now := s.model.Revision(); now != before && now != before+1 || err != nil && now != before {
		s.w.fail("the model goes from revision %d to %d", before, now)
	}
	if err != nil {
		return expected{known: true, err: err.Error()}
	}
	if g, ok := answer.(*pb.LeaseGrantResponse); ok {
		s.leases[g.ID] = &leaseTime{ttl: g.TTL, renewed: s.w.now}
	}
	value, err := answer.(interface{ MarshalVT() ([]byte, error) }).MarshalVT()
	if err != nil {
		s.w.fail("encode an answer of the model: %v", err)
	}
	return expected{known: true, value: value}
}

// expire takes leases away if the leader of the entry's term found that they
// had run out.
func (s *Shadow) expire(e *entry.Entry, c *holdfastpb.LeaseExpire) expected {
	if ident.Term(c.Term) != e.Term {
		s.w.count.Reached["lease expiry of another term"]++
		return expected{known: true, err: statemachine.ErrTerm.Error()}
	}
	alive := map[int64]bool{}
	for _, id := range s.model.Leases() {
		alive[id] = true
	}
	for _, id := range c.Ids {
		if l := s.leases[id]; alive[id] && l != nil {
			s.w.check.Fired["L1"]++
			s.w.count.Reached["lease expired"]++
			if lived := s.w.now - l.renewed; lived < l.ttl*second*98/100 {
				s.w.fail("L1: lease %d of %d s is taken away %s s after its renewal", id, l.ttl, clockText(lived))
			}
		}
	}
	s.model.Expire(c.Ids...)
	return expected{known: true}
}

func (x *expected) differs(a *entry.Answer) error {
	if !x.known {
		return nil
	}
	if x.deny != nil {
		if !errors.Is(a.Err, x.deny) {
			return fmt.Errorf("U1: answer %v, error %v, expected %q", a.Value, a.Err, x.deny)
		}
		return nil
	}
	if a.Err != nil {
		text, ok := inWords(a.Err)
		if !ok && errors.Is(a.Err, statemachine.ErrTerm) {
			text, ok = statemachine.ErrTerm.Error(), true
		}
		if !ok || text != x.err {
			return fmt.Errorf("error %q (%v), expected %q", text, a.Err, x.err)
		}
		return nil
	}
	if x.err != "" {
		return fmt.Errorf("answer %v, expected error %q", a.Value, x.err)
	}
	got, ok := a.Value.(interface{ MarshalVT() ([]byte, error) })
	if !ok {
		return nil // An expiry has no answer.
	}
	value, err := got.MarshalVT()
	if err != nil {
		return err
	}
	if !bytes.Equal(value, x.value) {
		return fmt.Errorf("answer %v differs from the model's", a.Value)
	}
	return nil
}

// checkRange holds a read of one member against the model.
func (s *Shadow) checkRange(m *Member, req *pb.RangeRequest, got *pb.RangeResponse, err error) {
	w := s.w
	store := m.replica.Store()
	head, compacted := int64(store.Head()), int64(store.Compacted())
	if head > s.model.Revision() {
		w.fail("A3: member %s is at revision %d, the model at %d", m.id, head, s.model.Revision())
	}
	s.reads++
	w.check.Fired["K7"]++
	at := req.Revision
	switch {
	case at > head:
		if !errors.Is(err, mvcc.ErrFutureRevision) {
			w.fail("K7: member %s at %d answers a read of the future revision %d: %v", m.id, head, at, err)
		}
		return
	case at > 0 && at < compacted:
		if !errors.Is(err, mvcc.ErrCompacted) {
			w.fail("K7: member %s compacted to %d answers a read at %d: %v", m.id, compacted, at, err)
		}
		return
	case err != nil:
		if m.blame(err) == "" {
			w.fail("S1: member %s cannot read: %v", m.id, err)
		}
		w.count.Reached["read refused by a damaged member"]++
		return
	case at <= 0:
		at = head
	}
	if got.Header.Revision != head {
		w.fail("K5: member %s at %d answers with header revision %d", m.id, head, got.Header.Revision)
	}
	s.compareRange(m, req, got, at)
}

func (s *Shadow) compareRange(m *Member, req *pb.RangeRequest, got *pb.RangeResponse, at int64) {
	w := s.w
	past := proto.CloneOf(req)
	past.Revision = at
	answer, err := s.model.Execute(past)
	if err != nil { // The model is ahead, and has compacted it.
		plain := req.Limit == 0 && !req.KeysOnly && !req.CountOnly && req.SortOrder == pb.RangeRequest_NONE && req.SortTarget == pb.RangeRequest_KEY &&
			req.MinModRevision == 0 && req.MaxModRevision == 0 && req.MinCreateRevision == 0 && req.MaxCreateRevision == 0
		if !plain || !errors.Is(err, model.ErrCompacted) {
			w.count.Reached["read of a past that the model has compacted"]++
			return
		}
		want := &pb.RangeResponse{}
		for _, kv := range s.model.At(at) {
			if model.Within(string(kv.Key), req.Key, req.RangeEnd) {
				want.Kvs = append(want.Kvs, kv)
			}
		}
		want.Count = int64(len(want.Kvs))
		answer = want
	}
	want := answer.(*pb.RangeResponse)
	w.check.Fired["K8"]++
	if want.Count != got.Count || want.More != got.More || len(want.Kvs) != len(got.Kvs) {
		w.fail("K8: member %s answers %v at %d: count %d more %v rows %d, expected %d, %v, %d", m.id, req, at,
			got.Count, got.More, len(got.Kvs), want.Count, want.More, len(want.Kvs))
	}
	for i := range want.Kvs {
		if !sameKV(want.Kvs[i], got.Kvs[i]) {
			w.fail("K7: member %s answers %v at %d: row %d is %v, expected %v", m.id, req, at, i, got.Kvs[i], want.Kvs[i])
		}
	}
}

func sameKV(a, b *mvccpb.KeyValue) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.CreateRevision == b.CreateRevision &&
		a.ModRevision == b.ModRevision && a.Version == b.Version && a.Lease == b.Lease
}

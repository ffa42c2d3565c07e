package check

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

// scene is a history made by hand: one thing after the other, 10 ms each, right
// until something is changed.
type scene struct {
	*History
	m   *model.Store
	now int64
	opt Options
}

// do has one client send a request that takes 5 ms.
func (s *scene) do(req proto.Message) *Op {
	s.now += 10 * ms
	op := Op{ID: len(s.Ops) + 1, Call: s.now, Return: s.now + 5*ms, Request: req, Outcome: Acknowledged}
	res, err := s.m.Execute(req)
	if op.Response = res; err != nil {
		op.Outcome, op.Error = Refused, err.Error()
	}
	s.Ops = append(s.Ops, op)
	return &s.Ops[len(s.Ops)-1]
}

func (s *scene) put(key, value string) *Op {
	return s.do(&pb.PutRequest{Key: []byte(key), Value: []byte(value), PrevKv: true})
}

func (s *scene) get(key string) *Op { return s.do(&pb.RangeRequest{Key: []byte(key)}) }

func (s *scene) lost(op *Op) { op.Outcome, op.Response, op.Return = Unknown, nil, 0 }

func (s *scene) op(id int) *Op { return &s.Ops[id-1] }

func (s *scene) header(id int) *pb.ResponseHeader {
	return s.op(id).Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
}

// renew keeps a lease alive.
func (s *scene) renew(id, ttl int64) *Op {
	s.now += 10 * ms
	s.Ops = append(s.Ops, Op{
		ID: len(s.Ops) + 1, Call: s.now, Return: s.now + 5*ms, Outcome: Acknowledged, Request: &pb.LeaseKeepAliveRequest{ID: id},
		Response: &pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{Revision: s.m.Revision()}, ID: id, TTL: ttl},
	})
	return &s.Ops[len(s.Ops)-1]
}

// newScene writes k1 to k3 at revisions 2 to 4, then k1 again at 5, deletes k2
// at 6, and reads; operation n is the nth.
func newScene() *scene {
	s := &scene{History: &History{}, m: model.New()}
	for _, kv := range []string{"k1=a", "k2=b", "k3=c", "k1=d"} {
		key, value, _ := strings.Cut(kv, "=")
		s.put(key, value)
	}
	s.do(&pb.DeleteRangeRequest{Key: []byte("k2"), PrevKv: true})
	s.get("k1") // 6.
	s.do(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), SortOrder: pb.RangeRequest_DESCEND})
	s.do(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 4})
	s.do(&pb.RangeRequest{Key: []byte("k1"), Serializable: true})
	s.do(&pb.TxnRequest{ // 10, at revision 7.
		Compare: []*pb.Compare{{Key: []byte("k3"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1}}},
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t1"), Value: []byte("x")}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t2"), Value: []byte("y")}}},
		},
	})
	s.get("t1") // 11.
	return s
}

// end closes the scene with what the log says, unless it was set.
func (s *scene) end() {
	if s.Log == nil {
		s.Log = s.m.Events(1, s.m.Revision())
		s.Head = s.m.Revision()
	}
}

// watch adds a watcher of all keys that saw the log in these answers, each of
// events of some revisions, or a mark: "2 3-5 mark5".
func (s *scene) watch(req *pb.WatchCreateRequest, answers string) *Watch {
	if req.Key == nil {
		req.Key, req.RangeEnd = []byte{0}, []byte{0}
	}
	w := Watch{ID: len(s.Watches) + 1, Request: req}
	see := func(r *pb.WatchResponse) { w.Seen = append(w.Seen, WatchSeen{s.now + 100*ms, r}) }
	see(&pb.WatchResponse{Created: true, Header: &pb.ResponseHeader{Revision: 1}})
	for _, answer := range strings.Fields(answers) {
		var from, to int64
		r := &pb.WatchResponse{}
		switch {
		case strings.HasPrefix(answer, "mark"):
			_, _ = fmt.Sscanf(answer, "mark%d", &to)
			from = to + 1
		case strings.HasPrefix(answer, "cancel"):
			_, _ = fmt.Sscanf(answer, "cancel%d", &r.CompactRevision)
			r.Canceled, from, to = true, 1, 0
		default:
			if _, err := fmt.Sscanf(answer, "%d-%d", &from, &to); err != nil {
				_, _ = fmt.Sscanf(answer, "%d", &from)
				to = from
			}
		}
		for _, e := range s.m.Events(from, to) {
			seen := &mvccpb.Event{Type: e.Type, Kv: proto.Clone(e.Kv).(*mvccpb.KeyValue)}
			if req.PrevKv {
				if prev := s.m.Get(string(e.Kv.Key), e.Kv.ModRevision-1); prev != nil {
					seen.PrevKv = proto.Clone(prev).(*mvccpb.KeyValue)
				}
			}
			r.Events = append(r.Events, seen)
		}
		r.Header = &pb.ResponseHeader{Revision: to}
		see(r)
	}
	s.Watches = append(s.Watches, w)
	return &s.Watches[len(s.Watches)-1]
}

func (s *scene) check(t *testing.T) *Report {
	t.Helper()
	s.end()
	return Check(s.History, s.opt)
}

func TestTheSceneIsRight(t *testing.T) {
	s := newScene()
	s.do(&pb.LeaseGrantRequest{ID: 5, TTL: 10})
	s.do(&pb.PutRequest{Key: []byte("l"), Lease: 5})
	s.renew(5, 10)
	s.now += 10*int64(time.Second) + 500*ms
	s.m.Expire(5)
	s.get("l")
	s.renew(5, 0)
	s.do(&pb.CompactionRequest{Revision: 4})
	s.do(&pb.RangeRequest{Key: []byte("a"), Revision: 3})
	s.do(&pb.RangeRequest{Key: []byte("a"), Revision: 30})
	s.do(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true})
	s.do(&pb.LeaseRevokeRequest{ID: 5})
	s.lost(s.put("unknown", "1"))
	s.put("z", "1")
	s.watch(&pb.WatchCreateRequest{PrevKv: true, StartRevision: 4}, "4-5 6 mark6 7 mark7 8-11").Open = true
	s.watch(&pb.WatchCreateRequest{StartRevision: 2, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}}, "2-5 mark6 7")
	s.watch(&pb.WatchCreateRequest{StartRevision: 8}, "8 9").Resumes = 2
	s.watch(&pb.WatchCreateRequest{StartRevision: 3}, "cancel4")
	s.Holds = []Hold{{Prefix: "k1", Token: 2, From: 100 * ms}, {Prefix: "k", Token: 2, From: 100 * ms}}
	s.opt = Options{ElectionTimeout: time.Second}
	r := s.check(t)
	if err := r.Err(); err != nil || r.Counts.Resolved != 1 || r.Counts.Expired != 1 {
		t.Fatalf("%+v\n%v", r.Counts, err)
	}
	r.Windows(SearchOptions{Ops: 10})
	if err := r.Err(); err != nil || r.Searched.Searched < 2 {
		t.Fatalf("%+v\n%v", r.Searched, err)
	}
}

// violations are changes to the scene, each by the rule that it breaks.
var violations = []struct {
	rule, name string
	change     func(s *scene)
}{
	{"K1", "a put names a value before that was not there", func(s *scene) {
		s.op(4).Response.(*pb.PutResponse).PrevKv = &mvccpb.KeyValue{Key: []byte("k1"), Value: []byte("?")}
	}},
	{"K1", "a write goes before what had been seen", func(s *scene) { s.op(2).Call, s.op(2).Return = 200*ms, 205*ms }},
	{"K1", "nobody asked for an event", func(s *scene) { s.Ops = append(s.Ops[:2:2], s.Ops[3:]...) }},
	{"K1", "an acknowledged write takes effect twice", func(s *scene) {
		s.m.Force([]*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("k1"), Value: []byte("d"), CreateRevision: 2, ModRevision: 8, Version: 3}}})
	}},
	{"K1", "an invalid request is acknowledged", func(s *scene) { s.op(6).Request = &pb.RangeRequest{} }},
	{"K1", "an answer is none", func(s *scene) { s.op(6).Response = &pb.PutResponse{} }},
	{"K2", "an acknowledged write is lost", func(s *scene) { s.Log, s.Head = s.m.Events(1, 6), 6 }},
	{"K2", "the log has another value", func(s *scene) {
		s.end()
		s.Log = slices.Clone(s.Log)
		s.Log[1] = proto.Clone(s.Log[1]).(*mvccpb.Event)
		s.Log[1].Kv.Value = []byte("?")
	}},
	{"K2", "a read is stale", func(s *scene) {
		s.header(11).Revision = 6
		s.op(11).Response = &pb.RangeResponse{Header: s.header(11)}
	}},
	{"K2", "a read gives a wrong value", func(s *scene) {
		r := proto.Clone(s.op(6).Response).(*pb.RangeResponse)
		r.Kvs[0].Value = []byte("?")
		s.op(6).Response = r
	}},
	{"K3", "a refused write takes effect", func(s *scene) {
		s.lost(s.op(3))
		s.op(3).Outcome, s.op(3).Return, s.op(3).Error = Refused, 35*ms, "etcdserver: no leader"
	}},
	{"K3", "a key is said not to exist", func(s *scene) { s.refuse(model.ErrKeyNotFound, &pb.PutRequest{Key: []byte("k1"), IgnoreValue: true}) }},
	{"K3", "a revision is said to be in the future", func(s *scene) { s.refuse(model.ErrFutureRevision, &pb.RangeRequest{Key: []byte("k1"), Revision: 7}) }},
	{"K3", "a revision is said to be compacted", func(s *scene) { s.refuse(model.ErrCompacted, &pb.RangeRequest{Key: []byte("k1"), Revision: 2}) }},
	{"K3", "a lease is said not to exist", func(s *scene) {
		s.do(&pb.LeaseGrantRequest{ID: 5, TTL: 10})
		s.refuse(model.ErrLeaseNotFound, &pb.PutRequest{Key: []byte("k1"), Lease: 5})
	}},
	{"K3", "a lease is said to exist", func(s *scene) { s.refuse(model.ErrLeaseExists, &pb.LeaseGrantRequest{ID: 5, TTL: 10}) }},
	{"K3", "a request is said to be invalid", func(s *scene) { s.refuse(model.ErrDuplicateKey, &pb.PutRequest{Key: []byte("k1")}) }},
	{"K4", "an unknown write takes effect twice", func(s *scene) {
		s.lost(s.put("u", "1"))
		s.do(&pb.DeleteRangeRequest{Key: []byte("u")})
		s.m.Force([]*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("u"), Value: []byte("1"), CreateRevision: 10, ModRevision: 10, Version: 1}}})
	}},
	{"K4", "an unknown write takes effect before it was sent", func(s *scene) {
		s.lost(s.op(3))
		s.op(3).Call = 300 * ms
	}},
	{"K5", "a serializable read gives a wrong value", func(s *scene) { s.op(9).Response = &pb.RangeResponse{Header: s.header(9)} }},
	{"K5", "serializable reads go back", func(s *scene) {
		op := s.do(&pb.RangeRequest{Key: []byte("k3"), Serializable: true})
		op.Response.(*pb.RangeResponse).Header.Revision = 5
	}},
	{"K6", "a transaction takes the wrong branch", func(s *scene) {
		r := proto.Clone(s.op(10).Response).(*pb.TxnResponse)
		r.Succeeded = false
		s.op(10).Response = r
	}},
	{"K6", "a transaction is half in the log", func(s *scene) {
		s.end()
		s.Log = s.Log[:len(s.Log)-1]
	}},
	{"K7", "the past has changed", func(s *scene) { s.op(8).Response.(*pb.RangeResponse).Count = 2 }},
	{"K7", "the past is read though it was compacted", func(s *scene) {
		s.do(&pb.CompactionRequest{Revision: 5})
		op := s.do(&pb.RangeRequest{Key: []byte("k2"), Revision: 1})
		op.Outcome, op.Error, op.Response = Acknowledged, "", &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 7}}
	}},
	{"K7", "a compaction goes back", func(s *scene) {
		s.do(&pb.CompactionRequest{Revision: 5})
		op := s.do(&pb.CompactionRequest{Revision: 4})
		op.Outcome, op.Error, op.Response = Acknowledged, "", &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: 7}}
	}},
	{"K8", "a range is in the wrong order", func(s *scene) { slices.Reverse(s.op(7).Response.(*pb.RangeResponse).Kvs) }},
	{"K8", "more is said to come", func(s *scene) { s.op(7).Response.(*pb.RangeResponse).More = true }},
	{"A1", "members have different hashes", func(s *scene) { s.Hashes = []Hash{{1, 5, 2, 1}, {2, 5, 3, 4}, {3, 5, 2, 5}} }},
	{"A3", "a revision is missing", func(s *scene) {
		s.end()
		s.Log = append(s.Log[:2:2], s.Log[3:]...)
	}},
	{"A3", "the head is higher than the log", func(s *scene) { s.end(); s.Head = 9 }},
	{"A3", "two writes have one revision", func(s *scene) { s.header(4).Revision = 4 }},

	{"W1", "events come out of order", func(s *scene) {
		r := s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2 4-5").Seen[2].Response
		slices.Reverse(r.Events)
		r.Events = append(r.Events, s.m.Events(3, 3)...)
	}},
	{"W1", "a header is older than its events", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-5").Seen[1].Response.Header.Revision = 4
	}},
	{"W2", "an event comes twice", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-3 2-5") }},
	{"W3", "a revision is split", func(s *scene) {
		w := s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-6 7 7")
		w.Seen[2].Response.Events, w.Seen[3].Response.Events = w.Seen[2].Response.Events[:1], w.Seen[3].Response.Events[1:]
	}},
	{"W3", "parts come unasked", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-5").Seen[1].Response.Fragment = true
	}},
	{"W4", "an event is left out", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-3 5") }},
	{"W5", "a watch is resumed too late", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-3")
		s.watch(&pb.WatchCreateRequest{StartRevision: 5}, "5").Resumes = 2
	}},
	{"W5", "a watch is cancelled for a compaction that nobody asked for", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "cancel4") }},
	{"W5", "something comes after the end", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2 cancel0 3") }},
	{"W6", "a mark lies", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-3 mark4 4-5") }},
	{"W7", "an event is of before the start", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 4}, "3 4") }},
	{"W7", "a mark is of before the start", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 6}, "mark4") }},
	{"W8", "the value before is another", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 5, PrevKv: true}, "5").Seen[1].Response.Events[0].PrevKv.Value = []byte("?")
	}},
	{"W8", "the value before is missing", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 5, PrevKv: true}, "5").Seen[1].Response.Events[0].PrevKv = nil
	}},
	{"W9", "an event says that a key is new", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 5}, "5").Seen[1].Response.Events[0].Kv.CreateRevision = 5
	}},
	{"W9", "a filter lets something through", func(s *scene) {
		s.watch(&pb.WatchCreateRequest{StartRevision: 5, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}}, "5-6")
	}},
	{"W9", "a key is not in the range", func(s *scene) { s.watch(&pb.WatchCreateRequest{Key: []byte("k3"), StartRevision: 2}, "4-5") }},
	{"W11", "a watch is silent", func(s *scene) { s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-6").Open = true }},

	{"L1", "a lease runs out too early", func(s *scene) {
		s.leased("l")
		s.now += 9 * int64(time.Second)
		s.m.Expire(5)
		s.get("l")
	}},
	{"L1", "a lease runs out in spite of a renewal", func(s *scene) {
		s.leased("l")
		s.now += 6 * int64(time.Second)
		s.renew(5, 10)
		s.now += 6 * int64(time.Second)
		s.m.Expire(5)
		s.get("l")
	}},
	{"L1", "a renewal finds no lease", func(s *scene) { s.leased("l"); s.renew(5, 0) }},
	{"L3", "a lease does not run out", func(s *scene) {
		s.opt.ElectionTimeout = time.Second
		s.leased("l")
		s.now += 14 * int64(time.Second)
		s.get("l")
	}},
	{"K1", "a lease takes some of its keys only", func(s *scene) {
		s.leased("l", "m")
		s.now += 11 * int64(time.Second)
		rev := s.m.Revision() + 1
		s.m.Force([]*mvccpb.Event{{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("l"), ModRevision: rev}}})
		s.get("l")
	}},
	{"L4", "a key is put on a lease that was revoked", func(s *scene) {
		s.leased("l")
		s.do(&pb.LeaseRevokeRequest{ID: 5})
		s.leasedPut("l")
	}},
	{"L4", "a key is put on a lease that nobody granted", func(s *scene) { s.leasedPut("l") }},
	{"L4", "a revoked lease is renewed", func(s *scene) {
		s.leased("l")
		s.do(&pb.LeaseRevokeRequest{ID: 5})
		s.renew(5, 10)
	}},
	{"L4", "a lease is granted while it is there", func(s *scene) {
		s.leased("l")
		op := s.do(&pb.LeaseGrantRequest{ID: 5, TTL: 10})
		op.Outcome, op.Error, op.Response = Acknowledged, "", &pb.LeaseGrantResponse{Header: &pb.ResponseHeader{Revision: s.m.Revision()}, ID: 5, TTL: 10}
	}},
	{"L7", "a lock is held before the one in front has gone", func(s *scene) { s.Holds = []Hold{{Prefix: "k", Token: 3, From: 45 * ms}} }},
	{"L7", "a lock is held by nobody's key", func(s *scene) { s.Holds = []Hold{{Prefix: "q", Token: 3, From: 45 * ms}} }},
	{"L7", "two hold a lock by one key", func(s *scene) { s.Holds = []Hold{{1, "k", 2, 45 * ms}, {2, "k", 2, 50 * ms}} }},
}

func (s *scene) refuse(err error, req proto.Message) {
	op := s.do(req)
	op.Outcome, op.Error, op.Response = Refused, err.Error(), nil
	if s.m.Revision() > 7 {
		s.m.Undo()
	}
}

// leased puts keys on lease 5, of 10 s.
func (s *scene) leased(keys ...string) {
	s.do(&pb.LeaseGrantRequest{ID: 5, TTL: 10})
	for _, key := range keys {
		s.do(&pb.PutRequest{Key: []byte(key), Lease: 5})
	}
}

// leasedPut is acknowledged though the lease is not there.
func (s *scene) leasedPut(key string) {
	rev := s.m.Revision() + 1
	op := s.do(&pb.PutRequest{Key: []byte(key), Lease: 5})
	op.Outcome, op.Error, op.Response = Acknowledged, "", &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}
	s.m.Force([]*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte(key), Lease: 5, CreateRevision: rev, ModRevision: rev, Version: 1}}})
}

func TestEachViolationIsFoundAndNamed(t *testing.T) {
	for _, v := range violations {
		t.Run(v.rule+" "+v.name, func(t *testing.T) {
			s := newScene()
			s.watch(&pb.WatchCreateRequest{StartRevision: 2}, "2-7")
			v.change(s)
			r := s.check(t)
			if !slices.ContainsFunc(r.Violations, func(got Violation) bool { return got.Rule == v.rule }) {
				t.Fatalf("found is: %v", r.Err())
			}
			t.Log(r.Err())
		})
	}
}

func TestARunThatProvesLittleFails(t *testing.T) {
	s := newScene()
	s.Spans = []Span{{Lane: "network", From: 55 * ms, To: 75 * ms, Fault: true}}
	s.opt = Options{Before: 4, During: 3, After: 4}
	if r := s.check(t); r.Err() != nil {
		t.Fatalf("%+v: %v", r.Counts, r.Err())
	}
	s.opt = Options{Before: 5, During: 4, After: 5}
	if r := s.check(t); len(r.Vacuous) != 3 {
		t.Fatalf("%+v: %v", r.Counts, r.Err())
	}
}

func TestTooManyWindowsWithoutAVerdictFail(t *testing.T) {
	c := newCluster(1)
	c.calm = true
	r := Check(c.run(5, 300), Options{})
	r.Windows(SearchOptions{Limit: time.Nanosecond})
	if r.Searched.Unknown == 0 || r.Err() == nil {
		t.Fatalf("%+v: %v", r.Searched, r.Err())
	}
}

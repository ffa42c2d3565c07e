package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	streamsPerSequence = 3 // Of watches. The last has only watches that begin now or later.
	watchesPerStream   = 8
	leasesMax          = 12
	leaseStep          = 1000 // Seconds between the ends of leases, so that their order is certain.
)

// keepAlivePair is a keep-alive stream on each side.
type keepAlivePair struct {
	*pair
	ours, theirs grpc.ClientStream
	cancel       context.CancelFunc
}

func newKeepAlivePair(p *pair) *keepAlivePair {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	k := &keepAlivePair{pair: p, cancel: cancel}
	open := func(side *target) grpc.ClientStream {
		s, err := side.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, methods["Lease/LeaseKeepAlive"].path)
		if err != nil {
			p.t.Fatalf("%s: keep-alive stream: %v", side.side, err)
		}
		return s
	}
	k.ours, k.theirs = open(p.ours), open(p.theirs)
	p.t.Cleanup(cancel)
	return k
}

func (k *keepAlivePair) close() { k.cancel() }

// renew sends one request over both streams and compares the answers.
func (k *keepAlivePair) renew(id int64) answer {
	k.t.Helper()
	r := &pb.LeaseKeepAliveRequest{ID: id}
	ours, theirs := both(k.pair, func(side *target) answer {
		s := k.ours
		if side == k.pair.theirs {
			s = k.theirs
		}
		out := &pb.LeaseKeepAliveResponse{}
		err := s.SendMsg(side.names.outward(r))
		if err == nil || errors.Is(err, io.EOF) { // Then the stream says why it ended.
			err = s.RecvMsg(out)
		}
		if err != nil {
			return answer{st: status.Convert(err)}
		}
		return answer{msg: side.names.inward(out)}
	})
	covered.request("Lease/LeaseKeepAlive", r)
	covered.answer(ours)
	k.compare("Lease/LeaseKeepAlive", r, ours, theirs)
	return ours
}

// anyLease is one that exists, most likely, or none.
func (w *world) anyLease() int64 {
	if len(w.leases) > 0 && !w.one(6) {
		return pick(w, w.leases...)
	}
	return pick(w, int64(0), -1, 987654, math.MaxInt64)
}

func (s *sequence) lease() {
	w := s.w
	switch n := w.IntN(20); {
	case n < 6:
		s.grant()
	case n < 8:
		id := w.anyLease()
		s.note(s.call(&pb.LeaseRevokeRequest{ID: id}))
		w.leases = slices.DeleteFunc(w.leases, func(x int64) bool { return x == id })
	case n < 12:
		s.keepAlive.renew(w.anyLease())
	case n < 17:
		s.call(&pb.LeaseTimeToLiveRequest{ID: w.anyLease(), Keys: w.one(2)})
	case n < 19:
		s.call(&pb.LeaseLeasesRequest{})
	case w.one(25):
		s.expire()
	}
}

// grant asks for a lease that does not end within the test.
func (s *sequence) grant() {
	w := s.w
	w.nextLease++
	r := &pb.LeaseGrantRequest{TTL: leaseStep * w.nextLease}
	switch w.IntN(12) {
	case 0:
		if r.TTL = 9_000_000_000 - leaseStep*w.nextLease; w.one(2) {
			r.TTL = 9_000_000_001 + w.Int64N(2)
		}
		r.ID = math.MaxInt64 - w.nextLease
	case 1:
		r.ID = w.anyLease() // Taken, most likely.
	case 2:
		r.ID = -w.nextLease
	case 3, 4, 5, 6, 7:
		r.ID = w.nextLease
	}
	if len(w.leases) >= leasesMax {
		return
	}
	if got := s.call(r, w.meta()...); got.msg != nil {
		w.leases = append(w.leases, got.msg.(*pb.LeaseGrantResponse).ID)
	}
}

// expire grants the shortest lease there is, and one with keys, and waits until both
// sides have taken them away.
func (s *sequence) expire() {
	w := s.w
	s.disarm()
	least := s.call(&pb.LeaseGrantRequest{TTL: pick(w, int64(0), -5, 1, math.MinInt64, 2)})
	if least.msg == nil {
		return
	}
	s.waitExpired(least.msg.(*pb.LeaseGrantResponse).ID)
	const ttl = 6 // It must not end before it has its keys, on a busy machine either.
	id := ok[*pb.LeaseGrantResponse](s.pair, &pb.LeaseGrantRequest{TTL: ttl}).ID
	for _, key := range []string{"dir/3", "b", "x"} {
		s.note(s.call(&pb.PutRequest{Key: []byte(key), Value: []byte("leased"), Lease: id}))
	}
	s.note(s.call(&pb.PutRequest{Key: []byte("b"), Value: []byte("free")}))
	s.keepAlive.renew(id)
	if w.one(2) {
		s.note(s.call(&pb.LeaseRevokeRequest{ID: id}))
		return
	}
	s.waitExpired(id)
	s.note(s.call(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))
	s.call(&pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
	s.keepAlive.renew(id)
}

func (p *pair) waitExpired(id int64) {
	p.t.Helper()
	both(p, func(side *target) any {
		for start := time.Now(); time.Since(start) < settleTimeout; time.Sleep(50 * time.Millisecond) {
			got := side.call(p.t.Context(), methods["Lease/LeaseTimeToLive"], &pb.LeaseTimeToLiveRequest{ID: id})
			if r, ok := got.msg.(*pb.LeaseTimeToLiveResponse); ok && r.TTL == -1 {
				return nil
			}
		}
		p.t.Errorf("%s%s: lease %d does not expire", p.place(), side.side, id)
		return nil
	})
}

func (s *sequence) watch() {
	w := s.w
	st := pick(w, s.streams...)
	switch {
	case len(st.open) >= watchesPerStream || len(st.open) > 0 && w.one(4):
		s.quiet()
		if len(st.open) > 0 {
			st.end(pick(w, st.open...))
		}
	case w.one(20):
		if id := pick(w, int64(999), -1, math.MaxInt64); !slices.Contains(st.open, id) {
			st.end(id)
		}
	case w.one(40):
		st.send(&pb.WatchRequest{})
	case w.one(20):
		s.progress(st)
	default:
		r := w.watchRequest(st)
		st.create(r)
		if r.StartRevision > 0 && r.StartRevision < w.compacted {
			s.quiet() // It has ended; until that is known its ID is taken in etcd.
		}
	}
}

// progress asks a stream for a notice, and finds out by the sentinel whether it
// comes.
func (s *sequence) progress(st *watchPair) {
	s.quiet()
	before := len(st.ours.progress) - len(st.theirs.progress)
	st.send(progressRequest())
	s.quiet()
	if !st.ahead {
		return // It asked for more of them, until one came.
	}
	if after := len(st.ours.progress) - len(st.theirs.progress); after != before {
		s.t.Errorf("%s%d more progress notices from %s than from %s", s.place(), after-before, s.ours.side, s.theirs.side)
		s.differences.Add(1)
	}
}

func (w *world) watchRequest(st *watchPair) *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{Key: w.key(), PrevKv: w.one(2), ProgressNotify: w.one(3), Fragment: w.one(3)}
	r.RangeEnd = w.end(r.Key)
	if w.one(8) {
		r.Key, r.RangeEnd = nil, []byte{0}
	}
	if w.one(4) {
		r.Filters = append(r.Filters, pick(w, pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE, 7))
	}
	if w.one(20) {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE)
	}
	switch {
	case w.one(4):
		r.WatchId = pick(w, int64(1), 2, 5, 100, math.MaxInt64, -2)
	case w.one(10) && len(st.open) > 0:
		r.WatchId = pick(w, st.open...)
	}
	if st.ahead {
		if w.one(2) {
			r.StartRevision = w.revision + pick(w, int64(1), 2, 5, 20, 100)
		}
		return r
	}
	switch w.IntN(8) {
	case 0, 1, 2, 3:
		r.StartRevision = w.past()
	case 4:
		r.StartRevision = pick(w, w.compacted, w.compacted-1, 1)
	case 5:
		r.StartRevision = pick(w, int64(-1), math.MinInt64)
	}
	return r
}

func (s *sequence) maintain() {
	w := s.w
	switch w.IntN(8) {
	case 0, 1:
		s.call(&pb.StatusRequest{})
	case 2:
		s.call(&pb.AlarmRequest{Alarm: pick[pb.AlarmType](w, pb.AlarmType_NONE, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT, 9), MemberID: w.anyMember()})
	case 3:
		s.call(&pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: w.anyMember(), // A number that is no action stops an etcd.
			Alarm: pick(w, pb.AlarmType_NONE, pb.AlarmType_CORRUPT),
		})
	case 4:
		s.call(&pb.HashRequest{})
	case 5:
		s.call(&pb.HashKVRequest{Revision: w.at()})
	case 6:
		s.call(&pb.MoveLeaderRequest{TargetID: w.anyMember()})
	case 7:
		if w.one(5) {
			s.call(&pb.DefragmentRequest{})
		}
	}
}

// arm raises an alarm for some requests.
func (s *sequence) arm() {
	if s.alarmedFor > 0 {
		return
	}
	s.alarm = pick(s.w, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT)
	s.alarmedFor = 10 + s.w.IntN(20)
	for range 1 + s.w.IntN(2) {
		s.call(&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: memberNames, Alarm: s.alarm})
	}
	s.call(&pb.StatusRequest{})
	s.call(&pb.AlarmRequest{Alarm: s.alarm})
}

func (s *sequence) disarm() {
	if s.alarm == pb.AlarmType_NONE {
		return
	}
	s.alarmedFor = 0
	s.call(&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: memberNames, Alarm: s.alarm})
	s.alarm = pb.AlarmType_NONE
}

// anyMember is one that exists, or none.
func (w *world) anyMember() uint64 {
	if len(w.members) > 0 && w.one(2) {
		return pick(w, w.members...)
	}
	return pick(w, uint64(memberNames), memberNames, 0, 12345, math.MaxUint64)
}

func (w *world) urls() []string {
	switch w.IntN(10) {
	case 0:
		return nil
	case 1:
		return []string{pick(w, "", "localhost", "http://", "http://127.9.9.1", "ftp://127.9.9.1:1", "http://127.9.9.1:1/path", "http://name:1 2", ":", " http://127.9.9.9:70 ", "http://127.9.9.9:", "http://[::1]:1")}
	case 2:
		return []string{ownPeerURL}
	case 3:
		return []string{"http://127.9.9.1:1", "https://127.9.9.2:1", "http://127.9.9.1:1"}
	}
	w.nextURL++ // An ID that was removed never comes back, and it is made of these.
	return []string{fmt.Sprintf("http://127.9.9.9:%d", 1+w.nextURL%60000)}
}

func (s *sequence) cluster() {
	w := s.w
	switch w.IntN(8) {
	case 0, 1:
		s.call(&pb.MemberListRequest{Linearizable: w.one(2)})
	case 2, 3:
		r := &pb.MemberAddRequest{PeerURLs: w.urls(), IsLearner: true}
		if got := s.call(r); got.msg != nil {
			w.members = append(w.members, got.msg.(*pb.MemberAddResponse).Member.GetID())
		}
	case 4, 5:
		id := w.anyMember()
		if id == memberNames && w.one(2) {
			id = 0
		}
		if got := s.call(&pb.MemberRemoveRequest{ID: id}); got.msg != nil {
			w.members = slices.DeleteFunc(w.members, func(x uint64) bool { return x == id })
		}
	case 6:
		id := w.anyMember()
		w.nextURL++ // Always good ones: see the scene of bad ones.
		r := &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{fmt.Sprintf("http://127.9.9.9:%d", 1+w.nextURL%60000)}}
		if id == memberNames {
			r.PeerURLs = []string{ownPeerURL}
		}
		s.call(r)
	case 7:
		s.call(&pb.MemberPromoteRequest{ID: w.anyMember()})
	}
}

// malformed sends bytes that are no request, or not quite.
func (s *sequence) malformed() {
	w := s.w
	req := pick[proto.Message](w, w.rangeRequest(), w.put(), w.delete(), w.txn(), &pb.LeaseTimeToLiveRequest{ID: 1}, &pb.MemberListRequest{})
	name, m := methodOf(req)
	data, err := proto.Marshal(req)
	if err != nil {
		s.t.Fatal(err)
	}
	switch w.IntN(4) {
	case 0: // A field that nobody knows: to be passed over.
		data = protowire.AppendTag(data, 3000, protowire.BytesType)
		data = protowire.AppendString(data, "future")
	case 1: // Ends too early.
		data = protowire.AppendTag(data, 2, protowire.BytesType)
		data = append(data, 200)
	case 2: // No field has number zero.
		data = append(data, 0)
	case 3:
		data = append(data, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	}
	ours, theirs := both(s.pair, func(side *target) answer { return side.raw(s.t.Context(), m, data) })
	covered.request(name, req)
	s.compare(name+" as raw bytes, made of ", req, ours, theirs)
	s.note(ours)
}

// raw sends bytes in the place of a request. The names of a sequence are not
// in them.
func (t *target) raw(ctx context.Context, m method, data []byte) answer {
	var out []byte
	err := t.conn.Invoke(ctx, m.path, &data, &out, grpc.ForceCodec(bytesCodec{}))
	if err != nil {
		return answer{st: status.Convert(err)}
	}
	msg := m.out.New().Interface()
	if err := proto.Unmarshal(out, msg); err != nil {
		return answer{st: status.New(codes.DataLoss, err.Error())}
	}
	return answer{msg: t.names.inward(msg)}
}

// bytesCodec takes bytes for messages.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}

package differential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func put(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func get(key string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(key)} }

func everything() *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
}

func TestSizesOfRequestsAreLimitedAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	const limit = 1536 << 10
	for _, size := range []int{limit - 2048, limit, limit + 2048, limit + 512<<10 - 2048, limit + 512<<10, 3 << 20} {
		p.call(&pb.PutRequest{Key: []byte("large"), Value: make([]byte, size)})
	}
	p.want(&pb.PutRequest{Key: []byte("large"), Value: make([]byte, limit)}, "etcdserver: request is too large")
	txn := &pb.TxnRequest{}
	for i := range 4 {
		txn.Success = append(txn.Success, putOp(&pb.PutRequest{Key: fmt.Append(nil, i), Value: make([]byte, 400<<10)}))
	}
	p.want(txn, "etcdserver: request is too large")
	p.call(everything())
}

func TestADowngradeIsJudgedAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	for _, version := range []string{"3.6.0", "3.6", "3.6.1", "3.5.0", "3.7.0", "3.8.0", "2.6.0", "", "x", "3", "3.6.0.0", "v3.6.0", "3.x.0"} {
		p.call(&pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: version})
	}
	p.call(&pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL})
	p.call(&pb.DowngradeRequest{Action: 9, Version: "3.6.0"})
}

func TestAWatchMayAskForItsEventsInFragments(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	for i := range 3 {
		ok[*pb.PutResponse](p, &pb.PutRequest{Key: fmt.Append(nil, "big", i), Value: make([]byte, 1<<20)})
	}
	st := newWatchPair(p, false)
	all := &pb.WatchCreateRequest{Key: []byte("big"), RangeEnd: []byte("bih"), PrevKv: true}
	whole := st.create(proto.Clone(all).(*pb.WatchCreateRequest))
	all.Fragment = true
	cut := st.create(all)
	got := ok[*pb.DeleteRangeResponse](p, &pb.DeleteRangeRequest{Key: []byte("big"), RangeEnd: []byte("bih")})
	st.quiet(got.Header.Revision)
	for _, w := range st.sides() {
		if n := w.pieces[whole]; n != 0 {
			t.Errorf("%s: %d fragments, and nobody asked for them", w.side.side, n)
		}
		if n := w.pieces[cut]; n == 0 {
			t.Errorf("%s: 3 MiB of events came in one piece", w.side.side)
		}
	}
}

func TestIdleWatchesThatAskForItAreToldOfProgress(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{progress: 100 * time.Millisecond})
	revision := ok[*pb.PutResponse](p, put("a", "1")).Header.Revision
	st := newWatchPair(p, false)
	told := st.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	silent := st.create(&pb.WatchCreateRequest{Key: []byte("a")})
	ahead := st.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true, StartRevision: revision + 100})
	for _, w := range st.sides() {
		if !w.wait(settleTimeout, func() bool { return len(w.logs[told]) >= 3 }) {
			t.Errorf("%s: no notices", w.side.side)
		}
		w.mu.Lock()
		for _, m := range w.logs[told] {
			if r, isNotice := m.(*pb.WatchResponse); !isNotice || r.Header.GetRevision() != revision || len(r.Events) > 0 || r.Canceled {
				t.Errorf("%s: %s", w.side.side, text(m))
			}
		}
		if len(w.logs[silent])+len(w.logs[ahead]) > 0 {
			t.Errorf("%s: notices for watches that did not ask, or have not begun", w.side.side)
		}
		w.mu.Unlock()
	}
}

func TestAStreamWithoutWatchesHasNoProgress(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	st := emptyWatchPair(p)
	st.send(progressRequest())
	st.ahead = true // The event of the sentinel ends the wait.
	st.create(&pb.WatchCreateRequest{Key: sentinel})
	st.quiet(ok[*pb.PutResponse](p, &pb.PutRequest{Key: sentinel}).Header.Revision)
	for _, w := range st.sides() {
		if len(w.progress) != 0 {
			t.Errorf("%s: %v", w.side.side, w.progress)
		}
	}
}

func TestASmallQuotaRaisesTheAlarm(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{quota: 5 << 10})
	p.want(put("a", "1"), "etcdserver: mvcc: database space exceeded")
	p.want(put("a", "1"), "etcdserver: mvcc: database space exceeded")
	p.want(&pb.LeaseGrantRequest{TTL: 100, ID: 1}, "etcdserver: mvcc: database space exceeded")
	p.want(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(put("a", "1"))}}, "etcdserver: mvcc: database space exceeded")
	for _, r := range []proto.Message{
		&pb.StatusRequest{}, &pb.AlarmRequest{}, get("a"), &pb.DeleteRangeRequest{Key: []byte("a")},
		&pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(get("a"))}}, &pb.LeaseRevokeRequest{ID: 1}, &pb.CompactionRequest{Revision: 1},
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: memberNames}, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: memberNames, Alarm: pb.AlarmType_NOSPACE},
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE},
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: memberNames, Alarm: pb.AlarmType_CORRUPT}, &pb.AlarmRequest{Alarm: pb.AlarmType_CORRUPT}, put("a", "1"),
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: memberNames, Alarm: pb.AlarmType_NOSPACE},
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_CORRUPT}, &pb.StatusRequest{}, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_CORRUPT},
		&pb.AlarmRequest{}, put("a", "1"),
	} {
		p.call(r)
	}
}

func TestAMemberIDIsNotGivenTwice(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	first, second := []string{"http://127.9.9.9:1"}, []string{"http://127.9.9.9:2"}
	for range 10 { // The ID is made of the URLs and the second: both must be the same.
		untilSecond := time.Until(time.Now().Truncate(time.Second).Add(time.Second))
		time.Sleep(untilSecond)
		added := p.call(&pb.MemberAddRequest{PeerURLs: first, IsLearner: true})
		if added.msg == nil {
			t.Fatal(added)
		}
		id := added.msg.(*pb.MemberAddResponse).Member.ID
		p.want(&pb.MemberUpdateRequest{ID: id, PeerURLs: []string{ownPeerURL}}, "Peer URLs already exists")
		p.call(&pb.MemberUpdateRequest{ID: id, PeerURLs: second})
		ours, theirs := both(p, func(side *target) answer {
			return side.call(t.Context(), methods["Cluster/MemberAdd"], &pb.MemberAddRequest{PeerURLs: first, IsLearner: true})
		})
		if strings.HasSuffix(ours.String(), "member ID already exist") && strings.HasSuffix(theirs.String(), "member ID already exist") {
			covered.answer(ours)
			return
		}
		p.call(&pb.MemberRemoveRequest{ID: id})
		first[0] += "0" // The ID of one removed never comes back.
	}
	t.Error("two additions never fell into one second, or the second was never refused for its ID")
}

func TestDifferencesThatWouldLeadTheSidesApart(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	ok[*pb.PutResponse](p, put("x", "1"))
	fromKey := deleteOp(&pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}})
	p.call(&pb.TxnRequest{Success: []*pb.RequestOp{fromKey, putOp(put("x", "2"))}})
	p.call(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{fromKey}}), putOp(put("x", "2"))}})
	p.call(&pb.TxnRequest{Success: []*pb.RequestOp{
		txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(put("x", "2"))}}),
		txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{deleteOp(&pb.DeleteRangeRequest{Key: []byte("x")})}}),
	}})
	p.call(&pb.MemberUpdateRequest{ID: 12345})
	p.call(&pb.MemberUpdateRequest{ID: memberNames})
	p.call(&pb.MemberAddRequest{PeerURLs: []string{"unix://127.9.9.1:1"}, IsLearner: true})
}

func TestRequestsThatWouldEndAnEtcdAreAnswered(t *testing.T) {
	t.Parallel()
	if *self {
		t.Skip("this is for ours only")
	}
	p := newPair(t, options{})
	alarm := p.ours.call(t.Context(), methods["Maintenance/Alarm"], &pb.AlarmRequest{Action: 7, MemberID: memberNames, Alarm: pb.AlarmType_NOSPACE})
	if alarm.msg == nil && !strings.HasPrefix(alarm.String(), "InvalidArgument") {
		t.Errorf("an action that does not exist: %v", alarm)
	}
	update := p.ours.call(t.Context(), methods["Cluster/MemberUpdate"], &pb.MemberUpdateRequest{ID: memberNames, PeerURLs: []string{"http://no port"}})
	if !strings.HasSuffix(update.String(), "given member URLs are invalid") {
		t.Errorf("a URL that is none: %v", update)
	}
	p.call(put("still", "here"))
}

// chunks is what must be equal of two snapshots: how they are sent.
type chunks struct {
	header, version string
	problems        []string
}

func TestSnapshotsAreSentInTheSameForm(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	for i := range 20 {
		ok[*pb.PutResponse](p, &pb.PutRequest{Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte{byte(i)}, 10<<10)})
	}
	ours, theirs := both(p, func(side *target) chunks { return receiveSnapshot(t, side) })
	covered.request("Maintenance/Snapshot", &pb.SnapshotRequest{})
	if ours.header != theirs.header || ours.version != theirs.version || !slices.Equal(ours.problems, theirs.problems) {
		t.Errorf("holdfast %+v\netcd     %+v", ours, theirs)
	}
	if len(ours.problems) > 0 {
		t.Error(ours.problems)
	}
}

func receiveSnapshot(t testing.TB, side *target) (c chunks) {
	s, err := side.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, methods["Maintenance/Snapshot"].path)
	if err == nil {
		err = s.SendMsg(&pb.SnapshotRequest{})
	}
	if err == nil {
		err = s.CloseSend()
	}
	wrong := func(format string, args ...any) { c.problems = append(c.problems, fmt.Sprintf(format, args...)) }
	var all []byte
	remaining, short := uint64(0), false
	for n := 0; err == nil; n++ {
		r := &pb.SnapshotResponse{}
		if err = s.RecvMsg(r); err != nil {
			break
		}
		covered.answer(answer{msg: r})
		all = append(all, r.Blob...)
		c.header, c.version = fmt.Sprint(r.Header != nil), r.Version
		if n > 0 && remaining != r.RemainingBytes+uint64(len(r.Blob)) && r.RemainingBytes+remaining != 0 {
			wrong("chunk %d: %d bytes remain, %d before, %d in it", n, r.RemainingBytes, remaining, len(r.Blob))
		}
		if len(r.Blob) != 32<<10 && r.RemainingBytes != 0 {
			wrong("chunk %d has %d bytes", n, len(r.Blob))
		}
		short = len(r.Blob) == sha256.Size
		remaining = r.RemainingBytes
	}
	if !errors.Is(err, io.EOF) {
		wrong("%v", status.Convert(err))
		return c
	}
	body, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if want := sha256.Sum256(body); !short || !bytes.Equal(sum, want[:]) {
		wrong("the last chunk is not the hash of those before")
	}
	if len(all)%512 != sha256.Size {
		wrong("%d bytes", len(all))
	}
	return c
}

// parts is a range that came in parts, and what is wrong with how it came.
func (p *pair) parts(ctx context.Context, side *target, r *pb.RangeRequest) answer {
	p.t.Helper()
	m := methods["KV/RangeStream"]
	s, err := side.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, m.path)
	if err == nil {
		err = s.SendMsg(side.names.outward(r))
	}
	if err == nil {
		err = s.CloseSend()
	}
	whole := &pb.RangeResponse{}
	for err == nil {
		part := &pb.RangeStreamResponse{}
		if err = s.RecvMsg(part); err != nil {
			break
		}
		if whole.Header != nil || part.RangeResponse.Header == nil && (part.RangeResponse.More || part.RangeResponse.Count != 0) {
			p.t.Errorf("%s: %s: header, more and count are not in the last part alone", side.side, text(r))
		}
		covered.answer(answer{msg: part})
		proto.Merge(whole, part.RangeResponse)
	}
	if !errors.Is(err, io.EOF) {
		return answer{st: status.Convert(err)}
	}
	return answer{msg: side.names.inward(whole)}
}

func TestARangeComesInPartsAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	for i := range 8 {
		ok[*pb.PutResponse](p, &pb.PutRequest{Key: fmt.Append(nil, "k", i), Value: bytes.Repeat([]byte{byte(i)}, 400<<10)})
	}
	ok[*pb.DeleteRangeResponse](p, &pb.DeleteRangeRequest{Key: []byte("k7")})
	ok[*pb.CompactionResponse](p, &pb.CompactionRequest{Revision: 4})
	all := func(change func(*pb.RangeRequest)) *pb.RangeRequest {
		r := everything()
		change(r)
		return r
	}
	for _, r := range []*pb.RangeRequest{
		everything(), get("k3"), get("none"), {}, {Key: []byte("k3"), RangeEnd: []byte("k1")}, {Key: []byte("k2"), RangeEnd: []byte("k5")},
		all(func(r *pb.RangeRequest) { r.Limit = 3 }), all(func(r *pb.RangeRequest) { r.Limit = 7 }), all(func(r *pb.RangeRequest) { r.Limit = -1 }),
		all(func(r *pb.RangeRequest) { r.Revision = 6 }), all(func(r *pb.RangeRequest) { r.Revision = 4 }), all(func(r *pb.RangeRequest) { r.Revision = 3 }),
		all(func(r *pb.RangeRequest) { r.Revision = 100 }), all(func(r *pb.RangeRequest) { r.Revision = -1 }),
		all(func(r *pb.RangeRequest) { r.KeysOnly = true }), all(func(r *pb.RangeRequest) { r.CountOnly = true }), all(func(r *pb.RangeRequest) { r.Serializable = true }),
		all(func(r *pb.RangeRequest) { r.CountOnly, r.Limit = true, 2 }),
		all(func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_ASCEND }), all(func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_DESCEND }),
		all(func(r *pb.RangeRequest) { r.SortOrder, r.SortTarget = pb.RangeRequest_ASCEND, pb.RangeRequest_MOD }), all(func(r *pb.RangeRequest) { r.SortOrder = 9 }),
		all(func(r *pb.RangeRequest) { r.SortTarget = 9 }), all(func(r *pb.RangeRequest) { r.MinModRevision = 5 }), all(func(r *pb.RangeRequest) { r.MaxCreateRevision = 5 }),
		all(func(r *pb.RangeRequest) { r.SortOrder, r.MinCreateRevision = pb.RangeRequest_DESCEND, 5 }),
	} {
		ours, theirs := both(p, func(side *target) answer { return p.parts(t.Context(), side, r) })
		covered.request("KV/RangeStream", r)
		covered.answer(ours)
		p.compare("KV/RangeStream", r, ours, theirs)
	}
}

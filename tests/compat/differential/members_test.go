package differential

import (
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

const (
	secondPeerURL = "http://second.peer:1"
	// A leader that a busy machine holds up for less is not deposed, so that both
	// sides are led by whom the test has chosen, in the same term.
	leaderAway = 3 * time.Second
)

// addSecond adds a learner to both sides and starts it.
func addSecond(p *pair) (second *pair, id uint64) {
	p.t.Helper()
	ports := member.FreePorts(p.t, 4)
	places := map[*target]place{p.ours: {name: "m2", client: ports[0], peer: ports[1]}, p.theirs: {name: "m2", client: ports[2], peer: ports[3]}}
	for side, at := range places {
		at.initial = "m1=" + side.peerURL() + ",m2=http://127.0.0.1:" + strconv.Itoa(at.peer)
		places[side] = at
		side.names.replaces = append(side.names.replaces,
			[2]string{"http://127.0.0.1:" + strconv.Itoa(at.peer), secondPeerURL},
			[2]string{"http://127.0.0.1:" + strconv.Itoa(at.client), "http://second.client:1"})
	}
	id = ok[*pb.MemberAddResponse](p, &pb.MemberAddRequest{PeerURLs: []string{secondPeerURL}, IsLearner: true}).Member.ID
	second = &pair{t: p.t}
	ours, theirs := both(p, func(side *target) *target {
		var started *target
		if side.side == "etcd" {
			started = startEtcd(p.t, places[side], p.options)
		} else {
			started = startOurs(p.t, places[side], p.options)
		}
		started.names = side.names
		return started
	})
	second.ours, second.theirs = ours, theirs
	return second, id
}

// await asks one side until an answer pleases.
func (p *pair) await(what string, req proto.Message, pleases func(answer) bool) {
	p.t.Helper()
	_, m := methodOf(req)
	both(p, func(side *target) any {
		var got answer
		for start := time.Now(); time.Since(start) < settleTimeout; time.Sleep(20 * time.Millisecond) {
			if got = side.call(p.t.Context(), m, req); pleases(got) {
				return nil
			}
		}
		p.t.Errorf("%s: %s never: %v", side.side, what, got)
		return nil
	})
}

// callAll sends requests at the same time: those that wait for a leader wait
// together.
func (p *pair) callAll(requests ...proto.Message) {
	p.t.Helper()
	var wg sync.WaitGroup
	for _, r := range requests {
		wg.Go(func() { p.call(r) })
	}
	wg.Wait()
}

func TestALearnerAFollowerAndALeaderWithoutQuorumAnswerAlike(t *testing.T) {
	t.Parallel()
	if *self {
		t.Skip("two members need two processes or two etcds: ours are needed")
	}
	p := newPair(t, options{election: leaderAway})
	ok[*pb.PutResponse](p, put("a", "1"))
	ok[*pb.LeaseGrantResponse](p, &pb.LeaseGrantRequest{ID: 7, TTL: 5000})
	second, id := addSecond(p)

	second.await("catches up", &pb.RangeRequest{Key: []byte("a"), Serializable: true}, func(a answer) bool {
		r, isRange := a.msg.(*pb.RangeResponse)
		return isRange && r.Count == 1
	})
	learner(second, id)
	promoteBoth(p, id)
	twoVoters(p, second, id)
	withoutQuorum(p, second)
}

// learner sends each kind of request to a learner.
func learner(second *pair, id uint64) {
	for _, r := range []proto.Message{
		get("a"), &pb.RangeRequest{Key: []byte("a"), Serializable: true}, &pb.RangeRequest{Serializable: true},
		put("a", "2"), &pb.DeleteRangeRequest{Key: []byte("a")}, &pb.TxnRequest{}, &pb.CompactionRequest{Revision: 1},
		&pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: []byte("a"), Serializable: true})}},
		&pb.LeaseGrantRequest{TTL: 100}, &pb.LeaseRevokeRequest{ID: 7}, &pb.LeaseTimeToLiveRequest{ID: 7}, &pb.LeaseLeasesRequest{},
		&pb.MemberListRequest{}, &pb.MemberListRequest{Linearizable: true}, &pb.MemberRemoveRequest{ID: id}, &pb.MemberPromoteRequest{ID: id},
		&pb.MemberAddRequest{PeerURLs: []string{"http://127.9.9.9:1"}}, &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{secondPeerURL}},
		&pb.StatusRequest{}, &pb.AlarmRequest{}, &pb.HashRequest{}, &pb.HashKVRequest{}, &pb.DefragmentRequest{}, &pb.MoveLeaderRequest{TargetID: id},
	} {
		second.call(r)
	}
	k := newKeepAlivePair(second)
	k.renew(7)
	st := emptyWatchPair(second)
	for _, w := range st.sides() {
		_ = w.send(progressRequest()) // The stream may have ended already.
	}
	var ended [2]string
	for i, w := range st.sides() {
		w.wait(settleTimeout, func() bool { return w.err != nil })
		ended[i] = w.err.Error()
	}
	if ended[0] != ended[1] {
		second.t.Errorf("watch stream of a learner:\n  holdfast %s\n  etcd     %s", ended[0], ended[1])
	}
	if got := receiveSnapshotOf(second); len(got) > 0 {
		second.t.Error(got)
	}
}

func receiveSnapshotOf(p *pair) []string {
	ours, theirs := both(p, func(side *target) chunks { return receiveSnapshot(p.t, side) })
	return append(ours.problems, theirs.problems...)
}

func promoteBoth(p *pair, id uint64) {
	p.call(&pb.MemberPromoteRequest{ID: memberNames})
	p.call(&pb.MemberPromoteRequest{ID: 12345})
	p.call(&pb.MoveLeaderRequest{TargetID: id})
	p.call(&pb.MemberAddRequest{PeerURLs: []string{"http://127.9.9.9:1"}, IsLearner: true})
	var promoted sync.Map
	p.await("promoted", &pb.MemberPromoteRequest{ID: id}, func(a answer) bool {
		if a.msg != nil {
			promoted.Store(len(a.msg.(*pb.MemberPromoteResponse).Members), a)
		}
		return a.msg != nil
	})
	promoted.Range(func(_, a any) bool {
		covered.request("Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: id})
		covered.answer(a.(answer))
		return true
	})
	p.call(&pb.MemberPromoteRequest{ID: id})
	p.call(&pb.MemberListRequest{Linearizable: true})
}

// twoVoters asks the leader and the follower, and moves the leadership there
// and back.
func twoVoters(p, second *pair, id uint64) {
	second.await("leads or follows", get("a"), func(a answer) bool { return a.msg != nil })
	for _, r := range []proto.Message{
		get("a"), put("b", "1"), &pb.StatusRequest{}, &pb.LeaseTimeToLiveRequest{ID: 7}, &pb.LeaseTimeToLiveRequest{ID: 8}, &pb.LeaseLeasesRequest{},
		&pb.LeaseGrantRequest{ID: 9, TTL: 6000}, &pb.MemberPromoteRequest{ID: id}, &pb.MemberPromoteRequest{ID: 12345},
		&pb.AlarmRequest{}, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT}, &pb.StatusRequest{},
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT}, &pb.HashKVRequest{Revision: 2},
	} {
		second.call(r)
	}
	k := newKeepAlivePair(second)
	k.renew(7)
	k.renew(8)
	second.want(&pb.MoveLeaderRequest{TargetID: id}, "etcdserver: not leader")
	p.want(&pb.MoveLeaderRequest{TargetID: 12345}, "etcdserver: bad leader transferee")
	for _, move := range []struct {
		from *pair
		to   uint64
	}{{p, id}, {second, memberNames}} {
		leads := func(a answer) bool {
			r, isStatus := a.msg.(*pb.StatusResponse)
			return isStatus && r.Leader == move.to
		}
		move.from.call(&pb.MoveLeaderRequest{TargetID: move.to})
		p.await("sees the new leader", &pb.StatusRequest{}, leads)
		second.await("sees the new leader", &pb.StatusRequest{}, leads)
	}
	p.call(put("c", "1"))
	p.call(everything())
}

// listLeases wants leases listed, in any order: who does not count their time has none.
func listLeases(p *pair, ids ...int64) {
	p.t.Helper()
	p.await("lists its leases", &pb.LeaseLeasesRequest{}, func(a answer) bool {
		r, _ := a.msg.(*pb.LeaseLeasesResponse)
		var listed []int64
		for _, l := range r.GetLeases() {
			listed = append(listed, l.ID)
		}
		slices.Sort(listed)
		return slices.Equal(listed, ids)
	})
}

// withoutQuorum stops the second member and asks the first.
func withoutQuorum(p, second *pair) {
	st := newWatchPair(p, false, "hasleader", "true")
	both(second, func(side *target) any { side.stop(); return nil })
	p.await("notices", &pb.StatusRequest{}, func(a answer) bool {
		r, isStatus := a.msg.(*pb.StatusResponse)
		return isStatus && r.Leader == 0
	})
	p.want(get("a"), "etcdserver: no leader", "hasleader", "true")
	p.want(put("a", "3"), "etcdserver: no leader", "hasleader", "true")
	voter := &pb.MemberAddRequest{PeerURLs: []string{"http://127.9.9.9:1"}}
	p.want(voter, "etcdserver: unhealthy cluster")
	p.want(&pb.MemberAddRequest{PeerURLs: voter.PeerURLs, IsLearner: true}, "etcdserver: unhealthy cluster")
	p.call(&pb.RangeRequest{Key: []byte("a"), Serializable: true})
	p.call(&pb.MemberListRequest{})
	p.call(&pb.StatusRequest{})
	listLeases(p, 7, 9)
	local := rangeOp(&pb.RangeRequest{Key: []byte("a"), Serializable: true})
	waited := make(chan [2]time.Duration, 1)
	go func() { waited <- waits(p, put("a", "3")) }()
	k, renewed := newKeepAlivePair(p), make(chan struct{})
	go func() {
		defer close(renewed)
		k.renew(7)
	}()
	p.callAll(
		get("a"), put("a", "3"), &pb.DeleteRangeRequest{Key: []byte("a")}, &pb.TxnRequest{}, &pb.TxnRequest{Success: []*pb.RequestOp{putOp(put("a", "3"))}},
		&pb.CompactionRequest{Revision: 2}, &pb.LeaseGrantRequest{TTL: 100}, &pb.LeaseRevokeRequest{ID: 7}, &pb.LeaseTimeToLiveRequest{ID: 7},
		&pb.MemberListRequest{Linearizable: true}, &pb.AlarmRequest{}, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE},
		&pb.MemberPromoteRequest{ID: memberNames}, &pb.TxnRequest{Success: []*pb.RequestOp{local}}, &pb.TxnRequest{Success: []*pb.RequestOp{local}, Failure: []*pb.RequestOp{rangeOp(get("a"))}},
	)
	if w := <-waited; (w[0] - w[1]).Abs() > leaderAway { // Twice that is a part of it.
		p.t.Errorf("a put without a quorum fails after %v, in etcd after %v", w[0], w[1])
	}
	<-renewed
	var ended [2]string
	for i, w := range st.sides() {
		w.wait(settleTimeout, func() bool { return w.err != nil })
		if ended[i] = "goes on"; w.err != nil {
			ended[i] = w.err.Error()
		}
	}
	if ended[0] != ended[1] {
		p.t.Errorf("watch stream that wants a leader:\n  holdfast %s\n  etcd     %s", ended[0], ended[1])
	}
}

// waits is how long each side takes to answer.
func waits(p *pair, req proto.Message) [2]time.Duration {
	_, m := methodOf(req)
	ours, theirs := both(p, func(side *target) time.Duration {
		start := time.Now()
		side.call(p.t.Context(), m, req)
		return time.Since(start)
	})
	return [2]time.Duration{ours, theirs}
}

package statemachine

import (
	"path/filepath"
	"strconv"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// FuzzCommand applies whatever bytes the log may hold, as a request and as a
// change of the members: an error is an answer, a panic would stop every member.
func FuzzCommand(f *testing.F) {
	for _, c := range []*holdfastpb.Command{
		put("a", "1"), del("a", "z"), grant(1, 5), revoke(1), expire(2, 1), putLeased("a", 1),
		setAlarm(1, pb.AlarmType_NOSPACE, true), memberAdd(1, "http://a:1", false), memberRemove(1),
		txn(&pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte{0}, Target: pb.Compare_VALUE}},
			Success: []*pb.RequestOp{opPut("a", "2"), opRange("a", 2), {Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}},
			Failure: []*pb.RequestOp{{}},
		}),
		{Command: &holdfastpb.Command_Compaction{Compaction: &pb.CompactionRequest{Revision: 1}}},
		{Command: &holdfastpb.Command_MemberPublish{MemberPublish: &holdfastpb.MemberPublish{Id: 1}}},
		{Command: &holdfastpb.Command_ClusterInit{ClusterInit: &holdfastpb.ClusterInit{}}},
	} {
		data, err := c.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	base, stores := f.TempDir(), 0
	var fx *fixture
	f.Fuzz(func(t *testing.T, data []byte) {
		if fx == nil || fx.index > 2000 { // A store that stays small enough to be quick.
			if fx != nil {
				fx.store.Close()
			}
			stores++
			fx = newFixtureIn(t, filepath.Join(base, strconv.Itoa(stores)))
		}
		fx.t = t
		fx.index++
		if _, err := fx.m.Apply([]entry.Entry{{Index: fx.index, Term: 2, Requests: []entry.Request{{Data: data}}}}); err != nil {
			t.Fatal(err)
		}
		fx.index++
		change := &raftpb.ConfChangeV2{}
		cmd := &holdfastpb.Command{}
		if cmd.UnmarshalVT(data) == nil && ConfChange(cmd) != nil {
			change = ConfChange(cmd)
		}
		_, err := fx.m.Apply([]entry.Entry{{Index: fx.index, Term: 2, Conf: &entry.ConfChange{
			Change: change, Request: entry.Request{Data: data},
			Resolve: func(bool) *raftpb.ConfState { return fx.conf },
		}}})
		if err != nil {
			t.Fatal(err)
		}
	})
}

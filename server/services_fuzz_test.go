package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// rawBytes sends requests as they are, whether they decode or not.
type rawBytes struct{}

func (rawBytes) Name() string { return "proto" }

func (rawBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawBytes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawBytes{}

const (
	fuzzCallMax  = readyMax // An answer that takes longer is a hang: the member is alone and idle.
	fuzzWatchMax = 3 * time.Millisecond
)

// method is one to call, and whether a member may rightly be without a quorum
// after it.
type method struct {
	name   string
	stream bool
	joins  bool
}

var methods = []method{
	{name: pb.KV_Range_FullMethodName}, {name: pb.KV_Put_FullMethodName}, {name: pb.KV_DeleteRange_FullMethodName},
	{name: pb.KV_Txn_FullMethodName}, {name: pb.KV_Compact_FullMethodName}, {name: pb.KV_RangeStream_FullMethodName, stream: true},
	{name: pb.Watch_Watch_FullMethodName, stream: true},
	{name: pb.Lease_LeaseGrant_FullMethodName}, {name: pb.Lease_LeaseRevoke_FullMethodName},
	{name: pb.Lease_LeaseKeepAlive_FullMethodName, stream: true},
	{name: pb.Lease_LeaseTimeToLive_FullMethodName}, {name: pb.Lease_LeaseLeases_FullMethodName},
	{name: pb.Cluster_MemberAdd_FullMethodName, joins: true}, {name: pb.Cluster_MemberRemove_FullMethodName},
	{name: pb.Cluster_MemberUpdate_FullMethodName}, {name: pb.Cluster_MemberList_FullMethodName},
	{name: pb.Cluster_MemberPromote_FullMethodName, joins: true},
	{name: pb.Maintenance_Alarm_FullMethodName}, {name: pb.Maintenance_Status_FullMethodName},
	{name: pb.Maintenance_Hash_FullMethodName}, {name: pb.Maintenance_HashKV_FullMethodName},
	{name: pb.Maintenance_Snapshot_FullMethodName, stream: true}, {name: pb.Maintenance_MoveLeader_FullMethodName},
	{name: pb.Maintenance_Downgrade_FullMethodName}, {name: pb.Maintenance_Defragment_FullMethodName},
	{name: pb.Auth_AuthEnable_FullMethodName}, {name: pb.Auth_Authenticate_FullMethodName}, {name: pb.Auth_UserAdd_FullMethodName},
	{name: pb.Auth_RoleGrantPermission_FullMethodName}, {name: "/etcdserverpb.KV/Nothing"},
}

// fuzzedMember is a member and a connection to it.
type fuzzedMember struct {
	*servertest.Member
	conn *grpc.ClientConn
}

func newFuzzedMember(f *testing.F) *fuzzedMember {
	m := servertest.New(f, 1, func(_ int, c *server.Config) { c.QuotaBytes, c.BcryptCost = 64<<20, 4 }).Members[0]
	conn, err := m.DialInside()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return &fuzzedMember{m, conn}
}

// FuzzServices calls every method of a living member with anything, through
// guard, checks, log and state machine. The member answers in time and lives.
func FuzzServices(f *testing.F) {
	seed := func(name string, request interface{ MarshalVT() ([]byte, error) }) {
		data, err := request.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		for i, m := range methods {
			if m.name == name {
				f.Add(byte(i), data)
			}
		}
	}
	for i := range methods {
		f.Add(byte(i), []byte{})
	}
	k := []byte("k")
	seed(pb.KV_Put_FullMethodName, &pb.PutRequest{Key: k, Value: k, PrevKv: true})
	seed(pb.KV_Put_FullMethodName, &pb.PutRequest{Key: k, IgnoreValue: true, Lease: 7})
	seed(pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: k, RangeEnd: []byte{0}, Limit: 1, SortOrder: 2, SortTarget: 4, Serializable: true})
	seed(pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{Key: k, RangeEnd: []byte("l"), PrevKv: true})
	seed(pb.KV_Compact_FullMethodName, &pb.CompactionRequest{Revision: 2, Physical: true})
	seed(pb.KV_Txn_FullMethodName, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: k, RangeEnd: []byte{0}, Target: pb.Compare_MOD}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k}}}, {}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}},
	})
	seed(pb.Watch_Watch_FullMethodName, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: k, RangeEnd: []byte{0}, StartRevision: 1, ProgressNotify: true, PrevKv: true, Fragment: true, WatchId: 3,
		Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT},
	}}})
	seed(pb.Watch_Watch_FullMethodName, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 3}}})
	seed(pb.Watch_Watch_FullMethodName, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	seed(pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{TTL: 5, ID: 7})
	seed(pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: 7})
	seed(pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{ID: 7, Keys: true})
	seed(pb.Cluster_MemberAdd_FullMethodName, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
	seed(pb.Cluster_MemberUpdate_FullMethodName, &pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:1"}})
	seed(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{Action: 1, Alarm: 1})
	seed(pb.Maintenance_HashKV_FullMethodName, &pb.HashKVRequest{Revision: 1})

	m := newFuzzedMember(f)
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		call := methods[int(which)%len(methods)]
		err := m.call(call, data)
		select {
		case <-m.Done():
			t.Fatalf("%s ended the member: %v", call.name, m.Err())
		default:
		}
		if err == nil {
			return
		}
		if !call.joins {
			t.Fatalf("%s: %v", call.name, err)
		}
		m.Stop() // Another voter that never comes: a quorum of one is none.
		m = newFuzzedMember(f)
	})
}

// call makes one call, whatever it answers, and fails only when it does not end.
func (m *fuzzedMember) call(call method, data []byte) error {
	limit := fuzzCallMax
	if call.stream {
		limit = fuzzWatchMax // A watch has no end of its own.
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	options := []grpc.CallOption{grpc.ForceCodecV2(rawBytes{})}
	var answer []byte
	if !call.stream {
		if err := m.conn.Invoke(ctx, call.name, data, &answer, options...); err != nil && ctx.Err() != nil {
			return fmt.Errorf("no answer within %v: %w", limit, err)
		}
		return nil
	}
	s, err := m.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, call.name, options...)
	if err != nil {
		return ignoreStatus(err)
	}
	for range 2 {
		if s.SendMsg(data) != nil {
			break // Receiving tells why.
		}
	}
	if err := s.CloseSend(); err != nil {
		return ignoreStatus(err)
	}
	for err == nil {
		err = s.RecvMsg(&answer)
	}
	return nil
}

func ignoreStatus(err error) error {
	if _, ok := status.FromError(err); ok {
		return nil
	}
	return err
}

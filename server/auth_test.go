package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
	lockpb "github.com/holdfast-db/holdfast/proto/v3lockpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// cheap passwords: tests make many.
func cheap(_ int, c *server.Config) { c.BcryptCost = bcrypt.MinCost }

// guarded is a cluster with authentication on: root, and alice whose role
// permits the keys from a to b, and to read c.
type guarded struct {
	t *testing.T
	*servertest.Cluster
	conn *grpc.ClientConn
}

func newGuarded(t *testing.T, n int, set func(int, *server.Config)) *guarded {
	t.Helper()
	g := &guarded{t: t, Cluster: servertest.New(t, n, func(i int, c *server.Config) {
		cheap(i, c)
		if set != nil {
			set(i, c)
		}
	})}
	g.conn = dial(t, g.Members[0])
	a := pb.NewAuthClient(g.conn)
	ctx := t.Context()
	succeed(t)(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "secret"}))
	succeed(t)(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	succeed(t)(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "alice", Password: "wonder"}))
	succeed(t)(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "mallory", Password: "guess"}))
	succeed(t)(a.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "letters"}))
	g.grant(ctx, authpb.Permission_READWRITE, "a", "b")
	g.grant(ctx, authpb.Permission_READ, "c", "")
	succeed(t)(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "letters"}))
	for _, key := range []string{"a1", "c", "secret"} {
		mustPut(t, g.conn, key, "1")
	}
	succeed(t)(a.AuthEnable(ctx, &pb.AuthEnableRequest{}))
	return g
}

func (g *guarded) grant(ctx context.Context, kind authpb.Permission_Type, key, end string) {
	g.t.Helper()
	succeed(g.t)(pb.NewAuthClient(g.conn).RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{
		Name: "letters", Perm: &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)},
	}))
}

func succeed(t *testing.T) func(_ any, err error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// as is a context with the token of a user.
func (g *guarded) as(user, password string) context.Context {
	g.t.Helper()
	r, err := pb.NewAuthClient(g.conn).Authenticate(g.t.Context(), &pb.AuthenticateRequest{Name: user, Password: password})
	if err != nil {
		g.t.Fatalf("log in as %s: %v", user, err)
	}
	return metadata.AppendToOutgoingContext(g.t.Context(), "token", r.Token)
}

// call makes a call of any kind and returns how it ended; a watch that was not
// created ends with its reason.
func call(ctx context.Context, conn *grpc.ClientConn, method string, req proto.Message) error {
	desc := descriptorOf(method)
	if !desc.IsStreamingClient() && !desc.IsStreamingServer() {
		return conn.Invoke(ctx, method, req, newMessage(desc.Output()))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !desc.IsStreamingClient() {
		s.CloseSend()
	}
	answer := newMessage(desc.Output())
	if err := s.RecvMsg(answer); err != nil {
		return err
	}
	if w, ok := answer.(*pb.WatchResponse); ok && w.Canceled {
		return errors.New(w.CancelReason)
	}
	return nil
}

func descriptorOf(method string) protoreflect.MethodDescriptor {
	service, name, _ := strings.Cut(method[1:], "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		panic(err)
	}
	return d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
}

func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err)
	}
	return kind.New().Interface()
}

// asked are requests that are looked at before anybody asks who makes them.
// leads is the proof of somebody who may have won an election.
var leads = &electionpb.LeaderKey{Name: []byte("secret"), Key: []byte("secret/1"), Rev: 2, Lease: 1}

var asked = map[string]proto.Message{
	pb.KV_Range_FullMethodName:                  &pb.RangeRequest{Key: []byte("secret")},
	pb.KV_RangeStream_FullMethodName:            &pb.RangeRequest{Key: []byte("secret")},
	pb.KV_Put_FullMethodName:                    &pb.PutRequest{Key: []byte("secret")},
	pb.KV_DeleteRange_FullMethodName:            &pb.DeleteRangeRequest{Key: []byte("secret")},
	pb.KV_Txn_FullMethodName:                    &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("secret")}}},
	pb.Watch_Watch_FullMethodName:               createWatch("secret", ""),
	pb.Cluster_MemberAdd_FullMethodName:         &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}},
	pb.Cluster_MemberUpdate_FullMethodName:      &pb.MemberUpdateRequest{PeerURLs: []string{"http://127.0.0.1:1"}},
	pb.Maintenance_MoveLeader_FullMethodName:    &pb.MoveLeaderRequest{TargetID: 1},
	lockpb.Lock_Unlock_FullMethodName:           &lockpb.UnlockRequest{Key: []byte("secret/1")},
	electionpb.Election_Proclaim_FullMethodName: &electionpb.ProclaimRequest{Leader: leads, Value: []byte("v")},
	electionpb.Election_Resign_FullMethodName:   &electionpb.ResignRequest{Leader: leads},
}

func createWatch(key, end string) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func TestEveryMethodAsksWhoCalls(t *testing.T) {
	g := newGuarded(t, 1, nil)
	mallory := g.as("mallory", "guess")
	garbage := metadata.AppendToOutgoingContext(t.Context(), "token", "garbage")
	// What anybody may call, and what any user may.
	everybody := []string{"/Authenticate", "/AuthStatus", "/grpc.health.", "/grpc.reflection."}
	users := append([]string{"/MemberList", "/Status", "/Alarm", "/LeaseGrant", "/LeaseRevoke", "/LeaseKeepAlive", "/LeaseTimeToLive", "/LeaseLeases"}, everybody...)
	among := func(method string, list []string) bool {
		for _, part := range list {
			if strings.Contains(method, part) {
				return true
			}
		}
		return false
	}
	for _, method := range g.Members[0].Methods() {
		if among(method, []string{"/grpc.", "/Authenticate"}) {
			continue // Not ours, or asked for below.
		}
		req := asked[method]
		if req == nil {
			req = newMessage(descriptorOf(method).Input())
		}
		for _, c := range []struct {
			who  string
			ctx  context.Context
			may  []string
			want []string
		}{
			{"nobody", t.Context(), everybody, []string{"etcdserver: user name is empty"}},
			{"garbage", garbage, nil, []string{"etcdserver: invalid auth token"}},
			{"mallory", mallory, users, []string{"etcdserver: permission denied"}},
		} {
			err := call(c.ctx, g.conn, method, req)
			if among(method, c.may) {
				if code := status.Code(err); code == codes.PermissionDenied || code == codes.Unauthenticated || strings.Contains(fmt.Sprint(err), "user name is empty") {
					t.Errorf("%s as %s: %v", method, c.who, err)
				}
				continue
			}
			if err == nil || !strings.HasSuffix(err.Error(), c.want[0]) {
				t.Errorf("%s as %s: got %v, want %q", method, c.who, err, c.want[0])
			}
		}
	}
	if err := call(garbage, g.conn, pb.Auth_Authenticate_FullMethodName, &pb.AuthenticateRequest{Name: "mallory", Password: "guess"}); err != nil {
		t.Errorf("whoever logs in again comes with a void token, and must not be refused for it: %v", err)
	}
	err := call(t.Context(), g.conn, pb.Auth_Authenticate_FullMethodName, &pb.AuthenticateRequest{Name: "mallory", Password: "wrong"})
	if other := call(t.Context(), g.conn, pb.Auth_Authenticate_FullMethodName, &pb.AuthenticateRequest{Name: "who", Password: "wrong"}); err == nil || other == nil || err.Error() != other.Error() {
		t.Errorf("a wrong password says %v, an unknown user %v", err, other)
	}
}

func put(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func nested(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// reach is a request of alice's and whether she may make it.
type reach struct {
	name, method string
	req          proto.Message
	may          bool
}

func reachOfKeys() []reach {
	deletes := func(key, end string, prev bool) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: prev}}}
	}
	leased := func(key string, id int64) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Lease: id}}}
	}
	reads := func(key, end string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
	}
	only := func(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }
	return []reach{
		{"own key", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("a1")}, true},
		{"own range", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b")}, true},
		{"serializable", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("secret"), Serializable: true}, false},
		{"range wider than the grant", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d")}, false},
		{"from a key on", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}, false},
		{"count only", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}, false},
		{"put", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("a3")}, true},
		{"put what may only be read", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("c")}, false},
		{"put what may only be written", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("w")}, true},
		{"and read what was there", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("w"), PrevKv: true}, false},
		{"delete what may only be written", pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{Key: []byte("w")}, true},
		{"and read what was deleted", pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{Key: []byte("w"), PrevKv: true}, false},
		{"put on somebody's lease", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("a3"), Lease: 1}, false},
		{"put on the own lease", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("a3"), Lease: 2}, true},
		{"txn", pb.KV_Txn_FullMethodName, only(put("a4"), reads("c", "")), true},
		{"compare", pb.KV_Txn_FullMethodName, &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("secret")}}, Success: []*pb.RequestOp{put("a4")}}, false},
		{"compare a range", pb.KV_Txn_FullMethodName, &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte{0}}}, Success: []*pb.RequestOp{put("a4")}}, false},
		{"branch not taken", pb.KV_Txn_FullMethodName, &pb.TxnRequest{Success: []*pb.RequestOp{put("a4")}, Failure: []*pb.RequestOp{put("secret")}}, false},
		{"nested txn", pb.KV_Txn_FullMethodName, only(nested(only(nested(only(put("secret")))))), false},
		{"nested compare", pb.KV_Txn_FullMethodName, only(nested(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("secret")}}})), false},
		{"nested read", pb.KV_Txn_FullMethodName, only(nested(only(reads("secret", "")))), false},
		{"nested txn of own keys", pb.KV_Txn_FullMethodName, only(nested(only(put("a4")))), true},
		{"read-only txn", pb.KV_Txn_FullMethodName, only(reads("secret", "")), false},
		{"lease inside a txn", pb.KV_Txn_FullMethodName, only(leased("a4", 1)), false},
		{"lease inside a nested txn", pb.KV_Txn_FullMethodName, only(nested(only(leased("a4", 1)))), false},
		{"previous value inside a txn", pb.KV_Txn_FullMethodName, only(deletes("w", "", true)), false},
		{"delete inside a txn", pb.KV_Txn_FullMethodName, only(deletes("a", string([]byte{0}), false)), false},
	}
}

func reachOfTheRest() []reach {
	return []reach{
		{"watch", pb.Watch_Watch_FullMethodName, createWatch("a1", ""), true},
		{"watch from a key on, by the grant of one", pb.Watch_Watch_FullMethodName, createWatch("c", "\x00"), false},
		{"watch wider than the grant", pb.Watch_Watch_FullMethodName, createWatch("a", "d"), false},
		{"watch everything", pb.Watch_Watch_FullMethodName, createWatch("", "\x00"), false},
		{"keep somebody's lease alive", pb.Lease_LeaseKeepAlive_FullMethodName, &pb.LeaseKeepAliveRequest{ID: 1}, false},
		{"keep the own lease alive", pb.Lease_LeaseKeepAlive_FullMethodName, &pb.LeaseKeepAliveRequest{ID: 2}, true},
		{"keep alive the lease of a key to read", pb.Lease_LeaseKeepAlive_FullMethodName, &pb.LeaseKeepAliveRequest{ID: 3}, false},
		{"keys of somebody's lease", pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{ID: 1, Keys: true}, false},
		{"time of somebody's lease", pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{ID: 1}, true},
		{"keys of a lease to read", pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{ID: 3, Keys: true}, true},
		{"all leases", pb.Lease_LeaseLeases_FullMethodName, &pb.LeaseLeasesRequest{}, false},
		{"revoke somebody's lease", pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: 1}, false},
		{"revoke the own lease", pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: 2}, true},
		{"compact", pb.KV_Compact_FullMethodName, &pb.CompactionRequest{Revision: 2}, false},
		{"raise an alarm", pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}, false},
		{"list alarms", pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{}, true},
		{"herself", pb.Auth_UserGet_FullMethodName, &pb.AuthUserGetRequest{Name: "alice"}, true},
		{"others", pb.Auth_UserGet_FullMethodName, &pb.AuthUserGetRequest{Name: "root"}, false},
		{"her role", pb.Auth_RoleGet_FullMethodName, &pb.AuthRoleGetRequest{Role: "letters"}, true},
		{"other roles", pb.Auth_RoleGet_FullMethodName, &pb.AuthRoleGetRequest{Role: "root"}, false},
		{"her own password", pb.Auth_UserChangePassword_FullMethodName, &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "x"}, false},
	}
}

// TestNoRequestReachesFurtherThanItsGrants goes through the ways in which etcd
// was once too generous, and the plain ones.
func TestNoRequestReachesFurtherThanItsGrants(t *testing.T) {
	g := newGuarded(t, 1, nil)
	alice, boss := g.as("alice", "wonder"), g.as("root", "secret")
	lease := func(id int64, key string) {
		succeed(t)(pb.NewLeaseClient(g.conn).LeaseGrant(boss, &pb.LeaseGrantRequest{ID: id, TTL: 1000}))
		succeed(t)(pb.NewKVClient(g.conn).Put(boss, &pb.PutRequest{Key: []byte(key), Lease: id}))
	}
	lease(1, "secret")
	lease(2, "a2")
	lease(3, "c")
	succeed(t)(pb.NewAuthClient(g.conn).RoleGrantPermission(boss, &pb.AuthRoleGrantPermissionRequest{
		Name: "letters", Perm: &authpb.Permission{PermType: authpb.Permission_WRITE, Key: []byte("w")},
	}))
	for _, c := range append(reachOfKeys(), reachOfTheRest()...) {
		err := call(alice, g.conn, c.method, c.req)
		switch {
		case c.may && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !c.may && (err == nil || !strings.HasSuffix(err.Error(), "etcdserver: permission denied")):
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestATokenIsGoodOnEveryMemberUntilItsUserChanges(t *testing.T) {
	t.Parallel() // It mostly waits.
	g := newGuarded(t, 3, nil)
	alice, boss := g.as("alice", "wonder"), g.as("root", "secret")
	read := &pb.RangeRequest{Key: []byte("a1")}
	for _, m := range g.Members {
		succeed(t)(pb.NewKVClient(dial(t, m)).Range(alice, read))
	}
	admin := pb.NewAuthClient(g.conn)
	succeed(t)(admin.UserChangePassword(boss, &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "other"}))
	for _, m := range g.Members {
		conn := dial(t, m)
		if _, err := pb.NewMaintenanceClient(conn).Alarm(boss, &pb.AlarmRequest{}); err != nil { // Makes it as new as the cluster.
			t.Fatal(err)
		}
		if _, err := pb.NewKVClient(conn).Range(alice, read); status.Code(err) != codes.Unauthenticated {
			t.Errorf("with a token from before the password: %v", err)
		}
	}
	if _, err := admin.Authenticate(t.Context(), &pb.AuthenticateRequest{Name: "alice", Password: "wonder"}); err == nil {
		t.Error("the old password is still good")
	}
	succeed(t)(pb.NewKVClient(g.conn).Range(g.as("alice", "other"), read))

	before := authStatus(t, g.conn)
	if before.AuthRevision != 10 {
		t.Errorf("the revision of users is %d after nine changes", before.AuthRevision)
	}
	leader := g.Leader()
	for _, m := range g.Members {
		if m != leader {
			m.Stop()
			m.Start()
			m.WaitReady()
			if after := authStatus(t, dial(t, m)); after.AuthRevision != before.AuthRevision || !after.Enabled {
				t.Errorf("after a restart: %v, before: %v", after, before)
			}
			return
		}
	}
}

func authStatus(t *testing.T, conn *grpc.ClientConn) *pb.AuthStatusResponse {
	t.Helper()
	r, err := pb.NewAuthClient(conn).AuthStatus(t.Context(), &pb.AuthStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// BenchmarkWarmLogin: how many logins a second whose password was right before?
// At least 5,000, whatever the cost of the hash.
func BenchmarkWarmLogin(b *testing.B) {
	c := servertest.New(b, 1, func(_ int, c *server.Config) { c.BcryptCost = bcrypt.DefaultCost })
	conn := dial(b, c.Members[0])
	a := pb.NewAuthClient(conn)
	for _, step := range []func() error{
		func() error {
			_, err := a.UserAdd(b.Context(), &pb.AuthUserAddRequest{Name: "root", Password: "secret"})
			return err
		},
		func() error {
			_, err := a.UserGrantRole(b.Context(), &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
			return err
		},
		func() error { _, err := a.AuthEnable(b.Context(), &pb.AuthEnableRequest{}); return err },
		func() error {
			_, err := a.Authenticate(b.Context(), &pb.AuthenticateRequest{Name: "root", Password: "secret"})
			return err
		},
	} {
		if err := step(); err != nil {
			b.Fatal(err)
		}
	}
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := a.Authenticate(b.Context(), &pb.AuthenticateRequest{Name: "root", Password: "secret"}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

package differential

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	authSequences = 2
	authLength    = 1500
	authShort     = 900
)

// guests is a pair and who calls: tokens are drawn by each side for itself.
type guests struct {
	*pair
	*rand.Rand
	tokens  map[*target]map[string]string // By user.
	enabled int                           // How often that was seen to.
}

func newGuests(t *testing.T, seed uint64, token string) *guests {
	g := &guests{pair: newPair(t, options{cheap: true, token: token}), Rand: rand.New(rand.NewPCG(seed, 2)), tokens: map[*target]map[string]string{}}
	for _, side := range g.sides() {
		g.tokens[side] = map[string]string{"garbage": "garbage", "dotted": "abcdefghijklmnop.1"}
	}
	g.stopAfter = differencesMax
	return g
}

// context of a call by somebody; a user without a token comes without.
func (g *guests) context(side *target, who string) context.Context {
	token, ok := g.tokens[side][who]
	if !ok {
		return g.t.Context()
	}
	return metadata.AppendToOutgoingContext(g.t.Context(), "token", token)
}

// as sends a request to both sides in somebody's name.
func (g *guests) as(who string, req proto.Message) answer {
	g.t.Helper()
	g.sent++
	name, m := methodOf(req)
	ours, theirs := both(g.pair, func(side *target) answer { return side.call(g.context(side, who), m, req) })
	if login, ok := req.(*pb.AuthenticateRequest); ok {
		for side, a := range map[*target]answer{g.ours: ours, g.theirs: theirs} {
			if r, ok := a.msg.(*pb.AuthenticateResponse); ok {
				g.checkToken(side, login.Name, r.Token)
				g.tokens[side][login.Name] = r.Token
				covered.answer(a)
				r.Token = ""
			}
		}
	}
	g.learn(req, ours, theirs)
	covered.request(name, req)
	covered.answer(ours)
	g.compare(who+": "+name, req, ours, theirs)
	return ours
}

var tokenForm = regexp.MustCompile(`^[A-Za-z]{16}\.[0-9]+$`)

// checkToken looks at the form of a token, and at what a signed one says.
func (g *guests) checkToken(side *target, user, token string) {
	g.t.Helper()
	if g.options.token == "" {
		if !tokenForm.MatchString(token) {
			g.t.Errorf("%s gives out a token %q", side.side, token)
		}
		return
	}
	var claims map[string]any
	parts := strings.Split(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	revision, dated := claims["revision"].(float64)
	expires, ends := claims["exp"].(float64)
	if err != nil || len(parts) != 3 || len(claims) != 3 || claims["username"] != user || !dated || revision < 1 || !ends || time.Until(time.Unix(int64(expires), 0)) <= 0 {
		g.t.Errorf("%s gives out a token that says %s, %v", side.side, text, err)
	}
}

// firstOf opens a stream, sends one request and returns what comes back first.
func (g *guests) firstOf(who, method string, req proto.Message) answer {
	g.t.Helper()
	g.sent++
	m := methods[method]
	ours, theirs := both(g.pair, func(side *target) answer {
		ctx, cancel := context.WithCancel(g.context(side, who))
		defer cancel()
		s, err := side.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, m.path)
		out := m.out.New().Interface()
		if err == nil {
			if err = s.SendMsg(side.names.outward(req)); err == nil || errors.Is(err, io.EOF) {
				err = s.RecvMsg(out)
			}
		}
		if err != nil {
			return answer{st: status.Convert(err)}
		}
		return answer{msg: side.names.inward(out)}
	})
	covered.request(method, req)
	covered.answer(ours)
	g.compare(who+": "+method, req, ours, theirs)
	return ours
}

func choose[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func TestUsersMayDoWhatEtcdLetsThem(t *testing.T) {
	askAround(t, seedsOf(authSequences), authLength, authShort, "")
}

// A signed token is good for one revision of users and roles.
func TestUsersWithSignedTokensMayDoWhatEtcdLetsThem(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	askAround(t, seedsOf(1), authShort, authShort/2, "jwt,sign-method=HS256,priv-key="+key+",ttl=1h")
}

func askAround(t *testing.T, seeds []uint64, length, short int, token string) {
	name := t.Name()
	if testing.Short() {
		length = short
	}
	if *requests != 0 {
		length = *requests
	}
	for _, s := range seeds {
		t.Run(fmt.Sprint("seed ", s), func(t *testing.T) {
			t.Parallel()
			t.Logf("again: go test -C tests/compat ./differential -run %s -seed=%d -requests=%d", name, s, length)
			g := newGuests(t, s, token)
			for g.sent < length && !g.spent() {
				if g.sent/150 != g.enabled { // Most of the time permissions are asked for.
					g.enabled = g.sent / 150
					g.enable()
				}
				g.step()
			}
		})
	}
}

// enable turns authentication on, whatever happened before.
func (g *guests) enable() {
	g.as("root", &pb.AuthDisableRequest{})
	for _, req := range []proto.Message{
		&pb.AuthUserAddRequest{Name: "root", Password: "one"}, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"},
		&pb.AuthUserChangePasswordRequest{Name: "root", Password: "one"}, &pb.AuthUserAddRequest{Name: "alice", Password: "one"},
		&pb.AuthUserChangePasswordRequest{Name: "alice", Password: "one"}, &pb.AuthRoleAddRequest{Name: "r1"},
		&pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "root"}, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "r1"}, &pb.AuthEnableRequest{},
	} {
		g.as("root", req)
	}
	for _, user := range []string{"root", "alice"} {
		g.as("nobody", &pb.AuthenticateRequest{Name: user, Password: "one"})
	}
}

var (
	people = []string{"root", "alice", "bob", "carol"}
	ranks  = []string{"root", "r1", "r2", "r3"}
)

func (g *guests) step() {
	who := choose(g.Rand, "root", "root", "alice", "alice", "alice", "bob", "carol", "nobody", "garbage", "dotted")
	if g.options.token != "" && g.yes(3) { // It is old again soon.
		g.as("nobody", &pb.AuthenticateRequest{Name: who, Password: "one"})
	}
	switch n := g.IntN(100); {
	case n < 12:
		name := choose(g.Rand, append(people, "stranger", "")...)
		g.as(choose(g.Rand, "nobody", "nobody", "garbage", "alice"), &pb.AuthenticateRequest{Name: name, Password: choose(g.Rand, "one", "one", "two", "")})
	case n < 40:
		if g.IntN(3) > 0 {
			who = "root"
		}
		g.as(who, g.authRequest())
	case n < 44:
		g.firstOf(who, "Watch/Watch", g.watch())
	case n < 47:
		g.firstOf(who, "Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: int64(g.IntN(5))})
	case n < 60:
		g.as(who, g.otherRequest())
	default:
		req := g.keyRequest(2)
		if r, isRange := req.(*pb.RangeRequest); isRange && g.yes(6) {
			g.inParts(who, r)
			return
		}
		g.as(who, req)
	}
}

func (g *guests) inParts(who string, r *pb.RangeRequest) {
	g.t.Helper()
	g.sent++
	ours, theirs := both(g.pair, func(side *target) answer { return g.parts(g.context(side, who), side, r) })
	covered.request("KV/RangeStream", r)
	covered.answer(ours)
	g.compare(who+": KV/RangeStream", r, ours, theirs)
}

func (g *guests) key() []byte { return []byte(choose(g.Rand, "a", "ab", "b", "c", "d", "e")) }

func (g *guests) end(key []byte) []byte {
	end := choose(g.Rand, nil, nil, []byte{0}, []byte("c"), []byte("e"), append(key[:len(key):len(key)], 'x'))
	if len(end) > 0 && end[0] != 0 && bytes.Compare(key, end) >= 0 {
		return nil // See empty-range-permission.
	}
	return end
}

func (g *guests) yes(n int) bool { return g.IntN(n) == 0 }

func (g *guests) keyRequest(depth int) proto.Message {
	key := g.key()
	switch g.IntN(5) {
	case 0:
		return &pb.PutRequest{Key: key, Value: []byte("v"), PrevKv: g.yes(3), Lease: int64(choose(g.Rand, 0, 0, 0, g.IntN(5)))}
	case 1:
		return &pb.DeleteRangeRequest{Key: key, RangeEnd: g.end(key), PrevKv: g.yes(3)}
	case 2:
		return g.txn(depth)
	}
	return &pb.RangeRequest{Key: key, RangeEnd: g.end(key), Serializable: g.yes(2), CountOnly: g.yes(4), Limit: int64(g.IntN(3))}
}

func (g *guests) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range g.IntN(2) {
		key := g.key()
		t.Compare = append(t.Compare, &pb.Compare{Key: key, RangeEnd: g.end(key), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER})
	}
	t.Success, t.Failure = g.branch(depth), g.branch(depth)
	if len(t.Compare)+len(t.Success)+len(t.Failure) == 0 {
		t.Success = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: g.key()}}}}
	}
	return t
}

func (g *guests) branch(depth int) (ops []*pb.RequestOp) {
	for range g.IntN(3) {
		switch r := g.keyRequest(depth - 1).(type) {
		case *pb.PutRequest:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}})
		case *pb.DeleteRangeRequest:
			if len(r.RangeEnd) == 1 && r.RangeEnd[0] == 0 {
				r.RangeEnd = nil // See txn-delete-from-key.
			}
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}})
		case *pb.RangeRequest:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}})
		case *pb.TxnRequest:
			if depth > 0 && len(ops) == 0 { // See txn-nested-put-delete.
				ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}})
			}
		}
	}
	return ops
}

func (g *guests) watch() *pb.WatchRequest {
	key := g.key()
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: choose(g.Rand, key, key, nil), RangeEnd: g.end(key), StartRevision: choose(g.Rand, int64(0), 0, -1), PrevKv: g.yes(2),
	}}}
}

func (g *guests) otherRequest() proto.Message {
	id := int64(g.IntN(5))
	return choose[proto.Message](g.Rand,
		&pb.LeaseGrantRequest{ID: 1 + id%4, TTL: 1000 * (1 + id)}, &pb.LeaseGrantRequest{ID: 1 + id%4, TTL: 1000 * (1 + id)},
		&pb.LeaseRevokeRequest{ID: id}, &pb.LeaseTimeToLiveRequest{ID: id, Keys: g.yes(2)}, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}, &pb.LeaseLeasesRequest{},
		&pb.StatusRequest{}, &pb.AlarmRequest{}, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE},
		&pb.HashKVRequest{}, &pb.HashRequest{}, &pb.DefragmentRequest{}, &pb.MoveLeaderRequest{TargetID: 7},
		&pb.MemberListRequest{Linearizable: g.yes(2)}, &pb.MemberRemoveRequest{ID: 7}, &pb.MemberPromoteRequest{ID: 7},
		&pb.MemberUpdateRequest{ID: 7, PeerURLs: []string{"http://127.0.0.1:1"}}, &pb.MemberAddRequest{PeerURLs: []string{"nothing"}},
		&pb.CompactionRequest{Revision: int64(1 + g.IntN(20))}, &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "3.6.0"},
	)
}

func (g *guests) authRequest() proto.Message {
	user, role, key := choose(g.Rand, append(people, "stranger")...), choose(g.Rand, append(ranks, "rank")...), g.key()
	end := map[string][]byte{"a": nil, "ab": []byte("b"), "b": []byte("d"), "c": {0}, "d": []byte("da"), "e": []byte("a")}[string(key)] // One for each: see role-grant-again.
	switch g.IntN(24) {
	case 0, 1:
		r := &pb.AuthUserAddRequest{Name: choose(g.Rand, user, user, user, ""), Password: choose(g.Rand, "one", "two", "")}
		if user == "carol" || g.yes(8) {
			r.Options = &authpb.UserAddOptions{NoPassword: user == "carol"}
		}
		if g.yes(4) {
			r.HashedPassword = "ignored"
		}
		return r
	case 2:
		if g.yes(3) {
			return &pb.AuthUserDeleteRequest{Name: user}
		}
		return &pb.AuthUserGetRequest{Name: user}
	case 3:
		r := &pb.AuthUserChangePasswordRequest{Name: user, Password: choose(g.Rand, "one", "one", "two", "")}
		if r.Password == "" {
			r.HashedPassword = choose(g.Rand, "", "not base64!", base64.StdEncoding.EncodeToString([]byte("no hash")))
		}
		return r
	case 4, 5, 6:
		return &pb.AuthUserGrantRoleRequest{User: user, Role: role}
	case 7:
		return &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}
	case 8, 9, 10:
		return &pb.AuthUserGetRequest{Name: user}
	case 11, 12:
		return &pb.AuthRoleAddRequest{Name: choose(g.Rand, role, role, role, role, "")}
	case 13:
		return &pb.AuthRoleDeleteRequest{Role: role}
	case 14, 15:
		return &pb.AuthRoleGetRequest{Role: role}
	case 16, 17, 18:
		if g.yes(12) {
			return &pb.AuthRoleGrantPermissionRequest{Name: role}
		}
		return &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
			PermType: choose(g.Rand, authpb.Permission_READ, authpb.Permission_WRITE, authpb.Permission_READWRITE, 7), Key: key, RangeEnd: end,
		}}
	case 19:
		return &pb.AuthRoleRevokePermissionRequest{Role: role, Key: key, RangeEnd: choose(g.Rand, end, end, []byte("z"))}
	case 20:
		return choose[proto.Message](g.Rand, &pb.AuthUserListRequest{}, &pb.AuthRoleListRequest{}, &pb.AuthStatusRequest{})
	case 21:
		if g.yes(6) {
			return &pb.AuthDisableRequest{}
		}
		return &pb.AuthStatusRequest{}
	}
	return &pb.AuthEnableRequest{}
}

// TestWhereUsersAreToldOtherThingsThanByEtcd meets the differences that are meant.
func TestWhereUsersAreToldOtherThingsThanByEtcd(t *testing.T) {
	t.Parallel()
	g := newGuests(t, 1, "")
	for _, req := range []proto.Message{
		&pb.AuthUserAddRequest{Name: "root", Password: "one"}, &pb.AuthEnableRequest{}, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"},
		&pb.AuthRoleAddRequest{Name: "r1"}, &pb.AuthRoleDeleteRequest{Role: "r9"}, &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "r1"},
		&pb.AuthRoleRevokePermissionRequest{Role: "r1", Key: []byte("a")},
		grantOf("a", "b", authpb.Permission_READ), grantOf("a", "c", authpb.Permission_READ), grantOf("a", "c", authpb.Permission_WRITE),
		&pb.AuthRoleGetRequest{Role: "r1"}, &pb.AuthUserGrantRoleRequest{User: "root", Role: "r1"}, &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "r1"},
		&pb.AuthRoleRevokePermissionRequest{Role: "r1", Key: []byte("a"), RangeEnd: []byte("c")},
		&pb.AuthUserAddRequest{Name: "alice", Password: "one"}, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "r1"},
		grantOf("b", "e", authpb.Permission_READ), grantOf("f", "g", authpb.Permission_READ), grantOf("h", "i", authpb.Permission_READ),
		&pb.AuthEnableRequest{}, &pb.TxnRequest{}, &pb.AuthenticateRequest{Name: "alice", Password: "one"},
	} {
		g.as("nobody", req)
	}
	for _, key := range []string{"b", "d", "f", "h"} {
		g.as("alice", &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte("a")})
	}
}

func grantOf(key, end string, kind authpb.Permission_Type) *pb.AuthRoleGrantPermissionRequest {
	return &pb.AuthRoleGrantPermissionRequest{Name: "r1", Perm: &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}}
}

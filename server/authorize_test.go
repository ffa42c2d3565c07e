package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// meddler is a clock at whose next look something happens: tokens look at it
// while it is found out whose they are.
type meddler struct {
	clock.Clock
	next func()
}

func (m *meddler) Mono() time.Duration {
	if f := m.next; f != nil {
		m.next = nil
		f()
	}
	return m.Clock.Mono()
}

// users is a table with authentication on, in which alice may read a key.
type users struct {
	t *testing.T
	*auth.Table
}

func newUsers(t *testing.T, mayRead string) *users {
	u := &users{t, auth.NewTable()}
	u.role("reader", mayRead)
	u.user("alice", "hash", "reader")
	u.config(true, 5)
	u.Publish()
	return u
}

func (u *users) load(load func(key, value []byte) error, name string, row interface{ MarshalVT() ([]byte, error) }) {
	u.t.Helper()
	b, err := row.MarshalVT()
	if err == nil {
		err = load([]byte(name), b)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *users) user(name, hash string, roles ...string) {
	u.load(u.LoadUser, name, &authpb.User{Name: []byte(name), Password: []byte(hash), Roles: roles})
}

func (u *users) role(name, key string) {
	u.load(u.LoadRole, name, &authpb.Role{Name: []byte(name), KeyPermission: []*authpb.Permission{{PermType: authpb.Permission_READ, Key: []byte(key)}}})
}

func (u *users) config(enabled bool, revision uint64) {
	u.load(func(_, b []byte) error { return u.LoadConfig(b) }, "", &holdfastpb.Auth{Enabled: enabled, Revision: revision})
}

// Whatever happens to a user between the look at its token and the look at what
// it may do, nobody gets what only another one of its name may have.
func TestWhoIsRevokedWhileItIsFoundOutWhoAsksGetsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(u *users)
		key       string
		want      error
	}{
		"nothing happens": {func(*users) {}, "a", nil},
		"its role is taken away": {func(u *users) {
			u.user("alice", "hash")
			u.config(true, 6)
			u.Publish()
		}, "a", auth.ErrDenied},
		"its role may read less": {func(u *users) {
			u.role("reader", "b")
			u.config(true, 6)
			u.Publish()
		}, "a", auth.ErrDenied},
		"it is deleted": {func(u *users) {
			u.ForgetUser([]byte("alice"))
			u.config(true, 6)
			u.Publish()
		}, "a", errInvalidToken},
		"it has another password": {func(u *users) {
			u.user("alice", "other")
			u.config(true, 6)
			u.Publish()
		}, "a", errInvalidToken},
		"another of its name comes, who may read more": {func(u *users) {
			u.ForgetUser([]byte("alice"))
			u.config(true, 6)
			u.Publish()
			u.role("reader", "secret")
			u.user("alice", "other", "reader")
			u.config(true, 9)
			u.Publish()
		}, "secret", errInvalidToken},
		"a snapshot brings another of its name": {func(u *users) {
			more := newUsers(u.t, "secret")
			more.user("alice", "other", "reader")
			u.Replace(more.Table)
		}, "secret", errInvalidToken},
		"authentication is off and on again": {func(u *users) {
			u.config(false, 6)
			u.Publish()
			u.config(true, 6)
			u.Publish()
		}, "a", errInvalidToken},
		"authentication is off": {func(u *users) {
			u.config(false, 6)
			u.Publish()
		}, "secret", nil},
	} {
		u, m := newUsers(t, "a"), &meddler{Clock: clocktest.New()}
		core := &core{who: &identities{simple: newTokens(m, time.Minute)}, replica: &replica.Replica{Machine: &statemachine.Machine{Auth: u.Table}}}
		u.Watch(core.who.simple)
		u.Assign("token", "alice")
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", "token"))
		m.next = func() { c.meanwhile(u) }
		err := core.permit(ctx, func(a *auth.Asker) error { return a.Range(&pb.RangeRequest{Key: []byte(c.key)}) })
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// A token may have to be waited for. The core here has no store: whoever takes
// one before the caller is known falls over that.
func TestNoViewIsHeldWhileItIsFoundOutWhoAsks(t *testing.T) {
	u := newUsers(t, "a")
	kv := &kvService{core: &core{who: &identities{simple: newTokens(clocktest.New(), time.Minute)}, replica: &replica.Replica{Machine: &statemachine.Machine{Auth: u.Table}}}}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", "unknown"))
	read := &pb.RangeRequest{Key: []byte("a"), Serializable: true}
	for name, ask := range map[string]func(context.Context) error{
		"range": func(ctx context.Context) error { _, err := kv.read(ctx, read); return err },
		"read-only txn": func(ctx context.Context) error {
			_, err := kv.txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: read}}}})
			return err
		},
		"part of a stream": func(ctx context.Context) error { _, err := kv.readPart(ctx, read, mvcc.RangeArgs{}); return err },
	} {
		if err := ask(ctx); !errors.Is(err, errInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

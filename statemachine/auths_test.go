package statemachine

import (
	"errors"
	"fmt"
	"math/rand"
	"testing"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// by has a command come from a user who saw a revision.
func by(user string, revision uint64, cmd *holdfastpb.Command) *holdfastpb.Command {
	cmd.Actor = &holdfastpb.Actor{User: user, AuthRevision: revision}
	return cmd
}

func addUser(name string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_UserAdd{UserAdd: &holdfastpb.UserAdd{Name: name, PasswordHash: []byte("h")}}}
}

func grantRole(user, role string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_UserGrantRole{UserGrantRole: &pb.AuthUserGrantRoleRequest{User: user, Role: role}}}
}

func addRole(name string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_RoleAdd{RoleAdd: &pb.AuthRoleAddRequest{Name: name}}}
}

func permit(role, key, end string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_RoleGrantPermission{RoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{
		Name: role, Perm: &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte(key), RangeEnd: []byte(end)},
	}}}
}

func enableAuth() *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_AuthEnable{AuthEnable: &pb.AuthEnableRequest{}}}
}

func login(user string, revision uint64) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_Login{Login: &holdfastpb.Login{User: user, Prefix: "abcdefghijklmnop", AuthRevision: revision}}}
}

func guard(f *fixture) uint64 {
	f.t.Helper()
	for _, a := range f.apply(addUser("root"), grantRole("root", "root"), addUser("u"), addRole("r"), grantRole("u", "r"), permit("r", "k", "l"), enableAuth()) {
		if a.Err != nil {
			f.t.Fatal(a.Err)
		}
	}
	return f.m.Auth.State().Revision
}

func TestACommandIsPermittedWhereItIsExecuted(t *testing.T) {
	f := newFixture(t)
	rev := guard(f)
	forbid := func() *holdfastpb.Command {
		return &holdfastpb.Command{Command: &holdfastpb.Command_RoleRevokePermission{
			RoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("k"), RangeEnd: []byte("l")},
		}}
	}
	answers := f.apply( // One entry: what comes behind the change is refused.
		by("u", rev, put("k1", "1")), put("k2", "1"), by("u", rev, put("x", "1")), by("root", rev, put("x", "1")),
		login("u", rev), login("u", rev-1), login("v", rev), by("u", rev, forbid()), by("root", rev, forbid()),
		by("u", rev, put("k3", "1")), by("u", rev+1, put("k3", "1")), login("u", rev),
	)
	for i, want := range []error{
		nil, auth.ErrNobody, auth.ErrDenied, nil, nil, auth.ErrOldRevision, auth.ErrFailed, auth.ErrDenied, nil,
		auth.ErrOldRevision, auth.ErrDenied, auth.ErrOldRevision,
	} {
		if got := answers[i].Err; !errors.Is(got, want) {
			t.Errorf("request %d: %v, want %v", i, got, want)
		}
	}
	if got, want := answers[4].Value.(*pb.AuthenticateResponse).Token, fmt.Sprintf("abcdefghijklmnop.%d", f.index); got != want {
		t.Errorf("the token is %q, want %q", got, want)
	}
}

// TestMembersNeedNoPermission: what they do by themselves goes on.
func TestMembersNeedNoPermission(t *testing.T) {
	f := newFixture(t)
	rev := guard(f)
	asMember := func(c *holdfastpb.Command) *holdfastpb.Command {
		c.Actor = &holdfastpb.Actor{Member: true}
		return c
	}
	answers := f.apply(
		setAlarm(1, pb.AlarmType_NOSPACE, true), asMember(setAlarm(1, pb.AlarmType_NOSPACE, true)), asMember(setAlarm(1, pb.AlarmType_NOSPACE, false)),
		by("u", rev, grant(7, 10)), by("u", rev, putLeased("k", 7)), by("root", rev, putLeased("x", 7)),
		by("u", rev, putLeased("k", 7)), by("u", rev, revoke(7)), expire(2, 7),
	)
	for i, want := range []error{auth.ErrNobody, nil, nil, nil, nil, nil, auth.ErrDenied, auth.ErrDenied, nil} {
		if got := answers[i].Err; !errors.Is(got, want) {
			t.Errorf("request %d: %v, want %v", i, got, want)
		}
	}
}

func randomAuth(rng *rand.Rand, s *auth.State) *holdfastpb.Command {
	user, role := []string{"root", "a", "b", ""}[rng.Intn(4)], []string{"root", "r", "s"}[rng.Intn(3)]
	key := fmt.Sprintf("k%02d", rng.Intn(30))
	cmds := []*holdfastpb.Command{
		addUser(user), grantRole(user, role), grantRole(user, role), addRole(role), permit(role, key, ""), permit(role, key, "\x00"), enableAuth(), login(user, s.Revision),
		{Command: &holdfastpb.Command_UserDelete{UserDelete: &pb.AuthUserDeleteRequest{Name: user}}},
		{Command: &holdfastpb.Command_RoleDelete{RoleDelete: &pb.AuthRoleDeleteRequest{Role: role}}},
		{Command: &holdfastpb.Command_UserRevokeRole{UserRevokeRole: &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}}},
		{Command: &holdfastpb.Command_UserPassword{UserPassword: &holdfastpb.UserPassword{Name: user, PasswordHash: []byte(key)}}},
		{Command: &holdfastpb.Command_RoleRevokePermission{RoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{Role: role, Key: []byte(key)}}},
		put(key, "v"), put(key, "w"), putLeased(key, 3), grant(3, 10), revoke(3),
	}
	if rng.Intn(20) == 0 {
		return by("root", 0, &holdfastpb.Command{Command: &holdfastpb.Command_AuthDisable{AuthDisable: &pb.AuthDisableRequest{}}})
	}
	return by([]string{"root", "root", "a", "b"}[rng.Intn(4)], s.Revision-uint64(rng.Intn(6)/5), cmds[rng.Intn(len(cmds))])
}

// TestUsersAreTheSameByLogByHistoryAndAfterARestart, in whatever order they
// changed.
func TestUsersAreTheSameByLogByHistoryAndAfterARestart(t *testing.T) {
	for seed := range int64(6) {
		rng := rand.New(rand.NewSource(seed))
		byLog, byHistory := newFixture(t), newFixture(t)
		for range 200 {
			batch := make([]*holdfastpb.Command, 1+rng.Intn(4))
			for i := range batch {
				batch[i] = randomAuth(rng, byLog.m.Auth.State())
			}
			byLog.apply(batch...)
		}
		byLog.replayTo(byHistory)
		sameState(t, byLog, byHistory)
		restarted, err := New(byLog.store)
		if err != nil {
			t.Fatal(err)
		}
		want := describe(byLog.m.Auth.State())
		for how, m := range map[string]*Machine{"history": byHistory.m, "restart": restarted} {
			if got := describe(m.Auth.State()); got != want {
				t.Errorf("seed %d: by %s %s, by log %s", seed, how, got, want)
			}
		}
	}
}

func describe(s *auth.State) string {
	text := fmt.Sprint(s.Enabled, s.Revision)
	for _, name := range s.Users() {
		text += fmt.Sprint(" ", name, s.User(name))
		for i := range 30 {
			key := []byte(fmt.Sprintf("k%02d", i))
			text += fmt.Sprint(s.Check(auth.Actor{User: name, Revision: s.Revision}, auth.Write, key, nil) == nil)
		}
	}
	for _, name := range s.Roles() {
		text += fmt.Sprint(" ", name, s.Role(name))
	}
	return text
}

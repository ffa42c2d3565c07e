package server

import (
	"context"
	"encoding/base64"
	"errors"
	"unicode/utf8"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// authService answers etcdserverpb.Auth.
type authService struct {
	pb.UnimplementedAuthServer
	*core
}

// manage proposes a change of users and roles.
func manage[R interface{ GetHeader() *pb.ResponseHeader }](ctx context.Context, c *core, cmd *holdfastpb.Command) (R, error) {
	v, err := c.propose(ctx, cmd)
	if err != nil {
		var none R
		return none, toWire(err)
	}
	answer := v.(R)
	c.fill(answer.GetHeader())
	return answer, nil
}

// upToDate makes this member as new as the cluster, for questions that are
// proposals in etcd.
func (s *authService) upToDate(ctx context.Context) error {
	err := s.linearize(ctx)
	if errors.Is(err, raftnode.ErrNoLeader) {
		return errNotProposed
	}
	return toWire(err)
}

func (s *authService) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	return manage[*pb.AuthEnableResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_AuthEnable{AuthEnable: r}})
}

func (s *authService) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	return manage[*pb.AuthDisableResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_AuthDisable{AuthDisable: r}})
}

// AuthStatus answers everybody, but not one who shows a token that is none.
func (s *authService) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	if s.authOn() {
		if _, _, err := s.identify(ctx); err != nil {
			return nil, toWire(err)
		}
	}
	if err := s.upToDate(ctx); err != nil {
		return nil, err
	}
	state := s.replica.Machine.Auth.State()
	return &pb.AuthStatusResponse{Header: s.header(), Enabled: state.Enabled, AuthRevision: state.Revision}, nil
}

// Authenticate compares the password here, outside of apply, and proposes a
// token for the revision of users as of which it was right.
func (s *authService) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	if err := s.linearize(ctx); err != nil {
		return nil, toWire(err)
	}
	for range loginTriesMax {
		answer, err := s.login(ctx, r)
		if !errors.Is(err, auth.ErrOldRevision) {
			return answer, toWire(err)
		}
	}
	return nil, errOldAuthRevision
}

func (s *authService) login(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	state := s.replica.Machine.Auth.State()
	if !state.Enabled {
		return nil, auth.ErrNotEnabled
	}
	if err := s.who.passwords.check(ctx, state.User(r.Name), r.Password); err != nil {
		s.log.Warn("refused a login", "error", err)
		return nil, err
	}
	if s.who.jwt != nil { // All that it says is signed: no member need know of it.
		token, err := s.who.jwt.assign(r.Name, state.Revision)
		if err != nil {
			return nil, err
		}
		return &pb.AuthenticateResponse{Header: s.header(), Token: token}, nil
	}
	if s.who.simple.full() {
		return nil, errTooManyRequests
	}
	prefix, err := drawPrefix(s.cfg.Rand)
	if err != nil {
		return nil, err
	}
	v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_Login{
		Login: &holdfastpb.Login{User: r.Name, Prefix: prefix, AuthRevision: state.Revision},
	}})
	if err != nil {
		return nil, err
	}
	answer := v.(*pb.AuthenticateResponse)
	s.fill(answer.Header)
	return answer, nil
}

func (s *authService) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	if err := checkName(r.Name); err != nil {
		return nil, err
	}
	cmd := &holdfastpb.UserAdd{Name: r.Name, NoPassword: r.GetOptions().GetNoPassword()}
	if !cmd.NoPassword {
		var err error
		if cmd.PasswordHash, err = s.newPassword(ctx, r.Password); err != nil {
			return nil, toWire(err)
		}
	}
	return manage[*pb.AuthUserAddResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_UserAdd{UserAdd: cmd}})
}

// newPassword hashes a password for somebody who may set one: others shall not
// have this member compute.
func (s *authService) newPassword(ctx context.Context, password string) ([]byte, error) {
	if err := s.permit(ctx, onlyRoot); err != nil {
		return nil, err
	}
	return s.who.passwords.hash(ctx, password)
}

// checkName refuses what could not be listed again: names are text.
func checkName(name string) error {
	if !utf8.ValidString(name) {
		return errNameNotText
	}
	return nil
}

func (s *authService) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	var user *authpb.User
	err := s.look(ctx, func(state *auth.State, by auth.Actor) error {
		if err := state.CheckSelfOrRoot(by, r.Name); err != nil {
			return err
		}
		if user = state.User(r.Name); user == nil {
			return auth.ErrUserNotFound
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserGetResponse{Header: s.header(), Roles: user.Roles}, nil
}

// look asks the state as of now, by somebody who may be nobody.
func (s *authService) look(ctx context.Context, f func(*auth.State, auth.Actor) error) error {
	if err := s.upToDate(ctx); err != nil {
		return err
	}
	if !s.authOn() {
		return toWire(f(s.replica.Machine.Auth.State(), auth.Actor{}))
	}
	return toWire(s.permitState(ctx, f))
}

// permitState is permit for what is asked of the state itself, which may have
// turned off meanwhile.
func (s *authService) permitState(ctx context.Context, f func(*auth.State, auth.Actor) error) error {
	by, state, err := s.actor(ctx)
	if err != nil {
		return err
	}
	return f(state, by)
}

func (s *authService) UserList(ctx context.Context, _ *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	answer := &pb.AuthUserListResponse{}
	err := s.look(ctx, func(state *auth.State, by auth.Actor) error {
		answer.Users = state.Users()
		return state.CheckRoot(by)
	})
	if err != nil {
		return nil, err
	}
	answer.Header = s.header()
	return answer, nil
}

func (s *authService) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	return manage[*pb.AuthUserDeleteResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_UserDelete{UserDelete: r}})
}

func (s *authService) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	cmd := &holdfastpb.UserPassword{Name: r.Name}
	var err error
	if r.Password != "" {
		cmd.PasswordHash, err = s.newPassword(ctx, r.Password)
	} else if cmd.PasswordHash, err = base64.StdEncoding.DecodeString(r.HashedPassword); err != nil {
		err = s.wantsHash(ctx, r.Name)
	}
	if err != nil {
		return nil, toWire(err)
	}
	return manage[*pb.AuthUserChangePasswordResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_UserPassword{UserPassword: cmd}})
}

// wantsHash is what etcd says of a hash that is none, once it has looked for the
// user.
func (s *authService) wantsHash(ctx context.Context, name string) error {
	return s.look(ctx, func(state *auth.State, by auth.Actor) error {
		if err := state.CheckRoot(by); err != nil {
			return err
		}
		user := state.User(name)
		switch {
		case user == nil:
			return auth.ErrUserNotFound
		case user.GetOptions().GetNoPassword():
			return nil
		}
		return errNoPasswordUser
	})
}

func (s *authService) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	return manage[*pb.AuthUserGrantRoleResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_UserGrantRole{UserGrantRole: r}})
}

func (s *authService) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	return manage[*pb.AuthUserRevokeRoleResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_UserRevokeRole{UserRevokeRole: r}})
}

func (s *authService) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	if err := checkName(r.Name); err != nil {
		return nil, err
	}
	return manage[*pb.AuthRoleAddResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_RoleAdd{RoleAdd: r}})
}

func (s *authService) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	var role *authpb.Role
	err := s.look(ctx, func(state *auth.State, by auth.Actor) error {
		if err := state.CheckHolderOrRoot(by, r.Role); err != nil {
			return err
		}
		if role = state.Role(r.Role); role == nil {
			return auth.ErrRoleNotFound
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer := &pb.AuthRoleGetResponse{Header: s.header(), Perm: role.KeyPermission}
	if r.Role == auth.Root { // Whatever was granted to it.
		answer.Perm = []*authpb.Permission{{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}}}
	}
	return answer, nil
}

func (s *authService) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	answer := &pb.AuthRoleListResponse{}
	err := s.look(ctx, func(state *auth.State, by auth.Actor) error {
		answer.Roles = state.Roles()
		return state.CheckRoot(by)
	})
	if err != nil {
		return nil, err
	}
	answer.Header = s.header()
	return answer, nil
}

func (s *authService) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	return manage[*pb.AuthRoleDeleteResponse](ctx, s.core, &holdfastpb.Command{Command: &holdfastpb.Command_RoleDelete{RoleDelete: r}})
}

func (s *authService) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	return manage[*pb.AuthRoleGrantPermissionResponse](ctx, s.core, &holdfastpb.Command{
		Command: &holdfastpb.Command_RoleGrantPermission{RoleGrantPermission: r},
	})
}

func (s *authService) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	return manage[*pb.AuthRoleRevokePermissionResponse](ctx, s.core, &holdfastpb.Command{
		Command: &holdfastpb.Command_RoleRevokePermission{RoleRevokePermission: r},
	})
}

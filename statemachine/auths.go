package statemachine

import (
	"fmt"
	"strconv"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// permitted decides here, where all members are at the same revision of users
// and roles, whether a command is done. What has no case wants root.
func (r *request) permitted(cmd *holdfastpb.Command) error {
	s := r.m.Auth.State()
	if !s.Enabled || cmd.Actor.GetMember() {
		return nil
	}
	ask := auth.Asker{State: s, By: auth.Actor{User: cmd.Actor.GetUser(), Revision: cmd.Actor.GetAuthRevision()}, LeaseKeys: r.leaseKeys}
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_LeaseExpire, *holdfastpb.Command_MemberPublish, *holdfastpb.Command_ClusterInit:
		return nil // Members alone propose these.
	case *holdfastpb.Command_Login:
		return nil // From somebody who is nobody yet. State.Login looks at it.
	case *holdfastpb.Command_LeaseGrant:
		return s.CheckUser(ask.By)
	case *holdfastpb.Command_LeaseRevoke:
		if err := s.CheckUser(ask.By); err != nil {
			return err
		}
		return ask.Lease(c.LeaseRevoke.Id, auth.Write)
	}
	return permittedKeys(&ask, cmd)
}

func permittedKeys(ask *auth.Asker, cmd *holdfastpb.Command) error {
	if err := ask.State.CheckUser(ask.By); err != nil {
		return err
	}
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Put:
		return ask.Put(c.Put)
	case *holdfastpb.Command_DeleteRange:
		return ask.DeleteRange(c.DeleteRange)
	case *holdfastpb.Command_Txn:
		return ask.Txn(c.Txn)
	}
	return ask.State.CheckRoot(ask.By)
}

func (r *request) leaseKeys(id int64) ([][]byte, error) {
	keys, err := r.tx.LeaseKeys(ident.LeaseID(id))
	if err != nil {
		return nil, fmt.Errorf("keys of lease %d: %w", id, err)
	}
	return keys, nil
}

// manageAuth executes what changes users and roles.
func (r *request) manageAuth(cmd *holdfastpb.Command) (any, error) {
	s := r.m.Auth.State()
	var change *auth.Change
	var answer any
	var err error
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Login:
		return r.login(c.Login)
	case *holdfastpb.Command_AuthEnable:
		answer = &pb.AuthEnableResponse{Header: r.header()}
		change, err = s.Enable()
	case *holdfastpb.Command_AuthDisable:
		answer = &pb.AuthDisableResponse{Header: r.header()}
		change, err = s.Disable()
	case *holdfastpb.Command_UserAdd:
		answer = &pb.AuthUserAddResponse{Header: r.header()}
		change, err = s.AddUser(c.UserAdd)
	case *holdfastpb.Command_UserDelete:
		answer = &pb.AuthUserDeleteResponse{Header: r.header()}
		change, err = s.DeleteUser(c.UserDelete.GetName())
	case *holdfastpb.Command_UserPassword:
		answer = &pb.AuthUserChangePasswordResponse{Header: r.header()}
		change, err = s.SetPassword(c.UserPassword)
	case *holdfastpb.Command_UserGrantRole:
		answer = &pb.AuthUserGrantRoleResponse{Header: r.header()}
		change, err = s.GrantRole(c.UserGrantRole.GetUser(), c.UserGrantRole.GetRole())
	case *holdfastpb.Command_UserRevokeRole:
		answer = &pb.AuthUserRevokeRoleResponse{Header: r.header()}
		change, err = s.RevokeRole(c.UserRevokeRole.GetName(), c.UserRevokeRole.GetRole())
	default:
		answer, change, err = r.changeRole(s, cmd)
	}
	if err != nil {
		return nil, err
	}
	return answer, r.writeAuth(change)
}

func (r *request) changeRole(s *auth.State, cmd *holdfastpb.Command) (answer any, change *auth.Change, err error) {
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_RoleAdd:
		answer = &pb.AuthRoleAddResponse{Header: r.header()}
		change, err = s.AddRole(c.RoleAdd.GetName())
	case *holdfastpb.Command_RoleDelete:
		answer = &pb.AuthRoleDeleteResponse{Header: r.header()}
		change, err = s.DeleteRole(c.RoleDelete.GetRole())
	case *holdfastpb.Command_RoleGrantPermission:
		answer = &pb.AuthRoleGrantPermissionResponse{Header: r.header()}
		change, err = s.GrantPermission(c.RoleGrantPermission.GetName(), c.RoleGrantPermission.GetPerm())
	case *holdfastpb.Command_RoleRevokePermission:
		answer = &pb.AuthRoleRevokePermissionResponse{Header: r.header()}
		p := c.RoleRevokePermission
		change, err = s.RevokePermission(p.GetRole(), p.GetKey(), p.GetRangeEnd())
	default:
		err = fmt.Errorf("%w: %T", ErrUnknown, cmd.Command)
	}
	return answer, change, err
}

// login makes a token of what the proposer has drawn. It is no part of the
// state: each member keeps it for a while by its own clock.
func (r *request) login(c *holdfastpb.Login) (any, error) {
	if err := r.m.Auth.State().Login(c.User, c.AuthRevision); err != nil {
		return nil, err
	}
	token := c.Prefix + "." + strconv.FormatUint(uint64(r.index), 10)
	r.m.Auth.Assign(token, c.User)
	return &pb.AuthenticateResponse{Header: r.header(), Token: token}, nil
}

// writeAuth stores the rows of a change.
func (r *request) writeAuth(c *auth.Change) error {
	for _, u := range c.Users {
		if u.Row == nil {
			r.deleteRow(mvcc.TableUser, []byte(u.Name))
			continue
		}
		value, err := u.Row.MarshalVT()
		if err != nil {
			return fmt.Errorf("encode row of a user: %w", err)
		}
		r.setRow(mvcc.TableUser, []byte(u.Name), value)
	}
	for _, role := range c.Roles {
		if role.Row == nil {
			r.deleteRow(mvcc.TableRole, []byte(role.Name))
			continue
		}
		value, err := role.Row.MarshalVT()
		if err != nil {
			return fmt.Errorf("encode row of a role: %w", err)
		}
		r.setRow(mvcc.TableRole, []byte(role.Name), value)
	}
	if c.Auth == nil {
		return nil
	}
	value, err := c.Auth.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode auth row: %w", err)
	}
	r.setRow(mvcc.TableMeta, auth.ConfigKey, value)
	return nil
}

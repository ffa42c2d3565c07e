package client

import (
	"context"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// AuthEnable has every call ask for permissions from now on. There must be a
// user root with the role root.
func (c *Client) AuthEnable(ctx context.Context) (*pb.AuthEnableResponse, error) {
	return call(ctx, c, writes, c.auth.AuthEnable, &pb.AuthEnableRequest{})
}

// AuthDisable lets everybody do everything again.
func (c *Client) AuthDisable(ctx context.Context) (*pb.AuthDisableResponse, error) {
	return call(ctx, c, writes, c.auth.AuthDisable, &pb.AuthDisableRequest{})
}

// AuthStatus tells whether permissions are asked for.
func (c *Client) AuthStatus(ctx context.Context) (*pb.AuthStatusResponse, error) {
	return call(ctx, c, reads, c.auth.AuthStatus, &pb.AuthStatusRequest{})
}

// NewUser is a user to be. One without a password comes in by certificate only.
type NewUser struct {
	Name, Password string
	NoPassword     bool
}

// UserAdd makes a user without roles.
func (c *Client) UserAdd(ctx context.Context, u NewUser) (*pb.AuthUserAddResponse, error) {
	return call(ctx, c, writes, c.auth.UserAdd, &pb.AuthUserAddRequest{
		Name: u.Name, Password: u.Password, Options: &authpb.UserAddOptions{NoPassword: u.NoPassword},
	})
}

// UserDelete takes a user away, with its tokens.
func (c *Client) UserDelete(ctx context.Context, name string) (*pb.AuthUserDeleteResponse, error) {
	return call(ctx, c, writes, c.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: name})
}

// UserGet lists the roles of a user.
func (c *Client) UserGet(ctx context.Context, name string) (*pb.AuthUserGetResponse, error) {
	return call(ctx, c, reads, c.auth.UserGet, &pb.AuthUserGetRequest{Name: name})
}

// UserList lists all users.
func (c *Client) UserList(ctx context.Context) (*pb.AuthUserListResponse, error) {
	return call(ctx, c, reads, c.auth.UserList, &pb.AuthUserListRequest{})
}

// UserPassword changes a password. Tokens of before are void.
func (c *Client) UserPassword(ctx context.Context, name, password string) (*pb.AuthUserChangePasswordResponse, error) {
	return call(ctx, c, writes, c.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: name, Password: password})
}

// UserGrantRole gives a role to a user.
func (c *Client) UserGrantRole(ctx context.Context, name, role string) (*pb.AuthUserGrantRoleResponse, error) {
	return call(ctx, c, writes, c.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: name, Role: role})
}

// UserRevokeRole takes a role from a user.
func (c *Client) UserRevokeRole(ctx context.Context, name, role string) (*pb.AuthUserRevokeRoleResponse, error) {
	return call(ctx, c, writes, c.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: name, Role: role})
}

// RoleAdd makes a role that permits nothing.
func (c *Client) RoleAdd(ctx context.Context, name string) (*pb.AuthRoleAddResponse, error) {
	return call(ctx, c, writes, c.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: name})
}

// RoleDelete takes a role away, from all who have it.
func (c *Client) RoleDelete(ctx context.Context, name string) (*pb.AuthRoleDeleteResponse, error) {
	return call(ctx, c, writes, c.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: name})
}

// RoleGet lists what a role permits.
func (c *Client) RoleGet(ctx context.Context, name string) (*pb.AuthRoleGetResponse, error) {
	return call(ctx, c, reads, c.auth.RoleGet, &pb.AuthRoleGetRequest{Role: name})
}

// RoleList lists all roles.
func (c *Client) RoleList(ctx context.Context) (*pb.AuthRoleListResponse, error) {
	return call(ctx, c, reads, c.auth.RoleList, &pb.AuthRoleListRequest{})
}

// RoleGrant lets a role read or write a range.
func (c *Client) RoleGrant(ctx context.Context, name string, r Range, kind authpb.Permission_Type) (*pb.AuthRoleGrantPermissionResponse, error) {
	return call(ctx, c, writes, c.auth.RoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{
		Name: name, Perm: &authpb.Permission{PermType: kind, Key: []byte(r.Key), RangeEnd: []byte(r.End)},
	})
}

// RoleRevoke takes back what was granted for exactly this range.
func (c *Client) RoleRevoke(ctx context.Context, name string, r Range) (*pb.AuthRoleRevokePermissionResponse, error) {
	return call(ctx, c, writes, c.auth.RoleRevokePermission, &pb.AuthRoleRevokePermissionRequest{
		Role: name, Key: []byte(r.Key), RangeEnd: []byte(r.End),
	})
}

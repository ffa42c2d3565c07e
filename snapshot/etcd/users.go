package etcd

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// Users and roles have the same messages here and there. They are encoded anew,
// without what is unknown, so that a row has one form.

func (d *database) authRow(key, value []byte, at int64) error {
	switch string(key) {
	case authEnabled:
		d.auth.Enabled = len(value) == 1 && value[0] == 1
	case authRevision:
		if len(value) != 8 {
			return d.damagedRow(at, "%s has %d bytes", key, len(value))
		}
		d.auth.Revision = binary.BigEndian.Uint64(value)
	}
	return nil
}

func (d *database) userRow(key, value []byte, at int64) error {
	u := &authpb.User{}
	if err := u.UnmarshalVT(value); err != nil || !bytes.Equal(u.Name, key) || len(key) > auth.NameBytesMax {
		return d.damagedRow(at, "row of user %q is not one: %v", key, err)
	}
	slices.Sort(u.Roles)
	options := u.Options
	if options != nil {
		options = &authpb.UserAddOptions{NoPassword: options.NoPassword}
	}
	row, err := (&authpb.User{Name: u.Name, Password: u.Password, Roles: u.Roles, Options: options}).MarshalVT()
	if err != nil {
		return err
	}
	d.rows = append(d.rows, backend.RowChange{Table: backend.TableUser, Key: bytes.Clone(key), Value: row})
	d.users++
	return nil
}

func (d *database) roleRow(key, value []byte, at int64) error {
	r := &authpb.Role{}
	if err := r.UnmarshalVT(value); err != nil || !bytes.Equal(r.Name, key) || len(key) > auth.NameBytesMax {
		return d.damagedRow(at, "row of role %q is not one: %v", key, err)
	}
	role := &authpb.Role{Name: r.Name}
	for _, p := range r.KeyPermission {
		role.KeyPermission = append(role.KeyPermission, &authpb.Permission{PermType: p.PermType, Key: p.Key, RangeEnd: p.RangeEnd})
	}
	row, err := role.MarshalVT()
	if err != nil {
		return err
	}
	d.rows = append(d.rows, backend.RowChange{Table: backend.TableRole, Key: bytes.Clone(key), Value: row})
	d.roles++
	return nil
}

// addAuthRow adds the row that tells whether permissions are asked for, unless
// it would say what holds without it.
func (d *database) addAuthRow() error {
	d.auth.Revision = max(d.auth.Revision, 1)
	if !d.auth.Enabled && d.auth.Revision == 1 {
		return nil
	}
	row, err := d.auth.MarshalVT()
	d.rows = append(d.rows, backend.RowChange{Table: backend.TableMeta, Key: auth.ConfigKey, Value: row})
	return err
}

// encodeAuth is bucket auth for a row of ours.
func encodeAuth(row *holdfastpb.Auth) map[string][]byte {
	enabled := byte(0)
	if row.Enabled {
		enabled = 1
	}
	return map[string][]byte{authEnabled: {enabled}, authRevision: number64(max(row.Revision, 1))}
}

// Fields of etcdserverpb.InternalRaftRequest that are about users and roles.
const (
	requestHeader           = 100
	requestAuthDisable      = 1011
	requestUserAdd          = 1100
	requestUserDelete       = 1101
	requestUserPassword     = 1103
	requestUserGrantRole    = 1104
	requestUserRevokeRole   = 1105
	requestRoleAdd          = 1200
	requestRoleDelete       = 1201
	requestRoleGrant        = 1203
	requestRoleRevoke       = 1204
	requestHeaderUser       = 2
	requestHeaderRevision   = 3
	requestUserAddPassword  = 2
	requestUserAddOptions   = 3
	requestUserAddHash      = 4
	requestUserPasswordHash = 3
)

// actorOf is who wants a request, as etcd found out before it proposed it. What
// etcd does not ask for at this point was permitted before.
func actorOf(number protowire.Number, header []byte) (*holdfastpb.Actor, error) {
	switch number {
	case requestCompaction, requestLeaseGrant, requestAlarm:
		return &holdfastpb.Actor{Member: true}, nil
	}
	f, err := decodeFields(header)
	if err != nil {
		return nil, fmt.Errorf("header of a request: %w", err)
	}
	if len(f.bytes[requestHeaderUser]) == 0 {
		return nil, nil
	}
	return &holdfastpb.Actor{User: string(f.bytes[requestHeaderUser]), AuthRevision: f.numbers[requestHeaderRevision]}, nil
}

// translatedUser turns a request about users and roles into ours. Nil: it
// changes nothing.
func translatedUser(number protowire.Number, b []byte) (*holdfastpb.Command, error) {
	cmd := &holdfastpb.Command{}
	var body interface{ UnmarshalVT([]byte) error }
	switch number {
	case requestAuthEnable:
		cmd.Command = &holdfastpb.Command_AuthEnable{AuthEnable: &etcdserverpb.AuthEnableRequest{}}
		return cmd, nil
	case requestAuthDisable:
		cmd.Command = &holdfastpb.Command_AuthDisable{AuthDisable: &etcdserverpb.AuthDisableRequest{}}
		return cmd, nil
	case requestUserAdd, requestUserPassword:
		return translatedPassword(number, b)
	case requestUserDelete:
		m := &etcdserverpb.AuthUserDeleteRequest{}
		body, cmd.Command = m, &holdfastpb.Command_UserDelete{UserDelete: m}
	case requestUserGrantRole:
		m := &etcdserverpb.AuthUserGrantRoleRequest{}
		body, cmd.Command = m, &holdfastpb.Command_UserGrantRole{UserGrantRole: m}
	case requestUserRevokeRole:
		m := &etcdserverpb.AuthUserRevokeRoleRequest{}
		body, cmd.Command = m, &holdfastpb.Command_UserRevokeRole{UserRevokeRole: m}
	case requestRoleAdd:
		m := &etcdserverpb.AuthRoleAddRequest{}
		body, cmd.Command = m, &holdfastpb.Command_RoleAdd{RoleAdd: m}
	case requestRoleDelete:
		m := &etcdserverpb.AuthRoleDeleteRequest{}
		body, cmd.Command = m, &holdfastpb.Command_RoleDelete{RoleDelete: m}
	case requestRoleGrant:
		m := &etcdserverpb.AuthRoleGrantPermissionRequest{}
		body, cmd.Command = m, &holdfastpb.Command_RoleGrantPermission{RoleGrantPermission: m}
	case requestRoleRevoke:
		m := &etcdserverpb.AuthRoleRevokePermissionRequest{}
		body, cmd.Command = m, &holdfastpb.Command_RoleRevokePermission{RoleRevokePermission: m}
	default:
		return nil, nil // Questions, tokens, versions, members.
	}
	return cmd, body.UnmarshalVT(b)
}

// translatedPassword is for requests with a password. Before 3.5 etcd logged
// it as it was, and hashed it when it executed the request.
func translatedPassword(number protowire.Number, b []byte) (*holdfastpb.Command, error) {
	f, err := decodeFields(b)
	if err != nil {
		return nil, err
	}
	hashField := protowire.Number(requestUserAddHash)
	if number == requestUserPassword {
		hashField = requestUserPasswordHash
	}
	hash, err := base64.StdEncoding.DecodeString(string(f.bytes[hashField]))
	if password := f.bytes[requestUserAddPassword]; len(password) > 0 && len(f.bytes[hashField]) == 0 {
		hash, err = bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
	}
	if err != nil {
		return nil, nil // Refused there, too.
	}
	name := string(f.bytes[1])
	if number == requestUserPassword {
		return &holdfastpb.Command{Command: &holdfastpb.Command_UserPassword{UserPassword: &holdfastpb.UserPassword{Name: name, PasswordHash: hash}}}, nil
	}
	options := &authpb.UserAddOptions{}
	if err := options.UnmarshalVT(f.bytes[requestUserAddOptions]); err != nil {
		return nil, err
	}
	return &holdfastpb.Command{Command: &holdfastpb.Command_UserAdd{UserAdd: &holdfastpb.UserAdd{Name: name, PasswordHash: hash, NoPassword: options.NoPassword}}}, nil
}

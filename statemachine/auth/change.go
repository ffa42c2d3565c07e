package auth

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// NameBytesMax of a user or role, a key of base; RowBytesMax of all that is
// granted to one, which each further grant writes again.
const (
	NameBytesMax = 4 << 10
	RowBytesMax  = 1 << 20
)

// Change is what a command does: rows to write, in order. A nil row is deleted.
type Change struct {
	Users []UserRow
	Roles []RoleRow
	Auth  *holdfastpb.Auth // Nil: nothing has changed at all.
}

// UserRow is the new row of a user.
type UserRow struct {
	Name string
	Row  *authpb.User
}

// RoleRow is the new row of a role.
type RoleRow struct {
	Name string
	Row  *authpb.Role
}

// changed is a change at the next revision.
func (s *State) changed(users []UserRow, roles []RoleRow) (*Change, error) {
	for _, u := range users {
		if len(u.Name) > NameBytesMax || u.Row.SizeVT() > RowBytesMax {
			return nil, fmt.Errorf("user of %d bytes: %w", u.Row.SizeVT(), ErrRowTooLarge)
		}
	}
	for _, r := range roles {
		if len(r.Name) > NameBytesMax || r.Row.SizeVT() > RowBytesMax {
			return nil, fmt.Errorf("role of %d bytes: %w", r.Row.SizeVT(), ErrRowTooLarge)
		}
	}
	return &Change{Users: users, Roles: roles, Auth: &holdfastpb.Auth{Enabled: s.Enabled, Revision: s.Revision + 1}}, nil
}

// copyUser makes a row to change: those in force never do.
func copyUser(u *authpb.User) *authpb.User {
	return &authpb.User{Name: u.Name, Password: u.Password, Roles: slices.Clone(u.Roles), Options: u.Options}
}

func copyRole(r *authpb.Role) *authpb.Role {
	return &authpb.Role{Name: r.Name, KeyPermission: slices.Clone(r.KeyPermission)}
}

// Enable turns authentication on. Somebody must be able to turn it off again.
func (s *State) Enable() (*Change, error) {
	if s.Enabled {
		return &Change{}, nil
	}
	root := s.users[Root]
	switch {
	case root == nil:
		return nil, ErrRootUser
	case !root.root:
		return nil, ErrRootRole
	}
	return &Change{Auth: &holdfastpb.Auth{Enabled: true, Revision: s.Revision}}, nil
}

// Disable turns it off.
func (s *State) Disable() (*Change, error) {
	if !s.Enabled {
		return &Change{}, nil
	}
	return &Change{Auth: &holdfastpb.Auth{Revision: s.Revision + 1}}, nil
}

// Login tells whether a token may be made for a user whose password was right
// as of a revision.
func (s *State) Login(name string, revision uint64) error {
	u := s.users[name]
	switch {
	case !s.Enabled:
		return ErrNotEnabled
	case revision != s.Revision:
		return ErrOldRevision
	case u == nil || u.row.GetOptions().GetNoPassword():
		return ErrFailed
	}
	return nil
}

// AddUser makes a user without roles.
func (s *State) AddUser(c *holdfastpb.UserAdd) (*Change, error) {
	if c.Name == "" {
		return nil, ErrUserName
	}
	if s.users[c.Name] != nil {
		return nil, fmt.Errorf("user %q: %w", c.Name, ErrUserExists)
	}
	row := &authpb.User{Name: []byte(c.Name), Options: &authpb.UserAddOptions{NoPassword: c.NoPassword}}
	if !c.NoPassword {
		row.Password = c.PasswordHash
	}
	return s.changed([]UserRow{{c.Name, row}}, nil)
}

// DeleteUser takes a user away.
func (s *State) DeleteUser(name string) (*Change, error) {
	if s.Enabled && name == Root {
		return nil, fmt.Errorf("delete user root: %w", ErrManagement)
	}
	if s.users[name] == nil {
		return nil, fmt.Errorf("user %q: %w", name, ErrUserNotFound)
	}
	return s.changed([]UserRow{{name, nil}}, nil)
}

// SetPassword changes a password. A user without one stays so.
func (s *State) SetPassword(c *holdfastpb.UserPassword) (*Change, error) {
	u := s.users[c.Name]
	if u == nil {
		return nil, fmt.Errorf("user %q: %w", c.Name, ErrUserNotFound)
	}
	row := copyUser(u.row)
	row.Password = nil
	if !row.GetOptions().GetNoPassword() {
		row.Password = c.PasswordHash
	}
	return s.changed([]UserRow{{c.Name, row}}, nil)
}

// GrantRole gives a role to a user. The role root need not exist. One that the
// user has already is no change.
func (s *State) GrantRole(name, role string) (*Change, error) {
	u := s.users[name]
	if u == nil {
		return nil, fmt.Errorf("user %q: %w", name, ErrUserNotFound)
	}
	if role != Root && s.roles[role] == nil {
		return nil, fmt.Errorf("role %q: %w", role, ErrRoleNotFound)
	}
	at, has := slices.BinarySearch(u.row.Roles, role)
	if has {
		return &Change{}, nil
	}
	row := copyUser(u.row)
	row.Roles = slices.Insert(row.Roles, at, role)
	return s.changed([]UserRow{{name, row}}, nil)
}

// RevokeRole takes a role from a user.
func (s *State) RevokeRole(name, role string) (*Change, error) {
	if s.Enabled && name == Root && role == Root {
		return nil, fmt.Errorf("revoke role root of user root: %w", ErrManagement)
	}
	u := s.users[name]
	if u == nil {
		return nil, fmt.Errorf("user %q: %w", name, ErrUserNotFound)
	}
	row, had := without(u.row, role)
	if !had {
		return nil, fmt.Errorf("role %q of user %q: %w", role, name, ErrNotGranted)
	}
	return s.changed([]UserRow{{name, row}}, nil)
}

func without(u *authpb.User, role string) (row *authpb.User, had bool) {
	row = copyUser(u)
	row.Roles = slices.DeleteFunc(row.Roles, func(r string) bool { return r == role })
	return row, len(row.Roles) < len(u.Roles)
}

// AddRole makes a role that permits nothing.
func (s *State) AddRole(name string) (*Change, error) {
	if name == "" {
		return nil, ErrRoleName
	}
	if s.roles[name] != nil {
		return nil, fmt.Errorf("role %q: %w", name, ErrRoleExists)
	}
	return s.changed(nil, []RoleRow{{name, &authpb.Role{Name: []byte(name)}}})
}

// DeleteRole takes a role away, from all who have it.
func (s *State) DeleteRole(name string) (*Change, error) {
	if s.Enabled && name == Root {
		return nil, fmt.Errorf("delete role root: %w", ErrManagement)
	}
	if s.roles[name] == nil {
		return nil, fmt.Errorf("role %q: %w", name, ErrRoleNotFound)
	}
	var users []UserRow
	for _, holder := range s.Users() {
		if row, had := without(s.users[holder].row, name); had {
			users = append(users, UserRow{holder, row})
		}
	}
	return s.changed(users, []RoleRow{{name, nil}})
}

// GrantPermission lets a role read or write a range, or changes which of it.
func (s *State) GrantPermission(name string, p *authpb.Permission) (*Change, error) {
	if p == nil {
		return nil, ErrNoPermission
	}
	if len(p.Key) == 0 || len(p.RangeEnd) > 0 && !openEnded(p.RangeEnd) && bytes.Compare(p.Key, p.RangeEnd) >= 0 {
		return nil, fmt.Errorf("permission for no range: %w", ErrManagement)
	}
	role := s.roles[name]
	if role == nil {
		return nil, fmt.Errorf("role %q: %w", name, ErrRoleNotFound)
	}
	row := copyRole(role)
	p = &authpb.Permission{PermType: p.PermType, Key: p.Key, RangeEnd: p.RangeEnd}
	if i := slices.IndexFunc(row.KeyPermission, func(q *authpb.Permission) bool { return sameRange(q, p.Key, p.RangeEnd) }); i >= 0 {
		row.KeyPermission[i] = p
	} else {
		row.KeyPermission = append(row.KeyPermission, p)
		slices.SortStableFunc(row.KeyPermission, func(a, b *authpb.Permission) int { return bytes.Compare(a.Key, b.Key) })
	}
	return s.changed(nil, []RoleRow{{name, row}})
}

func sameRange(p *authpb.Permission, key, end []byte) bool {
	return bytes.Equal(p.Key, key) && bytes.Equal(p.RangeEnd, end)
}

// RevokePermission takes back what was granted for exactly this range.
func (s *State) RevokePermission(name string, key, end []byte) (*Change, error) {
	role := s.roles[name]
	if role == nil {
		return nil, fmt.Errorf("role %q: %w", name, ErrRoleNotFound)
	}
	row := copyRole(role)
	row.KeyPermission = slices.DeleteFunc(row.KeyPermission, func(p *authpb.Permission) bool { return sameRange(p, key, end) })
	if len(row.KeyPermission) == len(role.KeyPermission) {
		return nil, fmt.Errorf("role %q: %w", name, ErrNotPermitted)
	}
	return s.changed(nil, []RoleRow{{name, row}})
}

package auth

import (
	"bytes"
	"maps"
	"slices"
	"sort"

	"github.com/holdfast-db/holdfast/proto/authpb"
)

// Root is the name of the user and of the role that may do everything.
const Root = "root"

// firstRevision is that of a store in which auth was never touched, as in etcd.
const firstRevision = 1

// State is users and roles at one revision of auth. It never changes, so that
// anybody may look without a lock.
type State struct {
	Enabled  bool
	Revision uint64

	users map[string]*user
	roles map[string]*authpb.Role
}

// user with what its roles permit.
type user struct {
	row         *authpb.User
	root        bool
	read, write []span
}

// Verb is what somebody wants to do with keys.
type Verb uint8

// Verbs.
const (
	Read Verb = iota
	Write
)

func (v Verb) String() string {
	if v == Write {
		return "write"
	}
	return "read"
}

// Actor is who asks. The zero value is nobody.
type Actor struct {
	User     string
	Revision uint64 // That the token is good for; the present one for those who need none.
}

// User returns the row of a user, which is read-only; nil when there is none.
func (s *State) User(name string) *authpb.User {
	if u := s.users[name]; u != nil {
		return u.row
	}
	return nil
}

// Role returns the row of a role, which is read-only; nil when there is none.
func (s *State) Role(name string) *authpb.Role { return s.roles[name] }

// Users and Roles return all names in order.
func (s *State) Users() []string { return slices.Sorted(maps.Keys(s.users)) }

// Roles returns all names in order.
func (s *State) Roles() []string { return slices.Sorted(maps.Keys(s.roles)) }

// CheckUser wants somebody, whoever it is.
func (s *State) CheckUser(by Actor) error {
	if s.Enabled && by.User == "" {
		return ErrNobody
	}
	return nil
}

// CheckRoot wants somebody who has the role root. The revision of its token
// does not matter: the role is looked up now, and a script that changes users
// with one token must not stumble over its own changes.
func (s *State) CheckRoot(by Actor) error {
	if !s.Enabled {
		return nil
	}
	if by.User == "" {
		return ErrNobody
	}
	u := s.users[by.User]
	switch {
	case u == nil:
		return ErrUserNotFound
	case !u.root:
		return ErrDenied
	}
	return nil
}

// CheckSelfOrRoot is for what a user may know of itself.
func (s *State) CheckSelfOrRoot(by Actor, name string) error {
	if err := s.CheckRoot(by); err != nil && (by.User == "" || by.User != name) {
		return err
	}
	return nil
}

// CheckHolderOrRoot is for what the holder of a role may know of it.
func (s *State) CheckHolderOrRoot(by Actor, role string) error {
	err := s.CheckRoot(by)
	if err == nil {
		return nil
	}
	if u := s.users[by.User]; u != nil && slices.Contains(u.row.Roles, role) {
		return nil
	}
	return err
}

// Check decides about a range of keys, given as on the wire: no end is one key,
// a zero byte is from key on.
func (s *State) Check(by Actor, verb Verb, key, end []byte) error {
	if !s.Enabled {
		return nil
	}
	if by.User == "" || by.Revision == 0 {
		return ErrNobody
	}
	if by.Revision < s.Revision {
		return ErrOldRevision
	}
	u := s.users[by.User]
	if u == nil {
		return ErrDenied
	}
	if u.root {
		return nil
	}
	spans := u.read
	if verb == Write {
		spans = u.write
	}
	if covers(spans, key, end) {
		return nil
	}
	return ErrDenied
}

// span is the keys from start on and below end; without an end, all of them.
type span struct{ start, end []byte }

func spanOf(p *authpb.Permission) span {
	switch {
	case len(p.RangeEnd) == 0:
		return span{p.Key, append(bytes.Clone(p.Key), 0)}
	case openEnded(p.RangeEnd):
		return span{p.Key, nil}
	}
	return span{p.Key, p.RangeEnd}
}

func openEnded(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// covers tells whether one of the spans has all of a range. They are sorted and
// neither overlap nor touch, so that one must have all of it.
func covers(spans []span, key, end []byte) bool {
	i := sort.Search(len(spans), func(i int) bool { return bytes.Compare(spans[i].start, key) > 0 }) - 1
	if i < 0 {
		return false
	}
	s := spans[i]
	switch {
	case s.end == nil:
		return true
	case bytes.Compare(key, s.end) >= 0, openEnded(end):
		return false
	}
	return len(end) == 0 || bytes.Compare(end, s.end) <= 0
}

// merged joins spans that overlap or touch.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return bytes.Compare(a.start, b.start) })
	var out []span
	for _, s := range spans {
		if s.end != nil && bytes.Compare(s.start, s.end) >= 0 {
			continue // Nothing. Refused when granted, but etcd's files may hold it.
		}
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.end == nil || bytes.Compare(s.start, last.end) <= 0 {
				if last.end != nil && (s.end == nil || bytes.Compare(s.end, last.end) > 0) {
					last.end = s.end
				}
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// draft is a state under change.
type draft struct {
	*State
	users map[string]bool // Changed.
	roles map[string]bool
}

func (s *State) draft() *draft {
	return &draft{
		State: &State{Enabled: s.Enabled, Revision: s.Revision, users: maps.Clone(s.users), roles: maps.Clone(s.roles)},
		users: map[string]bool{}, roles: map[string]bool{},
	}
}

func (d *draft) setUser(name string, row *authpb.User) {
	d.users[name] = true
	if row == nil {
		delete(d.State.users, name)
		return
	}
	d.State.users[name] = &user{row: row}
}

func (d *draft) setRole(name string, row *authpb.Role) {
	d.roles[name] = true
	if row == nil {
		delete(d.State.roles, name)
		return
	}
	d.State.roles[name] = row
}

// finish merges the permissions of those users for whom anything has changed.
func (d *draft) finish() *State {
	for name, u := range d.State.users { //tidy:ordered each by itself
		stale := d.users[name] || slices.ContainsFunc(u.row.Roles, func(role string) bool { return d.roles[role] })
		if stale {
			d.State.users[name] = d.State.withPermissions(u.row)
		}
	}
	return d.State
}

func (s *State) withPermissions(row *authpb.User) *user {
	u := &user{row: row, root: slices.Contains(row.Roles, Root)}
	for _, name := range row.Roles {
		for _, p := range s.roles[name].GetKeyPermission() {
			if p.PermType == authpb.Permission_READ || p.PermType == authpb.Permission_READWRITE {
				u.read = append(u.read, spanOf(p))
			}
			if p.PermType == authpb.Permission_WRITE || p.PermType == authpb.Permission_READWRITE {
				u.write = append(u.write, spanOf(p))
			}
		}
	}
	u.read, u.write = merged(u.read), merged(u.write)
	return u
}

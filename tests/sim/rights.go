package sim

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
	"github.com/holdfast-db/holdfast/tests/model"
)

// rights are who may do what, as the shadow knows it from the log: written anew
// for this, so that a mistake of package auth is not made here too. They never
// change; a change makes new ones.
type rights struct {
	enabled  bool
	revision uint64
	users    map[string]map[string]bool // Their roles.
	roles    map[string][]right
}

// right is a range that a role may read or write. An end of "" is none.
type right struct {
	key, end    string
	read, write bool
}

// since is what rights were from an index of the log on.
type since struct {
	index  uint64
	rights *rights
}

func noRights() *rights {
	return &rights{revision: 1, users: map[string]map[string]bool{}, roles: map[string][]right{}}
}

func (r *rights) copy() *rights {
	c := &rights{r.enabled, r.revision + 1, map[string]map[string]bool{}, map[string][]right{}}
	for name, roles := range r.users { //tidy:ordered a copy
		c.users[name] = maps.Clone(roles)
	}
	for name, list := range r.roles { //tidy:ordered a copy
		c.roles[name] = slices.Clone(list)
	}
	return c
}

// after is what the rights are when a command was done; the same if it changes
// nothing.
func (r *rights) after(cmd *holdfastpb.Command) *rights {
	next := r.copy()
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_AuthEnable:
		next.enabled, next.revision = true, r.revision // Enabling makes no revision.
	case *holdfastpb.Command_AuthDisable:
		if !r.enabled {
			return r
		}
		next.enabled = false
	case *holdfastpb.Command_UserAdd:
		next.users[c.UserAdd.Name] = map[string]bool{}
	case *holdfastpb.Command_UserDelete:
		delete(next.users, c.UserDelete.Name)
	case *holdfastpb.Command_UserGrantRole:
		if r.users[c.UserGrantRole.User][c.UserGrantRole.Role] {
			return r
		}
		next.users[c.UserGrantRole.User][c.UserGrantRole.Role] = true
	case *holdfastpb.Command_UserRevokeRole:
		delete(next.users[c.UserRevokeRole.Name], c.UserRevokeRole.Role)
	case *holdfastpb.Command_RoleAdd:
		next.roles[c.RoleAdd.Name] = nil
	case *holdfastpb.Command_RoleDelete:
		delete(next.roles, c.RoleDelete.Role)
		for _, roles := range next.users { //tidy:ordered each by itself
			delete(roles, c.RoleDelete.Role)
		}
	case *holdfastpb.Command_RoleGrantPermission:
		p := c.RoleGrantPermission.Perm
		next.forget(c.RoleGrantPermission.Name, string(p.Key), string(p.RangeEnd))
		next.roles[c.RoleGrantPermission.Name] = append(next.roles[c.RoleGrantPermission.Name], right{
			string(p.Key), string(p.RangeEnd), p.PermType != authpb.Permission_WRITE, p.PermType != authpb.Permission_READ,
		})
	case *holdfastpb.Command_RoleRevokePermission:
		next.forget(c.RoleRevokePermission.Role, string(c.RoleRevokePermission.Key), string(c.RoleRevokePermission.RangeEnd))
	default:
		return r
	}
	return next
}

func (r *rights) forget(role, key, end string) {
	r.roles[role] = slices.DeleteFunc(r.roles[role], func(x right) bool { return x.key == key && x.end == end })
}

// aim is what a request wants to do with a range of keys.
type aim struct {
	write    bool
	key, end string
}

// refusal is the error by which a command must be denied, or nil.
func (r *rights) refusal(cmd *holdfastpb.Command, m *model.Store) error {
	if !r.enabled || cmd.Actor.GetMember() {
		return nil
	}
	user, revision := cmd.Actor.GetUser(), cmd.Actor.GetAuthRevision()
	var req proto.Message
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_LeaseExpire, *holdfastpb.Command_MemberPublish, *holdfastpb.Command_ClusterInit:
		return nil // Members alone propose these.
	case *holdfastpb.Command_Put:
		req = c.Put
	case *holdfastpb.Command_DeleteRange:
		req = c.DeleteRange
	case *holdfastpb.Command_Txn:
		req = c.Txn
	case *holdfastpb.Command_LeaseGrant:
		req = &pb.LeaseGrantRequest{}
	case *holdfastpb.Command_LeaseRevoke:
		req = &pb.LeaseRevokeRequest{ID: c.LeaseRevoke.Id}
	}
	switch {
	case user == "":
		return auth.ErrNobody
	case req != nil:
		return r.denies(user, revision, r.aims(user, req, m))
	case r.users[user] == nil:
		return auth.ErrUserNotFound
	case !r.users[user][auth.Root]:
		return auth.ErrDenied
	}
	return nil
}

// denies is the error of the first aim that is not permitted.
func (r *rights) denies(user string, revision uint64, aims []aim) error {
	for _, a := range aims {
		switch {
		case user == "" || revision == 0:
			return auth.ErrNobody
		case revision < r.revision:
			return auth.ErrOldRevision
		case !r.users[user][auth.Root] && !r.covers(user, a):
			return auth.ErrDenied
		}
	}
	return nil
}

// covers goes from the first key of an aim on, as far as some right reaches.
func (r *rights) covers(user string, a aim) bool {
	const endless = "\xff" // No key in here begins with it.
	reach, end := a.key, a.end
	switch end {
	case "":
		end = a.key + "\x00"
	case "\x00":
		end = endless
	}
	end = max(end, a.key+"\x00") // A range of nothing is asked for like its first key.
	for reach < end {
		next := reach
		for role := range r.users[user] { //tidy:ordered the farthest
			for _, x := range r.roles[role] {
				to := x.end
				switch to {
				case "":
					to = x.key + "\x00"
				case "\x00":
					to = endless
				}
				if (a.write && x.write || !a.write && x.read) && x.key <= reach && to > next {
					next = to
				}
			}
		}
		if next == reach {
			return false
		}
		reach = next
	}
	return true
}

// aims takes a request apart.
func (r *rights) aims(user string, req proto.Message, m *model.Store) (list []aim) {
	switch q := req.(type) {
	case *pb.RangeRequest:
		list = append(list, aim{false, string(q.Key), string(q.RangeEnd)})
	case *pb.PutRequest:
		list = append(list, aim{true, string(q.Key), ""})
		list = append(list, r.onLease(user, q.Lease, m)...)
		if q.PrevKv {
			list = append(list, aim{false, string(q.Key), ""})
		}
	case *pb.DeleteRangeRequest:
		list = append(list, aim{true, string(q.Key), string(q.RangeEnd)})
		if q.PrevKv {
			list = append(list, aim{false, string(q.Key), string(q.RangeEnd)})
		}
	case *pb.LeaseRevokeRequest:
		list = r.onLease(user, q.ID, m)
	case *pb.TxnRequest:
		for _, c := range q.Compare {
			list = append(list, aim{false, string(c.Key), string(c.RangeEnd)})
		}
		for _, op := range append(slices.Clone(q.Success), q.Failure...) {
			list = append(list, r.aims(user, opOf(op), m)...)
		}
	}
	return list
}

// onLease is all keys on a lease, which root need not ask for.
func (r *rights) onLease(user string, id int64, m *model.Store) (list []aim) {
	if id == 0 || r.users[user][auth.Root] {
		return nil
	}
	for _, key := range m.LeaseKeys(id) {
		list = append(list, aim{true, key, ""})
	}
	return list
}

func opOf(op *pb.RequestOp) proto.Message {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return o.RequestRange
	case *pb.RequestOp_RequestPut:
		return o.RequestPut
	case *pb.RequestOp_RequestDeleteRange:
		return o.RequestDeleteRange
	}
	return op.GetRequestTxn()
}

// differ says whether a member's table is not what the rights are.
func (r *rights) differ(s *auth.State) bool {
	if s.Enabled != r.enabled || s.Revision != r.revision ||
		!slices.Equal(s.Users(), slices.Sorted(maps.Keys(r.users))) || !slices.Equal(s.Roles(), slices.Sorted(maps.Keys(r.roles))) {
		return true
	}
	for name, roles := range r.users { //tidy:ordered any
		if !slices.Equal(s.User(name).Roles, slices.Sorted(maps.Keys(roles))) {
			return true
		}
	}
	for name, list := range r.roles { //tidy:ordered any
		rows := s.Role(name).KeyPermission
		for _, p := range rows {
			if !slices.Contains(list, right{string(p.Key), string(p.RangeEnd), p.PermType != authpb.Permission_WRITE, p.PermType != authpb.Permission_READ}) {
				return true
			}
		}
		if len(rows) != len(list) {
			return true
		}
	}
	return false
}

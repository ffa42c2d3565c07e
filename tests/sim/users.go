package sim

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// authority makes users and roles, and then grants and revokes without end, one
// change after the other, at whatever member answers.
type authority struct {
	w      *World
	chance *raftnodetest.Random
	asking bool
	users  []string // Beside root.
	roles  []string
}

func (w *World) addAuthority() {
	if w.cfg.Users == 0 {
		return
	}
	a := &authority{w: w, chance: stream(w.cfg.Seed, "authority")}
	for i := range w.cfg.Users {
		a.users, a.roles = append(a.users, "u"+itoa(i)), append(a.roles, "r"+itoa(i))
	}
	w.after(second, a.turn)
}

// turn makes the next change.
func (a *authority) turn() {
	w := a.w
	if w.clients[0].quiet {
		return
	}
	w.after(int64(50+a.chance.Below(500))*millisecond, a.turn)
	m := w.members[w.ids[a.chance.Below(len(w.ids))]]
	if a.asking || !m.serves() || m.pausedUntil > w.now {
		return
	}
	s := m.replica.Machine.Auth.State()
	cmd := a.missing(s)
	if cmd == nil {
		cmd = a.change(s)
	}
	if s.Enabled && cmd.Actor == nil {
		cmd.Actor = &holdfastpb.Actor{User: auth.Root, AuthRevision: s.Revision}
	}
	a.asking = true
	m.propose(cmd, func(_ any, err error) {
		a.asking = false
		if err == nil {
			w.fired("A9")
		}
	})
	m.settle()
}

// missing is the next step towards users, roles, and authentication being on.
func (a *authority) missing(s *auth.State) *holdfastpb.Command {
	for _, name := range append([]string{auth.Root}, a.users...) {
		if s.User(name) == nil {
			return &holdfastpb.Command{Command: &holdfastpb.Command_UserAdd{UserAdd: &holdfastpb.UserAdd{Name: name, PasswordHash: []byte("hash")}}}
		}
	}
	if !slices.Contains(s.User(auth.Root).Roles, auth.Root) {
		return grantRole(auth.Root, auth.Root)
	}
	for _, name := range a.roles {
		if s.Role(name) == nil {
			return &holdfastpb.Command{Command: &holdfastpb.Command_RoleAdd{RoleAdd: &pb.AuthRoleAddRequest{Name: name}}}
		}
	}
	if !s.Enabled {
		return &holdfastpb.Command{Command: &holdfastpb.Command_AuthEnable{AuthEnable: &pb.AuthEnableRequest{}}}
	}
	return nil
}

func grantRole(user, role string) *holdfastpb.Command {
	return &holdfastpb.Command{Command: &holdfastpb.Command_UserGrantRole{UserGrantRole: &pb.AuthUserGrantRoleRequest{User: user, Role: role}}}
}

// change draws one.
func (a *authority) change(s *auth.State) *holdfastpb.Command {
	user, role := a.users[a.chance.Below(len(a.users))], a.roles[a.chance.Below(len(a.roles))]
	switch n := a.chance.Below(100); {
	case n < 40:
		return a.grant(role)
	case n < 60:
		if granted := s.Role(role).GetKeyPermission(); len(granted) > 0 {
			p := granted[a.chance.Below(len(granted))]
			return &holdfastpb.Command{Command: &holdfastpb.Command_RoleRevokePermission{RoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{
				Role: role, Key: p.Key, RangeEnd: p.RangeEnd,
			}}}
		}
		return a.grant(role)
	case n < 78:
		return grantRole(user, role)
	case n < 86:
		return &holdfastpb.Command{Command: &holdfastpb.Command_UserRevokeRole{UserRevokeRole: &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}}}
	case n < 89:
		return &holdfastpb.Command{Command: &holdfastpb.Command_RoleDelete{RoleDelete: &pb.AuthRoleDeleteRequest{Role: role}}}
	case n < 92:
		return &holdfastpb.Command{Command: &holdfastpb.Command_UserDelete{UserDelete: &pb.AuthUserDeleteRequest{Name: user}}}
	case n < 94:
		return &holdfastpb.Command{Command: &holdfastpb.Command_AuthDisable{AuthDisable: &pb.AuthDisableRequest{}}}
	}
	attack := grantRole(user, auth.Root) // By the user itself, who may not.
	attack.Actor = &holdfastpb.Actor{User: user, AuthRevision: s.Revision}
	return attack
}

func (a *authority) grant(role string) *holdfastpb.Command {
	p := &authpb.Permission{PermType: authpb.Permission_Type(a.chance.Below(3)), Key: []byte{0}, RangeEnd: []byte{0}}
	if !a.chance.Chance(40) {
		from := a.chance.Below(a.w.cfg.Keys)
		p.Key, p.RangeEnd = keyName(from), keyName(from+1+a.chance.Below(a.w.cfg.Keys))
	}
	return &holdfastpb.Command{Command: &holdfastpb.Command_RoleGrantPermission{RoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: p}}}
}

// asMember signs what a member does by itself.
func (w *World) asMember(cmd *holdfastpb.Command) *holdfastpb.Command {
	if w.cfg.Users > 0 {
		cmd.Actor = &holdfastpb.Actor{Member: true}
	}
	return cmd
}

// actor is who a client is at a member, as package server finds out. Every
// other one has a token that is good for one revision, as a JWT is, until it is refused.
func (c *client) actor(m *Member) (by auth.Actor, s *auth.State) {
	s = m.replica.Machine.Auth.State()
	if c.user == "" || !s.Enabled {
		return auth.Actor{}, s
	}
	if c.token == 0 || c.id/2%2 == 0 {
		c.token = s.Revision
	}
	return auth.Actor{User: c.user, Revision: c.token}, s
}

func (c *client) sign(m *Member, cmd *holdfastpb.Command) *holdfastpb.Command {
	if by, _ := c.actor(m); by.User != "" {
		cmd.Actor = &holdfastpb.Actor{User: by.User, AuthRevision: by.Revision}
	}
	return cmd
}

// denied decides about a read where it is done, and checks that decision: it must
// be the one of what the member has applied, which no acknowledged revocation is
// newer than.
func (c *client) denied(m *Member, req proto.Message, floor uint64) error {
	w := c.w
	if w.cfg.Users == 0 {
		return nil
	}
	by, s := c.actor(m)
	ask := &auth.Asker{State: s, By: by}
	var err error
	if r, ok := req.(*pb.RangeRequest); ok {
		err = ask.Range(r)
	} else {
		err = ask.Txn(req.(*pb.TxnRequest))
	}
	index := uint64(m.replica.Store().Applied().Position.Index)
	w.check.Fired["U3"]++
	if index < floor {
		w.fail("U3: member %s decides about a read as of entry %d, entry %d was acknowledged before it began", m.id, index, floor)
	}
	w.check.Fired["U2"]++
	now := w.shadow.rightsAt(index)
	var want error
	if now.enabled {
		want = now.denies(by.User, by.Revision, now.aims(by.User, req, w.shadow.model))
	}
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		w.fail("U2: member %s at entry %d decides about %v of %q: %v, expected %v", m.id, index, req, by.User, err, want)
	}
	if err != nil {
		w.count.Reached["read denied"]++
	}
	return err
}

// rightsAt is what rights were when an entry had been applied.
func (s *Shadow) rightsAt(index uint64) *rights {
	for i := len(s.rights) - 1; ; i-- {
		if s.rights[i].index <= index {
			return s.rights[i].rights
		}
	}
}

// permitted decides about a request of an entry, before it is executed.
func (s *Shadow) permitted(cmd *holdfastpb.Command) error {
	s.w.check.Fired["U1"]++
	err := s.rights[len(s.rights)-1].rights.refusal(cmd, s.model)
	switch {
	case errors.Is(err, auth.ErrOldRevision):
		s.w.count.Reached["token of another revision refused"]++
	case err != nil:
		s.w.count.Reached["write denied"]++
	}
	return err
}

// changed notes what a command that was done did to rights.
func (s *Shadow) changed(index uint64, cmd *holdfastpb.Command) {
	last := s.rights[len(s.rights)-1].rights
	if next := last.after(cmd); next != last {
		s.rights = append(s.rights, since{index, next})
	}
}

// checkRights holds all members' users and roles against what the log made.
func (w *World) checkRights() {
	w.each(func(m *Member) {
		if !m.alive {
			return
		}
		w.check.Fired["U4"]++
		if index := uint64(m.replica.Store().Applied().Position.Index); w.shadow.rightsAt(index).differ(m.replica.Machine.Auth.State()) {
			w.fail("U4: users and roles of member %s at entry %d are not what the log made them", m.id, index)
		}
	})
}

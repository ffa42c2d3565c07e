package linear

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

const (
	usersMax   = 3
	rootUser   = "root"
	certified  = "test" // Whom the certificates of the harness name.
	password   = "secret"
	manageTime = 3 * time.Second
)

// users: each may write below a prefix of its own, or may not, in turn. Who began
// after a revocation was acknowledged is let in by no member, and who began after
// a grant is let in by each, until the next change begins.
func users(r *run) work {
	u := &permissions{run: r}
	step := func(ctx context.Context, c *client) {
		if c.id < usersMax {
			u.keep(ctx, c, &u.all[c.id])
			sleep(ctx, time.Duration(c.rng.Int63n(int64(300*time.Millisecond))))
			return
		}
		u.act(ctx, c, c.rng.Intn(usersMax))
	}
	return work{prefix: "users/", setup: u.setup, step: step, finish: u.finish}
}

// permissions are what users may do, as far as it is certain.
type permissions struct {
	run *run
	all [usersMax]permission

	mu             sync.Mutex
	tokens         map[string]string // By client and user.
	inside, denied int               // Requests that were certain to be let in, and not to be.
}

// permission of one user. It is kept by one client. A change without an answer
// may be done at any time, so that the role is given up then: another takes its
// place, and what happens to the old one is nobody's business.
type permission struct {
	role  string // Empty: none yet. Owned by the client that keeps it, as are the next two.
	doubt bool   // About what the role permits.
	epoch int    // Of roles.

	mu      sync.Mutex
	granted bool  // As far as since is not 0; else what was so before.
	since   int64 // 0: nothing is certain.
	changes int   // Begun, so that what lies in between is known.
}

func name(i int) string { return fmt.Sprintf("u%d", i) }

// certain tells what is, and a number that changes when it may not be so any more.
func (p *permission) certain() (granted bool, known bool, changes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.granted, p.since != 0, p.changes
}

// begin makes nothing certain.
func (p *permission) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = 0
	p.changes++
}

func (p *permission) end(granted bool, now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.granted, p.since = granted, now
}

// setup may be done more than once.
func (u *permissions) setup(ctx context.Context, c *client) error {
	u.mu.Lock()
	u.tokens = map[string]string{}
	u.mu.Unlock()
	a := c.wires[c.place].auth
	again := func(_ any, err error) error {
		if err != nil && strings.Contains(err.Error(), "already exists") {
			return nil
		}
		return err
	}
	errs := []error{
		again(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: rootUser, Password: password})),
		again(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: certified, Options: &authpb.UserAddOptions{NoPassword: true}})),
		again(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: rootUser, Role: rootUser})),
		again(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: certified, Role: rootUser})),
	}
	for i := range usersMax {
		errs = append(errs, again(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name(i), Password: password})))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := a.AuthEnable(ctx, &pb.AuthEnableRequest{})
	return err
}

// keep changes what the user may do.
func (u *permissions) keep(ctx context.Context, c *client, p *permission) {
	if c.rng.Intn(10) == 0 {
		c.place = c.rng.Intn(len(c.wires))
	}
	a := c.wires[c.place].auth
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), manageTime)
	defer cancel()
	if p.doubt && p.role != "" {
		_, err := a.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: name(c.id), Role: p.role})
		if err != nil && !strings.Contains(err.Error(), "not granted") {
			c.place = c.rng.Intn(len(c.wires))
			return
		}
		p.role, p.doubt = "", false
	}
	if p.role == "" {
		p.epoch++
		role := fmt.Sprintf("r%d.%d", c.id, p.epoch) // One that is given up permits nothing, ever.
		if _, err := a.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: role}); err != nil {
			c.place = c.rng.Intn(len(c.wires))
			return
		}
		if _, err := a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: name(c.id), Role: role}); err != nil {
			return
		}
		p.role = role
		p.end(false, u.run.rec.now())
		return
	}
	granted, _, _ := p.certain()
	prefix := fmt.Sprintf("users/%d/", c.id)
	p.begin()
	var err error
	if granted {
		_, err = a.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: p.role, Key: []byte(prefix), RangeEnd: prefixEnd(prefix)})
	} else {
		_, err = a.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{
			Name: p.role, Perm: &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte(prefix), RangeEnd: prefixEnd(prefix)},
		})
	}
	switch outcomeOf(err) {
	case check.Acknowledged:
		p.end(!granted, u.run.rec.now())
	case check.Refused:
		p.end(granted, u.run.rec.now())
	default:
		p.doubt = true
	}
	if err != nil {
		c.place = c.rng.Intn(len(c.wires))
	}
}

// act does something as a user, and judges whether it should have been let in.
func (u *permissions) act(ctx context.Context, c *client, user int) {
	who := fmt.Sprintf("%d %s", c.id, name(user))
	u.mu.Lock()
	token := u.tokens[who]
	u.mu.Unlock()
	if token == "" {
		login, cancel := context.WithTimeout(ctx, manageTime)
		defer cancel()
		res, err := c.wires[c.place].auth.Authenticate(login, &pb.AuthenticateRequest{Name: name(user), Password: password})
		if err != nil {
			c.place = c.rng.Intn(len(c.wires))
			return
		}
		token = res.Token
		u.keepToken(who, token)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
	granted, known, before := u.all[user].certain()
	key := fmt.Sprintf("users/%d/%d", user, c.rng.Intn(4))
	var err error
	switch c.rng.Intn(5) {
	case 0, 1:
		_, err = c.do(ctx, put(key, c.value()))
	case 2:
		_, err = c.do(ctx, &pb.DeleteRangeRequest{Key: []byte(key)})
	case 3:
		_, err = c.do(ctx, &pb.TxnRequest{Compare: []*pb.Compare{ifVersion(key, 1)}, Success: []*pb.RequestOp{opPut(put(key, c.value()))}, Failure: []*pb.RequestOp{opGet(get(key))}})
	default:
		_, err = c.do(ctx, get(key))
	}
	if status.Code(err) == codes.Unauthenticated {
		u.keepToken(who, "")
	}
	if _, _, after := u.all[user].certain(); known && after == before {
		u.judge(user, granted, err)
	}
}

func (u *permissions) keepToken(who, token string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tokens[who] = token
}

// judge holds an answer against what was certain all the time.
func (u *permissions) judge(user int, granted bool, err error) {
	refused := status.Code(err) == codes.PermissionDenied
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case granted && refused:
		u.run.rec.violate("user %s is denied what it was granted: %v", name(user), err)
	case !granted && err == nil:
		u.run.rec.violate("user %s is let in after what it may was revoked", name(user))
	case granted && err == nil:
		u.inside++
	case !granted && refused:
		u.denied++
	}
}

func (u *permissions) finish() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inside < 20 || u.denied < 20 {
		u.run.rec.violate("only %d requests were certain to be let in, and %d to be denied", u.inside, u.denied)
	}
}

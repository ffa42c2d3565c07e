package server

import (
	"context"

	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
	lockpb "github.com/holdfast-db/holdfast/proto/v3lockpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// access is who may call a method while authentication is on.
//
// Where that is decided follows from where the truth is. What changes the state
// is decided when it is executed, at the same revision of users and roles on
// all members (statemachine/auths.go); what reads it, after the read has become
// as new as it must be. Both take requests apart with auth.Asker. The rest asks
// for a role alone, and is decided before the method runs.
type access func(req any) need

type need uint8

const (
	open      need = iota + 1 // Nobody need say who it is.
	someone                   // Any user.
	root                      // Who has the role root.
	inHandler                 // The method asks by permit, sign or permitLease; an answer without that is withheld.
)

func only(n need) access { return func(any) need { return n } }

// accesses has a row for every method. One without is denied.
var accesses = map[string]access{
	pb.KV_Range_FullMethodName:       only(inHandler),
	pb.KV_RangeStream_FullMethodName: only(inHandler),
	pb.KV_Put_FullMethodName:         only(inHandler),
	pb.KV_DeleteRange_FullMethodName: only(inHandler),
	pb.KV_Txn_FullMethodName:         only(inHandler),
	pb.KV_Compact_FullMethodName:     only(root),

	pb.Watch_Watch_FullMethodName: only(inHandler), // Each watcher by itself.

	pb.Lease_LeaseGrant_FullMethodName:      only(inHandler),
	pb.Lease_LeaseRevoke_FullMethodName:     only(inHandler),
	pb.Lease_LeaseKeepAlive_FullMethodName:  only(inHandler), // Each lease by itself.
	pb.Lease_LeaseTimeToLive_FullMethodName: only(inHandler),
	pb.Lease_LeaseLeases_FullMethodName:     only(inHandler),

	pb.Cluster_MemberAdd_FullMethodName:     only(inHandler),
	pb.Cluster_MemberRemove_FullMethodName:  only(inHandler),
	pb.Cluster_MemberUpdate_FullMethodName:  only(inHandler),
	pb.Cluster_MemberList_FullMethodName:    only(inHandler),
	pb.Cluster_MemberPromote_FullMethodName: only(inHandler),

	pb.Maintenance_Alarm_FullMethodName:      ofAlarm,
	pb.Maintenance_Status_FullMethodName:     only(someone),
	pb.Maintenance_Defragment_FullMethodName: only(root),
	pb.Maintenance_Hash_FullMethodName:       only(root),
	pb.Maintenance_HashKV_FullMethodName:     only(root),
	pb.Maintenance_Snapshot_FullMethodName:   only(root),
	pb.Maintenance_MoveLeader_FullMethodName: only(root),
	pb.Maintenance_Downgrade_FullMethodName:  only(root),

	pb.Auth_AuthEnable_FullMethodName:           only(inHandler),
	pb.Auth_AuthDisable_FullMethodName:          only(inHandler),
	pb.Auth_AuthStatus_FullMethodName:           only(open),
	pb.Auth_Authenticate_FullMethodName:         only(open),
	pb.Auth_UserAdd_FullMethodName:              only(inHandler),
	pb.Auth_UserGet_FullMethodName:              only(inHandler), // Of oneself, too.
	pb.Auth_UserList_FullMethodName:             only(inHandler),
	pb.Auth_UserDelete_FullMethodName:           only(inHandler),
	pb.Auth_UserChangePassword_FullMethodName:   only(inHandler),
	pb.Auth_UserGrantRole_FullMethodName:        only(inHandler),
	pb.Auth_UserRevokeRole_FullMethodName:       only(inHandler),
	pb.Auth_RoleAdd_FullMethodName:              only(inHandler),
	pb.Auth_RoleGet_FullMethodName:              only(inHandler), // Of one's own roles, too.
	pb.Auth_RoleList_FullMethodName:             only(inHandler),
	pb.Auth_RoleDelete_FullMethodName:           only(inHandler),
	pb.Auth_RoleGrantPermission_FullMethodName:  only(inHandler),
	pb.Auth_RoleRevokePermission_FullMethodName: only(inHandler),

	// What they do is done by requests for keys and leases in the caller's name.
	lockpb.Lock_Lock_FullMethodName:             only(open),
	lockpb.Lock_Unlock_FullMethodName:           only(open),
	electionpb.Election_Campaign_FullMethodName: only(open),
	electionpb.Election_Proclaim_FullMethodName: only(open),
	electionpb.Election_Leader_FullMethodName:   only(open),
	electionpb.Election_Observe_FullMethodName:  only(open),
	electionpb.Election_Resign_FullMethodName:   only(open),

	"/grpc.health.v1.Health/Check":                                   only(open),
	"/grpc.health.v1.Health/Watch":                                   only(open),
	"/grpc.health.v1.Health/List":                                    only(open),
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      only(open),
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": only(open),
}

func ofAlarm(req any) need {
	if r, ok := req.(*pb.AlarmRequest); ok && r.Action == pb.AlarmRequest_GET {
		return someone
	}
	return root
}

// authOn is all that requests pay for while authentication is off.
func (c *core) authOn() bool { return c.replica.Machine.Auth.State().Enabled }

// seal tells whether a decision was made about a call. Nil: none is needed.
type seal struct{ broken bool }

func (s *seal) decided() bool { return s == nil || s.broken }

type sealKey struct{}

// admit decides about a call what can be decided before it runs.
func (c *core) admit(ctx context.Context, method string, req any) (context.Context, *seal, error) {
	if !c.authOn() {
		return ctx, nil, nil
	}
	row, ok := accesses[method]
	if !ok {
		return ctx, nil, errPermissionDenied
	}
	var err error
	switch row(req) {
	case open:
	case someone:
		err = c.permit(ctx, anybody)
	case root:
		err = c.permit(ctx, onlyRoot)
	case inHandler:
		s := &seal{}
		return context.WithValue(ctx, sealKey{}, s), s, nil
	default:
		err = errPermissionDenied
	}
	return ctx, nil, toWire(err)
}

// permit finds out who asks, and whether it may.
func (c *core) permit(ctx context.Context, ask func(*auth.Asker) error) error {
	if !c.authOn() {
		return nil
	}
	by, s, err := c.actor(ctx)
	if err != nil {
		return err
	}
	if !s.Enabled {
		return nil
	}
	return ask(&auth.Asker{State: s, By: by, LeaseKeys: c.leaseKeysHere})
}

func anybody(a *auth.Asker) error  { return a.State.CheckUser(a.By) }
func onlyRoot(a *auth.Asker) error { return a.State.CheckRoot(a.By) }

// permitLease asks for all keys on a lease, as far as this member knows them.
func (c *core) permitLease(ctx context.Context, id int64, verb auth.Verb) error {
	if !c.authOn() {
		return nil
	}
	return c.permit(ctx, func(a *auth.Asker) error {
		if err := a.State.CheckUser(a.By); err != nil {
			return err
		}
		return a.Lease(id, verb)
	})
}

// permitKeys asks whether keys may be read that an answer names.
func (c *core) permitKeys(ctx context.Context, keys [][]byte) error {
	if !c.authOn() {
		return nil
	}
	return c.permit(ctx, func(a *auth.Asker) error {
		a.LeaseKeys = func(int64) ([][]byte, error) { return keys, nil }
		return a.Lease(0, auth.Read)
	})
}

func (c *core) leaseKeysHere(id int64) ([][]byte, error) {
	store, err := c.replica.Use()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	v := store.View()
	defer v.Release()
	return v.LeaseKeys(ident.LeaseID(id))
}

// actor is who calls, and the state that says what it may do. Whoever asks for
// it decides about the call, now or when it is executed.
func (c *core) actor(ctx context.Context) (auth.Actor, *auth.State, error) {
	if seal, ok := ctx.Value(sealKey{}).(*seal); ok {
		seal.broken = true
	}
	for {
		s := c.replica.Machine.Auth.State()
		if !s.Enabled { // Turned off meanwhile, and with that all tokens are void.
			return auth.Actor{}, s, nil
		}
		user, revision, err := c.identify(ctx)
		// Who was found and what it may do must be of one moment: a user that was
		// deleted and made anew meanwhile is another, though its name is the same.
		if c.replica.Machine.Auth.State() != s {
			continue
		}
		if revision == 0 {
			revision = s.Revision
		}
		return auth.Actor{User: user, Revision: revision}, s, err
	}
}

// meet finds out who calls before a view of the store is held: a token may name
// an entry that has not come to this member yet, and whoever made that up must
// not keep a view for as long as the wait takes. Whether the caller may is asked
// under the view, and then at once.
func (c *core) meet(ctx context.Context) error {
	if !c.authOn() {
		return nil
	}
	if _, _, err := c.identify(ctx); err != nil && c.authOn() {
		return err
	}
	return nil
}

// sign writes into a command who wants it, for those who execute it.
func (c *core) sign(ctx context.Context, cmd *holdfastpb.Command) error {
	if _, login := cmd.Command.(*holdfastpb.Command_Login); login || !c.authOn() {
		return nil // Whoever logs in is nobody yet, and may come with a token that is void.
	}
	if isMember, _ := ctx.Value(memberKey{}).(bool); isMember {
		cmd.Actor = &holdfastpb.Actor{Member: true}
		return nil
	}
	by, s, err := c.actor(ctx)
	if err != nil {
		return err
	}
	if by.User != "" {
		cmd.Actor = &holdfastpb.Actor{User: by.User, AuthRevision: by.Revision}
		return nil
	}
	if !s.Enabled {
		return nil
	}
	// Nobody shall fill the log with what will be refused. But authentication may
	// have been turned off, and this member not know it yet.
	if err := c.linearize(ctx); err != nil {
		return err
	}
	if c.authOn() {
		return auth.ErrNobody
	}
	return nil
}

type memberKey struct{}

// asMember is for what this member does by itself, whoever's call made it.
func asMember(ctx context.Context) context.Context { return context.WithValue(ctx, memberKey{}, true) }

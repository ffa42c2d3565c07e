package server

import (
	"context"
	"errors"
	"slices"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
	lockpb "github.com/holdfast-db/holdfast/proto/v3lockpb"
)

// rule says who may call a method, and what it needs.
type rule struct {
	learner func(req any) bool // Whether a learner answers it; nil: never.
	waits   bool               // For others: that it takes long means nothing.
}

func always(any) bool { return true }

func serializableRange(req any) bool {
	r, ok := req.(*pb.RangeRequest)
	return ok && r.Serializable
}

// guard has a row for every method. One without a row is refused: a new method
// is not open to everybody because somebody forgot about it.
var guard = map[string]rule{
	pb.KV_Range_FullMethodName:       {learner: serializableRange},
	pb.KV_RangeStream_FullMethodName: {},
	pb.KV_Put_FullMethodName:         {},
	pb.KV_DeleteRange_FullMethodName: {},
	pb.KV_Txn_FullMethodName:         {},
	pb.KV_Compact_FullMethodName:     {},

	pb.Watch_Watch_FullMethodName: {},

	pb.Lease_LeaseGrant_FullMethodName:      {},
	pb.Lease_LeaseRevoke_FullMethodName:     {},
	pb.Lease_LeaseKeepAlive_FullMethodName:  {},
	pb.Lease_LeaseTimeToLive_FullMethodName: {},
	pb.Lease_LeaseLeases_FullMethodName:     {},

	pb.Cluster_MemberAdd_FullMethodName:     {},
	pb.Cluster_MemberRemove_FullMethodName:  {},
	pb.Cluster_MemberUpdate_FullMethodName:  {},
	pb.Cluster_MemberList_FullMethodName:    {},
	pb.Cluster_MemberPromote_FullMethodName: {},

	pb.Maintenance_Alarm_FullMethodName:      {},
	pb.Maintenance_Status_FullMethodName:     {learner: always},
	pb.Maintenance_Defragment_FullMethodName: {},
	pb.Maintenance_Hash_FullMethodName:       {},
	pb.Maintenance_HashKV_FullMethodName:     {},
	pb.Maintenance_Snapshot_FullMethodName:   {learner: always},
	pb.Maintenance_MoveLeader_FullMethodName: {},
	pb.Maintenance_Downgrade_FullMethodName:  {},

	pb.Auth_AuthEnable_FullMethodName:           {},
	pb.Auth_AuthDisable_FullMethodName:          {},
	pb.Auth_AuthStatus_FullMethodName:           {},
	pb.Auth_Authenticate_FullMethodName:         {},
	pb.Auth_UserAdd_FullMethodName:              {},
	pb.Auth_UserGet_FullMethodName:              {},
	pb.Auth_UserList_FullMethodName:             {},
	pb.Auth_UserDelete_FullMethodName:           {},
	pb.Auth_UserChangePassword_FullMethodName:   {},
	pb.Auth_UserGrantRole_FullMethodName:        {},
	pb.Auth_UserRevokeRole_FullMethodName:       {},
	pb.Auth_RoleAdd_FullMethodName:              {},
	pb.Auth_RoleGet_FullMethodName:              {},
	pb.Auth_RoleList_FullMethodName:             {},
	pb.Auth_RoleDelete_FullMethodName:           {},
	pb.Auth_RoleGrantPermission_FullMethodName:  {},
	pb.Auth_RoleRevokePermission_FullMethodName: {},

	// What these do with keys and leases is checked as such, in the caller's name.
	lockpb.Lock_Lock_FullMethodName:             {waits: true},
	lockpb.Lock_Unlock_FullMethodName:           {},
	electionpb.Election_Campaign_FullMethodName: {waits: true},
	electionpb.Election_Proclaim_FullMethodName: {},
	electionpb.Election_Leader_FullMethodName:   {},
	electionpb.Election_Observe_FullMethodName:  {},
	electionpb.Election_Resign_FullMethodName:   {},

	"/grpc.health.v1.Health/Check":                                   {learner: always},
	"/grpc.health.v1.Health/Watch":                                   {learner: always},
	"/grpc.health.v1.Health/List":                                    {learner: always},
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {learner: always},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {learner: always},
}

// kind of a call as etcd counts it.
func (rule) kind(req any) string {
	if req == nil {
		return "stream"
	}
	return "unary"
}

// check refuses a call that this member may not answer now.
func (c *core) check(ctx context.Context, method string, req any) error {
	row, ok := guard[method]
	if !ok {
		return status.Errorf(codes.PermissionDenied, "etcdserver: method %s has no rule", method)
	}
	if c.fenced.Load() {
		return errCorrupt
	}
	if c.learner() && (row.learner == nil || !row.learner(req)) {
		return errLearner
	}
	for _, v := range metadata.ValueFromIncomingContext(ctx, "client-api-version") {
		if !utf8.ValidString(v) {
			return errClientAPIVersion
		}
		c.metrics.clients.count(row.kind(req), v)
	}
	if needsLeader(ctx) && c.node.Status().Leader == 0 {
		return errNoLeader
	}
	return nil
}

func needsLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, "hasleader")
	return len(v) > 0 && v[0] == "true"
}

func (c *core) learner() bool {
	row := c.replica.Machine.Members.Get(c.id.Member)
	return row != nil && row.IsLearner
}

func (c *core) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	row := c.calls.begin(info.FullMethod)
	row.received.Add(1)
	start := row.start(c.cfg.Clock)
	answer, err := c.answer(ctx, req, info, next)
	c.lookFor(err)
	if err == nil {
		row.sent.Add(1)
	}
	row.stop(c.cfg.Clock, start)
	row.end(err)
	return answer, err
}

func (c *core) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.check(ctx, info.FullMethod, req); err != nil {
		return nil, err
	}
	ctx, seal, err := c.admit(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	start := c.cfg.Clock.Mono()
	answer, err := next(ctx, req)
	if err == nil && !seal.decided() {
		c.log.Error("nobody decided whether a request is permitted", "method", info.FullMethod)
		return nil, errPermissionDenied
	}
	took := c.cfg.Clock.Mono() - start
	c.metrics.requests.observe(info.FullMethod, took, err)
	if took > c.cfg.SlowRequest && !guard[info.FullMethod].waits {
		c.tellSlow(info.FullMethod, req, answer, took, err)
	}
	return answer, err
}

func (c *core) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	row := c.calls.begin(info.FullMethod)
	start := row.start(c.cfg.Clock)
	err := c.carry(srv, &counted{ss, row}, info, next)
	c.lookFor(err)
	row.stop(c.cfg.Clock, start)
	row.end(err)
	return err
}

// lookFor has this member stop when a call met damage in its state.
func (c *core) lookFor(err error) {
	var damage *damageError
	if errors.As(err, &damage) {
		c.onDamage(damage.cause)
	}
}

// carry ends streams that carry "hasleader" once there has been no leader for
// a while, so that a client behind a partition looks for another member.
func (c *core) carry(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.check(ss.Context(), info.FullMethod, nil); err != nil {
		return err
	}
	if _, _, err := c.admit(ss.Context(), info.FullMethod, nil); err != nil {
		return err
	}
	if !needsLeader(ss.Context()) {
		return next(srv, ss)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	remove := c.leaderless.add(cancel)
	defer remove()
	err := next(srv, &streamWithContext{ss, ctx})
	if context.Cause(ctx) == errNoLeader {
		return errNoLeader
	}
	return err
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithContext) Context() context.Context { return s.ctx }

// Methods names everything that is served, and HasRule tells whether anybody
// may call it: programs that add nothing can check that nothing was forgotten.
func (s *Server) Methods() []string {
	var names []string
	for service, info := range s.grpc.GetServiceInfo() { //tidy:ordered sorted below
		for _, m := range info.Methods {
			names = append(names, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(names)
	return names
}

// HasRule tells whether a method has a row in the guard, and one in the table of
// who may call it.
func HasRule(method string) bool {
	_, guarded := guard[method]
	_, authorized := accesses[method]
	return guarded && authorized
}

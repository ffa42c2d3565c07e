package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/auth"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Errors of this package that a client may see. Code and text are protocol:
// clients map them by the exact words.
var (
	errEmptyKey          = status.Error(codes.InvalidArgument, "etcdserver: key is not provided")
	errKeyNotFound       = status.Error(codes.InvalidArgument, "etcdserver: key not found")
	errValueProvided     = status.Error(codes.InvalidArgument, "etcdserver: value is provided")
	errLeaseProvided     = status.Error(codes.InvalidArgument, "etcdserver: lease is provided")
	errTooManyOps        = status.Error(codes.InvalidArgument, "etcdserver: too many operations in txn request")
	errDuplicateKey      = status.Error(codes.InvalidArgument, "etcdserver: duplicate key given in txn request")
	errSortOption        = status.Error(codes.InvalidArgument, "etcdserver: invalid sort option")
	errClientAPIVersion  = status.Error(codes.InvalidArgument, "etcdserver: invalid client api version")
	errRequestTooLarge   = status.Error(codes.InvalidArgument, "etcdserver: request is too large")
	errMemberURLs        = status.Error(codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	errNameNotText       = status.Error(codes.InvalidArgument, "etcdserver: name is not valid UTF-8")
	errUserName          = status.Error(codes.InvalidArgument, "etcdserver: user name is empty")
	errRoleName          = status.Error(codes.InvalidArgument, "etcdserver: role name is empty")
	errAuthFailed        = status.Error(codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
	errNoPermission      = status.Error(codes.InvalidArgument, "etcdserver: permission not given")
	errAuthManagement    = status.Error(codes.InvalidArgument, "etcdserver: invalid auth management")
	errOldAuthRevision   = status.Error(codes.InvalidArgument, "etcdserver: revision of auth store is old")
	errCompacted         = status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	errFutureRevision    = status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	errLeaseTTL          = status.Error(codes.OutOfRange, "etcdserver: too large lease TTL")
	errNoSpace           = status.Error(codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	errLeaseNotFound     = status.Error(codes.NotFound, "etcdserver: requested lease not found")
	errMemberNotFound    = status.Error(codes.NotFound, "etcdserver: member not found")
	errLeaseExists       = status.Error(codes.FailedPrecondition, "etcdserver: lease already exists")
	errMemberExists      = status.Error(codes.FailedPrecondition, "etcdserver: member ID already exist")
	errPeerURLExists     = status.Error(codes.FailedPrecondition, "etcdserver: Peer URLs already exists")
	errMemberNotLearner  = status.Error(codes.FailedPrecondition, "etcdserver: can only promote a learner member")
	errLearnerNotReady   = status.Error(codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
	errTooManyLearners   = status.Error(codes.FailedPrecondition, "etcdserver: too many learner members in cluster")
	errNotLeader         = status.Error(codes.FailedPrecondition, "etcdserver: not leader")
	errBadTransferee     = status.Error(codes.FailedPrecondition, "etcdserver: bad leader transferee")
	errLearner           = status.Error(codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	errDowngradeFormat   = status.Error(codes.InvalidArgument, "etcdserver: wrong downgrade target version format")
	errDowngradeTarget   = status.Error(codes.InvalidArgument, "etcdserver: invalid downgrade target version")
	errUnknownMethod     = status.Error(codes.Unknown, "etcdserver: unknown method")
	errAlarmAction       = status.Error(codes.InvalidArgument, "etcdserver: unknown action for an alarm")
	errRootUser          = status.Error(codes.FailedPrecondition, "etcdserver: root user does not exist")
	errRootRole          = status.Error(codes.FailedPrecondition, "etcdserver: root user does not have root role")
	errUserExists        = status.Error(codes.FailedPrecondition, "etcdserver: user name already exists")
	errUserNotFound      = status.Error(codes.FailedPrecondition, "etcdserver: user name not found")
	errRoleExists        = status.Error(codes.FailedPrecondition, "etcdserver: role name already exists")
	errRoleNotFound      = status.Error(codes.FailedPrecondition, "etcdserver: role name not found")
	errRoleNotGranted    = status.Error(codes.FailedPrecondition, "etcdserver: role is not granted to the user")
	errNotPermitted      = status.Error(codes.FailedPrecondition, "etcdserver: permission is not granted to the role")
	errAuthNotEnabled    = status.Error(codes.FailedPrecondition, "etcdserver: authentication is not enabled")
	errPermissionDenied  = status.Error(codes.PermissionDenied, "etcdserver: permission denied")
	errInvalidToken      = status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
	errNoLeader          = status.Error(codes.Unavailable, "etcdserver: no leader")
	errLeaderChanged     = status.Error(codes.Unavailable, "etcdserver: leader changed")
	errStopped           = status.Error(codes.Unavailable, "etcdserver: server stopped")
	errDamagedState      = status.Error(codes.Unavailable, "etcdserver: state of this member is damaged")
	errTimeout           = status.Error(codes.Unavailable, "etcdserver: request timed out")
	errTimeoutLeaderFail = status.Error(codes.Unavailable, "etcdserver: request timed out, possibly due to previous leader failure")
	errUnhealthy         = status.Error(codes.Unavailable, "etcdserver: unhealthy cluster")
	errCorrupt           = status.Error(codes.DataLoss, "etcdserver: corrupt cluster")
	errNotProposed       = status.Error(codes.DeadlineExceeded, "context deadline exceeded") // Nobody led to whom a write could be given. It has no effect.
	errSuperseded        = status.Error(codes.Unavailable, "holdfast: this cluster was given up and recovered elsewhere, its members acknowledge nothing any more")
	errEpochUnread       = status.Error(codes.Unavailable, "holdfast: the archive did not tell in time that this cluster was not given up, nothing is acknowledged")
	errWatchCanceled     = status.Error(codes.Canceled, "etcdserver: watch canceled")

	// Clients know these by their text only: they travel as Unknown.
	errNotEnoughStarted = status.Error(codes.Unknown, "etcdserver: re-configuration failed due to not enough started members")
	errTooManyRequests  = status.Error(codes.Unknown, "etcdserver: too many requests")
	errNoPasswordUser   = status.Error(codes.Unknown, "auth: authentication failed, password was given for no password user")
	errVerifyOnly       = status.Error(codes.Unknown, "auth: token signing attempted with verify-only key")
)

// wire is the one table from errors of the packages below to what a client is
// told. The order matters only where one error wraps another.
var wire = []struct{ err, answer error }{
	{mvcc.ErrCompacted, errCompacted},
	{mvcc.ErrFutureRevision, errFutureRevision},
	{statemachine.ErrNoSpace, errNoSpace},
	{statemachine.ErrCorrupt, errCorrupt},
	{mvcc.ErrKeyNotFound, errKeyNotFound},
	{mvcc.ErrTooLarge, errRequestTooLarge},
	{statemachine.ErrEmptyKey, errEmptyKey},
	{lease.ErrTTL, errLeaseTTL},
	{lease.ErrNotFound, errLeaseNotFound},
	{lease.ErrExists, errLeaseExists},
	{member.ErrNotFound, errMemberNotFound},
	{member.ErrRemoved, errMemberNotFound},
	{member.ErrIDExists, errMemberExists},
	{member.ErrURLExists, errPeerURLExists},
	{member.ErrNotLearner, errMemberNotLearner},
	{member.ErrTooManyLearner, errTooManyLearners},
	{member.ErrLastVoter, errNotEnoughStarted},
	{auth.ErrRootUser, errRootUser},
	{auth.ErrRootRole, errRootRole},
	{auth.ErrNobody, errUserName}, // The protocol has one text for both.
	{auth.ErrUserName, errUserName},
	{auth.ErrDenied, errPermissionDenied},
	{auth.ErrOldRevision, errOldAuthRevision},
	{auth.ErrNotEnabled, errAuthNotEnabled},
	{auth.ErrFailed, errAuthFailed},
	{auth.ErrNoPassword, errNoPasswordUser},
	{auth.ErrUserExists, errUserExists},
	{auth.ErrUserNotFound, errUserNotFound},
	{auth.ErrRoleName, errRoleName},
	{auth.ErrRoleExists, errRoleExists},
	{auth.ErrRoleNotFound, errRoleNotFound},
	{auth.ErrNotGranted, errRoleNotGranted},
	{auth.ErrNoPermission, errNoPermission},
	{auth.ErrNotPermitted, errNotPermitted},
	{auth.ErrManagement, errAuthManagement},
	{auth.ErrRowTooLarge, errRequestTooLarge},
	{raftnode.ErrTooLarge, errRequestTooLarge},
	{raftnode.ErrNoLeader, errTimeout}, // Nobody led until the deadline; "no leader" is for those who ask not to wait.
	{raftnode.ErrNotLeader, errNotLeader},
	{raftnode.ErrBusy, errTooManyRequests},
	{raftnode.ErrTransferee, errBadTransferee},
	{raftnode.ErrTransferFailed, errTimeoutLeaderFail},
	{raftnode.ErrConfPending, errUnhealthy},
	{raftnode.ErrConfInvalid, errUnhealthy},
	{raftnode.ErrLeaderChanged, errLeaderChanged},
	{raftnode.ErrNoQuorum, errTimeout},
	{raftnode.ErrUnknownOutcome, errTimeout},
	{raftnode.ErrStopped, errStopped},
	{raftnode.ErrRemoved, errStopped},
}

// toWire turns any error into what a client is told.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err // Already in the words of the protocol.
	}
	for _, row := range wire {
		if errors.Is(err, row.err) {
			return row.answer
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if replica.IsDamage(err) {
		return &damageError{err}
	}
	return status.Error(codes.Unknown, err.Error())
}

// damageError is damage on its way to a client, which is told to try another
// member. The guard sees it pass and stops this one.
type damageError struct{ cause error }

func (e *damageError) Error() string { return e.cause.Error() }

func (e *damageError) Unwrap() error { return e.cause }

// GRPCStatus makes it an answer of the protocol.
func (e *damageError) GRPCStatus() *status.Status { return status.Convert(errDamagedState) }

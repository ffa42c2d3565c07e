package client

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors of this side.
var (
	// ErrUnknownOutcome marks the error of a write that may or may not have
	// happened: it was sent, and no answer says which.
	ErrUnknownOutcome = errors.New("it is unknown whether the write happened")

	// ErrClosed means that the client was closed.
	ErrClosed = errors.New("client is closed")

	// ErrNotWatching means that the watch is not in force at the moment.
	ErrNotWatching = errors.New("watch is not in force at the moment")

	// ErrLeaseNotRenewed means that a lease's time passed without a renewal.
	ErrLeaseNotRenewed = errors.New("lease was not renewed in time")

	// ErrNoEndpoints means that there is nobody to talk to.
	ErrNoEndpoints = errors.New("no endpoints")

	// ErrUnreachable marks the error of a call that no member could be connected
	// for (Config.FailFast). Nothing has come of it.
	ErrUnreachable = errors.New("no member can be connected to")

	// ErrMixedSecurity means that only some endpoints are encrypted.
	ErrMixedSecurity = errors.New("encrypted and plain endpoints cannot be mixed")
)

// Error is an error of the protocol. Compare with errors.Is.
type Error struct {
	Code codes.Code
	Text string // Exactly as the server sent it.
}

func (e Error) Error() string { return e.Text }

// GRPCStatus lets the error travel on.
func (e Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Text) }

// Errors of the protocol that a program acts on. Others arrive as Error too,
// if their text is the protocol's.
var (
	ErrEmptyKey          error = Error{codes.InvalidArgument, "etcdserver: key is not provided"}
	ErrKeyNotFound       error = Error{codes.InvalidArgument, "etcdserver: key not found"}
	ErrTooManyOps        error = Error{codes.InvalidArgument, "etcdserver: too many operations in txn request"}
	ErrDuplicateKey      error = Error{codes.InvalidArgument, "etcdserver: duplicate key given in txn request"}
	ErrRequestTooLarge   error = Error{codes.InvalidArgument, "etcdserver: request is too large"}
	ErrCompacted         error = Error{codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"}
	ErrFutureRevision    error = Error{codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"}
	ErrNoSpace           error = Error{codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"}
	ErrTooManyRequests   error = Error{codes.ResourceExhausted, "etcdserver: too many requests"}
	ErrLeaseNotFound     error = Error{codes.NotFound, "etcdserver: requested lease not found"}
	ErrLeaseExists       error = Error{codes.FailedPrecondition, "etcdserver: lease already exists"}
	ErrMemberNotFound    error = Error{codes.NotFound, "etcdserver: member not found"}
	ErrNotLeader         error = Error{codes.FailedPrecondition, "etcdserver: not leader"}
	ErrNotForLearner     error = Error{codes.FailedPrecondition, "etcdserver: rpc not supported for learner"}
	ErrNoLeader          error = Error{codes.Unavailable, "etcdserver: no leader"}
	ErrLeaderChanged     error = Error{codes.Unavailable, "etcdserver: leader changed"}
	ErrServerStopped     error = Error{codes.Unavailable, "etcdserver: server stopped"}
	ErrTimeout           error = Error{codes.Unavailable, "etcdserver: request timed out"}
	ErrUnhealthy         error = Error{codes.Unavailable, "etcdserver: unhealthy cluster"}
	ErrCorrupt           error = Error{codes.DataLoss, "etcdserver: corrupt cluster"}
	ErrWatchCanceled     error = Error{codes.Canceled, "etcdserver: watch canceled"}
	ErrPermissionDenied  error = Error{codes.PermissionDenied, "etcdserver: permission denied"}
	ErrUserEmpty         error = Error{codes.InvalidArgument, "etcdserver: user name is empty"}
	ErrInvalidAuthToken  error = Error{codes.Unauthenticated, "etcdserver: invalid auth token"}
	ErrAuthOldRevision   error = Error{codes.InvalidArgument, "etcdserver: revision of auth store is old"}
	ErrAuthFailed        error = Error{codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"}
	ErrAuthNotEnabled    error = Error{codes.FailedPrecondition, "etcdserver: authentication is not enabled"}
	ErrRootRole          error = Error{codes.FailedPrecondition, "etcdserver: root user does not have root role"}
	ErrRoleExists        error = Error{codes.FailedPrecondition, "etcdserver: role name already exists"}
	ErrMembersNotStarted error = Error{codes.Unknown, "etcdserver: re-configuration failed due to not enough started members"}
)

// CompactedError ends a watch whose next event no longer exists.
// It is also ErrCompacted.
type CompactedError struct {
	Revision  int64 // The first one wanted.
	Compacted int64 // The oldest one that could be watched from. Zero: the server did not say.
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("watch from revision %d, compacted at %d: %v", e.Revision, e.Compacted, ErrCompacted)
}

// Is makes it ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// fromWire gives an error of the protocol its type. Texts of servers are told
// by their prefix; a code that differs from the table's (some of these travel
// as Unknown) does not matter.
func fromWire(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	return fromText(st.Code(), st.Message(), err)
}

func fromText(code codes.Code, text string, otherwise error) error {
	if known, ok := byText[text]; ok {
		return known
	}
	if strings.HasPrefix(text, "etcdserver: ") {
		return Error{code, text}
	}
	return otherwise
}

// byText finds the values above.
var byText = func() map[string]error {
	m := make(map[string]error)
	for _, err := range []error{
		ErrEmptyKey, ErrKeyNotFound, ErrTooManyOps, ErrDuplicateKey, ErrRequestTooLarge, ErrCompacted, ErrFutureRevision, ErrNoSpace,
		ErrTooManyRequests, ErrLeaseNotFound, ErrLeaseExists, ErrMemberNotFound, ErrNotLeader, ErrNotForLearner, ErrNoLeader,
		ErrLeaderChanged, ErrServerStopped, ErrTimeout, ErrUnhealthy, ErrCorrupt, ErrWatchCanceled, ErrPermissionDenied, ErrUserEmpty,
		ErrInvalidAuthToken, ErrAuthOldRevision, ErrAuthFailed, ErrAuthNotEnabled, ErrRootRole, ErrRoleExists, ErrMembersNotStarted,
	} {
		m[err.Error()] = err
	}
	return m
}()

// unknownOutcome adds ErrUnknownOutcome to an error without changing its words.
type unknownOutcome struct{ error }

func (e unknownOutcome) Is(target error) bool { return target == ErrUnknownOutcome }
func (e unknownOutcome) Unwrap() error        { return e.error }

// interrupted is how a call failed, and also the error of the context that
// ended it.
type interrupted struct{ err, context error }

func (e interrupted) Error() string   { return e.err.Error() }
func (e interrupted) Unwrap() []error { return []error{e.err, e.context} }

// unreachable adds ErrUnreachable to an error without changing its words.
type unreachable struct{ error }

func (e unreachable) Is(target error) bool { return target == ErrUnreachable }
func (e unreachable) Unwrap() error        { return e.error }

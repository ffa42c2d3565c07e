package state

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Errors of the service. toWire gives each its code.
var (
	errNotFound = errors.New("not found")
	errExists   = errors.New("exists already")
	errConflict = errors.New("changed meanwhile")
	errGuard    = errors.New("does not hold")
	errInvalid  = errors.New("invalid")
	errExpired  = errors.New("expired: list anew")
	errFull     = errors.New("no room")
	errNotHere  = errors.New("not available here")
	errNoLeader = errors.New("nobody leads who could answer: try again")
	errNoTunnel = errors.New("has no tunnel to any control plane that answers")
	errNoPod    = errors.New("it is on no node yet: see why with 'holdfastctl why'")
	errBehind   = errors.New("the cache has not come so far yet: try again")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errInvalid)
}

// allInvalid is one line for each field that is wrong.
func allInvalid(wrong field.ErrorList) error {
	if len(wrong) == 0 {
		return nil
	}
	lines := make([]string, 0, len(wrong))
	for _, e := range wrong[:min(len(wrong), problemsMax)] {
		lines = append(lines, e.Error())
	}
	if more := len(wrong) - problemsMax; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return &invalidFields{strings.Join(lines, "\n")}
}

// invalidFields is errInvalid in the words of the checks.
type invalidFields struct{ text string }

func (e *invalidFields) Error() string { return e.text }
func (e *invalidFields) Unwrap() error { return errInvalid }

// fenceOver is errGuard of a fence, which callers tell apart by its detail.
type fenceOver struct{ fence *kubepb.Fence }

func (e *fenceOver) Error() string {
	return fmt.Sprintf("fence: the leadership of revision %d is over: %v", e.fence.CreateRevision, errGuard)
}
func (e *fenceOver) Unwrap() error { return errGuard }

func (e *fenceOver) status() error {
	st := status.New(codes.FailedPrecondition, e.Error())
	detailed, err := st.WithDetails(&kubepb.FenceOver{Fence: e.fence})
	if err != nil {
		return st.Err()
	}
	return detailed.Err()
}

var wire = []struct {
	is   error
	code codes.Code
}{
	{errNotFound, codes.NotFound},
	{errExists, codes.AlreadyExists},
	{errConflict, codes.Aborted},
	{errGuard, codes.FailedPrecondition},
	{errInvalid, codes.InvalidArgument},
	{api.ErrKind, codes.InvalidArgument},
	{errExpired, codes.OutOfRange},
	{client.ErrCompacted, codes.OutOfRange},
	{errFull, codes.ResourceExhausted},
	{errNotHere, codes.Unimplemented},
	{errNoLeader, codes.Unavailable},
	{errBehind, codes.Unavailable},
	{auth.ErrNoIdentity, codes.Unauthenticated},
	{api.ErrEncoding, codes.DataLoss},
	{token.ErrFormat, codes.InvalidArgument},
	{token.ErrUnknown, codes.PermissionDenied},
	{token.ErrExpired, codes.PermissionDenied},
	{token.ErrUsed, codes.PermissionDenied},
	{token.ErrNode, codes.PermissionDenied},
	{authority.ErrDenied, codes.PermissionDenied},
	{authority.ErrNoKey, codes.FailedPrecondition},
	{pki.ErrNotAllowed, codes.PermissionDenied},
	{pki.ErrRequest, codes.InvalidArgument},
	{pki.ErrExpired, codes.FailedPrecondition},
	{errNoTunnel, codes.FailedPrecondition},
	{errNoPod, codes.FailedPrecondition},
	{tunnel.ErrAway, codes.Unavailable},
	{tunnel.ErrLimit, codes.ResourceExhausted},
	{tunnel.ErrCredential, codes.PermissionDenied},
	{tunnel.ErrFrame, codes.InvalidArgument},
	{client.ErrUnknownOutcome, codes.Unavailable},
	{client.ErrClosed, codes.Unavailable},
	{client.ErrRequestTooLarge, codes.InvalidArgument},
	{client.ErrNoSpace, codes.ResourceExhausted},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// toWire gives an error its code.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	var denied *auth.Denied
	if errors.As(err, &denied) {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	var over *fenceOver
	if errors.As(err, &over) {
		return over.status()
	}
	for _, row := range wire {
		if errors.Is(err, row.is) {
			return status.Error(row.code, err.Error())
		}
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Unavailable, "store: "+err.Error())
}

package objects

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Errors of the service that a program acts on, for errors.Is. What the server
// said is in the text.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrConflict = errors.New("changed meanwhile") // Read it again, and decide again.
	ErrGuard    = errors.New("a condition of the write does not hold")
	ErrFenced   = fmt.Errorf("the leadership is over: %w", ErrGuard) // One of the guards: who gets it leads no more.
	ErrInvalid  = errors.New("invalid")
	ErrDenied   = errors.New("denied")
	ErrExpired  = errors.New("expired") // The revision is no longer there: list anew.
	ErrFull     = errors.New("no room") // A bind that does not fit, an eviction that a budget forbids, a source of too many events.
	ErrKind     = errors.New("not a kind of the cluster")
)

var byCode = map[codes.Code]error{
	codes.NotFound: ErrNotFound, codes.AlreadyExists: ErrExists, codes.Aborted: ErrConflict, codes.FailedPrecondition: ErrGuard,
	codes.InvalidArgument: ErrInvalid, codes.PermissionDenied: ErrDenied, codes.Unauthenticated: ErrDenied,
	codes.OutOfRange: ErrExpired, codes.ResourceExhausted: ErrFull,
}

// failure is an error of the service: its text, and one of the errors above.
type failure struct {
	status *status.Status
	is     error // Nil: none of them.
}

func (f *failure) Error() string { return f.status.Message() }
func (f *failure) Unwrap() error { return f.is }

// GRPCStatus lets the error travel on.
func (f *failure) GRPCStatus() *status.Status { return f.status }

func fromWire(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	f := &failure{status: st, is: byCode[st.Code()]}
	if st.Code() == codes.FailedPrecondition && fenced(st) {
		f.is = ErrFenced
	}
	return f
}

func fenced(st *status.Status) bool {
	for _, d := range st.Details() {
		if _, ok := d.(*kubepb.FenceOver); ok {
			return true
		}
	}
	return false
}

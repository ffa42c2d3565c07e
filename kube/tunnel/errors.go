package tunnel

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Errors of a hub, beside those that nodes answer: these are gRPC statuses.
var (
	ErrAway       = errors.New("has no tunnel")
	ErrLimit      = errors.New("end some first")
	ErrCredential = errors.New("no session waits for this credential")
	ErrFrame      = errors.New("frame out of place")
)

// errNoPlace is of a node that has an older kubelet than before.
var errNoPlace = errors.New("the kubelet that the node has now is too old to go on with a log where it was left: ask for the log anew")

// errStopping is the end of all streams of a hub that is closed.
var errStopping = status.Error(codes.Unavailable, "this control plane is stopping: try again")

// answers are the codes of what a node returns.
var answers = []struct {
	is   error
	code codes.Code
}{
	{runtime.ErrNotFound, codes.NotFound},
	{runtime.ErrNotRunning, codes.FailedPrecondition},
	{runtime.ErrUnsupported, codes.FailedPrecondition},
	{runtime.ErrInvalid, codes.InvalidArgument},
	{runtime.ErrNoCommand, codes.FailedPrecondition},
	{runtime.ErrImage, codes.FailedPrecondition},
	{context.DeadlineExceeded, codes.FailedPrecondition}, // Of what the node did, not of the user's stream.
}

// outcomeOf is how a call of a node ended.
func outcomeOf(exit int32, err error) *kubepb.Outcome {
	if err == nil {
		return &kubepb.Outcome{ExitCode: exit}
	}
	for _, a := range answers {
		if errors.Is(err, a.is) {
			return &kubepb.Outcome{Code: uint32(a.code), Message: err.Error()}
		}
	}
	return &kubepb.Outcome{Code: uint32(codes.FailedPrecondition), Message: err.Error()}
}

// errorOf is an outcome as the end of a user's stream.
func errorOf(o *kubepb.Outcome) error {
	if o.GetCode() == 0 {
		return nil
	}
	return status.Error(codes.Code(o.GetCode()), o.GetMessage())
}

// lost is the end of a session whose node went away within it.
func lost(node string) error {
	return status.Errorf(codes.Unavailable, "node %s: the connection to it was lost in the middle of a session: try again", node)
}

func misplaced(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrFrame)
}

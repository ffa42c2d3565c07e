package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/cmd/holdfastctl/hint"
	"github.com/holdfast-db/holdfast/kube/api"
)

// errSaid ends a command with exit code 1 when everything was said already.
var errSaid = errors.New("said already")

// usageError is what a command says when it was called wrongly.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// reasons are by which kubectl names what a server answers.
var reasons = map[codes.Code]string{
	codes.NotFound: "NotFound", codes.AlreadyExists: "AlreadyExists", codes.Aborted: "Conflict", codes.FailedPrecondition: "Conflict",
	codes.InvalidArgument: "Invalid", codes.PermissionDenied: "Forbidden", codes.Unauthenticated: "Unauthorized",
	codes.OutOfRange: "Expired", codes.ResourceExhausted: "TooManyRequests", codes.Unimplemented: "NotImplemented",
	codes.DataLoss: "InternalError",
}

// mends are what can be done about an answer.
var mends = map[codes.Code]string{
	codes.NotFound:         "see what there is with 'get'",
	codes.AlreadyExists:    "change it with 'apply', or choose another name",
	codes.Aborted:          "read it again, and repeat the change on what it is now",
	codes.PermissionDenied: "the certificate of the context is not of a group that may do this",
	codes.Unauthenticated:  "the server did not accept the certificate of the context: is it of this cluster?",
	codes.Unimplemented:    "the server that answered does not run this part",
}

// explain is an error with what can be done about it. cmd is nil where a command goes
// on with others.
func (s *session) explain(cmd *cobra.Command, err error) string {
	text := err.Error()
	if st, remote := status.FromError(unwrapped(err)); remote && st.Code() != codes.Unknown {
		return s.answered(st.Code(), text)
	}
	var wrong *usageError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return s.unreachable(text)
	case errors.Is(err, context.Canceled):
		return "error: interrupted"
	case errors.As(err, &wrong) || strings.HasPrefix(text, "unknown ") || strings.HasPrefix(text, "flag needs an argument"):
		if cmd == nil { // One of several objects.
			return "error: " + text
		}
		return fmt.Sprintf("error: %s\nSee '%s --help' for usage.", text, cmd.CommandPath())
	case errors.Is(err, api.ErrKind) && !errors.Is(err, api.ErrManifest):
		return "error: " + text + "; see 'api-resources'"
	}
	return "error: " + text
}

// answered is an error that a server answered, or that nobody did.
func (s *session) answered(code codes.Code, text string) string {
	switch {
	case code == codes.Unavailable || code == codes.DeadlineExceeded:
		return s.unreachable(text)
	case code == codes.Canceled:
		return "error: interrupted"
	case reasons[code] == "":
		return "error: " + text
	}
	text = fmt.Sprintf("Error from server (%s): %s", reasons[code], text)
	if mend := mends[code]; mend != "" && !strings.Contains(text, "\n") {
		text += "\n(" + mend + ")"
	}
	return text
}

// unwrapped is the innermost error that has a status: what is around it is our own.
func unwrapped(err error) error {
	var withStatus interface{ GRPCStatus() *status.Status }
	if errors.As(err, &withStatus) {
		return withStatus.(error)
	}
	return err
}

// hints are by what gRPC says of a connection that could not be made.
var hints = hint.Hints{
	{"connection refused", "is the control plane running there? 'config view' shows the servers of the context"},
	{"no such host", "'config view' shows the servers of the context"},
	{"unknown authority", "the ca of the context is not that of this cluster"},
	{"certificate is valid for", "the server's certificate lacks the name in the context"},
	{"certificate required", "the server did not get a certificate: see cert and key of the context"},
	{"bad certificate", "the server does not accept the certificate of the context"},
	{"certificate has expired", "a certificate has ended: see 'holdfastctl certs check'"},
}

func (s *session) unreachable(text string) string {
	mend := "try again; 'holdfastctl status' shows how the store below does"
	if strings.Contains(text, context.DeadlineExceeded.Error()) {
		mend = fmt.Sprintf("no answer within %v; give it more with --request-timeout", s.timeout)
	}
	return fmt.Sprintf("The connection to the server %s failed: %s\n(%s)", s.server, hint.Cause(text), hints.Mend(text, mend))
}

package state

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

func TestErrorsOfTokensAndCertificatesHaveTheirCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{authority.ErrDenied, codes.PermissionDenied},
		{token.ErrUnknown, codes.PermissionDenied},
		{token.ErrUsed, codes.PermissionDenied},
		{token.ErrExpired, codes.PermissionDenied},
		{token.ErrNode, codes.PermissionDenied},
		{pki.ErrNotAllowed, codes.PermissionDenied},
		{pki.ErrRequest, codes.InvalidArgument},
		{token.ErrFormat, codes.InvalidArgument},
		{authority.ErrNoKey, codes.FailedPrecondition},
	} {
		if got := status.Code(toWire(fmt.Errorf("join: %w", c.err))); got != c.code {
			t.Errorf("%v is %v, want %v", c.err, got, c.code)
		}
	}
}

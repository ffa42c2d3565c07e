package server

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode"
)

func TestWrappedErrorsKeepTheirCodeAndText(t *testing.T) {
	for _, row := range wire {
		got := toWire(fmt.Errorf("range at 3, compacted at 5: %w", row.err))
		if got != row.answer {
			t.Errorf("%v became %v, want %v", row.err, got, row.answer)
		}
	}
	for name, c := range map[string]struct {
		err  error
		code codes.Code
		text string
	}{
		"outcome unknown at the deadline": {errors.Join(raftnode.ErrUnknownOutcome, context.DeadlineExceeded), codes.Unavailable, "etcdserver: request timed out"},
		"compacted":                       {mvcc.ErrCompacted, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		"the client went away":            {context.Canceled, codes.Canceled, "context canceled"},
		"something nobody thought of":     {errors.New("surprise"), codes.Unknown, "surprise"},
	} {
		if s := status.Convert(toWire(c.err)); s.Code() != c.code || s.Message() != c.text {
			t.Errorf("%s: %v %q, want %v %q", name, s.Code(), s.Message(), c.code, c.text)
		}
	}
	if toWire(nil) != nil {
		t.Error("no error became one")
	}
}

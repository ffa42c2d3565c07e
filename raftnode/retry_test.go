package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// Who reads "no space" looks at the disk, and the reason may be another.
func TestALogThatCannotGoOnSaysWhy(t *testing.T) {
	for want, cause := range map[string]error{
		"no space for the raft log":                               syscall.ENOSPC,
		"the raft log cannot go on in another segment, trying ag": syscall.EMFILE,
	} {
		var said strings.Builder
		a := &appender{clock: clocktest.New(), logger: hclog.New(&hclog.LoggerOptions{Output: &said})}
		ctx, end := context.WithCancel(t.Context())
		tries := 0
		err := a.retry(ctx, func() error {
			tries++
			end()
			return fmt.Errorf("%w: %w", wal.ErrNoSegment, cause)
		})
		if !errors.Is(err, cause) || tries != 1 {
			t.Errorf("%v after %d tries", err, tries)
		}
		if !strings.Contains(said.String(), want) || !strings.Contains(said.String(), cause.Error()) {
			t.Errorf("%v is told as %s", cause, said.String())
		}
	}
}

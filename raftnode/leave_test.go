package raftnode

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/task"
)

// It may be needed to elect another, who waits for an election timeout first.
func TestARemovedMemberEndsAnElectionTimeoutLater(t *testing.T) {
	const ticks = 10
	n := &Node{
		cfg: Config{ID: 1, Logger: hclog.NewNullLogger()}, core: &Core{electionTicks: ticks},
		group: task.New(context.Background()), stopped: make(chan struct{}),
	}
	n.waiters.init(1, 1)
	ended := func() bool {
		select {
		case <-n.stopped:
			return true
		default:
			return false
		}
	}
	for i := range ticks {
		if ended() {
			t.Fatalf("ended after %d ticks, %d are an election timeout", i, ticks)
		}
		n.leave()
	}
	if !ended() || !errors.Is(n.end.err, ErrRemoved) {
		t.Errorf("after %d ticks: ended %t, %v", ticks, ended(), n.end.err)
	}
}

package kube_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Without a quorum nothing is written, which is said, and nobody leads; with it all
// goes on.
func TestALostQuorumRefusesWritesAndAllGoesOnWithItsReturn(t *testing.T) {
	c := startThree(t, 3)
	c.create(deployment("web", 3, "500m"))
	c.eventually(30*time.Second, "three pods run", func(ctx context.Context) error { return c.rolledOut(ctx, "web", 3) })
	before, err := c.pods(c.ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	c.planes[1].kill()
	c.planes[2].kill()
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	err = c.scaleTo(ctx, "web", 6)
	if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded || err == nil || strings.TrimSpace(err.Error()) == "" {
		t.Fatalf("a write without a quorum answers %v", err)
	}
	t.Logf("a write without a quorum: %v", err)
	if !c.planes[0].running() {
		t.Fatalf("the control plane that was left has ended:\n%s", c.planes[0].out)
	}
	c.planes[1].start()
	c.planes[2].start()
	c.eventually(30*time.Second, "writes are taken", func(ctx context.Context) error { return c.scaleTo(ctx, "web", 6) })
	c.eventually(60*time.Second, "six pods run", func(ctx context.Context) error { return c.rolledOut(ctx, "web", 6) })
	after, err := c.pods(c.ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	for name, was := range before {
		if is := after[name]; is == nil || is.UID != was.UID || is.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("pod %s was not left alone: %v", name, is)
		}
	}
	c.replay()
}

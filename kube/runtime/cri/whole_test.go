package cri

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// A probe that hangs is given up. Its command must end then, which CRI sees to only where it
// waits for the end itself.
func TestACommandThatNobodyReadsAlongWithIsTheRuntimesToEnd(t *testing.T) {
	f := &fake{name: "containerd"}
	e := f.start(t, clocktest.New(), func(string) {})
	var out, errs strings.Builder
	run := func(ctx context.Context) (int32, error) {
		return e.Exec(ctx, "u1_c1", &runtime.ExecSpec{Command: []string{"look", "twice"}, Streams: runtime.Streams{Stdout: &out, Stderr: &errs}, Whole: true})
	}
	f.exec = func(_ context.Context, r *api.ExecSyncRequest) (*api.ExecSyncResponse, error) {
		if r.ContainerId != "c1" || !slices.Equal(r.Cmd, []string{"look", "twice"}) {
			t.Errorf("asked for %v", r)
		}
		return &api.ExecSyncResponse{Stdout: []byte("one"), Stderr: []byte("two"), ExitCode: 3}, nil
	}
	if code, err := run(t.Context()); code != 3 || err != nil || out.String() != "one" || errs.String() != "two" {
		t.Errorf("code %d, %v, %q, %q", code, err, out.String(), errs.String())
	}
	f.exec = func(context.Context, *api.ExecSyncRequest) (*api.ExecSyncResponse, error) {
		return nil, status.Error(codes.Unknown, "exec: \"look\": executable file not found in $PATH")
	}
	if _, err := run(t.Context()); !errors.Is(err, runtime.ErrNoCommand) {
		t.Errorf("a command that is not there: %v", err)
	}
	begun, ended := make(chan struct{}), make(chan struct{})
	f.exec = func(ctx context.Context, _ *api.ExecSyncRequest) (*api.ExecSyncResponse, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-begun:
			cancel()
		case <-ctx.Done():
		}
	}()
	if _, err := run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("given up: %v", err)
	}
	<-ended // The runtime hears of it.
}

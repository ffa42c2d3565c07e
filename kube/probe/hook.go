package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// Run runs a hook of a container's lifecycle and returns when it is done, failed, or
// ctx is over. Its error is the text of an event with the reason FailedPostStartHook
// or FailedPreStopHook. A nil hook is done. As in Kubernetes the status of an HTTP
// answer does not matter, and a tcpSocket does nothing.
func Run(ctx context.Context, t *Target, c clock.Clock, hook *corev1.LifecycleHandler) error {
	switch {
	case hook == nil, hook.TCPSocket != nil:
		return nil
	case hook.Exec != nil:
		code, output, err := t.Exec(ctx, hook.Exec.Command)
		if err != nil {
			return fmt.Errorf("command %q: %w", strings.Join(hook.Exec.Command, " "), err)
		}
		if code != 0 {
			return fmt.Errorf("command %q exited with code %d: %s", strings.Join(hook.Exec.Command, " "), code, clip(output))
		}
		return nil
	case hook.HTTPGet != nil:
		_, _, err := t.get(ctx, hook.HTTPGet)
		return err
	case hook.Sleep != nil:
		return sleep(ctx, c, time.Duration(hook.Sleep.Seconds)*time.Second)
	}
	return errors.New("the hook says neither exec, httpGet nor sleep")
}

func sleep(ctx context.Context, c clock.Clock, d time.Duration) error {
	over := make(chan struct{})
	timer := c.AfterFunc(d, func() { close(over) })
	defer timer.Stop()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sleep of %s: %w", d, context.Cause(ctx))
	}
}

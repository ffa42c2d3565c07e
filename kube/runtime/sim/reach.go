package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// What follows implements tunnel.Node: a log tells what became of a container, and the
// rest is refused, as nothing runs.

// followInterval is how often a container whose log is followed is looked at.
const followInterval = 200 * time.Millisecond

// Logs implements tunnel.Node.
func (r *Runtime) Logs(ctx context.Context, q *kubepb.LogsRequest, w logfile.Recipient) error {
	told := 0
	for {
		c, err := r.containerOf(q.GetOf())
		if err != nil {
			return err
		}
		if q.Previous {
			return fmt.Errorf("%s: an attempt before the last is not remembered: %w", named(q.Of), runtime.ErrNotFound)
		}
		lines := r.linesOf(q, c)
		if told == 0 && q.TailLines != nil {
			told = max(0, len(lines)-int(q.GetTailLines()))
		}
		text := bytes.Join(lines[min(told, len(lines)):], nil)
		if q.LimitBytes > 0 {
			text = text[:min(int64(len(text)), q.LimitBytes)]
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		told = len(lines)
		if !q.Follow || c.Phase != kubelet.Running {
			return nil
		}
		select {
		case <-r.cfg.Clock.After(followInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// linesOf is all that a container would say.
func (r *Runtime) linesOf(q *kubepb.LogsRequest, c kubelet.ContainerState) [][]byte {
	since := time.Unix(0, q.GetSinceTime())
	if q.GetSinceSeconds() > 0 {
		since = r.cfg.Clock.Wall().Add(-time.Duration(q.SinceSeconds) * time.Second)
	}
	var lines [][]byte
	add := func(at time.Time, text string) {
		if at.IsZero() || at.Before(since) {
			return
		}
		line := []byte(text + "\n")
		if q.Timestamps {
			line = append([]byte(at.UTC().Format(time.RFC3339Nano)+" "), line...)
		}
		lines = append(lines, line)
	}
	add(c.Started, "simulated container "+q.Of.Container+" of pod "+q.Of.Pod+" started; it runs nothing")
	if c.Phase == kubelet.Exited {
		add(c.Finished, fmt.Sprintf("simulated container %s of pod %s ended with exit code %d", q.Of.Container, q.Of.Pod, c.ExitCode))
	}
	return lines
}

func named(of *kubepb.PodContainer) string {
	return fmt.Sprintf("container %s of pod %s/%s", of.GetContainer(), of.GetNamespace(), of.GetPod())
}

// containerOf is a container that has been started.
func (r *Runtime) containerOf(of *kubepb.PodContainer) (kubelet.ContainerState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[types.UID(of.GetUid())]
	if p == nil {
		return kubelet.ContainerState{}, fmt.Errorf("%s: %w", named(of), runtime.ErrNotFound)
	}
	c := p.containers[of.GetContainer()]
	if c == nil || c.state.Started.IsZero() {
		return kubelet.ContainerState{}, fmt.Errorf("%s has not started: %w", named(of), runtime.ErrNotRunning)
	}
	return c.state, nil
}

// nothing is what a request for a container that runs comes to.
func (r *Runtime) nothing(of *kubepb.PodContainer, what string) error {
	if _, err := r.containerOf(of); err != nil {
		return err
	}
	return fmt.Errorf("%s is simulated and runs nothing: %s: %w", named(of), what, runtime.ErrUnsupported)
}

// Exec implements tunnel.Node.
func (r *Runtime) Exec(_ context.Context, q *kubepb.ExecRequest, _ runtime.Streams) (int32, error) {
	return 0, r.nothing(q.GetOf(), "no command can be run in it")
}

// Attach implements tunnel.Node.
func (r *Runtime) Attach(_ context.Context, q *kubepb.AttachRequest, _ runtime.Streams) error {
	return r.nothing(q.GetOf(), "nobody can attach to it")
}

// Dial implements tunnel.Node.
func (r *Runtime) Dial(_ context.Context, q *kubepb.DialRequest) (net.Conn, error) {
	of := q.GetOf()
	return nil, fmt.Errorf("pod %s/%s is simulated: nothing listens on port %d: %w", of.GetNamespace(), of.GetPod(), q.GetPort(), runtime.ErrUnsupported)
}

// Images implements tunnel.Node.
func (r *Runtime) Images(context.Context) ([]*kubepb.Image, error) { return nil, nil }

// ImportImage implements tunnel.Node.
func (r *Runtime) ImportImage(context.Context, io.Reader) ([]*kubepb.Image, error) {
	return nil, fmt.Errorf("the node is simulated and keeps no images: %w", runtime.ErrUnsupported)
}

// RemoveImage implements tunnel.Node.
func (r *Runtime) RemoveImage(_ context.Context, image string) error {
	return fmt.Errorf("image %s: the node is simulated and keeps none: %w", image, runtime.ErrNotFound)
}

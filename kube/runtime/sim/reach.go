package sim

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// What follows implements tunnel.Node: a log tells what became of a container, and the
// rest is refused, as nothing runs.

// followInterval is how often a container whose log is followed is looked at.
const followInterval = 200 * time.Millisecond

// Logs implements tunnel.Node. A place is how many lines were written of a container: those
// of one before it are not remembered.
func (r *Runtime) Logs(ctx context.Context, q *kubepb.LogsRequest, w logfile.Recipient) error {
	l := &log{of: q.GetOf(), Options: tunnel.LogOptions(q, r.cfg.Clock.Wall()), w: w}
	for {
		c, err := r.containerOf(l.of)
		if err != nil {
			return err
		}
		if q.Previous {
			return fmt.Errorf("%s: an attempt before the last is not remembered: %w", named(l.of), runtime.ErrNotFound)
		}
		enough, err := l.goOn(&c)
		if err != nil || enough || !q.Follow || c.Phase != kubelet.Running {
			return err
		}
		select {
		case <-r.cfg.Clock.After(followInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// log is one that is read.
type log struct {
	logfile.Options
	of    *kubepb.PodContainer
	w     logfile.Recipient
	begun bool
	at    logfile.Place // Offset counts lines.
	bytes int64         // Written so far.
}

// goOn writes what has come, and reports whether that was all that is wanted.
func (l *log) goOn(c *kubelet.ContainerState) (enough bool, err error) {
	lines := l.lines(c)
	last, moved := int64(len(lines)), false
	if err := l.begin(c, last); err != nil {
		return true, err
	}
	for ; l.at.Offset < last; l.at.Offset++ {
		line := lines[l.at.Offset]
		moved = true
		if line.at.Before(l.at.Since) {
			continue
		}
		if l.Timestamps {
			line.text = line.at.UTC().Format(time.RFC3339Nano) + " " + line.text
		}
		if left := l.BytesMax - l.bytes; l.BytesMax > 0 && int64(len(line.text)) >= left {
			_, err = l.w.Write([]byte(line.text[:left]))
			return true, err
		}
		n, err := l.w.Write([]byte(line.text))
		if l.bytes += int64(n); err != nil {
			return true, err
		}
	}
	if l.Follow && moved {
		err = l.w.Place(0, l.at)
	}
	return false, err
}

// begin finds where to begin, and tells that.
func (l *log) begin(c *kubelet.ContainerState, lines int64) error {
	if l.begun {
		return nil
	}
	l.begun = true
	l.at = logfile.Place{File: c.ID, Since: l.Since}
	switch {
	case l.After != nil && l.After.File == c.ID:
		l.at = *l.After
	case l.After == nil && l.Tail >= 0:
		l.at.Offset = max(0, lines-l.Tail)
	}
	if !l.Follow {
		return nil
	}
	return l.w.Place(0, l.at)
}

// spoken is a line of a log.
type spoken struct {
	at   time.Time
	text string
}

// lines are all that a container has said.
func (l *log) lines(c *kubelet.ContainerState) []spoken {
	name := "simulated container " + l.of.Container + " of pod " + l.of.Pod
	lines := []spoken{{c.Started, name + " started; it runs nothing\n"}}
	if c.Phase == kubelet.Exited {
		lines = append(lines, spoken{c.Finished, fmt.Sprintf("%s ended with exit code %d\n", name, c.ExitCode)})
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

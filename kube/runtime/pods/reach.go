package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// What follows implements tunnel.Containers.

// found is a container that somebody asks for.
type found struct {
	id      string // Empty: it never ran.
	log     string // Of its last attempt.
	attempt int
	running bool
	waits   string // Why it never ran.
}

// find looks a container up.
func (r *Runtime) find(of *kubepb.PodContainer) (found, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[types.UID(of.GetUid())]
	if p == nil || p.object == nil {
		return found{}, fmt.Errorf("pod %s/%s: %w", of.GetNamespace(), of.GetPod(), runtime.ErrNotFound)
	}
	if specOf(p.object, of.GetContainer()) == nil {
		return found{}, fmt.Errorf("pod %s/%s has no container %q: %w", of.GetNamespace(), of.GetPod(), of.GetContainer(), runtime.ErrNotFound)
	}
	c := p.containers[of.GetContainer()]
	if c == nil {
		return found{attempt: -1, waits: "PodInitializing"}, nil
	}
	f := found{id: c.id, log: c.log, attempt: c.attempt, running: c.runs(), waits: cmp.Or(c.state.Reason, "ContainerCreating")}
	if f.log == "" && c.attempt >= 0 {
		f.log = r.logPath(p.object, of.GetContainer(), c.attempt)
	}
	return f, nil
}

// running is a container that runs.
func (r *Runtime) running(of *kubepb.PodContainer) (string, error) {
	f, err := r.find(of)
	if err != nil {
		return "", err
	}
	if !f.running {
		return "", fmt.Errorf("container %s of pod %s/%s: %w", of.GetContainer(), of.GetNamespace(), of.GetPod(), runtime.ErrNotRunning)
	}
	return f.id, nil
}

// Logs implements tunnel.Containers.
func (r *Runtime) Logs(ctx context.Context, q *kubepb.LogsRequest, w logfile.Recipient) error {
	of := q.GetOf()
	f, err := r.find(of)
	if err != nil {
		return err
	}
	attempt := f.attempt
	if at := q.GetAfter(); at != nil { // Which another one may have followed meanwhile.
		attempt = int(at.GetAttempt())
		f.log = logfile.Path(r.logFolder(of), attempt)
	} else if q.GetPrevious() {
		if f.log, err = r.previousLog(of, f.attempt); err != nil {
			return err
		}
	}
	if f.log == "" {
		return fmt.Errorf("container %q in pod %q is waiting to start: %s: %w", of.GetContainer(), of.GetPod(), f.waits, runtime.ErrNotRunning)
	}
	from := logfile.Source{Path: f.log, Clock: r.clock, Ended: func(string) bool {
		now, err := r.find(of)
		return err != nil || !now.running || now.id != f.id || now.attempt != attempt || q.GetPrevious()
	}, Reached: func(_ string, at logfile.Place) error { return w.Place(attempt, at) }}
	err = logfile.Read(ctx, from, tunnel.LogOptions(q, r.clock.Wall()), w)
	if errors.Is(err, logfile.ErrNone) && q.GetAfter() == nil { // Else it was there, and does not come again.
		err = fmt.Errorf("%w: %w", err, runtime.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("container %s of pod %s/%s: %w", of.GetContainer(), of.GetNamespace(), of.GetPod(), err)
	}
	return nil
}

// logFolder has the logs of a container, by attempt.
func (r *Runtime) logFolder(of *kubepb.PodContainer) string {
	return filepath.Join(r.dir(types.UID(of.GetUid())), "logs", of.GetContainer())
}

// previousLog is that of the last attempt before another.
func (r *Runtime) previousLog(of *kubepb.PodContainer, before int) (string, error) {
	folder := r.logFolder(of)
	all, err := logfile.Attempts(folder)
	if err != nil {
		return "", err
	}
	for _, attempt := range slices.Backward(all) {
		if attempt < before {
			return logfile.Path(folder, attempt), nil
		}
	}
	return "", fmt.Errorf("previous terminated container %q in pod %q: %w", of.GetContainer(), of.GetPod(), runtime.ErrNotFound)
}

// Exec implements tunnel.Containers.
func (r *Runtime) Exec(ctx context.Context, q *kubepb.ExecRequest, streams runtime.Streams) (int32, error) {
	id, err := r.running(q.GetOf())
	if err != nil {
		return 0, err
	}
	return r.engine.Exec(ctx, id, &runtime.ExecSpec{Command: q.GetCommand(), TTY: q.GetTty(), Streams: streams})
}

// Attach implements tunnel.Containers.
func (r *Runtime) Attach(ctx context.Context, q *kubepb.AttachRequest, streams runtime.Streams) error {
	id, err := r.running(q.GetOf())
	if err != nil {
		return err
	}
	return r.engine.Attach(ctx, id, streams)
}

// Dial implements tunnel.Containers.
func (r *Runtime) Dial(ctx context.Context, q *kubepb.DialRequest) (net.Conn, error) {
	r.mu.Lock()
	p := r.mu.pods[types.UID(q.GetOf().GetUid())]
	open, ip := p != nil && p.open, ""
	if open {
		ip = p.ip
	}
	r.mu.Unlock()
	if !open {
		return nil, fmt.Errorf("pod %s/%s does not run on this node: %w", q.GetOf().GetNamespace(), q.GetOf().GetPod(), runtime.ErrNotFound)
	}
	return r.dial(ctx, q.GetOf().GetUid(), ip, uint16(q.GetPort()))
}

// dial connects to a port of a pod, on its localhost or at its address: a program may
// listen on one alone. A loopback address on the network of the node is the pod's own, and
// goes first.
func (r *Runtime) dial(ctx context.Context, uid, ip string, port uint16) (net.Conn, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return r.engine.Dial(ctx, uid, port)
	}
	local := func() (net.Conn, error) { return r.engine.Dial(ctx, uid, port) }
	own := func() (net.Conn, error) {
		d := net.Dialer{Timeout: dialMax}
		return d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
	}
	if a.IsLoopback() && !r.info.PodNetwork {
		if conn, err := own(); err == nil {
			return conn, nil
		}
		return local()
	}
	conn, err := local()
	if err == nil {
		return conn, nil
	}
	if conn, err := own(); err == nil {
		return conn, nil
	}
	return nil, err
}

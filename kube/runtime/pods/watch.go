package pods

import (
	"bytes"
	"context"
	"net"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/probe"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// watch is how an attempt of a container is, as its probes say. Nil: it is not asked
// yet, as its hook runs.
type watch struct {
	watcher *probe.Watcher // Nil: it has no probes, and is ready.
	over    chan struct{}
}

// state is whether the container is starting still, and whether it is ready.
func (w *watch) state() (starting, ready bool) {
	switch {
	case w == nil:
		return true, false
	case w.watcher == nil:
		return false, true
	}
	s := w.watcher.State()
	return !s.Started, s.Ready
}

func (w *watch) ending() {
	if w != nil && w.watcher != nil {
		w.watcher.Ending()
	}
}

// close ends the probes and waits for them. The lock of the Runtime is not held.
func (w *watch) close() {
	if w != nil && w.watcher != nil {
		close(w.over)
		w.watcher.Close()
	}
}

// watchLocked begins to ask a container how it is. What an earlier kubelet knew of it
// holds until its probes say otherwise; nil: it has just begun.
func (r *Runtime) watchLocked(p *pod, name string, c *container, before *corev1.ContainerStatus) *watch {
	spec := specOf(p.object, name)
	if spec == nil || spec.StartupProbe == nil && spec.LivenessProbe == nil && spec.ReadinessProbe == nil {
		return &watch{}
	}
	o, uid := p.object, p.uid
	cfg := probe.Config{
		Target: r.target(o, spec, c.id, p.ip), Clock: r.clock, Logger: r.log.With("pod", o.Namespace+"/"+o.Name, "container", name),
		Started: c.state.Started, Before: stateBefore(before),
		Changed: func() { r.cfg.Changed(uid) },
		Event:   func(reason, message string) { r.cfg.Event(o, corev1.EventTypeWarning, reason, message) },
	}
	if before != nil {
		cfg.Spread = r.cfg.Spread
	}
	w := &watch{watcher: probe.Watch(cfg), over: make(chan struct{})}
	if spec.StartupProbe != nil || spec.LivenessProbe != nil {
		r.tasks.Go("probe failure", func(ctx context.Context) error {
			select {
			case f := <-w.watcher.Failed():
				r.unhealthy(p, name, w, &f)
			case <-w.over:
			case <-ctx.Done():
			}
			return nil
		})
	}
	return w
}

func stateBefore(s *corev1.ContainerStatus) probe.State {
	if s == nil {
		return probe.State{}
	}
	return probe.State{Started: truth(s.Started), Ready: s.Ready}
}

// unhealthy ends a container that fails its probe. The plan starts it again.
func (r *Runtime) unhealthy(p *pod, name string, w *watch, f *probe.Failure) {
	r.mu.Lock()
	c, o := p.containers[name], p.object
	if c == nil || c.watch != w || c.state.Phase != kubelet.Running || c.stopper != nil || p.stop != nil {
		r.mu.Unlock()
		return
	}
	grace := graceOf(o)
	if f.Grace != nil {
		grace = *f.Grace
	}
	r.stopContainerLocked(p, name, c, newDeadline(r.clock.Mono()+grace))
	r.mu.Unlock()
	r.cfg.Event(o, corev1.EventTypeNormal, eventKilling, f.Message)
}

// target is how probes and hooks reach a container.
func (r *Runtime) target(o *corev1.Pod, spec *corev1.Container, id, ip string) probe.Target {
	return probe.Target{
		Pod: o, Container: spec, Host: ip,
		Exec: func(ctx context.Context, command []string) (int32, string, error) {
			var out output
			code, err := r.engine.Exec(ctx, id, &runtime.ExecSpec{Command: command, Streams: runtime.Streams{Stdout: &out, Stderr: &out}, Whole: true})
			return code, out.String(), err
		},
		Dial: func(ctx context.Context, port uint16) (net.Conn, error) {
			return r.dial(ctx, string(o.UID), ip, port)
		},
	}
}

// outputBytesMax of what a probe writes is kept.
const outputBytesMax = 10 << 10

// output keeps the beginning of what is written.
type output struct {
	mu  sync.Mutex // Both streams write.
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b[:min(len(b), outputBytesMax-o.buf.Len())])
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

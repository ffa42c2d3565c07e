//go:build linux

package supervised

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// Find returns what is known of an open pod.
func (s *Set) Find(uid string) (*Pod, error) {
	_, p, err := s.find(uid)
	return p, err
}

func (s *Set) find(uid string) (*entry, *Pod, error) {
	s.mu.Lock()
	e := s.mu.pods[uid]
	s.mu.Unlock()
	if e != nil {
		if p := s.get(e); p != nil {
			return e, p, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: pod %s is not open", runtime.ErrNotFound, uid)
}

// of is the supervisor of a container's pod.
func (s *Set) of(id string) (client, error) {
	_, p, err := s.find(UIDOf(id))
	if err != nil {
		return client{}, fmt.Errorf("container %s: %w", id, err)
	}
	return client{p.Dir()}, nil
}

// Start starts a container of an open pod. A pod whose supervisor has died gets
// another. make completes the launch when the pod has one.
func (s *Set) Start(ctx context.Context, uid string, l *supervisor.Launch, make func(p *Pod) error) error {
	e, _, err := s.find(uid)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := s.get(e)
	if p == nil {
		return fmt.Errorf("%w: pod %s was closed", runtime.ErrNotFound, uid)
	}
	held, err := alive(p.Dir())
	if err == nil && !held || errors.Is(err, fs.ErrNotExist) {
		err = s.ensure(ctx, e)
	}
	if err != nil {
		return err
	}
	c := client{p.Dir()}
	has, err := c.has(ctx, l.ID)
	if has || err != nil {
		return err
	}
	if err := make(s.get(e)); err != nil {
		return err
	}
	_, err = c.call(ctx, &supervisor.Request{Call: supervisor.CallStart, Launch: l})
	return err
}

// has tells whether an attempt began already: nothing is made for it again.
func (c client) has(ctx context.Context, id string) (bool, error) {
	a, err := c.call(ctx, &supervisor.Request{Call: supervisor.CallState})
	if err != nil {
		return false, err
	}
	for _, r := range a.Records {
		if r.ID == id {
			return r.State != supervisor.StateStarting, nil
		}
	}
	return false, nil
}

// Stop ends a container.
func (s *Set) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := s.of(id)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, &supervisor.Request{Call: supervisor.CallStop, ID: id, GraceMillis: grace.Milliseconds()})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return s.orEnded(ctx, c, id, err)
}

// orEnded is nil where the supervisor died meanwhile, and the container with it.
func (s *Set) orEnded(ctx context.Context, c client, id string, cause error) error {
	if held, err := s.waitGone(ctx, c.dir, time.Second); held || err != nil {
		return cause
	}
	e, _, err := s.find(UIDOf(id))
	if err != nil {
		return nil // Closed.
	}
	p, err := s.lookAt(ctx, e)
	if err != nil || p == nil {
		return err // Closed while it was looked for.
	}
	for i := range p.Containers {
		if p.Containers[i].ID == id && p.Containers[i].Phase == runtime.Exited {
			return nil
		}
	}
	return cause
}

// Exec runs a command in a container.
func (s *Set) Exec(ctx context.Context, id string, spec *runtime.ExecSpec) (int32, error) {
	c, err := s.of(id)
	if err != nil {
		return 0, err
	}
	q := &supervisor.Request{Call: supervisor.CallExec, ID: id, Command: spec.Command, TTY: spec.TTY, Stdin: spec.Streams.Stdin != nil}
	a, err := c.converse(ctx, q, spec.Streams)
	if err != nil {
		return 0, err
	}
	return a.ExitCode, nil
}

// Attach joins the streams of a container.
func (s *Set) Attach(ctx context.Context, id string, streams runtime.Streams) error {
	c, err := s.of(id)
	if err != nil {
		return err
	}
	_, err = c.converse(ctx, &supervisor.Request{Call: supervisor.CallAttach, ID: id}, streams)
	return err
}

// Dial connects to a port from within the network of a pod.
func (s *Set) Dial(ctx context.Context, uid string, port uint16) (net.Conn, error) {
	_, p, err := s.find(uid)
	if err != nil {
		return nil, err
	}
	return client{p.Dir()}.dial(ctx, port)
}

// dialMax is how long a program may take to accept a connection.
const dialMax = 10 * time.Second

// DialNode connects to a port of the node, of either kind of address: a program may listen
// on one alone.
func DialNode(ctx context.Context, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: dialMax}
	conn, err := d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err == nil {
		return conn, nil
	}
	if conn, err6 := d.DialContext(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(int(port)))); err6 == nil {
		return conn, nil
	}
	return nil, err
}

// Usage is what the supervisor finds in /proc.
func (s *Set) Usage(ctx context.Context, uid string) (map[string]runtime.Use, error) {
	_, p, err := s.find(uid)
	if err != nil {
		return nil, err
	}
	a, err := client{p.Dir()}.call(ctx, &supervisor.Request{Call: supervisor.CallUsage})
	if err != nil {
		return nil, err
	}
	all := map[string]runtime.Use{}
	for name, u := range a.Usage {
		all[name] = runtime.Use{CPU: time.Duration(u.CPUNanos), MemoryBytes: u.MemoryBytes}
	}
	return all, nil
}

// closeMax is how long a supervisor may take to end when its containers are killed.
const closeMax = 30 * time.Second

// Close removes a pod.
func (s *Set) Close(ctx context.Context, uid string) error {
	s.mu.Lock()
	e := s.mu.pods[uid]
	s.mu.Unlock()
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := s.get(e)
	if p == nil {
		return nil
	}
	if err := s.finish(ctx, p); err != nil {
		return err
	}
	if s.cfg.Clean != nil {
		if err := s.cfg.Clean(ctx, p); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(p.Dir()); err != nil {
		return err
	}
	// The name last: until here a crash leaves a pod that can be closed again.
	for _, name := range []string{s.file(uid) + ".tmp", s.file(uid)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := vfs.OS().SyncDir(s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.pod = nil
	if s.mu.pods[uid] == e {
		delete(s.mu.pods, uid)
	}
	return nil
}

// finish ends the supervisor of a pod and all that it ran.
func (s *Set) finish(ctx context.Context, p *Pod) error {
	held, err := alive(p.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // Nothing was made yet, or all is removed already.
	}
	if err != nil {
		return err
	}
	if held {
		asked, cancel := context.WithTimeout(ctx, s.patience)
		_, err = client{p.Dir()}.call(asked, &supervisor.Request{Call: supervisor.CallEnd})
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		most := time.Second
		if err == nil {
			most = s.patience
		}
		if held, _ = s.waitGone(ctx, p.Dir(), most); held {
			s.cfg.Logger.Warn("supervisor does not end: it is killed", "pod", p.Spec.UID, "err", err)
			if err := shoot(p.Dir()); err != nil {
				return fmt.Errorf("kill the supervisor of pod %s: %w", p.Spec.UID, err)
			}
			if held, err = s.waitGone(ctx, p.Dir(), s.patience); held || err != nil {
				return fmt.Errorf("supervisor of pod %s does not end, though it was killed: %w", p.Spec.UID, errors.Join(err, errHeld))
			}
		}
	}
	return s.sweep(p)
}

// KillMarked is the Sweep of containers that have neither cgroups nor namespaces.
func KillMarked(c clock.Clock) func(p *Pod, records []supervisor.Record) error {
	return func(_ *Pod, records []supervisor.Record) error {
		for _, r := range records {
			if r.State != supervisor.StateExited && !supervisor.KillMarked(r.ID, c) {
				return fmt.Errorf("processes of container %s do not end", r.ID)
			}
		}
		return nil
	}
}

// Pods are all that are open.
func (s *Set) Pods() []Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Pod
	for _, e := range s.mu.pods {
		if e.pod != nil {
			all = append(all, *e.pod)
		}
	}
	return all
}

// Has tells whether a pod has its file. That is the first of it, and the last.
func (s *Set) Has(uid string) bool {
	_, err := os.Stat(s.file(uid))
	return err == nil
}

//go:build linux

package supervisor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/task/plain"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
)

// container is an attempt of a container, in its supervisor.
type container struct {
	server *server
	launch Launch
	ended  chan struct{} // Closed when its end is on record.

	process *process // Set before state running.
	out     *output

	record Record // Guarded by the server's lock, like the next two.
	killed bool
	soft   string // Why it was killed for its memory, where no cgroup does that.
}

// start begins a container, or finds that it began.
func (s *server) start(l *Launch) error {
	if l == nil {
		return &Failure{stage.Invalid, "start without a launch"}
	}
	c, err := s.claim(l)
	if c == nil {
		return err
	}
	s.forgetBefore(l.Name) // Before it may have ended itself, and be taken for the last.
	if err := c.begin(); err != nil {
		s.forget(c)
		close(c.ended)
		return err
	}
	s.changed()
	return nil
}

// claim registers a container. It returns nil if there is nothing to do.
func (s *server) claim(l *Launch) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ending {
		return nil, &Failure{FailureNotFound, "the pod is being removed"}
	}
	if c := s.mu.containers[l.ID]; c != nil {
		if c.record.State == StateStarting {
			return nil, &Failure{stage.Failed, "the container is being started"}
		}
		return nil, nil
	}
	for _, c := range s.mu.containers {
		if c.record.Name == l.Name && c.record.State != StateExited {
			return nil, &Failure{stage.Failed, fmt.Sprintf("attempt %d of %s has not ended: stop it before the next is started", c.record.Attempt, l.Name)}
		}
	}
	c := &container{server: s, launch: *l, ended: make(chan struct{})}
	c.record = Record{ID: l.ID, Name: l.Name, Attempt: l.Attempt, ImageID: l.ImageID, Log: l.Log, Scratch: l.Scratch, State: StateStarting}
	s.mu.containers[l.ID] = c
	return c, nil
}

// begin starts the process.
func (c *container) begin() (err error) {
	s, l := c.server, &c.launch
	if err := c.save(false); err != nil {
		return err
	}
	if c.out, err = newOutput(l.Log, s.clock); err != nil {
		return fmt.Errorf("make the log: %w", err)
	}
	how := manner{stdin: l.Stdin}
	if l.Isolated {
		how.clone = unix.CLONE_NEWPID | unix.CLONE_NEWNS
	} else {
		l.Stage.Env = append(l.Stage.Env, markerName+"="+l.ID)
	}
	p, err := s.launch(&l.Stage, how)
	if err != nil {
		c.out.log.Close()
		return err
	}
	s.mu.Lock()
	c.process = p
	c.record.State, c.record.PID, c.record.Started = StateRunning, p.pid, s.clock.Wall()
	killed := c.killed
	s.mu.Unlock()
	c.out.follow(p)
	plain.Go("follow", c.follow)
	if l.MemoryMax > 0 {
		plain.Go("memory", c.watchMemory)
	}
	if killed {
		c.kill()
	}
	// It runs, whatever the disk says; where this is not written a record says starting.
	_ = c.save(false)
	return nil
}

// save writes the record as it is now.
func (c *container) save(durable bool) error {
	c.server.mu.Lock()
	r := c.record
	c.server.mu.Unlock()
	return writeRecord(c.server.boot.Dir, &r, durable)
}

// follow waits for the end of the process and puts it on record.
func (c *container) follow() {
	s := c.server
	status := <-c.process.ended
	if !c.launch.Isolated {
		KillMarked(c.launch.ID, s.clock)
	}
	c.out.drain(c.process)
	c.out.log.Close()
	kills := c.launch.Kills.read()
	s.mu.Lock()
	r := &c.record
	r.State, r.Finished, r.ExitCode = StateExited, s.clock.Wall(), exitCode(status)
	switch {
	case c.soft != "":
		r.Reason, r.Message = OOMKilled, c.soft
	case kills > 0 && r.ExitCode != 0:
		r.Reason, r.Message = OOMKilled, "the kernel killed "+strconv.FormatInt(kills, 10)+" of its processes at its limit of memory"
	}
	s.mu.Unlock()
	// What the disk refuses the next supervisor calls lost; this one knows better.
	_ = c.save(true)
	close(c.ended)
	s.changed()
	if c.launch.Scratch != "" {
		_ = os.RemoveAll(c.launch.Scratch) // With the pod at the latest.
	}
}

// read is the number that a counter has; 0 where there is none.
func (k *Counter) read() int64 {
	if k == nil {
		return 0
	}
	text, err := os.ReadFile(k.File)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), k.Key+" "); ok {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

// kill ends the container at once.
func (c *container) kill() {
	c.server.mu.Lock()
	c.killed = true
	p := c.process
	c.server.mu.Unlock()
	if p != nil {
		c.server.reaper.kill(p.pid, !c.launch.Isolated, unix.SIGKILL)
	}
}

// find returns a container that has begun.
func (s *server) find(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.mu.containers[id]
	if c == nil || c.record.State == StateStarting {
		return nil, &Failure{FailureNotFound, id + " is not there"}
	}
	return c, nil
}

// running returns a container that runs.
func (s *server) running(id string) (*container, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.record.State != StateRunning {
		return nil, &Failure{FailureNotRunning, id + " has ended"}
	}
	return c, nil
}

// stop asks a container to end, and kills it when it has not after grace.
func (s *server) stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := s.find(id)
	if err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	default:
	}
	if grace > 0 {
		s.reaper.kill(c.process.pid, false, unix.Signal(c.launch.StopSignal))
		select {
		case <-c.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-s.clock.After(grace):
		}
	}
	c.kill()
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget removes what there is of an attempt.
func (s *server) forget(c *container) {
	s.mu.Lock()
	delete(s.mu.containers, c.record.ID)
	r := c.record
	s.mu.Unlock()
	if r.Scratch != "" {
		_ = os.RemoveAll(r.Scratch)
	}
	_ = logfile.Remove(r.Log, 0)
	_ = os.Remove(recordPath(s.boot.Dir, r.Name, r.Attempt)) // The rest goes with the pod.
}

// forgetBefore leaves of the ended attempts of a container the last.
func (s *server) forgetBefore(name string) {
	s.mu.Lock()
	var last *container
	var old []*container
	for _, c := range s.mu.containers {
		if c.record.Name != name || c.record.State != StateExited {
			continue
		}
		if last == nil || c.record.Attempt > last.record.Attempt {
			last, c = c, last
		}
		if c != nil {
			old = append(old, c)
		}
	}
	s.mu.Unlock()
	for _, c := range old {
		s.forget(c)
	}
}

//go:build linux

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/task/plain"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
)

// stageMax is how long a stage may take: mounts and a few files, on a node that is busy.
const stageMax = time.Minute

// manner is how a stage is started.
type manner struct {
	stdin bool
	clone uintptr  // Namespaces to make.
	join  []string // Namespaces to join, of process of: "pid", and those of Spec.Join.
	of    int
	pid   int // The PID namespace among them, opened.
}

// process is a started program, and the ends of its streams that are ours.
type process struct {
	pid    int
	ended  <-chan unix.WaitStatus
	stdin  *os.File // nil: nothing is written. With a terminal it is tty.
	output [2]*os.File
	tty    *os.File // Instead of output.
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.output[0], p.output[1], p.tty} {
		if f != nil {
			f.Close()
		}
	}
}

// launch starts a stage and waits until it has become its program.
func (s *server) launch(spec *stage.Spec, how manner) (*process, error) {
	p := &process{}
	control, err := s.spawn(p, spec, how)
	if err != nil {
		p.close()
		return nil, err
	}
	defer control.Close()
	err = converse(p, control, spec, s.clock.Wall().Add(stageMax))
	if err == nil && spec.TTY {
		if p.tty == nil {
			err = errors.New("the stage sent no terminal")
		} else if how.stdin {
			p.stdin = p.tty
		}
	}
	if err != nil {
		s.reaper.kill(p.pid, false, unix.SIGKILL)
		<-p.ended
		p.close()
		return nil, err
	}
	return p, nil
}

// spawn starts the process of a stage, which waits for its spec.
func (s *server) spawn(p *process, spec *stage.Spec, how manner) (*conn, error) {
	var theirs []int // Closed here once they have them.
	defer func() {
		for _, fd := range theirs {
			unix.Close(fd)
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for the stage: %w", err)
	}
	theirs = append(theirs, pair[1])
	control, err := newConn(pair[0])
	if err != nil {
		return nil, err
	}
	files, err := p.streams(spec, how, &theirs)
	if err != nil {
		control.Close()
		return nil, err
	}
	files = append(files, uintptr(pair[1]))
	if how.of != 0 {
		ns, err := s.reaper.namespaces(how.of, how.join)
		if err != nil {
			control.Close()
			return nil, &Failure{FailureNotRunning, "the container has ended: " + err.Error()}
		}
		theirs = append(theirs, ns...)
		how.pid = ns[0]
		for _, fd := range ns[1:] {
			files = append(files, uintptr(fd))
		}
	}
	attr := &syscall.ProcAttr{
		Env:   []string{"GOMAXPROCS=1", "GOGC=off"}, // It lives for milliseconds.
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: how.clone},
	}
	if how.of == 0 {
		p.pid, p.ended, err = s.reaper.start("/proc/self/exe", []string{stage.Argv0}, attr)
	} else {
		err = s.spawnWithin(p, attr, how.pid)
	}
	if err != nil {
		control.Close()
		return nil, fmt.Errorf("start a stage: %w", err)
	}
	return control, nil
}

// spawnWithin starts a child in a PID namespace. A thread that is in two of them can make
// no threads, so that it cannot be used again: the goroutine ends without unlocking, and
// the thread with it.
func (s *server) spawnWithin(p *process, attr *syscall.ProcAttr, ns int) error {
	result := make(chan error, 1)
	plain.Go("spawn", func() {
		runtime.LockOSThread()
		err := unix.Setns(ns, unix.CLONE_NEWPID)
		if err == nil {
			p.pid, p.ended, err = s.reaper.start("/proc/self/exe", []string{stage.Argv0}, attr)
		}
		if errors.Is(err, unix.ENOMEM) { // Of a namespace whose first process has ended.
			err = &Failure{FailureNotRunning, "the container has ended"}
		}
		result <- err
	})
	return <-result
}

// streams makes the first three descriptors of a process.
func (p *process) streams(spec *stage.Spec, how manner, theirs *[]int) ([]uintptr, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	*theirs = append(*theirs, null)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	if spec.TTY {
		return files, nil // The stage makes a terminal.
	}
	pipe := func(mine int) (*os.File, int, error) {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return nil, 0, err
		}
		*theirs = append(*theirs, ends[1-mine])
		// Ours waits without holding a thread; theirs blocks, as programs expect.
		if err := unix.SetNonblock(ends[mine], true); err != nil {
			unix.Close(ends[mine])
			return nil, 0, err
		}
		return os.NewFile(uintptr(ends[mine]), "pipe"), ends[1-mine], nil
	}
	var fd int
	if how.stdin {
		if p.stdin, fd, err = pipe(1); err != nil {
			return nil, err
		}
		files[0] = uintptr(fd)
	}
	for i := range p.output {
		if p.output[i], fd, err = pipe(0); err != nil {
			return nil, err
		}
		files[i+1] = uintptr(fd)
	}
	return files, nil
}

// converse sends the spec and hears what became of it.
func converse(p *process, control *conn, spec *stage.Spec, deadline time.Time) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := control.SetDeadline(deadline); err != nil {
		return err
	}
	// A stage that fails early does not read all; what it says tells more than EPIPE.
	_, werr := control.Write(text)
	if werr == nil {
		werr = control.closeWrite()
	}
	said, fd, err := hear(control)
	if fd >= 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return err
		}
		p.tty = os.NewFile(uintptr(fd), "terminal")
		said = said[1:] // The mark.
	}
	if len(said) > 0 {
		f := &stage.Failure{}
		if err := json.Unmarshal(said, f); err != nil {
			return fmt.Errorf("the stage said %q: %w", said, err)
		}
		return &Failure{f.Kind, f.Text}
	}
	if err = errors.Join(werr, err); err != nil {
		return fmt.Errorf("the stage: %w", err)
	}
	return nil
}

// hear reads to the end, and takes one descriptor if there is one.
func hear(control *conn) (said []byte, fd int, err error) {
	fd = -1
	buffer, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, err := control.receive(buffer, oob)
		if n == 0 || err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return said, fd, err
		}
		said = append(said, buffer[:n]...)
		if got := Rights(oob[:oobn]); got >= 0 {
			fd = got
		}
	}
}

// Rights is the descriptor that came with a message, -1 if none did.
func Rights(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0]
		}
	}
	return -1
}

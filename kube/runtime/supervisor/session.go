//go:build linux

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/task/plain"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
)

// exec runs a command beside a container's program, with its environment, user and
// rights, and returns its exit code.
func (s *server) exec(conn *conn, q *Request) (int32, error) {
	c, err := s.running(q.ID)
	if err != nil {
		return 0, err
	}
	spec := c.launch.Stage
	spec.Argv, spec.TTY, spec.Root = q.Command, q.TTY, nil
	how := manner{stdin: q.Stdin}
	if c.launch.Isolated {
		spec.Join = []string{"mnt", "cgroup"}
		how.of, how.join = c.process.pid, append([]string{"pid"}, spec.Join...)
	}
	p, err := s.launch(&spec, how)
	if err != nil {
		if _, ended := s.running(q.ID); ended != nil {
			err = ended // Its folder may be gone already.
		}
		return 0, err
	}
	if _, err := conn.Write(EncodeFrame(FrameJoined, nil)); err != nil {
		s.reaper.kill(p.pid, true, unix.SIGKILL)
	}
	kill := func() { s.reaper.kill(p.pid, true, unix.SIGKILL) }
	plain.Go("stdin", func() {
		if errors.Is(s.take(conn, p.stdin, p.tty, true), errDetached) {
			kill() // Nobody is there to hear of its end.
		}
	})
	ended := make(chan struct{})
	var poured sync.WaitGroup
	for i, f := range append([]*os.File{p.tty}, p.output[:]...) {
		if f == nil {
			continue
		}
		frame := byte(FrameStdout)
		if i == 2 {
			frame = FrameStderr
		}
		poured.Add(1)
		plain.Go("pour", func() {
			defer poured.Done()
			if s.pour(conn, f, frame, ended) != nil {
				kill()
			}
		})
	}
	status := <-p.ended
	close(ended)
	for _, f := range append([]*os.File{p.tty}, p.output[:]...) {
		if f != nil {
			_ = f.SetReadDeadline(s.clock.Wall().Add(drainMax))
		}
	}
	poured.Wait() // Or until the connection is closed.
	p.close()
	return exitCode(status), nil
}

// pour copies to a connection what a command writes, at the pace of the one who reads. When
// the command has ended, something in the background may hold its pipe: that is not waited for.
func (s *server) pour(conn *conn, f *os.File, frame byte, ended <-chan struct{}) error {
	buffer := make([]byte, pumpBuffer)
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			if _, err := conn.Write(EncodeFrame(frame, buffer[:n])); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		select {
		case <-ended:
			_ = f.SetReadDeadline(s.clock.Wall().Add(drainMax))
		default:
		}
	}
}

// take reads frames for a process: its input, and sizes of its terminal. It returns
// errDetached when the other side has gone.
func (s *server) take(conn *conn, stdin, tty *os.File, own bool) error {
	for {
		kind, payload, err := ReadFrame(conn)
		if err != nil {
			return errDetached
		}
		switch kind {
		case FrameStdin:
			if stdin == nil {
				continue
			}
			if err := s.feed(conn, stdin, payload); errors.Is(err, errDetached) {
				return err
			} else if err != nil {
				stdin = nil // It has closed it; what comes is dropped, as a shell would.
			}
		case FrameEnd:
			if own && stdin != nil && stdin != tty {
				stdin.Close()
			}
			stdin = nil
		case FrameResize:
			size := Size{}
			if tty != nil && json.Unmarshal(payload, &size) == nil {
				resize(tty, size)
			}
		}
	}
}

// feedLook is between two looks at whether somebody is there whose input is not taken.
const feedLook = 100 * time.Millisecond

// feed writes input to a process, which may not take it for as long as it likes: then only
// the one who sent it waits. When he goes, that is noticed though his frames are not read.
func (s *server) feed(conn *conn, stdin *os.File, b []byte) error {
	for {
		if err := stdin.SetWriteDeadline(s.clock.Wall().Add(feedLook)); err != nil {
			return err
		}
		n, err := stdin.Write(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if b = b[n:]; conn.hungUp() {
			return errDetached
		}
	}
}

func resize(tty *os.File, size Size) {
	raw, err := tty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
}

// attach joins a container's streams until it ends, or the other side goes or does not read.
func (s *server) attach(conn *conn, id string) error {
	c, err := s.running(id)
	if err != nil {
		return err
	}
	if _, err := conn.Write(EncodeFrame(FrameJoined, nil)); err != nil {
		return err
	}
	k := c.out.attach(conn)
	gone := make(chan struct{})
	plain.Go("stdin", func() {
		defer close(gone)
		_ = s.take(conn, c.process.stdin, c.process.tty, false)
	})
	select {
	case <-c.ended:
	case <-gone:
	case <-k.done:
	}
	c.out.detach(k)
	_ = conn.SetWriteDeadline(s.clock.Wall().Add(farewellMax)) // Of the answer too.
	if k.rest == nil {
		return nil
	}
	_, _ = conn.Write(k.rest) // Only between frames can he be told.
	return &Failure{stage.Failed, fmt.Sprintf("nothing of the output was read for %v: the container was not held up any longer; its log has all", sinkPatience)}
}

// dial connects to a port of the pod, and sends the connection.
func (s *server) dial(conn *conn, port uint16) error {
	to, err := dialLoopback(port, s.clock.Wall().Add(dialMax))
	if err != nil {
		return &Failure{stage.Failed, err.Error()}
	}
	defer to.Close()
	return to.control(true, func(fd int) error { return conn.send(EncodeFrame(FrameJoined, nil), fd) })
}

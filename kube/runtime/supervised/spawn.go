//go:build linux

package supervised

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/child"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// spawnMax is how long a supervisor may take until it listens.
const spawnMax = 30 * time.Second

// supervisorEnv makes a process small: one processor, as it hardly computes and each has
// caches; a collection at two megabytes of heap, and not before, as the first has the
// runtime make its lists for good, which are half a megabyte; no profile of memory, whose
// table is one; no stacks that shrink, as each move maps pages of the program. The rest of
// the environment is not for containers.
var supervisorEnv = []string{"GOMAXPROCS=1", "GOGC=50", "GOMEMLIMIT=16MiB", "GODEBUG=memprofilerate=0,gcshrinkstackoff=1", "GOTRACEBACK=all"}

// spawn starts a supervisor, which gets the lock of the pod, and waits until it
// listens. It goes on when this process ends; as long as this one lives it reaps it.
func (s *Set) spawn(ctx context.Context, b *supervisor.Boot, clone uintptr, held *os.File) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket for a supervisor: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "boot")
	defer theirs.Close()
	conn, err := unixConn(pair[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	trace, err := os.OpenFile(filepath.Join(b.Dir, supervisor.TraceFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer trace.Close()
	cmd := exec.Command(s.self.path())
	cmd.Args = []string{supervisor.Argv0}
	cmd.Env = supervisorEnv
	cmd.Dir = "/"
	cmd.Stderr = trace
	cmd.ExtraFiles = []*os.File{theirs, held} // bootFD, lockFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: clone}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a supervisor: %w", err)
	}
	// Not in a group that anybody waits for: it may outlive this process.
	s.reapers.Go("reap", func(context.Context) error {
		_ = child.Await(cmd.Process) // Without it one waits just as well, in a thread.
		_ = cmd.Wait()               // How it ended is seen by its lock.
		return nil
	})
	theirs.Close()
	err = greet(ctx, conn, b, s.cfg.Clock.Wall().Add(spawnMax))
	if err != nil {
		_ = cmd.Process.Kill()
	}
	return err
}

// greet hands over what a supervisor shall be, and hears whether it is.
func greet(ctx context.Context, conn unixSocket, b *supervisor.Boot, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	b.Version = supervisor.Version
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	_, werr := conn.Write(text)
	if werr == nil {
		werr = conn.CloseWrite()
	}
	said, err := io.ReadAll(conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err = errors.Join(werr, err); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	r := supervisor.Ready{}
	if err := json.Unmarshal(said, &r); err != nil {
		return fmt.Errorf("supervisor said %q; %s may tell more: %w", said, filepath.Join(b.Dir, supervisor.TraceFile), err)
	}
	if r.Error != "" {
		return fmt.Errorf("supervisor: %s", r.Error)
	}
	return nil
}

// unixSocket is what greet needs of a connection.
type unixSocket interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetDeadline(time.Time) error
}

// shoot kills a supervisor that does not answer. Its PID is in the lock that it holds.
func shoot(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, supervisor.LockFile))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return fmt.Errorf("%s holds no process ID, but %q", filepath.Join(dir, supervisor.LockFile), text)
	}
	if held, err := alive(dir); !held || err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

// unixConn makes a connection of one end of a pair, which it takes.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // FileConn has its own.
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

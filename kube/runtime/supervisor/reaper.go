//go:build linux

package supervisor

import (
	"errors"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper starts the children of this process and hears of their end, and of that of
// orphans which become its children.
//
// Invariant: a PID in ended is of a child that was not reaped, so that a signal
// cannot meet another process.
type reaper struct {
	mu    sync.Mutex
	ended map[int]chan unix.WaitStatus
}

func newReaper() *reaper { return &reaper{ended: map[int]chan unix.WaitStatus{}} }

// start makes a child. The channel gives its end once.
func (r *reaper) start(program string, argv []string, attr *syscall.ProcAttr) (int, <-chan unix.WaitStatus, error) {
	r.mu.Lock() // Until its channel is there nobody may reap it.
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(program, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan unix.WaitStatus, 1)
	r.ended[pid] = ch
	return pid, ch, nil
}

// reap collects all children that have ended.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return // ECHILD: there are none.
		}
		if ch := r.ended[pid]; ch != nil {
			delete(r.ended, pid)
			ch <- status
		}
	}
}

// kill sends a signal to a child; group, to its process group. Of one that has ended:
// nothing.
func (r *reaper) kill(pid int, group bool, signal unix.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended[pid] == nil {
		return
	}
	if group {
		_ = unix.Kill(-pid, signal)
	}
	_ = unix.Kill(pid, signal)
}

// namespaces opens those of a child. Under the lock it is not reaped, so that its number is
// not another process's.
func (r *reaper) namespaces(pid int, kinds []string) ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended[pid] == nil {
		return nil, unix.ESRCH
	}
	var all []int
	for _, kind := range kinds {
		fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			for _, fd := range all {
				unix.Close(fd)
			}
			return nil, err
		}
		all = append(all, fd)
	}
	return all, nil
}

func exitCode(status unix.WaitStatus) int32 {
	if status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(status.ExitStatus())
}

//go:build linux

// Package child waits for processes that this one has started, without a thread for
// each: a wait in the kernel holds one, which is 50 kB, and there may be hundreds of
// children that live for weeks.
package child

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Await returns when a child has ended, which is still to be waited for: that returns at
// once then. An error: the kernel has no descriptors of processes, or there are no more
// descriptors; whoever waits without them is right, too.
func Await(p *os.Process) error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.Pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // What makes package os poll it.
		unix.Close(fd)
		return fmt.Errorf("open process %d: %w", p.Pid, err)
	}
	f := os.NewFile(uintptr(fd), "process")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

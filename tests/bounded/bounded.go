// Package bounded keeps a test from waiting for ever for a program that hangs: the
// program is ended, and what it printed tells where it stood.
package bounded

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

const (
	// CommandMax is far above what any command of the tests takes.
	CommandMax = 4 * time.Minute
	// EndMax is far above what a member takes to end once it was told to.
	EndMax = time.Minute

	stacksMax = 5 * time.Second // For the stacks to be printed.
)

// ErrHangs says that a program was ended because it did not end.
var ErrHangs = errors.New("it hangs, its stacks are in what it printed")

// Group makes a command the first of a group of processes, with which Wait ends those
// that it started.
func Group(cmd *exec.Cmd) *exec.Cmd {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return cmd
}

// Wait is cmd.Wait with a bound.
func Wait(cmd *exec.Cmd, limit time.Duration) error {
	ended := make(chan struct{})
	var err error
	go func() {
		err = cmd.Wait()
		close(ended)
	}()
	if hung := End(cmd, ended, limit); hung != nil {
		return hung
	}
	return err
}

// End waits until a command has ended, of which somebody else tells.
func End(cmd *exec.Cmd, ended <-chan struct{}, limit time.Duration) error {
	for i, signal := range []syscall.Signal{0, syscall.SIGQUIT, syscall.SIGKILL} { // A program in Go prints its stacks at SIGQUIT.
		pid := cmd.Process.Pid
		if cmd.SysProcAttr != nil && cmd.SysProcAttr.Setpgid {
			pid = -pid
		}
		if signal != 0 {
			_ = syscall.Kill(pid, signal) // It may just have ended.
			limit = stacksMax
		}
		select {
		case <-ended:
			if i > 0 {
				return fmt.Errorf("%s: %w", cmd, ErrHangs)
			}
			return nil
		case <-time.After(limit):
		}
	}
	return fmt.Errorf("%s: %w, and something holds its output", cmd, ErrHangs)
}

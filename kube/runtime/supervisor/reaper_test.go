//go:build linux

package supervisor

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The number of a process that was reaped may be another's: nothing of that is opened.
func TestNamespacesAreThoseOfAChildThatWasNotReaped(t *testing.T) {
	r := newReaper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	pid, ended, err := r.start("/bin/sh", []string{"sh", "-c", "read end"}, &syscall.ProcAttr{Files: []uintptr{in.Fd()}})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{"pid", "mnt"}
	all, err := r.namespaces(pid, kinds)
	if err != nil || len(all) != len(kinds) {
		t.Fatalf("of a child that runs: %v, %v", all, err)
	}
	for _, fd := range all {
		unix.Close(fd)
	}
	out.Close()
	for reaped := false; !reaped; {
		r.reap()
		select {
		case <-ended:
			reaped = true
		default:
		}
	}
	if _, err = r.namespaces(pid, kinds); !errors.Is(err, unix.ESRCH) {
		t.Errorf("of one that was reaped: %v", err)
	}
	if all, err := r.namespaces(os.Getpid(), kinds); err == nil {
		t.Errorf("of a process that is not its child: %v", all)
	}
}

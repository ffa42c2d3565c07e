//go:build linux

package stage

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// surround makes or joins what the program sees.
func surround(spec *Spec) error {
	if spec.Root != nil {
		// After the cgroups were entered, where this process is now becomes their root;
		// before they are mounted, or the container sees all that the node has.
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return failed("make a cgroup namespace: %w", err)
		}
		if err := makeRoot(spec.Root); err != nil {
			return err
		}
	}
	if len(spec.Join) > 0 {
		return join(spec.Join)
	}
	return nil
}

// settle goes to the program's folder and gives up what it may not have.
func settle(spec *Spec) error {
	var id *identity
	if spec.Rights != nil {
		var err error
		if id, err = identify(spec.Rights); err != nil {
			return err
		}
		if !slices.ContainsFunc(spec.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
			spec.Env = append(spec.Env, "HOME="+id.home)
		}
		if spec.TTY {
			_ = unix.Fchown(0, id.uid, -1) // Its terminal is the user's, as after a login.
		}
	}
	if err := enterFolder(spec, id); err != nil {
		return err
	}
	if id == nil {
		return noNewPrivileges(spec)
	}
	// A keyring of its own: the node's may hold keys of its file systems.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	keep := capabilityBits(spec.Rights.Caps)
	if err := limit(keep); err != nil {
		return failed("limit capabilities: %w", err)
	}
	// While this thread may still do it: without no_new_privs a filter needs
	// SYS_ADMIN. What follows passes the filter.
	if !spec.Rights.Unfiltered {
		if err := filter(keep); err != nil {
			return failed("filter system calls: %w", err)
		}
	}
	if err := become(id, keep); err != nil {
		return err
	}
	return noNewPrivileges(spec)
}

func noNewPrivileges(spec *Spec) error {
	if !spec.NoNewPrivileges {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return failed("set no_new_privs: %w", err)
	}
	return nil
}

// enterFolder goes to the working folder, and makes it if it is missing.
func enterFolder(spec *Spec, id *identity) error {
	if spec.Dir == "" {
		return nil
	}
	err := unix.Chdir(spec.Dir)
	if err == unix.ENOENT && id != nil {
		if err = os.MkdirAll(spec.Dir, 0o755); err == nil {
			err = unix.Chdir(spec.Dir)
		}
	}
	if err != nil {
		return invalid("working folder %s: %w", spec.Dir, err)
	}
	// A link in /proc might lead to a folder of the node that this process holds open.
	if wd, err := unix.Getwd(); err != nil || !strings.HasPrefix(wd, "/") {
		return invalid("working folder %s is not in the container", spec.Dir)
	}
	return nil
}

// setgroups is of this thread alone, unlike that of package syscall.
func setgroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0)
	runtime.KeepAlive(groups)
	if errno != 0 {
		return errno
	}
	return nil
}

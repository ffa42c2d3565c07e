// Command init is the first process of the guest: it makes a machine out of a bare kernel
// (cgroups of version 2 only), runs one test program, tells its exit code on the console
// and turns the machine off.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("guest:", err)
		code = 1
	}
	fmt.Println("guest: exit code", code)
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() (int, error) {
	if err := load(); err != nil {
		return 0, err
	}
	if err := move(); err != nil {
		return 0, err
	}
	if err := mounts(); err != nil {
		return 0, err
	}
	if err := loopback(); err != nil {
		return 0, err
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return 0, err
	}
	fmt.Println("guest: cgroups of version 2 with", strings.TrimSpace(string(controllers)))
	return test()
}

// load loads the modules that were given along.
func load() error {
	names, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// move goes to a root of its own: that of the kernel cannot be left by pivot_root, as
// containers do it.
func move() error {
	if err := os.Mkdir("/new", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("root", "/new", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, name := range []string{"test", "inside"} {
		b, err := os.ReadFile("/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile("/new/"+name, b, 0o755); err != nil {
			return err
		}
		if err := os.Remove("/" + name); err != nil {
			return err
		}
	}
	if err := os.Chdir("/new"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

func mounts() error {
	for _, m := range []struct{ kind, at, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"cgroup2", "/sys/fs/cgroup", ""}, {"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=666"}, {"tmpfs", "/dev/shm", "mode=1777"}, {"tmpfs", "/run", "mode=755"}, {"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 192.0.2.1\n", "passwd": "root:x:0:0::/:\n"} {
		if err := os.WriteFile("/etc/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// test runs the program with the arguments of the kernel's command line that follow
// "guest=", and is what every first process is: a parent of those who lost theirs.
func test() (int, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return 0, err
	}
	_, args, ok := bytes.Cut(bytes.TrimSpace(line), []byte("guest="))
	if !ok {
		return 0, errors.New("nothing to do: no guest= on the command line of the kernel")
	}
	child, err := os.StartProcess("/test", append([]string{"/test"}, strings.Split(string(args), ",")...), &os.ProcAttr{
		Env:   []string{"PATH=/", "HOME=/", "TMPDIR=/tmp", "HOLDFAST_REQUIRE_ALL=1", "HOLDFAST_CONFORMANCE_PROGRAM=/inside"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if pid == child.Pid && (status.Exited() || status.Signaled()) {
			if status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return status.ExitStatus(), nil
		}
	}
}

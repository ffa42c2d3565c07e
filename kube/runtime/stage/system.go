//go:build linux

package stage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const careful = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// systemMounts are what each container has: /proc, /sys, /dev.
func systemMounts(root int, r *Root) error {
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		data         string
		optional     bool
	}{
		{"proc", "/proc", careful, "", false},
		{"sysfs", "/sys", careful | unix.MS_RDONLY, "", false},
		// Devices are mounted one by one; what is made here cannot be opened.
		{"tmpfs", "/dev", unix.MS_NOSUID | unix.MS_NODEV, "mode=755,size=64k", false},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5", false},
		{"tmpfs", "/dev/shm", careful, "mode=1777,size=65536k", false},
		{"mqueue", "/dev/mqueue", careful, "", true},
		// On hosts with version 1 the view is empty: there is no one file system to show.
		{"cgroup2", "/sys/fs/cgroup", careful | unix.MS_RDONLY, "", true},
	} {
		if m.kind == "cgroup2" && !unified() {
			continue
		}
		at, err := makeAt(root, m.target, true)
		if err == nil {
			err = unix.Mount(m.kind, byDescriptor(at), m.kind, m.flags, m.data)
			unix.Close(at)
		}
		if err != nil && !m.optional {
			return failed("mount %s at %s: %w", m.kind, m.target, err)
		}
	}
	return devices(root)
}

// unified tells whether the node has cgroups of version 2 alone.
func unified() bool {
	st := &unix.Statfs_t{}
	return unix.Statfs("/sys/fs/cgroup", st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// devices puts the harmless ones of the node into /dev.
func devices(root int) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		at, err := makeAt(root, "/dev/"+name, false)
		if err != nil {
			return failed("make /dev/%s: %w", name, err)
		}
		err = unix.Mount("/dev/"+name, byDescriptor(at), "", unix.MS_BIND, "")
		unix.Close(at)
		if err != nil {
			return failed("mount /dev/%s: %w", name, err)
		}
	}
	dev, err := resolve(root, "/dev", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return failed("open /dev: %w", err)
	}
	defer unix.Close(dev)
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := unix.Symlinkat(to, dev, name); err != nil {
			return failed("link /dev/%s: %w", name, err)
		}
	}
	return nil
}

// What of /proc and /sys tells of the node, or changes it.
var (
	masked = []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/interrupts", "/proc/kmsg", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/debug",
	}
	readOnly = []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func mask(root int) error {
	for _, name := range masked {
		at, err := resolve(root, name, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return failed("hide %s: %w", name, err)
		}
		st := &unix.Stat_t{}
		err = unix.Fstat(at, st)
		switch {
		case err != nil:
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = unix.Mount("tmpfs", byDescriptor(at), "tmpfs", careful|unix.MS_RDONLY, "size=4k,mode=755")
		default:
			err = unix.Mount("/dev/null", byDescriptor(at), "", unix.MS_BIND, "")
		}
		unix.Close(at)
		if err != nil {
			return failed("hide %s: %w", name, err)
		}
	}
	for _, name := range readOnly {
		at, err := resolve(root, name, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = unix.Mount(byDescriptor(at), byDescriptor(at), "", unix.MS_BIND|unix.MS_REC, "")
			unix.Close(at)
		}
		if err == nil {
			err = restrict(root, name, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
		}
		if err != nil {
			return failed("make %s read-only: %w", name, err)
		}
	}
	return nil
}

// join enters namespaces of a container, whose descriptors begin at JoinFD.
func join(kinds []string) error {
	// The root and folder of a thread are shared with others until it parts with them.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return failed("part with the folder of other threads: %w", err)
	}
	for i, kind := range kinds {
		if err := unix.Setns(JoinFD+i, 0); err != nil {
			return failed("join namespace %s: %w", kind, err)
		}
		unix.Close(JoinFD + i)
	}
	return nil
}

// readSmall reads a file of the image.
func readSmall(name string) (string, error) {
	const most = 1 << 20 // A file of users is of an image, which may hold anything.
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, most)
	n := 0
	for n < most {
		m, err := f.Read(b[n:])
		n += m
		if err != nil {
			break
		}
	}
	return string(b[:n]), nil
}

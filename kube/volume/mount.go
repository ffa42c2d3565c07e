package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MayMount tells whether this process may mount and give files to others.
func MayMount() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return false
	}
	has := func(capability int) bool { return d[capability/32].Effective&(1<<(capability%32)) != 0 }
	return has(unix.CAP_SYS_ADMIN) && has(unix.CAP_CHOWN) && has(unix.CAP_FOWNER)
}

// mounted tells whether something is mounted on a name.
func (f *folder) mounted(name string) (bool, error) {
	var s unix.Statx_t
	err := unix.Statx(f.fd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &s)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, f.failure("look at", name, err)
	}
	return s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// memory mounts a tmpfs on a folder in this one, if none is there. A size of 0 is the
// kernel's: half of the memory.
func (f *folder) memory(name string, mode uint32, group int, size int64, secret bool) error {
	if there, err := f.mounted(name); there || err != nil {
		return err
	}
	options := []string{fmt.Sprintf("mode=%o", mode)}
	if group >= 0 {
		options = append(options, fmt.Sprintf("gid=%d", group))
	}
	if size > 0 {
		options = append(options, fmt.Sprintf("size=%d", size))
	}
	flags := uintptr(0)
	if secret {
		flags = unix.MS_NOSUID | unix.MS_NODEV
		options = append(options, "noswap")
	}
	if err := f.before("mount " + f.in(name)); err != nil {
		return err
	}
	err := unix.Mount("tmpfs", f.in(name), "tmpfs", flags, strings.Join(options, ","))
	if secret && errors.Is(err, unix.EINVAL) { // Linux before 6.4 does not know noswap.
		err = unix.Mount("tmpfs", f.in(name), "tmpfs", flags, strings.Join(options[:len(options)-1], ","))
	}
	if err != nil {
		return f.failure("mount memory on", name, err)
	}
	return nil
}

// bind shows an open file or folder under a name of this folder, which is there.
func (f *folder) bind(fd int, name string) error {
	if err := f.before("bind " + f.in(name)); err != nil {
		return err
	}
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return f.failure("bind", name, err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", f.fd, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return f.failure("bind", name, err)
	}
	return nil
}

// unmount takes all off that is mounted on a name. Who still has it open keeps it.
func (f *folder) unmount(name string) error {
	for range mountsMax {
		if there, err := f.mounted(name); !there || err != nil {
			return err
		}
		if err := unmountAt(f, f.in(name)); err != nil {
			return err
		}
	}
	return f.failure("unmount", name, errors.New("it is mounted again and again"))
}

func unmountAt(f *folder, path string) error {
	if err := f.before("unmount " + path); err != nil {
		return err
	}
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // These: it is off already.
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// unmountBelow takes off all that is mounted on a name of a folder and below it, what
// was mounted last first.
func unmountBelow(f *folder, name string) error {
	top := f.in(name)
	points, err := mountPoints()
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(points) {
		if path == top || strings.HasPrefix(path, top+"/") {
			if err := unmountAt(f, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountPoints are those of the mount namespace of this thread, in the order in which
// they were mounted.
func mountPoints() ([]string, error) {
	fd, err := unix.Open("/proc/thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/thread-self/mountinfo: %w", err)
	}
	file := os.NewFile(uintptr(fd), "/proc/thread-self/mountinfo")
	defer file.Close()
	var points []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points = append(points, unescaped(fields[4]))
		}
	}
	return points, lines.Err()
}

// unescaped reads a path of mountinfo, where \ooo stands for a space and the like.
func unescaped(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) && octal(path[i+1:i+4]) {
			b.WriteByte((path[i+1]-'0')<<6 | (path[i+2]-'0')<<3 | (path[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

func octal(digits string) bool {
	return digits[0] <= '3' && strings.Trim(digits, "01234567") == ""
}

//go:build linux

package supervised

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// self is this binary, to be started as supervisors. What they start is the same:
// they know it as /proc/self/exe.
type self struct {
	file *os.File // nil: the file on disk.
}

// sealedSelf is this binary in a form that nobody can write to, whatever link to it a
// container gets hold of: a view of its own that is read-only, of the file on disk,
// or where the kernel does not make one (before 5.12), a sealed copy in memory.
func sealedSelf() (*self, error) {
	f, err := readOnlyView("/proc/self/exe")
	if err != nil {
		f, err = sealedCopy("/proc/self/exe")
	}
	if err != nil {
		return nil, fmt.Errorf("keep this program from being overwritten by containers: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, selfFDMin)
	if err != nil {
		return nil, fmt.Errorf("keep this program from being overwritten by containers: %w", err)
	}
	return &self{os.NewFile(uintptr(fd), "self")}, nil
}

// selfFDMin is above all descriptors that are handed to a new process: those take their
// places before the program is looked up by its number, and would stand in its place.
const selfFDMin = 64

func (s *self) path() string {
	if s.file == nil {
		return "/proc/self/exe"
	}
	return "/proc/self/fd/" + strconv.Itoa(int(s.file.Fd()))
}

func (s *self) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// readOnlyView is a mount of one file, at no place.
func readOnlyView(name string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	return os.NewFile(uintptr(fd), "self"), nil
}

// sealedCopy is in memory; seals keep all from changing it, its owner too.
func sealedCopy(name string) (*os.File, error) {
	from, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	const executable = 0x10 // MFD_EXEC: needed where the default is otherwise, unknown before 6.3.
	fd, err := unix.MemfdCreate("holdfast", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|executable)
	if err != nil {
		fd, err = unix.MemfdCreate("holdfast", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	to := os.NewFile(uintptr(fd), "self")
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		return nil, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		to.Close()
		return nil, fmt.Errorf("seal: %w", err)
	}
	return to, nil
}

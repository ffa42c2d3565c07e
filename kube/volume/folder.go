package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// folder is an open folder. Whatever it is asked happens within it: names are single
// names, and links are not followed.
type folder struct {
	fd   int
	path string // For messages, and for mounts.

	// before hears of each change before it is made, and can forbid it: where a test
	// lets the process die.
	before func(change string) error
}

// openFolder opens a folder of the node's own; its path may have links.
func openFolder(path string, before func(string) error) (*folder, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &folder{fd: fd, path: path, before: before}, nil
}

func (f *folder) close() { _ = unix.Close(f.fd) } // Nothing was written through it.

func (f *folder) in(name string) string { return filepath.Join(f.path, name) }

// failure says what could not be done to a name.
func (f *folder) failure(what, name string, err error) error {
	return fmt.Errorf("%s %s: %w", what, f.in(name), err)
}

// openBeneath has the kernel resolve a path that does not lead out of a folder.
func openBeneath(fd int, path string, flags, resolve uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | resolve}
	for range racesMax {
		opened, err := unix.Openat2(fd, path, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return opened, err
		}
	}
	return -1, unix.EAGAIN
}

// open opens a folder in this one. A link is none, and what is mounted there is none.
func (f *folder) open(name string) (*folder, error) {
	fd, err := openBeneath(f.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, f.failure("open", name, err)
	}
	return &folder{fd: fd, path: f.in(name), before: f.before}, nil
}

// openMounted is open for a folder on which we may have mounted.
func (f *folder) openMounted(name string) (*folder, error) {
	fd, err := openBeneath(f.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, f.failure("open", name, err)
	}
	return &folder{fd: fd, path: f.in(name), before: f.before}, nil
}

// make opens a folder in this one, and makes it if it is not there.
func (f *folder) make(name string, mode uint32) (*folder, error) {
	made, err := f.open(name)
	if !errors.Is(err, unix.ENOENT) {
		return made, err
	}
	if err := f.mkdir(name, mode); err != nil {
		return nil, err
	}
	return f.open(name)
}

func (f *folder) mkdir(name string, mode uint32) error {
	if err := f.before("mkdir " + f.in(name)); err != nil {
		return err
	}
	if err := unix.Mkdirat(f.fd, name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
		return f.failure("make", name, err)
	}
	return nil
}

// complete makes a folder with owner and mode at once: it is there when it is done.
func (f *folder) complete(name string, mode uint32, group int) error {
	if there, err := f.exists(name); there || err != nil {
		return err
	}
	building := "." + name + ".new"
	if err := f.removeTree(building); err != nil {
		return err
	}
	if err := f.mkdir(building, 0o700); err != nil {
		return err
	}
	made, err := f.open(building)
	if err != nil {
		return err
	}
	defer made.close()
	if err := own(f, made.fd, building, mode, group); err != nil {
		return err
	}
	return f.rename(building, name)
}

// own sets group and mode of an open file of a folder. A group below 0 stays.
func own(f *folder, fd int, name string, mode uint32, group int) error {
	if err := f.before("own " + f.in(name)); err != nil {
		return err
	}
	if group >= 0 {
		if err := unix.Fchown(fd, -1, group); err != nil {
			return f.failure("give to a group", name, err)
		}
	}
	// After chown, which takes the set-group bit of files away. The umask has no say.
	if err := unix.Fchmod(fd, mode); err != nil {
		return f.failure("set mode of", name, err)
	}
	return nil
}

// stat tells of a name, not of what it links to. A name that is not there: nil.
func (f *folder) stat(name string) (*unix.Stat_t, error) {
	var s unix.Stat_t
	err := unix.Fstatat(f.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, f.failure("look at", name, err)
	}
	return &s, nil
}

func (f *folder) exists(name string) (bool, error) {
	s, err := f.stat(name)
	return s != nil, err
}

func (f *folder) rename(from, to string) error {
	if err := f.before("rename " + f.in(from) + " " + to); err != nil {
		return err
	}
	if err := unix.Renameat(f.fd, from, f.fd, to); err != nil {
		return f.failure("rename", from, err)
	}
	return nil
}

// link puts a link in the place of whatever has the name, at once.
func (f *folder) link(target, name string) error {
	is, err := f.readLink(name)
	if err != nil || is == target {
		return err
	}
	making := "..link_tmp"
	if err := f.removeTree(making); err != nil {
		return err
	}
	if err := f.before("link " + f.in(making)); err != nil {
		return err
	}
	if err := unix.Symlinkat(target, f.fd, making); err != nil {
		return f.failure("link", making, err)
	}
	if s, err := f.stat(name); err == nil && s != nil && s.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := f.removeTree(name); err != nil { // Not of our making.
			return err
		}
	}
	return f.rename(making, name)
}

// readLink is where a link leads, "" if it is none.
func (f *folder) readLink(name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(f.fd, name, b)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return "", nil
	}
	if err != nil {
		return "", f.failure("read link", name, err)
	}
	return string(b[:n]), nil
}

// unlink removes a name that is no folder. One that is not there: nothing.
func (f *folder) unlink(name string) error {
	if err := f.before("unlink " + f.in(name)); err != nil {
		return err
	}
	if err := unix.Unlinkat(f.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return f.failure("remove", name, err)
	}
	return nil
}

func (f *folder) rmdir(name string) error {
	if err := f.before("rmdir " + f.in(name)); err != nil {
		return err
	}
	if err := unix.Unlinkat(f.fd, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return f.failure("remove folder", name, err)
	}
	return nil
}

// write makes a new file.
func (f *folder) write(name string, data []byte, mode uint32, group int) error {
	if err := f.before("create " + f.in(name)); err != nil {
		return err
	}
	fd, err := unix.Openat(f.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return f.failure("create", name, err)
	}
	file := os.NewFile(uintptr(fd), f.in(name))
	_, err = file.Write(data)
	if err == nil {
		err = own(f, fd, name, mode, group)
	}
	return errors.Join(err, file.Close())
}

// read is at most limit bytes of a regular file, never of anything else.
func (f *folder) read(name string, limit int64) ([]byte, error) {
	fd, err := openBeneath(f.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, f.failure("open", name, err)
	}
	file := os.NewFile(uintptr(fd), f.in(name))
	defer file.Close()
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return nil, f.failure("look at", name, err)
	}
	if s.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, f.failure("read", name, errors.New("not a file"))
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// names calls fn with the names of the folder, some at a time, from the first of those
// that are there, until it returns false.
func (f *folder) names(fn func(names []string) (bool, error)) error {
	fd, err := unix.Openat(f.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	file := os.NewFile(uintptr(fd), f.path)
	defer file.Close()
	for {
		names, err := file.Readdirnames(namesMax)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if on, err := fn(names); !on || err != nil {
			return err
		}
	}
}

// all are all names of a folder.
func (f *folder) all() ([]string, error) {
	var all []string
	err := f.names(func(names []string) (bool, error) {
		all = append(all, names...)
		return true, nil
	})
	return all, err
}

// stamped is a name that was not there before.
func stamped(now time.Time, random []byte) string {
	return fmt.Sprintf("..%s.%x", now.UTC().Format("2006_01_02_15_04_05"), random)
}

// notThere tells errors of names that are not there.
func notThere(err error) bool { return errors.Is(err, unix.ENOENT) }

//go:build linux

package stage

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// makeRoot gives this process, which is in a mount namespace of its own, the file
// system of a container, and nothing else.
func makeRoot(r *Root) error {
	// What the node unmounts shall go here too, and nothing from here to the node.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return failed("part from the node's mounts: %w", err)
	}
	dir, err := overlay(r)
	if err != nil {
		return err
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("open the root: %w", err)
	}
	defer unix.Close(root)
	if err := systemMounts(root, r); err != nil {
		return err
	}
	// A mount within another comes after it, in whatever order they are said.
	mounts := slices.Clone(r.Mounts)
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		return strings.Count(path.Clean(a.Target), "/") - strings.Count(path.Clean(b.Target), "/")
	})
	for _, m := range mounts {
		if err := bind(root, m); err != nil {
			return invalid("mount %s at %s: %w", m.Source, m.Target, err)
		}
	}
	if err := mask(root); err != nil {
		return err
	}
	return pivot(root, r.ReadOnly)
}

// overlay puts the layers over one another and a folder of this attempt on top.
func overlay(r *Root) (string, error) {
	dir, upper, work := r.Work+"/merged", r.Work+"/upper", r.Work+"/work"
	for _, d := range []string{dir, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", failed("make the container's folder: %w", err)
		}
	}
	// By descriptors: paths may hold colons and commas, and all options have one page.
	var lower []string
	for _, l := range r.Layers {
		fd, err := unix.Open(l, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", failed("layer %s: %w", l, err)
		}
		defer unix.Close(fd)
		lower = append(lower, byDescriptor(fd))
	}
	if len(lower) == 0 {
		empty := r.Work + "/empty"
		if err := os.MkdirAll(empty, 0o755); err != nil {
			return "", failed("make the container's folder: %w", err)
		}
		fd, err := unix.Open(empty, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", failed("make the container's folder: %w", err)
		}
		defer unix.Close(fd)
		lower = []string{byDescriptor(fd)}
	}
	fd, err := unix.Open(r.Work, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", failed("make the container's folder: %w", err)
	}
	defer unix.Close(fd)
	options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + byDescriptor(fd) + "/upper,workdir=" + byDescriptor(fd) + "/work"
	// No devices: a container may make nodes, and shall not open disks by them.
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_NODEV, options); err != nil {
		return "", failed("overlay %d layers in %s (a folder that is an overlay itself cannot hold it: put the kubelet's folder on a plain file system): %w", len(lower), r.Work, err)
	}
	return dir, nil
}

func byDescriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// pivot makes the root the root, and lets go of the node's.
func pivot(root int, readOnly bool) error {
	if err := unix.Fchdir(root); err != nil {
		return failed("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return failed("pivot_root: %w", err)
	}
	// The old root lies over the new one now, at the same place.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return failed("let go of the node's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return failed("enter the root: %w", err)
	}
	if readOnly {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
			return failed("make the root read-only: %w", err)
		}
	}
	return nil
}

// resolve opens a path as a process in the root would: links in an image lead nowhere else.
func resolve(root int, name string, flags uint64) (int, error) {
	name = strings.TrimLeft(path.Clean("/"+name), "/")
	if name == "" {
		name = "."
	}
	return unix.Openat2(root, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// linksMax is how many links that lead to nothing are followed, each within the last.
const linksMax = 40

// makeAt opens what has a path in the root; what is missing is made: folders, and at
// the end a folder or an empty file. Where a link of the image leads to nothing, that is
// made, in the root too.
func makeAt(root int, name string, folder bool) (int, error) {
	return makeFrom(root, name, folder, linksMax)
}

func makeFrom(root int, name string, folder bool, links int) (int, error) {
	parts := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	parent := root
	defer func() {
		if parent != root {
			unix.Close(parent)
		}
	}()
	for i := range parts {
		last := i == len(parts)-1
		so := strings.Join(parts[:i+1], "/")
		fd, err := resolve(root, so, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			if err = makeEntry(parent, parts[i], folder || !last); errors.Is(err, unix.EEXIST) && links > 0 {
				err = makeTarget(root, parent, parts[i], folder || !last, links-1)
			}
			if err == nil {
				fd, err = resolve(root, so, unix.O_PATH)
			}
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: so, Err: err}
		}
		if last {
			return fd, nil
		}
		if parent != root {
			unix.Close(parent)
		}
		parent = fd
	}
	return -1, unix.EINVAL // Never: there is a last part.
}

func makeEntry(parent int, name string, folder bool) error {
	if folder {
		return unix.Mkdirat(parent, name, 0o755)
	}
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// makeTarget makes what a link leads to.
func makeTarget(root, parent int, name string, folder bool, links int) error {
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, name, text)
	if err != nil {
		return err
	}
	target := string(text[:n])
	if !path.IsAbs(target) {
		top, err := os.Readlink(byDescriptor(root))
		if err != nil {
			return err
		}
		at, err := os.Readlink(byDescriptor(parent))
		if err != nil {
			return err
		}
		target = path.Join("/", strings.TrimPrefix(at, top), target)
	}
	fd, err := makeFrom(root, target, folder, links)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// bind mounts a file or folder of the node.
func bind(root int, m Mount) error {
	st := &unix.Stat_t{}
	if err := unix.Stat(m.Source, st); err != nil {
		return err
	}
	at, err := makeAt(root, m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := unix.Mount(m.Source, byDescriptor(at), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	attr := uint64(unix.MOUNT_ATTR_NODEV)
	switch kind := st.Mode & unix.S_IFMT; {
	case m.ReadOnly:
		attr |= unix.MOUNT_ATTR_RDONLY // It keeps no device from being written: that stays closed.
	case m.Device && (kind == unix.S_IFCHR || kind == unix.S_IFBLK):
		return nil // Nothing is below it.
	}
	return restrict(root, m.Target, attr)
}

// restrict sets attributes of what is mounted at a place, and of all below it.
func restrict(root int, name string, attr uint64) error {
	top, err := resolve(root, name, unix.O_PATH) // Anew: the mount lies over what was opened.
	if err != nil {
		return err
	}
	defer unix.Close(top)
	err = unix.MountSetattr(top, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Before 5.12, and the topmost alone.
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	for a, f := range map[uint64]uintptr{
		unix.MOUNT_ATTR_NODEV: unix.MS_NODEV, unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY,
		unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID, unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC,
	} {
		if attr&a != 0 {
			flags |= f
		}
	}
	return unix.Mount("", byDescriptor(top), "", flags, "")
}

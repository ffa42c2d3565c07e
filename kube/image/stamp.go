package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stamp gives an entry its owner, mode, attributes and time.
func (x *extractor) stamp(parent int, base string, h *tar.Header) error {
	if x.overlay {
		if h.Uid < 0 || h.Gid < 0 {
			return fmt.Errorf("%w: owner %d:%d", ErrContent, h.Uid, h.Gid)
		}
		if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
		if err := attributes(parent, base, h); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		// After the owner: a change of it takes the set-user-ID bit away. The entry is
		// no link, since it was made as what it is.
		if err := unix.Fchmodat(parent, base, x.mode(h), 0); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
	}
	return stampTime(parent, base, h.ModTime)
}

// mode leaves out, where all files are of one user, what would give their rights away,
// and lets this user in everywhere: the folder has to be read and removed again.
func (x *extractor) mode(h *tar.Header) uint32 {
	mode := uint32(h.Mode) & 0o7777
	if x.overlay {
		return mode
	}
	mode = mode&0o1777 | 0o600
	if h.Typeflag == tar.TypeDir {
		mode |= 0o700
	}
	return mode
}

// attributes sets those that belong to a file. Those of overlayfs would let an image
// look past its own layers, and others are the machine's own.
func attributes(parent int, base string, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || name != "security.capability" && !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		err := unix.Lsetxattr(at(parent, base), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

func stampTime(parent int, base string, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	err := unix.UtimesNanoAt(parent, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) { // Years that the file system does not know.
		return fmt.Errorf("time: %w", err)
	}
	return nil
}

// stampFolders sets the times of folders, the deepest first.
func (x *extractor) stampFolders() error {
	names := make([]string, 0, len(x.folders))
	for name := range x.folders {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	for _, name := range names {
		parent, err := x.open(path.Dir(name))
		if errors.Is(err, os.ErrNotExist) {
			continue // Something later in the layer replaced it.
		}
		if err != nil {
			return err
		}
		err = stampTime(parent, path.Base(name), x.folders[name])
		unix.Close(parent)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

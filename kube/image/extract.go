package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// extractor lays the tar of a layer into a folder. Whoever made the tar is a stranger:
// the kernel resolves each path as if the folder were the root of the machine
// (openat2, RESOLVE_IN_ROOT), and the last part of a path is never followed.
type extractor struct {
	root    int  // The folder.
	overlay bool // Whiteouts become those of overlayfs, owners are kept; as root. Else what they hide is removed.
	left    int64
	entries int
	names   int64 // What made and its like take, about.

	// made are the paths that came from this layer: its whiteouts are for those below.
	made map[string]bool

	// hidden are the paths that a whiteout of this layer hides: a folder of such a name
	// shows nothing of what is below.
	hidden map[string]bool

	// folders get their times at the end, when nothing is put into them any more.
	folders map[string]time.Time
}

const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // Leftovers of aufs.
)

func newExtractor(dir string, overlay bool, bytes int64) (*extractor, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &extractor{root: root, overlay: overlay, left: bytes, made: map[string]bool{}, hidden: map[string]bool{}, folders: map[string]time.Time{}}, nil
}

func (x *extractor) close() { unix.Close(x.root) }

// extract returns how many bytes the files have.
func (x *extractor) extract(r io.Reader) (int64, error) {
	begin := x.left
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, corrupt(err)
		}
		if x.entries++; x.entries > layerEntriesMax {
			return 0, fmt.Errorf("%w: more than %d files", ErrContent, layerEntriesMax)
		}
		if err := x.entry(h, in); err != nil {
			return 0, fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	return begin - x.left, x.stampFolders()
}

// corrupt keeps errors that have a meaning of their own apart from those of the format.
func corrupt(err error) error {
	if errors.Is(err, ErrContent) || errors.Is(err, fs.ErrInvalid) || errors.As(err, new(*fs.PathError)) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrContent, err)
}

func (x *extractor) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is no folder", ErrContent)
		}
		return x.stamp(x.root, ".", h)
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	parent, err := x.parent(dir)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if strings.HasPrefix(base, whiteout) {
		return x.hide(parent, dir, base)
	}
	if err := x.makeWay(parent, base, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	made, err := x.create(parent, base, h, content)
	if err != nil || !made {
		return err
	}
	if err := x.mark(name); err != nil {
		return err
	}
	return x.finish(parent, name, h)
}

// mark notes that a name and the folders above it came from this layer.
func (x *extractor) mark(name string) error {
	for at := name; at != "." && !x.made[at]; at = path.Dir(at) {
		x.made[at] = true
		x.names += int64(len(at) - len(path.Dir(at)) + nameCostBytes)
	}
	return x.checkNames()
}

func (x *extractor) checkNames() error {
	if x.names > layerNamesMax {
		return fmt.Errorf("%w: the names of the layer's files take more than %d bytes", ErrContent, layerNamesMax)
	}
	return nil
}

// finish gives an entry that was made what else it has.
func (x *extractor) finish(parent int, name string, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeLink:
		return nil // It is the other file, which has all.
	case tar.TypeDir:
		x.folders[name] = h.ModTime
		if x.overlay && x.hidden[name] {
			if err := opaque(parent, path.Base(name)); err != nil {
				return err
			}
		}
	}
	return x.stamp(parent, path.Base(name), h)
}

// cleanName refuses names that leave the folder; "/etc" and "./etc" are "etc".
func cleanName(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: no name of a file", ErrContent)
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("%w: the name leaves the image", ErrContent)
	}
	return path.Clean(strings.TrimPrefix(path.Clean("/"+name), "/")), nil // The root is ".".
}

// parent opens the folder of an entry, and makes it where the layer does not say how.
func (x *extractor) parent(dir string) (int, error) {
	if x.overlay && x.hidden[dir] && !x.made[dir] {
		return x.reveal(dir)
	}
	fd, err := x.open(dir)
	if errors.Is(err, unix.ENOTDIR) && dir != "." && len(x.hidden) > 0 { // Perhaps above.
		above, err := x.parent(path.Dir(dir))
		if err != nil {
			return -1, err
		}
		unix.Close(above)
		fd, err = x.open(dir)
		return x.orMake(dir, fd, err)
	}
	return x.orMake(dir, fd, err)
}

// reveal makes a folder of what a whiteout hides: nothing of lower layers shows in it.
func (x *extractor) reveal(dir string) (int, error) {
	above, err := x.parent(path.Dir(dir))
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	base := path.Base(dir)
	if err := errors.Join(unix.Unlinkat(above, base, 0), unix.Mkdirat(above, base, 0o755), opaque(above, base)); err != nil {
		return -1, err
	}
	if err := x.mark(dir); err != nil {
		return -1, err
	}
	return x.open(dir)
}

func (x *extractor) orMake(dir string, fd int, err error) (int, error) {
	if !errors.Is(err, unix.ENOENT) || dir == "." {
		return fd, err
	}
	above, err := x.parent(path.Dir(dir))
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	// A symbolic link to nowhere has this name: what it means is not known yet.
	if err := unix.Mkdirat(above, path.Base(dir), 0o755); err != nil {
		return -1, fmt.Errorf("%w: folder %s: %w", ErrContent, dir, err)
	}
	return x.open(dir)
}

func (x *extractor) open(dir string) (int, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(x.root, dir, how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENOSYS) {
			return -1, fmt.Errorf("openat2: %w: layers are unpacked by Linux from 5.6 on", err)
		}
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return -1, fmt.Errorf("%w: folder %s: %w", ErrContent, dir, err)
		}
		return fd, err
	}
}

// at is a path by which calls without a folder's descriptor reach an entry.
func at(parent int, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(parent) + "/" + base
}

// makeWay removes what an entry replaces: of two of one name the later counts.
func (x *extractor) makeWay(parent int, base string, folder bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	isFolder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isFolder && folder {
		return nil
	}
	return removeTree(at(parent, base))
}

// create makes an entry, and tells whether it did: some are left out.
func (x *extractor) create(parent int, base string, h *tar.Header, content io.Reader) (bool, error) {
	switch h.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(parent, base, 0o755)
		if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		return true, err
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return true, x.file(parent, base, h.Size, content)
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return false, fmt.Errorf("%w: a link to nothing", ErrContent)
		}
		// Its target may be anything: it is followed within the image.
		return true, unix.Symlinkat(h.Linkname, parent, base)
	case tar.TypeLink:
		return true, x.link(parent, base, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.node(parent, base, h)
	}
	return false, fmt.Errorf("%w: an entry of type %q", ErrContent, h.Typeflag)
}

func (x *extractor) file(parent int, base string, size int64, content io.Reader) error {
	if x.left -= size; x.left < 0 {
		return errTooLarge
	}
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	if _, err := io.CopyN(f, content, size); err != nil {
		return errors.Join(corrupt(err), f.Close())
	}
	return f.Close()
}

func (x *extractor) link(parent int, base, target string) error {
	name, err := cleanName(target)
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	dir, other := path.Split(name)
	from, err := x.open(path.Clean(dir))
	if err != nil {
		return fmt.Errorf("%w: link to %q: %w", ErrContent, target, err)
	}
	defer unix.Close(from)
	if err := unix.Linkat(from, other, parent, base, 0); err != nil { // Without following.
		return fmt.Errorf("%w: link to %q: %w", ErrContent, target, err)
	}
	return nil
}

// node makes pipes and, as root, devices; what may be done with those is up to the
// container's cgroup. Device 0:0 would hide a file from overlayfs.
func (x *extractor) node(parent int, base string, h *tar.Header) (bool, error) {
	if h.Typeflag == tar.TypeFifo {
		return true, unix.Mknodat(parent, base, unix.S_IFIFO|0o600, 0)
	}
	if !x.overlay || h.Devmajor == 0 && h.Devminor == 0 {
		return false, nil
	}
	kind := uint32(unix.S_IFCHR)
	if h.Typeflag == tar.TypeBlock {
		kind = unix.S_IFBLK
	}
	if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 0xfff || h.Devminor > 0xfffff {
		return false, fmt.Errorf("%w: device %d:%d", ErrContent, h.Devmajor, h.Devminor)
	}
	return true, unix.Mknodat(parent, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// hide does what a whiteout says.
func (x *extractor) hide(parent int, dir, base string) error {
	if base == whiteoutOpaque {
		if x.overlay {
			return opaque(parent, ".")
		}
		return x.hideBelow(parent, dir)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteout)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("%w: it hides nothing", ErrContent)
	}
	name := path.Join(dir, hidden)
	x.hidden[name] = true
	x.names += int64(len(name) + nameCostBytes)
	if err := x.checkNames(); err != nil {
		return err
	}
	if x.made[name] { // The layer itself has the name: its whiteout is for what is below.
		return x.hideUnder(parent, name, hidden)
	}
	if !x.overlay {
		return removeTree(at(parent, hidden))
	}
	if err := x.makeWay(parent, hidden, false); err != nil {
		return err
	}
	return unix.Mknodat(parent, hidden, unix.S_IFCHR, 0)
}

// opaque makes overlayfs show nothing of a folder that is in lower layers.
func opaque(parent int, base string) error {
	return unix.Lsetxattr(at(parent, base), "trusted.overlay.opaque", []byte("y"), 0)
}

// hideUnder hides what lower layers have in a folder that this one has too.
func (x *extractor) hideUnder(parent int, name, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	if x.overlay {
		return opaque(parent, base)
	}
	below, err := x.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	return x.hideBelow(below, name)
}

// hideBelow empties a folder of all that came from lower layers.
func (x *extractor) hideBelow(parent int, dir string) error {
	entries, err := os.ReadDir(at(parent, "."))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if !x.made[name] {
			if err := removeTree(at(parent, e.Name())); err != nil {
				return err
			}
			continue
		}
		if err := x.hideUnder(parent, name, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

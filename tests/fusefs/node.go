//go:build linux

package fusefs

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or folder; what changes nothing is the loopback's own.
type node struct {
	*fs.LoopbackNode
	fs *FS
}

// WrapChild makes one of ours of each node the loopback makes.
func (n *node) WrapChild(_ context.Context, made fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: made.(*fs.LoopbackNode), fs: n.fs}
}

var (
	_ fs.NodeWrapChilder    = (*node)(nil)
	_ fs.NodeCreater        = (*node)(nil)
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeMkdirer        = (*node)(nil)
	_ fs.NodeUnlinker       = (*node)(nil)
	_ fs.NodeRmdirer        = (*node)(nil)
	_ fs.NodeRenamer        = (*node)(nil)
	_ fs.NodeSetattrer      = (*node)(nil)
	_ fs.NodeOpendirHandler = (*node)(nil)
)

func splitPath(name string) []string {
	clean := strings.Trim(filepath.Clean(name), "/")
	if clean == "." || clean == "" {
		return nil
	}
	return strings.Split(clean, "/")
}

// path is where the node is in the backing folder.
func (n *node) path() string { return filepath.Join(n.fs.backing, n.Path(n.fs.root.EmbeddedInode())) }

func inodeOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Ino, err
}

func inodeAt(path string) (uint64, bool, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return st.Ino, st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// Create makes a file.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if v := n.fs.judge(Create, name); v.err != 0 {
		return nil, nil, 0, v.err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	path := filepath.Join(n.path(), name)
	_, _, missing := inodeAt(path)
	f, err := os.OpenFile(path, backingFlags(flags)|os.O_CREATE|int(flags)&os.O_EXCL, os.FileMode(mode))
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	if missing != nil {
		if err := n.fs.journal.made(n.path(), name); err != nil {
			f.Close()
			return nil, nil, 0, fs.ToErrno(err)
		}
	}
	child, errno := n.Lookup(ctx, name, out)
	return child, &handle{LoopbackFile: fs.NewLoopbackFileFromOS(f), file: f, fs: n.fs, name: name}, 0, errno
}

// Mkdir makes a folder.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if v := n.fs.judge(Create, name); v.err != 0 {
		return nil, v.err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if err := os.Mkdir(filepath.Join(n.path(), name), os.FileMode(mode)); err != nil {
		return nil, fs.ToErrno(err)
	}
	if err := n.fs.journal.made(n.path(), name); err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.Lookup(ctx, name, out)
}

// Open opens a file. Pages of another time are dropped: no FOPEN_KEEP_CACHE.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	name := n.path()
	f, err := os.OpenFile(name, backingFlags(flags), 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	h := &handle{LoopbackFile: fs.NewLoopbackFileFromOS(f), file: f, fs: n.fs, name: filepath.Base(name)}
	if flags&syscall.O_TRUNC != 0 {
		if errno := h.resize(0); errno != 0 {
			f.Close()
			return nil, 0, errno
		}
	}
	return h, 0, 0
}

// backingFlags also read what is only written: the journal has to.
func backingFlags(flags uint32) int {
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// Unlink takes the name of a file away. It lies in the stash until that is durable.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	if v := n.fs.judge(Remove, name); v.err != 0 {
		return v.err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	return fs.ToErrno(n.fs.journal.remove(n.path(), name, n.fs.stash))
}

// Rmdir takes the name of an empty folder away.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	if v := n.fs.judge(Remove, name); v.err != 0 {
		return v.err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	inside, err := os.ReadDir(filepath.Join(n.path(), name))
	if err != nil {
		return fs.ToErrno(err)
	}
	if len(inside) > 0 {
		return syscall.ENOTEMPTY
	}
	return fs.ToErrno(n.fs.journal.remove(n.path(), name, n.fs.stash))
}

// Rename gives a file or folder another name.
func (n *node) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	if v := n.fs.judge(Rename, name, newName); v.err != 0 {
		return v.err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	return fs.ToErrno(n.fs.journal.rename(n.path(), name, to.path(), newName, n.fs.stash))
}

// Setattr changes a size; other attributes are the loopback's.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		h, ok := f.(*handle)
		if !ok {
			opened, err := os.OpenFile(n.path(), os.O_RDWR, 0)
			if err != nil {
				return fs.ToErrno(err)
			}
			defer opened.Close()
			h = &handle{file: opened, fs: n.fs, name: filepath.Base(n.path())}
		}
		if errno := h.resize(int64(size)); errno != 0 {
			return errno
		}
		in.Valid &^= fuse.FATTR_SIZE
	}
	if h, ok := f.(*handle); ok {
		return h.LoopbackFile.Setattr(ctx, in, out)
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

// Symlink, Link and Mknod are not journaled, so they are not there.
func (n *node) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Link is refused.
func (n *node) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Mknod is refused.
func (n *node) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// CopyFileRange is left to reads and writes.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOTSUP
}

// OpendirHandle opens a folder.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &dirHandle{listing: h.(listing), node: n}, fuseFlags, 0
}

type listing interface {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
}

type dirHandle struct {
	listing
	node *node
}

// Fsyncdir makes the names in the folder durable.
func (d *dirHandle) Fsyncdir(context.Context, uint32) syscall.Errno {
	n := d.node
	n.fs.mu.Lock()
	upTo := n.fs.journal.serial
	n.fs.mu.Unlock()
	v := n.fs.judge(Sync, n.path())
	if v.off {
		return v.err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	ino, _, err := inodeAt(n.path())
	if err != nil {
		return fs.ToErrno(err)
	}
	n.fs.journal.syncNames(ino, upTo, v.err == 0, n.fs.stash)
	return v.err
}

// handle is an open file. It hides the loopback's shortcut past us.
type handle struct {
	*fs.LoopbackFile
	file *os.File
	fs   *FS
	name string
}

// PassthroughFd says no: the kernel has to come to us.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

func (h *handle) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if v := h.fs.judge(Read, h.name); v.err != 0 {
		return nil, v.err
	}
	n, err := h.file.ReadAt(buf, off)
	if err != nil && err != io.EOF {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(buf[:n]), 0
}

func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	v := h.fs.judge(Write, h.name)
	if v.err != 0 {
		return 0, v.err
	}
	if v.short && len(data) > 1 {
		data = data[:len(data)/2]
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.journal.writing(h.file, off, int64(len(data))); err != nil {
		return 0, fs.ToErrno(err)
	}
	n, err := h.file.WriteAt(data, off)
	return uint32(n), fs.ToErrno(err)
}

// Fsync makes contents and size durable. What is written while it runs is not
// covered.
func (h *handle) Fsync(context.Context, uint32) syscall.Errno {
	h.fs.mu.Lock()
	upTo := h.fs.journal.serial
	h.fs.mu.Unlock()
	v := h.fs.judge(Sync, h.name)
	if v.off {
		return v.err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	ino, err := inodeOf(h.file)
	if err != nil {
		return fs.ToErrno(err)
	}
	h.fs.journal.syncData(ino, upTo, v.err == 0)
	return v.err
}

func (h *handle) Allocate(_ context.Context, off, length uint64, mode uint32) syscall.Errno {
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	st, err := h.file.Stat()
	if err != nil {
		return fs.ToErrno(err)
	}
	return h.resize(max(st.Size(), int64(off+length)))
}

func (h *handle) resize(size int64) syscall.Errno {
	if v := h.fs.judge(Size, h.name); v.err != 0 {
		return v.err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.journal.resizing(h.file, size); err != nil {
		return fs.ToErrno(err)
	}
	return fs.ToErrno(h.file.Truncate(size))
}

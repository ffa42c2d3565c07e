package vfstest

import (
	"errors"
	"io"
	iofs "io/fs"
	"syscall"
)

// file is an open file of Mem. It stays good when its name goes.
type file struct {
	fs       *Mem
	node     *node
	name     string
	writable bool
	closed   bool // Guarded by fs.mu.
}

func (f *file) Name() string { return f.name }

// usableLocked reports why the handle may not be used.
func (f *file) usableLocked(op string, write bool) error {
	if f.closed {
		return pathError(op, f.name, iofs.ErrClosed)
	}
	if write && !f.writable {
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.node.data.size, f.usableLocked("stat", false)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.begin(Op{Kind: OpRead, Name: f.name, Offset: off, Length: int64(len(p))}); err != nil {
		return 0, pathError("read", f.name, err)
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usableLocked("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, syscall.EINVAL)
	}
	n := f.node.data.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	failed := f.fs.begin(Op{Kind: OpWrite, Name: f.name, Offset: off, Length: int64(len(p))})
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usableLocked("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", f.name, syscall.EINVAL)
	}
	var short *Short
	switch {
	case errors.As(failed, &short):
		p = p[:min(short.Bytes, len(p))]
	case failed != nil:
		return 0, pathError("write", f.name, failed)
	}
	f.node.data.writeAt(p, off)
	f.changedLocked(dataChange{offset: off, data: append([]byte(nil), p...)})
	return len(p), pathError("write", f.name, failed)
}

func (f *file) Allocate(size int64) error {
	return f.resize(OpAllocate, size, func(now int64) bool { return size > now })
}

func (f *file) Truncate(size int64) error {
	return f.resize(OpTruncate, size, func(int64) bool { return true })
}

func (f *file) resize(kind Kind, size int64, wanted func(now int64) bool) error {
	if err := f.fs.begin(Op{Kind: kind, Name: f.name, Length: size}); err != nil {
		return pathError(string(kind), f.name, err)
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usableLocked(string(kind), true); err != nil {
		return err
	}
	if size < 0 {
		return pathError(string(kind), f.name, syscall.EINVAL)
	}
	if wanted(f.node.data.size) {
		f.node.data.resize(size)
		f.changedLocked(dataChange{offset: size, resize: true})
	}
	return nil
}

func (f *file) changedLocked(c dataChange) {
	c.serial = f.fs.nextLocked()
	f.node.pending = append(f.node.pending, c)
}

func (f *file) SyncData() error {
	failed := f.fs.begin(Op{Kind: OpSync, Name: f.name})
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usableLocked("sync", false); err != nil {
		return err
	}
	if kept := (*Kept)(nil); errors.As(failed, &kept) {
		return pathError("sync", f.name, failed)
	}
	if failed == nil {
		for _, c := range f.node.pending {
			c.apply(&f.node.synced)
		}
	}
	f.node.pending = nil
	return pathError("sync", f.name, failed)
}

func (c dataChange) apply(to *content) {
	if c.resize {
		to.resize(c.offset)
	} else {
		to.writeAt(c.data, c.offset)
	}
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.usableLocked("close", false)
	f.closed = true
	return err
}

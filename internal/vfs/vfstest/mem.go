// Package vfstest is a file system in memory that can lose power.
//
// Mem keeps two images of everything: what callers see, and what would be
// found after a power loss. SyncData moves the contents of one file from the
// first to the second, SyncDir the names in one folder. Crash makes a new file
// system from the durable image and a chosen part of what was pending.
//
// It is stricter than the file systems we run on: a synced file in a folder
// whose name was never synced is lost, and so is everything below it.
//
// Conformance is the suite that Mem and vfs.OS both pass.
package vfstest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

const freeDefaultBytes = 1 << 40 // A disk that no test fills by accident.

// Mem is a file system in memory. Its zero value is not ready; see NewMem.
type Mem struct {
	mu struct { // Guards the tree and the files in it.
		sync.Mutex
		root    *node
		locked  map[*node]bool
		serial  uint64 // Orders pending changes over all files and folders.
		pending []nameChange
		free    int64
	}
	ops struct {
		sync.Mutex
		count     int
		inject    func(Op) error
		recording bool
		lines     []string
	}
}

var _ vfs.FS = (*Mem)(nil)

// node is a file or a folder, whatever its names are.
type node struct {
	dir bool

	names   map[string]*node // Of a folder, as seen.
	durable map[string]*node // Of a folder, after power loss.

	data    content // Of a file, as seen.
	synced  content // Of a file, after power loss.
	pending []dataChange
}

// dataChange is a write or a resize that no sync has covered.
type dataChange struct {
	serial uint64
	resize bool
	offset int64 // The new size for a resize.
	data   []byte
}

// nameChange is a name given or taken that no sync has covered. The two
// halves of a rename have the same serial.
type nameChange struct {
	serial uint64
	dir    *node
	name   string
	node   *node // Nil when the name went.
}

// NewMem returns an empty file system.
func NewMem() *Mem { return newMem(newDir()) }

func newMem(root *node) *Mem {
	m := &Mem{}
	m.mu.root = root
	m.mu.locked = make(map[*node]bool)
	m.mu.free = freeDefaultBytes
	return m
}

func newDir() *node {
	return &node{dir: true, names: make(map[string]*node), durable: make(map[string]*node)}
}

// SetFree sets what Free tells. Writes do not count against it: let Inject
// return syscall.ENOSPC for those that shall fail.
func (m *Mem) SetFree(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.free = bytes
}

// Flip turns over one bit of a file, on disk and in all that is pending.
func (m *Mem) Flip(name string, offset int64, bit uint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.fileLocked("flip", name)
	if err != nil {
		return err
	}
	if offset < 0 || offset >= n.data.size {
		return fmt.Errorf("flip %s: offset %d of %d bytes", name, offset, n.data.size)
	}
	n.data.flip(offset, bit)
	n.synced.flip(offset, bit)
	for _, c := range n.pending {
		if at := offset - c.offset; !c.resize && at >= 0 && at < int64(len(c.data)) {
			c.data[at] ^= 1 << (bit % 8)
		}
	}
	return nil
}

// Sum is a hash of all names and contents that callers see. Of what Crash
// returned that is all there is: two with equal sums are the same disk.
func (m *Mem) Sum() [sha256.Size]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := sha256.New()
	var walk func(n *node)
	walk = func(n *node) {
		if !n.dir {
			n.data.hash(h)
			return
		}
		for _, name := range sortedNames(n.names) {
			child := n.names[name]
			fmt.Fprintf(h, "%q %t\n", name, child.dir)
			walk(child)
		}
		io.WriteString(h, ".\n")
	}
	walk(m.mu.root)
	return [sha256.Size]byte(h.Sum(nil))
}

// Create implements vfs.FS.
func (m *Mem) Create(name string) (vfs.File, error) {
	if err := m.begin(Op{Kind: OpCreate, Name: name}); err != nil {
		return nil, pathError("create", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.createLocked(name)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return &file{fs: m, node: n, name: name, writable: true}, nil
}

func (m *Mem) createLocked(name string) (*node, error) {
	dir, base, err := m.parentLocked(name)
	if err != nil {
		return nil, err
	}
	if dir.names[base] != nil {
		return nil, iofs.ErrExist
	}
	n := &node{}
	m.nameLocked(m.nextLocked(), dir, base, n)
	return n, nil
}

// Open implements vfs.FS.
func (m *Mem) Open(name string) (vfs.File, error) { return m.open(OpOpen, name, false) }

// OpenWrite implements vfs.FS.
func (m *Mem) OpenWrite(name string) (vfs.File, error) { return m.open(OpOpenWrite, name, true) }

func (m *Mem) open(kind Kind, name string, writable bool) (vfs.File, error) {
	if err := m.begin(Op{Kind: kind, Name: name}); err != nil {
		return nil, pathError("open", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.fileLocked("open", name)
	if err != nil {
		return nil, err
	}
	return &file{fs: m, node: n, name: name, writable: writable}, nil
}

// MkdirAll implements vfs.FS.
func (m *Mem) MkdirAll(name string) error {
	if err := m.begin(Op{Kind: OpMkdir, Name: name}); err != nil {
		return pathError("mkdir", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.mu.root
	for _, part := range split(name) {
		next := at.names[part]
		if next == nil {
			next = newDir()
			m.nameLocked(m.nextLocked(), at, part, next)
		}
		if !next.dir {
			return pathError("mkdir", name, syscall.ENOTDIR)
		}
		at = next
	}
	return nil
}

// Rename implements vfs.FS.
func (m *Mem) Rename(oldName, newName string) error {
	if err := m.begin(Op{Kind: OpRename, Name: oldName, To: newName}); err != nil {
		return pathError("rename", oldName, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return pathError("rename", oldName, m.renameLocked(oldName, newName))
}

func (m *Mem) renameLocked(oldName, newName string) error {
	from, oldBase, err := m.parentLocked(oldName)
	if err != nil {
		return err
	}
	to, newBase, err := m.parentLocked(newName)
	if err != nil {
		return err
	}
	n, over := from.names[oldBase], to.names[newBase]
	switch {
	case n == nil:
		return iofs.ErrNotExist
	case n == over:
		return nil
	case n.dir && contains(n, to):
		return syscall.EINVAL
	case over != nil && over.dir && !n.dir:
		return iofs.ErrExist
	case over != nil && !over.dir && n.dir:
		return syscall.ENOTDIR
	case over != nil && over.dir && len(over.names) > 0:
		return syscall.ENOTEMPTY
	}
	serial := m.nextLocked()
	m.nameLocked(serial, to, newBase, n)
	m.nameLocked(serial, from, oldBase, nil)
	return nil
}

// Link implements vfs.FS.
func (m *Mem) Link(oldName, newName string) error {
	if err := m.begin(Op{Kind: OpLink, Name: oldName, To: newName}); err != nil {
		return pathError("link", oldName, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return pathError("link", oldName, m.linkLocked(oldName, newName))
}

func (m *Mem) linkLocked(oldName, newName string) error {
	n, err := m.findLocked(oldName)
	if err != nil {
		return err
	}
	to, base, err := m.parentLocked(newName)
	switch {
	case err != nil:
		return err
	case to.names[base] != nil:
		return iofs.ErrExist
	case n.dir:
		return syscall.EPERM
	}
	m.nameLocked(m.nextLocked(), to, base, n)
	return nil
}

func contains(tree, n *node) bool {
	if tree == n {
		return true
	}
	for _, child := range tree.names {
		if child.dir && contains(child, n) {
			return true
		}
	}
	return false
}

// Remove implements vfs.FS.
func (m *Mem) Remove(name string) error {
	if err := m.begin(Op{Kind: OpRemove, Name: name}); err != nil {
		return pathError("remove", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked(name)
	if err != nil {
		return pathError("remove", name, err)
	}
	n := dir.names[base]
	if n == nil {
		return pathError("remove", name, iofs.ErrNotExist)
	}
	if n.dir && len(n.names) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	m.nameLocked(m.nextLocked(), dir, base, nil)
	return nil
}

// RemoveAll implements vfs.FS. After a crash any part of the tree may be back.
func (m *Mem) RemoveAll(name string) error {
	if err := m.begin(Op{Kind: OpRemoveAll, Name: name}); err != nil {
		return pathError("removeall", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked(name)
	if err != nil || dir.names[base] == nil {
		return nil // What is not there needs no removing.
	}
	m.clearLocked(dir.names[base])
	m.nameLocked(m.nextLocked(), dir, base, nil)
	return nil
}

func (m *Mem) clearLocked(n *node) {
	for _, name := range sortedNames(n.names) {
		m.clearLocked(n.names[name])
		m.nameLocked(m.nextLocked(), n, name, nil)
	}
}

// List implements vfs.FS.
func (m *Mem) List(dir string) ([]string, error) {
	if err := m.begin(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, pathError("list", dir, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.dirLocked("list", dir)
	if err != nil {
		return nil, err
	}
	return sortedNames(n.names), nil
}

// Stat implements vfs.FS.
func (m *Mem) Stat(name string) (vfs.Info, error) {
	if err := m.begin(Op{Kind: OpStat, Name: name}); err != nil {
		return vfs.Info{}, pathError("stat", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked(name)
	if err != nil {
		return vfs.Info{}, pathError("stat", name, err)
	}
	info := vfs.Info{Size: n.data.size, IsDir: n.dir, Mode: 0o600}
	if n.dir {
		info.Mode = 0o700
	}
	return info, nil
}

// SyncDir implements vfs.FS.
func (m *Mem) SyncDir(dir string) error {
	failed := m.begin(Op{Kind: OpSyncDir, Name: dir})
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.dirLocked("sync", dir)
	if err != nil {
		return err
	}
	if kept := (*Kept)(nil); errors.As(failed, &kept) {
		return pathError("sync", dir, failed)
	}
	rest := m.mu.pending[:0:0]
	for _, c := range m.mu.pending {
		if c.dir != n {
			rest = append(rest, c)
		} else if failed == nil {
			c.apply()
		}
	}
	m.mu.pending = rest
	return pathError("sync", dir, failed)
}

func (c nameChange) apply() {
	if c.node == nil {
		delete(c.dir.durable, c.name)
	} else {
		c.dir.durable[c.name] = c.node
	}
}

// Lock implements vfs.FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	if err := m.begin(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, pathError("lock", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked(name)
	if err != nil {
		if n, err = m.createLocked(name); err != nil {
			return nil, pathError("lock", name, err)
		}
	}
	if m.mu.locked[n] {
		return nil, fmt.Errorf("lock %s: %w", name, vfs.ErrLocked)
	}
	m.mu.locked[n] = true
	return &lock{fs: m, node: n}, nil
}

type lock struct {
	fs   *Mem
	node *node
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.mu.locked, l.node)
	return nil
}

// Free implements vfs.FS.
func (m *Mem) Free(dir string) (int64, error) {
	if err := m.begin(Op{Kind: OpFree, Name: dir}); err != nil {
		return 0, pathError("statfs", dir, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.dirLocked("statfs", dir); err != nil {
		return 0, err
	}
	return m.mu.free, nil
}

// nameLocked gives or takes a name, as seen; SyncDir makes it durable.
func (m *Mem) nameLocked(serial uint64, dir *node, name string, n *node) {
	if n == nil {
		delete(dir.names, name)
	} else {
		dir.names[name] = n
	}
	m.mu.pending = append(m.mu.pending, nameChange{serial: serial, dir: dir, name: name, node: n})
}

func (m *Mem) nextLocked() uint64 {
	m.mu.serial++
	return m.mu.serial
}

func (m *Mem) findLocked(name string) (*node, error) {
	at := m.mu.root
	for _, part := range split(name) {
		if !at.dir {
			return nil, syscall.ENOTDIR
		}
		if at = at.names[part]; at == nil {
			return nil, iofs.ErrNotExist
		}
	}
	return at, nil
}

func (m *Mem) fileLocked(op, name string) (*node, error) {
	n, err := m.findLocked(name)
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	return n, pathError(op, name, err)
}

func (m *Mem) dirLocked(op, name string) (*node, error) {
	n, err := m.findLocked(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	return n, pathError(op, name, err)
}

func (m *Mem) parentLocked(name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", syscall.EINVAL
	}
	last := len(parts) - 1
	dir, err := m.findLocked(strings.Join(parts[:last], "/"))
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	return dir, parts[last], err
}

// split makes no difference between absolute and relative names.
func split(name string) []string {
	clean := strings.Trim(filepath.ToSlash(filepath.Clean(name)), "/")
	if clean == "." || clean == "" {
		return nil
	}
	return strings.Split(clean, "/")
}

func sortedNames(names map[string]*node) []string {
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &iofs.PathError{Op: op, Path: name, Err: err}
}

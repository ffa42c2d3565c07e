package crash

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// disk holds a member's files. All but base are in memory. Base lies in real
// files below root, at the path it has in memory; there a small file with the
// same name says which one it is, so that its name is lost, renamed and found
// again like any other.
type disk struct {
	mem      *vfstest.Mem
	root     string
	known    map[string]string // Real files by path: which each is.
	unplaced map[string][]byte // Contents, by what each is, that no real file has yet: many images are refused before base is opened.
	files    int
	quiet    int // Calls in memory that stand for nothing on a disk.
}

const contentsDir = "contents" // Holds each real file under what it is, whatever its names are.

func newDisk(root string) (*disk, error) {
	d := &disk{mem: vfstest.NewMem(), root: root, known: map[string]string{}, unplaced: map[string][]byte{}}
	return d, os.Mkdir(filepath.Join(root, contentsDir), 0o700)
}

// inject has f called before each call; f may fail it.
func (d *disk) inject(f func(vfstest.Op) error) {
	d.mem.Inject(func(op vfstest.Op) error {
		if d.quiet > 0 || f == nil {
			return nil
		}
		return f(op)
	})
}

func (d *disk) silently(f func() error) error {
	d.quiet++
	defer func() { d.quiet-- }()
	return f()
}

// bases are the real files that have a name, by what each is.
func (d *disk) bases() (map[string][]byte, error) {
	all := map[string][]byte{}
	err := d.silently(func() error {
		return d.eachBase(d.mem, "/", func(_, id string) (err error) {
			all[id], err = d.content(id)
			return err
		})
	})
	return all, err
}

func (d *disk) content(id string) ([]byte, error) {
	if b, ok := d.unplaced[id]; ok {
		return b, nil
	}
	return os.ReadFile(filepath.Join(d.root, contentsDir, id))
}

// sum is the same for disks with the same names and contents.
func (d *disk) sum() (sum [sha256.Size]byte, err error) {
	all, err := d.bases()
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	names := d.mem.Sum()
	h.Write(names[:])
	for _, id := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(h, "%s %d\n", id, len(all[id]))
		h.Write(all[id])
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// eachBase goes through the names of real files. What was set aside is never
// opened again.
func (d *disk) eachBase(mem *vfstest.Mem, dir string, fn func(path, id string) error) error {
	names, err := mem.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if strings.HasPrefix(name, "base.db") {
			id, err := vfs.ReadFile(mem, path)
			if err == nil {
				err = fn(path, string(id))
			}
			if err != nil {
				return err
			}
			continue
		}
		if info, err := mem.Stat(path); err != nil {
			return err
		} else if info.IsDir && !strings.HasPrefix(name, "old-") && name != "wal" && name != "history" {
			if err := d.eachBase(mem, path, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// crash is the disk as found after a power cut. Real files have the contents
// in bases, by what each is; else those of now.
func (d *disk) crash(root string, c vfstest.Crash, bases map[string][]byte) (*disk, error) {
	n := &disk{mem: d.mem.Crash(c), root: root, known: map[string]string{}, unplaced: map[string][]byte{}, files: d.files}
	if err := os.MkdirAll(filepath.Join(root, contentsDir), 0o700); err != nil {
		return nil, err
	}
	return n, n.eachBase(n.mem, "/", func(_, id string) (err error) {
		content, ok := bases[id]
		if !ok {
			content, err = d.content(id)
		}
		n.unplaced[id] = content
		return err
	})
}

// place gives real files the places that their names have in memory now: after
// a crash, or when a folder was renamed, which took its base along there and
// not here.
func (d *disk) place() error {
	return d.silently(func() error {
		return d.eachBase(d.mem, "/", func(path, id string) error {
			home, real := filepath.Join(d.root, contentsDir, id), filepath.Join(d.root, path)
			if content, ok := d.unplaced[id]; ok {
				if err := os.WriteFile(home, content, 0o600); err != nil {
					return err
				}
				delete(d.unplaced, id)
			}
			if d.known[real] == id {
				return nil
			}
			if err := os.MkdirAll(filepath.Dir(real), 0o700); err != nil {
				return err
			}
			if err := os.Remove(real); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			d.known[real] = id
			return os.Link(home, real)
		})
	})
}

// baseFS is where package backend does what it does beside bbolt's own calls.
type baseFS struct {
	vfs.FS // Of the machine.
	d      *disk
}

func (d *disk) baseFS() vfs.FS { return baseFS{FS: vfs.OS(), d: d} }

// baseDir is the real folder for a generation.
func (d *disk) baseDir(dir string) string {
	real := filepath.Join(d.root, dir)
	if err := os.MkdirAll(real, 0o700); err != nil {
		panic(err) // The test's own folder.
	}
	return real
}

func (b baseFS) virtual(real string) string { return strings.TrimPrefix(real, b.d.root) }

// notice gives a real file that bbolt has made its place in memory.
func (b baseFS) notice(real string) error {
	d := b.d
	if _, err := os.Lstat(real); err != nil || d.known[real] != "" {
		return nil
	}
	d.files++
	id := fmt.Sprintf("base-%d", d.files)
	d.known[real] = id
	if err := os.Link(real, filepath.Join(d.root, contentsDir, id)); err != nil {
		return err
	}
	return d.silently(func() error {
		f, err := d.mem.Create(b.virtual(real))
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte(id), 0)
		return errors.Join(err, f.SyncData(), f.Close())
	})
}

// forget removes a real file whose place in memory is gone.
func (b baseFS) forget(real string) error {
	if b.d.known[real] == "" {
		return nil
	}
	there := false
	err := b.d.silently(func() (err error) {
		there, err = vfs.Exists(b.d.mem, b.virtual(real))
		return err
	})
	if err != nil || there {
		return err
	}
	delete(b.d.known, real)
	return os.Remove(real)
}

func (b baseFS) Stat(name string) (vfs.Info, error) {
	if err := errors.Join(b.forget(name), b.notice(name)); err != nil {
		return vfs.Info{}, err
	}
	if _, err := b.d.mem.Stat(b.virtual(name)); err != nil {
		return vfs.Info{}, err
	}
	return b.FS.Stat(name)
}

func (b baseFS) SyncDir(dir string) error {
	names, err := b.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := b.notice(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return b.d.mem.SyncDir(b.virtual(dir))
}

func (b baseFS) Rename(oldName, newName string) error {
	if err := b.notice(oldName); err != nil {
		return err
	}
	if err := b.d.mem.Rename(b.virtual(oldName), b.virtual(newName)); err != nil {
		return err
	}
	b.d.known[newName] = b.d.known[oldName]
	delete(b.d.known, oldName)
	return b.FS.Rename(oldName, newName)
}

func (b baseFS) Remove(name string) error {
	if err := errors.Join(b.forget(name), b.notice(name)); err != nil {
		return err
	}
	if err := b.d.mem.Remove(b.virtual(name)); err != nil {
		return err
	}
	delete(b.d.known, name)
	if err := b.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

package blobstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Names that no object can have, because of the ~.
const (
	lockName    = "~lock"
	scratchName = "~tmp"
)

// placeTries bounds how often a folder is made anew that a deletion took away in
// between. Each time somebody else got on.
const placeTries = 20

var errFolder = errors.New("other objects have this name as their folder")

// dir keeps objects as files of their names.
//
//	folder/a/b     the object a/b
//	folder/~lock   held by who replaces or deletes
//	folder/~tmp/N  files on their way, of one open store, with a lock of its own
//
// A write goes to a file in ~tmp, which is synced. Then the file gets the name:
// by a link where none may have it, which the file system grants to one alone,
// else by a rename under the lock. Last the folder is synced. So a crash leaves
// the old object or the new, and a file in ~tmp, which is removed by the next
// process that writes and finds its lock free.
type dir struct {
	root  string
	url   string
	fs    vfs.FS
	clock clock.Clock
	turn  chan struct{} // Full while a goroutine of ours has or wants the lock file.

	scratch struct { // Where files on their way lie; made by the first write.
		sync.Mutex
		path   string
		lock   io.Closer
		next   int
		closed bool
	}
}

func openDir(u *url.URL, cfg Config) (Store, error) {
	shown := withoutSecrets(u.String())
	switch {
	case u.Host != "" && u.Host != "localhost":
		return nil, fmt.Errorf("store URL %s: %q stands where a host would: a folder has three slashes, file:///folder", shown, u.Host)
	case u.RawQuery != "":
		return nil, fmt.Errorf("store URL %s: a folder has no settings: leave out what follows the ?", shown)
	case !filepath.IsAbs(u.Path):
		return nil, fmt.Errorf("store URL %s: the folder's path must begin at the root, as in file:///folder", shown)
	}
	d := &dir{root: filepath.Clean(u.Path), fs: cfg.FS, clock: cfg.Clock, turn: make(chan struct{}, 1)}
	d.url = (&url.URL{Scheme: "file", Path: filepath.ToSlash(d.root)}).String()
	if cfg.Create {
		if err := vfs.MakeFolder(d.fs, d.root); err != nil {
			return nil, d.failed("make the folder of", "", err)
		}
	}
	info, err := d.fs.Stat(d.root)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, fmt.Errorf("store %s: the folder is not there: make it or mount it, or correct the URL: %w", d.url, err)
	}
	if err != nil {
		return nil, d.failed("open", "", err)
	}
	if !info.IsDir {
		return nil, fmt.Errorf("store %s: this is a file: name a folder", d.url)
	}
	return d, nil
}

func (d *dir) String() string { return d.url }

func (d *dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// Put implements Store.
func (d *dir) Put(ctx context.Context, name string, data []byte, c Condition) (Tag, error) {
	if err := CheckPut(name, data, c); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", d.failed("write", name, err)
	}
	staged, err := d.stage(ctx, data)
	if err != nil {
		return "", d.failed("write", name, err)
	}
	if c.Absent {
		err = d.link(ctx, staged, d.path(name))
	} else {
		err = d.replace(ctx, staged, d.path(name), c.Match)
	}
	d.fs.Remove(staged) // Gone after a rename; what stays goes with the next process.
	if err != nil {
		return "", d.failed("write", name, err)
	}
	return tagOf(data), nil
}

func tagOf(data []byte) Tag {
	sum := sha256.Sum256(data)
	return Tag(hex.EncodeToString(sum[:]))
}

// link names a file where no object may be. No lock: the file system decides.
func (d *dir) link(ctx context.Context, staged, path string) error {
	err := d.place(ctx, path, func() error { return d.fs.Link(staged, path) })
	if errors.Is(err, iofs.ErrExist) {
		return d.taken(path)
	}
	if errors.Is(err, iofs.ErrPermission) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return fmt.Errorf("%w: the file system may lack hard links, which decide who was first: use one that has them", err)
	}
	return err
}

// taken is the error of a write that was not the first. The caller may find
// that the object is what an earlier try of its own left before the sync.
func (d *dir) taken(path string) error {
	if info, err := d.fs.Stat(path); err == nil && info.IsDir {
		return errFolder
	}
	if err := d.fs.SyncDir(filepath.Dir(path)); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return ErrCondition
}

// replace names a file whatever stands there, or only instead of what has a tag.
func (d *dir) replace(ctx context.Context, staged, path string, match Tag) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if match != "" {
		data, err := d.read(path, 0, MaxObject)
		if errors.Is(err, ErrNotFound) {
			return ErrCondition
		}
		if err != nil {
			return err
		}
		if tagOf(data) != match {
			return d.taken(path)
		}
	}
	err = d.place(ctx, path, func() error { return d.fs.Rename(staged, path) })
	if errors.Is(err, iofs.ErrExist) || errors.Is(err, syscall.EISDIR) {
		return errFolder
	}
	return err
}

// place makes the folder of a name, has the name given, and makes both durable.
func (d *dir) place(ctx context.Context, path string, give func() error) error {
	folder := filepath.Dir(path)
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.present(); err != nil {
			return err
		}
		err := vfs.MakeFolder(d.fs, folder)
		if err == nil {
			err = give()
		}
		if err == nil {
			err = d.fs.SyncDir(folder)
		}
		// A deletion takes empty folders along, maybe the one just made.
		if !errors.Is(err, iofs.ErrNotExist) || try == placeTries {
			return err
		}
	}
}

// present tells a store without an object from one that is not there: a file
// system that is not mounted shall not pass for an empty archive.
func (d *dir) present() error {
	_, err := d.fs.Stat(d.root)
	if errors.Is(err, iofs.ErrNotExist) {
		return errors.New("the folder of the store is gone: mount it or make it again")
	}
	return err
}

// Get implements Store.
func (d *dir) Get(ctx context.Context, name string) ([]byte, Tag, error) {
	if err := errors.Join(CheckName(name), ctx.Err()); err != nil {
		return nil, "", d.failed("read", name, err)
	}
	data, err := d.read(d.path(name), 0, MaxObject)
	if err != nil {
		return nil, "", d.failed("read", name, err)
	}
	return data, tagOf(data), nil
}

// GetRange implements Store.
func (d *dir) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := errors.Join(CheckRange(name, offset, length), ctx.Err()); err != nil {
		return nil, d.failed("read", name, err)
	}
	data, err := d.read(d.path(name), offset, length)
	if err != nil {
		return nil, d.failed("read", name, err)
	}
	return data, nil
}

// read returns a part of a file. The open file stays what it was, whatever
// gets its name meanwhile.
func (d *dir) read(path string, offset, length int64) ([]byte, error) {
	info, err := d.fs.Stat(path)
	if err == nil && info.IsDir {
		return nil, ErrNotFound
	}
	f, err := d.fs.Open(path)
	if missing(err) {
		if err := d.present(); err != nil {
			return nil, err
		}
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > MaxObject {
		return nil, fmt.Errorf("the file has %d bytes, an object at most %d: nobody wrote it as one, move it elsewhere", size, MaxObject)
	}
	data := make([]byte, max(0, min(length, size-offset)))
	if len(data) == 0 {
		return data, nil
	}
	n, err := f.ReadAt(data, offset)
	if n < len(data) {
		return nil, errors.Join(err, fmt.Errorf("read %d of %d bytes at %d", n, len(data), offset))
	}
	return data, nil
}

// missing reports whether an error says that no file has the name; a folder is none.
func missing(err error) bool {
	return errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR)
}

func ignoreMissing(err error) error {
	if missing(err) {
		return nil
	}
	return err
}

// Delete implements Store. Folders that become empty go too.
func (d *dir) Delete(ctx context.Context, name string) error {
	if err := errors.Join(CheckName(name), ctx.Err()); err != nil {
		return d.failed("delete", name, err)
	}
	if err := d.delete(ctx, d.path(name)); err != nil {
		return d.failed("delete", name, err)
	}
	return nil
}

func (d *dir) delete(ctx context.Context, path string) error {
	if err := d.present(); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := d.fs.Stat(path)
	if missing(err) || err == nil && info.IsDir {
		return nil
	}
	if err == nil {
		err = d.fs.Remove(path)
	}
	if err == nil {
		err = d.fs.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	for folder := filepath.Dir(path); folder != d.root; folder = filepath.Dir(folder) {
		if d.fs.Remove(folder) != nil { // It has other objects, or a writer was quicker.
			break
		}
	}
	return nil
}

// failed says what was done to which object where, and what helps.
func (d *dir) failed(verb, name string, err error) error {
	what := d.url
	if name != "" {
		what = name + " in " + d.url
	}
	mend := ""
	switch {
	case errors.Is(err, ErrCondition), errors.Is(err, ErrNotFound):
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		mend = ": the disk or quota is full: make room there, or prune the archive"
	case errors.Is(err, syscall.ENOTDIR):
		mend = ": a part of the name is an object itself, and so no folder"
	case errors.Is(err, syscall.EROFS):
		mend = ": the file system is mounted read-only: mount it for writing"
	case errors.Is(err, iofs.ErrPermission):
		mend = ": give the user of this process the right to read and write there"
	}
	return fmt.Errorf("%s %s: %w%s", verb, what, err, mend)
}

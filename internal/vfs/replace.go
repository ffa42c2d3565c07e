package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/holdfast-db/holdfast/internal/fail"
)

// ReadFile returns the whole content of a file.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// ReplaceFile makes name hold data, durably, so that a crash leaves the old
// content or the new, never a part.
func ReplaceFile(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNew(fsys, tmp, data); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	fail.Here("vfs/replace/renamed")
	return fsys.SyncDir(path.Dir(name))
}

func writeNew(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.SyncData(); err != nil {
		f.Close()
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return f.Close()
}

// Exists tells whether something has this name.
func Exists(fsys FS, name string) (bool, error) {
	_, err := fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// MakeFolder makes a folder and its parents durably: MkdirAll alone leaves
// names that a crash may take away, with everything below. Each is synced before
// the next is made, and so is the last that is there already: an earlier call
// may have been cut short between the two. One whose sync fails goes again,
// since no later sync would make up for it.
func MakeFolder(fsys FS, dir string) error {
	at := path.Clean(dir)
	var missing []string
	for ; at != path.Dir(at); at = path.Dir(at) {
		there, err := Exists(fsys, at)
		if err != nil {
			return err
		}
		if there {
			break
		}
		missing = append(missing, at)
	}
	// Where its parent may not be read somebody else made it.
	if err := fsys.SyncDir(path.Dir(at)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, next := range slices.Backward(missing) {
		if err := fsys.MkdirAll(next); err != nil {
			return err
		}
		if err := fsys.SyncDir(path.Dir(next)); err != nil {
			return errors.Join(err, fsys.Remove(next))
		}
	}
	return nil
}

package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Remove removes the volumes of a pod, and its folder if nothing else is in it. Its
// containers have ended. Of a pod that is not there: nothing.
func (v *Volumes) Remove(ctx context.Context, uid string) error {
	return v.remove(ctx, uid, ours)
}

// Purge removes the whole folder of a pod: logs too, and what an engine left.
func (v *Volumes) Purge(ctx context.Context, uid string) error {
	return v.remove(ctx, uid, nil)
}

// ours are the folders of a pod that belong to this package.
var ours = []string{volumesName, subpathsName, messagesName}

func (v *Volumes) remove(ctx context.Context, uid string, names []string) error {
	unlock, err := v.lock(uid)
	if err != nil {
		return err
	}
	defer unlock()
	pod, err := v.root.open(uid)
	if notThere(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pod.close()
	if names == nil {
		if names, err = pod.all(); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := unmountBelow(pod, name); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := pod.removeTree(name); err != nil {
			return err
		}
	}
	if err := v.root.rmdir(uid); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// removeTree removes a name and all below it. Links are removed, not followed; where
// something is mounted it stops.
func (f *folder) removeTree(name string) error {
	r := &removal{}
	return r.remove(f, name, 0)
}

// removal is of one tree.
type removal struct {
	top   *folder // The folder at the root of the tree; too deep ones are moved into it.
	moved int
}

func (r *removal) remove(f *folder, name string, depth int) error {
	err := f.unlink(name)
	if err == nil || !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	dir, openErr := f.open(name)
	if errors.Is(openErr, unix.EACCES) {
		// Our own user took away the right to read it.
		_ = unix.Fchmodat(f.fd, name, 0o700, unix.AT_SYMLINK_NOFOLLOW) // If that fails the next line says why.
		dir, openErr = f.open(name)
	}
	switch {
	case errors.Is(openErr, unix.ENOTDIR), errors.Is(openErr, unix.ELOOP):
		return err // No folder, and it cannot be removed.
	case errors.Is(openErr, unix.EXDEV):
		return f.failure("remove", name, errors.New("something is mounted there; unmount it"))
	case openErr != nil:
		return openErr
	}
	defer dir.close()
	_ = unix.Fchmod(dir.fd, 0o700) // Likewise the right to remove names from it.
	if r.top == nil {
		r.top = dir
	}
	if err := r.empty(dir, depth); err != nil {
		return err
	}
	return f.rmdir(name)
}

// empty removes what is in a folder, until nothing comes any more.
func (r *removal) empty(dir *folder, depth int) error {
	for range passesMax {
		n := 0
		err := dir.names(func(names []string) (bool, error) {
			n = len(names)
			for _, name := range names {
				if err := r.one(dir, name, depth); err != nil {
					return false, err
				}
			}
			return false, nil // Names change under the reader: read anew.
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
	return fmt.Errorf("%s does not become empty: somebody writes into it", dir.path)
}

func (r *removal) one(dir *folder, name string, depth int) error {
	if depth < depthMax {
		return r.remove(dir, name, depth+1)
	}
	err := dir.unlink(name)
	if err == nil || !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if err := dir.before("rename " + dir.in(name)); err != nil {
		return err
	}
	for {
		r.moved++
		err := unix.Renameat2(dir.fd, name, r.top.fd, fmt.Sprintf("..deep-%d", r.moved), unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return dir.failure("move up", name, err)
		}
	}
}

// Leftovers are the UIDs of all pods that have a folder.
func (v *Volumes) Leftovers() ([]string, error) {
	names, err := v.root.all()
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, name := range names {
		s, err := v.root.stat(name)
		if err != nil {
			return nil, err
		}
		if s != nil && s.Mode&unix.S_IFMT == unix.S_IFDIR {
			uids = append(uids, name)
		}
	}
	return uids, nil
}

//go:build linux

package supervised

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// errHeld says that a pod has a supervisor.
var errHeld = errors.New("the pod has another supervisor")

// lock takes the lock of a pod's folder. It is free again when the file is closed, or
// its process has ended.
func lock(dir string) (*os.File, error) { return lockWith(dir, os.O_RDWR|os.O_CREATE) }

func lockWith(dir string, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, supervisor.LockFile), flags, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errHeld
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// alive tells whether a pod has a supervisor. It makes nothing.
func alive(dir string) (bool, error) {
	f, err := lockWith(dir, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(dir)
		return false, err
	}
	if errors.Is(err, errHeld) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

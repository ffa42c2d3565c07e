package kubelet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// InstanceOf is the Instance of whoever keeps its files in a folder: it tells these
// nodes from others of the same names, and is drawn once.
func InstanceOf(fsys vfs.FS, dir string) (string, error) {
	path := filepath.Join(dir, instanceName)
	is, err := vfs.ReadFile(fsys, path)
	if err == nil {
		return string(is), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	b := make([]byte, 8)
	rand.Read(b) // Never fails: it ends the process instead.
	made := hex.EncodeToString(b)
	return made, vfs.ReplaceFile(fsys, path, []byte(made))
}

const instanceName = "instance"

// HasRun reports whether a folder was that of a kubelet, and makes nothing.
func HasRun(fsys vfs.FS, dir string) (bool, error) {
	if info, err := fsys.Stat(dir); err == nil && !info.IsDir {
		return false, nil
	}
	return vfs.Exists(fsys, filepath.Join(dir, instanceName))
}

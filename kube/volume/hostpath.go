package volume

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// hostPath checks a path of the node, and makes it where its type says so. Links in it
// are followed: they are the node's.
func hostPath(h *corev1.HostPathVolumeSource, before func(string) error) error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("%s is no absolute path: %w", h.Path, ErrInvalid)
	}
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	switch kind {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		if err := makePath(h.Path, before); err != nil {
			return err
		}
	case corev1.HostPathFileOrCreate:
		if err := makeFile(h.Path, before); err != nil {
			return err
		}
	}
	var s unix.Stat_t
	if err := unix.Stat(h.Path, &s); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s of the node: %w", h.Path, ErrMissing)
		}
		return fmt.Errorf("look at %s: %w", h.Path, err)
	}
	if want, ok := hostPathKinds[kind]; ok && s.Mode&unix.S_IFMT != want.format {
		return fmt.Errorf("hostPath type check failed: %s is not %s: %w", h.Path, want.what, ErrInvalid)
	}
	return nil
}

// hostPathKinds are what a path has to be. Without a type: anything.
var hostPathKinds = map[corev1.HostPathType]struct {
	format uint32
	what   string
}{
	corev1.HostPathDirectoryOrCreate: {unix.S_IFDIR, "a directory"},
	corev1.HostPathDirectory:         {unix.S_IFDIR, "a directory"},
	corev1.HostPathFileOrCreate:      {unix.S_IFREG, "a file"},
	corev1.HostPathFile:              {unix.S_IFREG, "a file"},
	corev1.HostPathSocket:            {unix.S_IFSOCK, "a socket"},
	corev1.HostPathCharDev:           {unix.S_IFCHR, "a character device"},
	corev1.HostPathBlockDev:          {unix.S_IFBLK, "a block device"},
}

// makePath makes a folder and its parents, mode 0755, unless something is there.
func makePath(path string, before func(string) error) error {
	var s unix.Stat_t
	err := unix.Stat(path, &s)
	if !errors.Is(err, unix.ENOENT) {
		return nil // Whoever looks at what it is says what is wrong.
	}
	if parent := filepath.Dir(path); parent != path {
		if err := makePath(parent, before); err != nil {
			return err
		}
	}
	if err := before("mkdir " + path); err != nil {
		return err
	}
	if err := unix.Mkdir(path, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

// makeFile makes an empty file, mode 0644, unless something is there. As in Kubernetes,
// its folder has to be.
func makeFile(path string, before func(string) error) error {
	if err := before("create " + path); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("folder of %s on the node: %w", path, ErrMissing)
	case err != nil:
		return fmt.Errorf("make %s: %w", path, err)
	}
	return unix.Close(fd)
}

package vfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

func syncData(fd int) error { return unix.Fdatasync(fd) }

// reserve claims blocks. Not every file system can; then the writes of
// Allocate are what claims them.
func reserve(fd int, at, length int64) error {
	err := unix.Fallocate(fd, 0, at, length)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

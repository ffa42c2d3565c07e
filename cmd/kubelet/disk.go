package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// disk measures what the node's folder lies on: what others than root may still write.
func (o *options) disk() (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(o.dir, &s); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", o.dir, err)
	}
	size := int64(s.Bsize)
	return int64(s.Bavail) * size, int64(s.Blocks) * size, nil
}

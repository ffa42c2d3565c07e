// Package cgroup removes control groups, for the engines that make them or own those above
// what a container runtime makes.
package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remove removes groups, one of each hierarchy, with all below them. One that is not there
// is removed. What is in the way of one keeps none of the others from being removed.
//
// The kernel refuses for a moment after the last process has ended: as long as a group is
// busy all is tried again, if again, which waits for that moment, says so. What else it
// refuses it always will.
func Remove(groups []string, again func() bool) error {
	for {
		var err error
		for _, dir := range groups {
			err = errors.Join(err, remove(dir))
		}
		if !errors.Is(err, unix.EBUSY) || !again() {
			return err
		}
	}
}

func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, remove(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove cgroup", Path: dir, Err: err}
	}
	return nil
}

package linear

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/tests/fusefs"
)

// smallDiskBytes hold a log of some segments, one that a first start without
// room has left aside, and a store, and are filled quickly.
const smallDiskBytes = 448 << 20

// makeDisks gives members disks that can fail or forget, or that are small.
// Where a run has both, one member has the small one.
func (r *run) makeDisks(needs need) error {
	small := -1
	if needs&needsSmallDisk != 0 {
		small = seedOf(r.s, "small disk").Intn(len(r.places))
	}
	for i, p := range r.places {
		mount := r.path(fmt.Sprintf("disk%d", i+1))
		switch {
		case i == small:
			if err := errors.Join(os.Mkdir(mount, 0o700), r.env.names.Mount(mount)); err != nil {
				return err
			}
			if err := unix.Mount("holdfast-test", mount, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
				return fmt.Errorf("mount a small disk: %w", err)
			}
			p.small = mount
			p.DataDir = filepath.Join(mount, "data")
		case needs&needsLyingDisk != 0:
			if err := r.env.names.Mount(mount); err != nil {
				return err
			}
			fs, err := fusefs.Mount(mount, r.path(fmt.Sprintf("backing%d", i+1)))
			if err != nil {
				return err
			}
			p.fs = fs
			p.DataDir = filepath.Join(mount, "data")
		}
	}
	return nil
}

func (r *run) removeDisks() error {
	var errs []error
	for _, p := range r.places {
		if p.fs != nil {
			errs = append(errs, p.fs.Unmount())
		}
	}
	if r.env.names != nil {
		errs = append(errs, r.env.names.Unmount())
	}
	return errors.Join(errs...)
}

package datadir

import (
	"errors"
	"fmt"
	"path/filepath"
)

const frozenName = "FROZEN"

// ErrFrozen means that the member of a directory must not start: it would vote
// and append, and what is decided about its log would be out of date.
var ErrFrozen = errors.New("data directory is frozen for a recovery")

type frozen struct{ By string }

// Freeze keeps the member of this directory from starting until Thaw. by says
// for whose sake. What it said before is replaced.
func (d *Dir) Freeze(by string) error { return d.write(frozenName, frozen{by}) }

// Frozen tells for whose sake the directory is frozen, "" when it is not. A
// marker that can not be read counts: somebody made it for a reason.
func (d *Dir) Frozen() (by string, err error) {
	var f frozen
	err = d.read(frozenName, &f)
	if errors.Is(err, ErrEmpty) {
		return "", nil
	}
	return f.By, err
}

// Thaw lifts a freeze. There may be none.
func (d *Dir) Thaw() error {
	if by, err := d.Frozen(); err == nil && by == "" {
		return nil
	}
	if err := d.fs.Remove(filepath.Join(d.path, frozenName)); err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(d.path, frozenName), err)
	}
	return d.fs.SyncDir(d.path)
}

// MayStart refuses a frozen directory, and says how it goes on.
func (d *Dir) MayStart() error {
	by, err := d.Frozen()
	if err == nil && by == "" {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: %s", ErrFrozen, by)
	}
	return fmt.Errorf("%s: %w; finish with `holdfastctl recover apply`, or give it up with `holdfastctl recover thaw %s`", d.path, err, d.path)
}

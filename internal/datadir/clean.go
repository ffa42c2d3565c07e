package datadir

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// What is renamed aside does not stay for ever: each generation may be as large
// as all data.
const (
	// unusedPrefix: never in force. What a snapshot that did not arrive left.
	unusedPrefix = oldPrefix + "unused-"
	// doomedPrefix: being deleted. It gets this name first, so that nothing which
	// is half deleted looks like a generation.
	doomedPrefix = "doomed-"
	// generationsKept is how many replaced generations stay, the newest ones: a
	// way back, by hand, from the last snapshot that was installed.
	generationsKept = 1
)

// PlanClean chooses what to delete of the names in a data directory: all but
// the newest of the generations that were replaced, those that were never in
// force, and what an earlier Clean did not finish. It never names the
// generation in force, nor logs or other things that were renamed aside.
func PlanClean(names []string, current int) []string {
	var doomed, replaced []string
	for _, name := range names {
		switch n, ok := number(strings.TrimPrefix(name, oldPrefix)); {
		case strings.HasPrefix(name, doomedPrefix), strings.HasPrefix(name, unusedPrefix+genPrefix):
			doomed = append(doomed, name)
		case ok && n < current && strings.HasPrefix(name, oldPrefix):
			replaced = append(replaced, name)
		}
	}
	slices.SortFunc(replaced, func(a, b string) int {
		x, _ := number(strings.TrimPrefix(a, oldPrefix))
		y, _ := number(strings.TrimPrefix(b, oldPrefix))
		return cmp.Or(cmp.Compare(y, x), cmp.Compare(b, a))
	})
	return append(doomed, replaced[min(generationsKept, len(replaced)):]...)
}

// Clean deletes what PlanClean chooses, and calls done with each name. The
// generation in force must have been opened: that it is whole was seen then
// (I-12). It may take long; a crash leaves a part for the next Clean.
func (d *Dir) Clean(done func(name string)) error {
	d.cleaning.Lock()
	defer d.cleaning.Unlock()
	doomed, err := d.doom()
	if err != nil {
		return fmt.Errorf("clean %s: %w", d.path, err)
	}
	for _, name := range doomed {
		if err := d.fs.RemoveAll(filepath.Join(d.path, doomedPrefix+name)); err != nil {
			return fmt.Errorf("clean %s: %w", d.path, err)
		}
		done(name)
	}
	return nil
}

// doom gives what is to be deleted its last name.
func (d *Dir) doom() (doomed []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	current, err := d.Current()
	if err != nil {
		return nil, err
	}
	names, err := d.fs.List(d.path)
	if err != nil {
		return nil, err
	}
	for _, name := range PlanClean(names, current) {
		last, again := strings.CutPrefix(name, doomedPrefix)
		if !again {
			if err := d.fs.Rename(filepath.Join(d.path, name), filepath.Join(d.path, doomedPrefix+name)); err != nil {
				return nil, err
			}
		}
		doomed = append(doomed, last)
	}
	return doomed, d.fs.SyncDir(d.path)
}

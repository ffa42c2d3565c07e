package blobstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

const (
	lockPollMin = time.Millisecond // The lock is held for about the time of a sync.
	lockPollMax = 50 * time.Millisecond
)

// lock waits for the lock file: among the goroutines of this store by turn,
// among processes by asking again.
func (d *dir) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		file, err := d.fs.Lock(filepath.Join(d.root, lockName))
		if err == nil {
			return func() { file.Close(); <-d.turn }, nil
		}
		if errors.Is(err, vfs.ErrLocked) {
			select {
			case <-d.clock.After(wait):
				continue
			case <-ctx.Done():
				err = fmt.Errorf("%w, while another process holds %s", ctx.Err(), lockName)
			}
		}
		<-d.turn
		return nil, err
	}
}

// stage writes a file that has no name of an object yet.
func (d *dir) stage(ctx context.Context, data []byte) (string, error) {
	d.scratch.Lock()
	err := d.enlistLocked(ctx)
	d.scratch.next++
	staged := filepath.Join(d.scratch.path, strconv.Itoa(d.scratch.next))
	d.scratch.Unlock()
	if err != nil {
		return "", err
	}
	if err := d.writeNew(staged, data); err != nil {
		return "", errors.Join(err, ignoreMissing(d.fs.Remove(staged)))
	}
	return staged, nil
}

func (d *dir) writeNew(path string, data []byte) error {
	f, err := d.fs.Create(path)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.SyncData(), f.Close())
}

// enlistLocked makes the folder for files on their way, and removes those whose
// process has died. Both under the lock of the store, so that nobody is taken
// for dead between making a folder and locking it.
func (d *dir) enlistLocked(ctx context.Context) error {
	if d.scratch.closed {
		return errors.New("the store is closed")
	}
	if err := d.present(); err != nil || d.scratch.lock != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	all := filepath.Join(d.root, scratchName)
	if err := d.fs.MkdirAll(all); err != nil {
		return err
	}
	names, err := d.fs.List(all)
	if err != nil {
		return err
	}
	living := map[string]bool{}
	for _, name := range names {
		living[name] = !d.bury(filepath.Join(all, name))
	}
	n := 1
	for living[strconv.Itoa(n)] {
		n++
	}
	path := filepath.Join(all, strconv.Itoa(n))
	if err := d.fs.MkdirAll(path); err != nil {
		return err
	}
	lock, err := d.fs.Lock(filepath.Join(path, lockName))
	if err != nil {
		return err
	}
	d.scratch.path, d.scratch.lock = path, lock
	return nil
}

// bury removes the files of a process that died, if it did. One that cannot be
// looked at or removed is left to others.
func (d *dir) bury(path string) bool {
	lock, err := d.fs.Lock(filepath.Join(path, lockName))
	if err != nil {
		return false
	}
	err = d.fs.RemoveAll(path)
	return errors.Join(err, lock.Close()) == nil
}

// Close implements Store.
func (d *dir) Close() error {
	d.scratch.Lock()
	defer d.scratch.Unlock()
	d.scratch.closed = true
	if d.scratch.lock == nil {
		return nil
	}
	lock := d.scratch.lock
	d.scratch.lock = nil
	return errors.Join(d.fs.RemoveAll(d.scratch.path), lock.Close())
}

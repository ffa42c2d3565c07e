package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/internal/fail"
)

// Defragment rewrites the file without its free pages, if they are more than a
// quarter of it, while readers go on; checkpoints and merges wait. The new file
// is written beside the old one, synced and verified row by row before it takes
// the name; views taken before keep reading the old one until released. A crash
// leaves one or the other under the name, never a part.
func (db *DB) Defragment(ctx context.Context) error {
	if file, inUse := db.Sizes(); (file-inUse)*100 <= file*defragmentFreePercent {
		return nil
	}
	db.writing.Lock()
	defer db.writing.Unlock()
	if err := db.writable(); err != nil {
		return err
	}
	v := db.View()
	defer v.Release()
	before := db.fileSize.Load()
	next, err := db.rewrite(ctx, v)
	if err != nil {
		if damage := (*DamageError)(nil); errors.As(err, &damage) && damage.File == db.cfg.Path {
			db.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		}
		return fmt.Errorf("defragment %s: %w", db.cfg.Path, err)
	}
	if err := db.adopt(next); err != nil {
		return err
	}
	db.cfg.Logger.Info("base file defragmented", "file", db.cfg.Path, "before", before, "after", db.fileSize.Load())
	return nil
}

// rewrite copies a view into a new file and proves that it is equal.
func (db *DB) rewrite(ctx context.Context, v *View) (_ *store, err error) {
	path := db.cfg.Path + suffixDefragment
	if err := db.cfg.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove an unfinished one: %w", err)
	}
	cfg := db.cfg
	cfg.PageSize = int(v.pageSize)
	s, err := openStore(&cfg, path, db.mapBytes)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.leave()
			err = errors.Join(err, db.cfg.FS.Remove(path))
		}
	}()
	if err := copyView(ctx, s, v, db.cfg.NoSync); err != nil {
		return nil, err
	}
	copied, err := newView(s, nil)
	if err != nil {
		return nil, err
	}
	defer copied.Release()
	if _, err := copied.verify(ctx, nil); err != nil {
		return nil, fmt.Errorf("verify the copy: %w", err)
	}
	if copied.meta.Rows != v.meta.Rows || copied.meta.StateHash != v.meta.StateHash {
		return nil, fmt.Errorf("the copy has %d rows of %d: %w", copied.meta.Rows, v.meta.Rows, ErrDamaged)
	}
	return s, nil
}

// copyView writes all rows of a view, and syncs once at the end.
func copyView(ctx context.Context, s *store, v *View, noSync bool) error {
	s.bolt.NoSync, s.bolt.NoGrowSync = true, true
	meta := *v.meta
	meta.txID++
	if err := initialize(s, &meta); err != nil {
		return err
	}
	for _, t := range []*tree{v.keys, v.leaseKeys, v.longKeys, v.rows} {
		if err := copyTree(ctx, s, t); err != nil {
			return err
		}
	}
	// Once more with nothing new: bbolt falls back to the commit before the last
	// when the newest meta page is damaged, and that one must hold all rows too.
	if err := s.write(func(tx *bbolt.Tx) error { return putMeta(tx, &meta) }); err != nil {
		return err
	}
	s.bolt.NoSync, s.bolt.NoGrowSync = noSync, noSync
	if noSync {
		return nil
	}
	if err := s.bolt.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	return nil
}

// copyTree writes the rows of one bucket in transactions of bounded size.
func copyTree(ctx context.Context, s *store, t *tree) (err error) {
	defer catchFault(t.file, debug.SetPanicOnFault(true), &err)
	var c treeCursor
	c.tree = t
	ok, err := c.from(nil)
	for ok && err == nil {
		err = s.write(func(tx *bbolt.Tx) error {
			b := &batch{}
			bucket := tx.Bucket(t.section.name)
			bucket.FillPercent = fillPercent
			for rows, size := 0, 0; ok && rows < loadRowsMax && size < loadBytesMax; rows++ {
				key, payload, err := c.row()
				if err != nil {
					return err
				}
				if err := b.set(bucket, t.section, key, payload); err != nil {
					return err
				}
				size += len(key) + len(payload)
				if ok, err = c.next(); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return err
}

// adopt gives a new file the name and makes it the current one. The caller
// holds writing.
func (db *DB) adopt(next *store) error {
	fail.Here("backend/defragment/copied")
	err := db.cfg.FS.Rename(next.path, db.cfg.Path)
	if err == nil {
		fail.Here("backend/defragment/renamed")
		err = db.cfg.FS.SyncDir(filepath.Dir(db.cfg.Path))
	}
	if err != nil {
		// Which of the two files has the name after a crash is not known now.
		next.leave()
		db.failed = fmt.Errorf("replace %s: %w: %w", db.cfg.Path, ErrFailed, err)
		return db.failed
	}
	next.path = db.cfg.Path
	old := db.store
	db.store = next
	db.retired = append(slices.DeleteFunc(db.retired, (*store).isClosed), old)
	err = db.refresh(nil)
	fail.Here("backend/defragment/after")
	old.leave()
	if err != nil {
		db.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return err
}

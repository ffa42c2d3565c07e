package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/vfs"
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
	cfg := db.cfg
	cfg.Path, cfg.PageSize = db.cfg.Path+suffixDefragment, int(v.pageSize)
	if err := removeUnfinished(cfg.FS, cfg.Path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeUnfinished(cfg.FS, cfg.Path))
		}
	}()
	rows, err := v.rowsToCopy(ctx)
	if err != nil {
		return nil, err
	}
	meta := *v.meta
	meta.txID++
	if _, err := writeFile(&cfg, meta, rows); err != nil {
		return nil, err
	}
	s, err := openStore(&cfg, cfg.Path, db.mapBytes)
	if err != nil {
		return nil, err
	}
	if err := s.equals(ctx, v); err != nil {
		s.leave()
		return nil, err
	}
	return s, nil
}

// removeUnfinished removes what is left of a file that was not finished.
func removeUnfinished(fsys vfs.FS, path string) error {
	err := fsys.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, fsys.RemoveAll(path+suffixSort)); err != nil {
		return fmt.Errorf("remove an unfinished %s: %w", filepath.Base(path), err)
	}
	return nil
}

// equals verifies a copy of a view.
func (s *store) equals(ctx context.Context, v *View) error {
	copied, err := newView(s, nil)
	if err != nil {
		return err
	}
	defer copied.Release()
	if _, err := copied.verify(ctx, nil); err != nil {
		return fmt.Errorf("verify the copy: %w", err)
	}
	a, b := copied.meta, v.meta
	if a.Rows != b.Rows || a.StateHash != b.StateHash || a.smallRows != b.smallRows || a.smallHash != b.smallHash {
		return fmt.Errorf("the copy has %d rows of %d, %d small ones of %d: %w", a.Rows, b.Rows, a.smallRows, b.smallRows, ErrDamaged)
	}
	return nil
}

// rowsToCopy are all rows of a view.
func (v *View) rowsToCopy(ctx context.Context) (Rows, error) {
	var rows Rows
	for table := TableLease; table <= TableMeta; table++ {
		err := v.TableRows(table, func(key, value []byte) error {
			rows.Small = append(rows.Small, RowChange{Table: table, Key: key, Value: value})
			return nil
		})
		if err != nil {
			return rows, err
		}
	}
	c, step := v.Cursor(), func(c *Cursor) (key, kv []byte, err error) { return c.Seek(nil) }
	rows.Next = func() (key, kv []byte, err error) {
		key, kv, err = step(c)
		step = (*Cursor).Next
		return key, kv, errors.Join(err, ctx.Err())
	}
	return rows, nil
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

// Package backend keeps the base: the last merged value of every key, and the
// small rows (leases, users, roles, members, alarms), in one bbolt file.
//
// Package mvcc calls it: many goroutines read through views, one in the
// background writes (checkpoints and merges). No write here is on the path of
// a request. Nothing else knows bbolt; what a bucket holds is drawn in
// format.go and docs/format/base.md.
//
// Always true: base rows are as of Meta.Merged, small rows and the rest of Meta
// as of Meta.Applied, and each commit changes rows, their number, their hash
// and the keys of leases together. Each row ends in a checksum, and reading
// checks the pages it follows, so that damage is an error that names the file,
// not a wrong answer (see page.go for how far that goes, and Verify for the
// rest).
//
// A crash leaves the last commit, whole. After a failed write or sync the file
// takes no more writes (I-10): it has to be rebuilt.
package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/assert"
)

// DB is an open base.
type DB struct {
	cfg      Config
	mapBytes int64

	view     atomic.Pointer[View] // Of the newest commit. Set by who holds writing.
	free     atomic.Int64         // Pages of the file that hold nothing. The same.
	fileSize atomic.Int64         // The same.

	writing sync.Mutex // Held by whoever changes the file; guards what follows.
	store   *store     // Replaced by Defragment.
	retired []*store   // Replaced ones that may still have readers.
	failed  error      // Why the file takes no more writes (I-10).
	closed  bool
}

// suffixDefragment marks the file that Defragment writes; one that is found at
// Open is what a crash left of it.
const suffixDefragment = ".defrag"

// Open opens a base. It refuses one that is damaged where opening looks, newer
// than this version, or older than the log can make good.
func Open(cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	info, err := cfg.FS.Stat(cfg.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open %s: %w", cfg.Path, ErrMissing)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", cfg.Path, err)
	}
	if err := checkHeader(cfg.FS, cfg.Path, info.Size); err != nil {
		return nil, err
	}
	mapBytes := max(cfg.InitialMmapBytes, 4*info.Size)
	s, err := openStore(&cfg, cfg.Path, mapBytes)
	if err != nil {
		return nil, err
	}
	// Now that the file is locked, nobody is defragmenting it.
	if err := removeUnfinished(cfg.FS, cfg.Path+suffixDefragment); err != nil {
		s.leave()
		return nil, err
	}
	// Who defragmented the file may have been killed before its name was durable,
	// or could not make it so. What is committed from now on must not be lost with it.
	if err := cfg.FS.SyncDir(filepath.Dir(cfg.Path)); err != nil {
		s.leave()
		return nil, fmt.Errorf("open %s: make its name durable: %w", cfg.Path, err)
	}
	db, err := start(cfg, s, mapBytes)
	if err != nil {
		return nil, err
	}
	if id := db.TxID(); id < cfg.MinTxID {
		err := fmt.Errorf("base file %s is at transaction %d, the log needs at least %d: %w", cfg.Path, id, cfg.MinTxID, ErrTooOld)
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func start(cfg Config, s *store, mapBytes int64) (*DB, error) {
	db := &DB{cfg: cfg, store: s, mapBytes: mapBytes}
	info, err := cfg.FS.Stat(s.path)
	if err != nil {
		s.leave()
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	v, err := newView(s, nil)
	if err != nil {
		s.leave()
		return nil, err
	}
	db.fileSize.Store(info.Size)
	db.publish(v)
	return db, nil
}

// publish makes a view the current one. The caller holds writing, or is alone.
func (db *DB) publish(v *View) {
	stats := v.store.bolt.Stats()
	db.free.Store(int64(stats.FreePageN + stats.PendingPageN))
	if old := db.view.Swap(v); old != nil {
		old.Release()
	}
}

// View returns the base as of the last commit, counted. The caller releases
// it. Taking one costs an atomic addition, no transaction.
func (db *DB) View() *View {
	for {
		v := db.view.Load()
		if v == nil {
			assert.Failf("view of closed base %s", db.cfg.Path)
		}
		if v.acquire() {
			return v
		}
	}
}

// Meta returns what state the last commit holds.
func (db *DB) Meta() Meta {
	v := db.View()
	defer v.Release()
	return v.Meta()
}

// TxID returns the number of the last commit. It grows with each, and does not
// start again when the file is rewritten.
func (db *DB) TxID() uint64 {
	v := db.View()
	defer v.Release()
	return v.TxID()
}

// Sizes returns the bytes of the file, and how many of them hold something.
func (db *DB) Sizes() (file, inUse int64) {
	v := db.View()
	defer v.Release()
	return db.fileSize.Load(), int64(len(v.data)) - db.free.Load()*int64(v.pageSize)
}

// FileBytes is the size of the file.
func (db *DB) FileBytes() int64 { return db.fileSize.Load() }

// Close ends all work, waits for every view to be released, and closes the
// file. It may be called again.
func (db *DB) Close() error {
	db.writing.Lock()
	defer db.writing.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	db.view.Swap(nil).Release()
	db.store.leave()
	var errs []error
	for _, s := range append(db.retired, db.store) {
		<-s.closed
		if s.err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", s.path, s.err))
		}
	}
	return errors.Join(errs...)
}

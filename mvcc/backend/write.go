package backend

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/internal/fail"
)

// RowChange sets a small row, or deletes it when Value is nil.
type RowChange struct {
	Table Table
	Key   []byte
	Value []byte
}

// Checkpoint writes small rows and what m says, in one transaction, and returns
// its number. What Merge keeps (Merged, Rows, StateHash, LongOrdinal) is not
// taken from m. Of several changes of one row the last counts.
func (db *DB) Checkpoint(rows []RowChange, m Meta) (txid uint64, err error) {
	err = db.update(func(b *batch) error {
		old := b.meta.Meta
		m.Format = formatVersion
		m.Merged, m.Rows, m.StateHash, m.LongOrdinal = old.Merged, old.Rows, old.StateHash, old.LongOrdinal
		b.meta.Meta = m
		txid = b.meta.txID
		return b.applyRows(rows)
	})
	if err != nil {
		return 0, err
	}
	return txid, nil
}

// batch is one transaction being put together.
type batch struct {
	tx   *bbolt.Tx
	view *View     // The base before it.
	meta metaRow   // After it.
	long longIndex // After it.

	arena   []byte // What is left of the piece that values are cut from.
	scratch []byte
}

// update runs one transaction and shows its result to readers. The meta row is
// written last. A failed write, or damage met on the way, ends all writing.
func (db *DB) update(fn func(*batch) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	if err := db.writable(); err != nil {
		return err
	}
	v := db.View()
	defer v.Release()
	b := &batch{view: v, meta: *v.meta, long: v.long}
	b.meta.txID++
	db.store.setGrowth(db.fileSize.Load())
	err := db.store.write(func(tx *bbolt.Tx) error {
		b.tx = tx
		if err := fn(b); err != nil {
			return err
		}
		defer fail.Here("backend/commit/before")
		return putMeta(tx, &b.meta)
	})
	if err == nil {
		fail.Here("backend/commit/after")
		err = db.refresh(b.long)
	}
	if errors.Is(err, ErrFailed) || errors.Is(err, ErrDamaged) {
		db.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return err
}

// writable says why the file takes no writes, if so. The caller holds writing.
func (db *DB) writable() error {
	if db.closed {
		return fmt.Errorf("write to %s: %w", db.cfg.Path, ErrClosed)
	}
	return db.failed
}

// refresh replaces the current view after a commit.
func (db *DB) refresh(long longIndex) error {
	info, err := db.cfg.FS.Stat(db.cfg.Path)
	if err != nil {
		return fmt.Errorf("size of %s: %w: %w", db.cfg.Path, ErrFailed, err)
	}
	v, err := newView(db.store, long)
	if err != nil {
		return err
	}
	db.fileSize.Store(info.Size)
	db.publish(v)
	return nil
}

func putMeta(tx *bbolt.Tx, m *metaRow) error {
	row := appendRow(nil, sectionMeta, metaKey, appendMeta(nil, m))
	if err := tx.Bucket(sectionMeta.name).Put(metaKey, row); err != nil {
		return fmt.Errorf("put the meta row: %w", err)
	}
	return nil
}

// row makes the value that bbolt keeps. It lives as long as the transaction.
func (b *batch) row(s section, key, payload []byte) []byte {
	const arenaBytes = 64 << 10 // Few allocations a transaction, little waste at its end.
	need := len(payload) + checksumBytes
	if need > arenaBytes/4 {
		return appendRow(make([]byte, 0, need), s, key, payload)
	}
	if need > cap(b.arena)-len(b.arena) {
		b.arena = make([]byte, 0, arenaBytes)
	}
	start := len(b.arena)
	b.arena = appendRow(b.arena, s, key, payload)
	return b.arena[start:len(b.arena):len(b.arena)]
}

// track takes the old payload of a row out of a hash and puts the new one in,
// and returns by how much the number of rows changes.
func (b *batch) track(sum *Sum, key, old, now []byte) (delta int64) {
	var hash Sum
	if old != nil {
		hash, b.scratch = hashRow(b.scratch, key, old)
		sum.sub(hash)
		delta--
	}
	if now != nil {
		hash, b.scratch = hashRow(b.scratch, key, now)
		sum.add(hash)
		delta++
	}
	return delta
}

// set puts a row into a bucket, or deletes it.
func (b *batch) set(bucket *bbolt.Bucket, s section, key, payload []byte) error {
	var err error
	if payload == nil {
		err = bucket.Delete(key)
	} else {
		err = bucket.Put(key, b.row(s, key, payload))
	}
	if err != nil {
		return fmt.Errorf("change a row of bucket %s: %w", s.name, err)
	}
	return nil
}

// applyRows writes small rows in key order, each once.
func (b *batch) applyRows(changes []RowChange) error {
	bucket := b.tx.Bucket(sectionRows.name)
	for _, c := range sortRows(changes) {
		old, err := b.view.rows.get(c.key)
		if err != nil {
			return err
		}
		b.meta.smallRows += b.track(&b.meta.smallHash, c.key, old, c.value)
		if old == nil && c.value == nil {
			continue
		}
		if err := b.set(bucket, sectionRows, c.key, c.value); err != nil {
			return err
		}
	}
	return nil
}

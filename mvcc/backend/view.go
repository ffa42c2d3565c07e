package backend

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// View is the base as one commit left it. It is shared: everybody who asks
// between two commits gets the same one, counted, and any number of goroutines
// may use it at once. Whoever takes it releases it.
//
// A view that is kept for long makes the file grow, because pages that it may
// read are not used again.
type View struct {
	store *store
	tx    *bbolt.Tx // Pins pages and mapping. Nothing is read through it.
	refs  atomic.Int64

	pages
	meta      *metaRow
	keys      *tree
	leaseKeys *tree
	longKeys  *tree
	rows      *tree
	long      longIndex

	rootPage uint64 // Of the directory of buckets.
	freePage uint64 // Of the list of free pages.
}

// newView opens a view of the newest commit. With a nil index the long keys
// are read from the file.
func newView(s *store, long longIndex) (v *View, err error) {
	tx, err := s.bolt.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("begin reading %s: %w", s.path, err)
	}
	v = &View{store: s, tx: tx, long: long}
	v.refs.Store(1)
	s.users.Add(1)
	defer func() {
		if err != nil {
			v.Release()
			v = nil
		}
	}()
	defer catchFault(s.path, debug.SetPanicOnFault(true), &err)
	v.pages = pages{data: s.mapped(tx), pageSize: uint64(s.pageSize), file: s.path}
	v.rootPage = uint64(tx.Cursor().Bucket().Root())
	if v.freePage, err = v.freelist(uint64(tx.ID())); err != nil {
		return v, err
	}
	for _, b := range []struct {
		section section
		to      **tree
	}{{sectionKeys, &v.keys}, {sectionLeaseKeys, &v.leaseKeys}, {sectionLongKeys, &v.longKeys}, {sectionRows, &v.rows}} {
		if *b.to, err = v.bucket(v.rootPage, b.section); err != nil {
			return v, err
		}
	}
	if v.meta, err = v.readMeta(); err != nil {
		return v, err
	}
	if err = v.checkEnds(); err != nil {
		return v, err
	}
	if v.long == nil {
		v.long, err = v.readLong()
	}
	return v, err
}

func (v *View) readMeta() (*metaRow, error) {
	t, err := v.bucket(v.rootPage, sectionMeta)
	if err != nil {
		return nil, err
	}
	payload, err := t.get(metaKey)
	if err != nil {
		return nil, err
	}
	if payload == nil {
		return nil, &DamageError{File: v.file, Row: -1, Reason: "there is no meta row"}
	}
	m, err := decodeMeta(payload)
	if err != nil {
		return nil, fmt.Errorf("base file %s: %w", v.file, err)
	}
	return m, nil
}

// checkEnds compares the first and last key with what the commit wrote down:
// the pointer to the root of a bucket has no other protection.
func (v *View) checkEnds() error {
	var c treeCursor
	c.tree = v.keys
	if _, err := c.seek(nil); err != nil {
		return err
	}
	ok := c.top().count > 0
	for _, want := range [][]byte{v.meta.firstKey, v.meta.lastKey} {
		if ok != (want != nil) {
			return &DamageError{File: v.file, Row: -1, Reason: "bucket keys is empty and should not be, or the reverse"}
		}
		if !ok {
			return nil
		}
		key, _, err := c.row()
		if err != nil {
			return err
		}
		if !bytes.Equal(key, want) {
			return v.damaged(c.top().id, c.top().index, "bucket keys does not begin and end with the keys noted at the last commit")
		}
		if ok, err = c.last(); err != nil {
			return err
		}
	}
	return nil
}

// acquire counts one more user, unless the last one has gone.
func (v *View) acquire() bool {
	for {
		n := v.refs.Load()
		if n == 0 {
			return false
		}
		if v.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives the view back. It is not to be used afterwards.
func (v *View) Release() {
	switch n := v.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		assert.Failf("view of %s released more often than taken", v.store.path)
	}
	_ = v.tx.Rollback() // A read transaction that is open always ends.
	v.store.leave()
}

// Meta returns what state the view holds.
func (v *View) Meta() Meta { return v.meta.Meta }

// TxID returns the number of the commit that the view sees.
func (v *View) TxID() uint64 { return v.meta.txID }

// Beyond reports whether a key comes after all rows.
func (v *View) Beyond(key []byte) bool { return bytes.Compare(key, v.meta.lastKey) > 0 }

// Get returns the KeyValue of a key, nil when there is none. The result is a
// copy.
func (v *View) Get(key []byte) (kv []byte, err error) {
	defer catchFault(v.file, debug.SetPanicOnFault(true), &err)
	payload, err := v.get(key)
	if err != nil || payload == nil {
		return nil, err
	}
	return bytes.Clone(payload), nil
}

// get is Get without the copy.
func (v *View) get(key []byte) ([]byte, error) {
	if len(key) <= shortKeyBytesMax {
		return v.keys.get(key)
	}
	i, found := v.long.search(key)
	if !found {
		return nil, nil
	}
	return v.longRow(v.long[i])
}

// LeaseKeys returns up to max keys attached to a lease, in order, that come
// after one of them (nil: from the first), as of Meta.Merged.
func (v *View) LeaseKeys(id ident.LeaseID, after []byte, maxKeys int) (keys [][]byte, err error) {
	defer catchFault(v.file, debug.SetPanicOnFault(true), &err)
	keys, err = v.shortLeaseKeys(id, after, maxKeys)
	if err != nil {
		return nil, err
	}
	if keys = append(keys, v.long.leased(id, after)...); len(v.long) > 0 {
		slices.SortFunc(keys, bytes.Compare)
	}
	return keys[:min(len(keys), maxKeys)], nil
}

func (v *View) shortLeaseKeys(id ident.LeaseID, after []byte, maxKeys int) ([][]byte, error) {
	// No key of the bucket lies between a key and the same with a zero byte.
	from := leaseKey(id, after)
	if after != nil {
		from = append(from, 0)
	}
	if len(after) > shortKeyBytesMax {
		from = from[:8+shortKeyBytesMax+1]
	}
	var keys [][]byte
	prefix := from[:8]
	err := v.leaseKeys.scan(from, func(key, _ []byte) (bool, error) {
		if !bytes.HasPrefix(key, prefix) || len(keys) == maxKeys {
			return false, nil
		}
		keys = append(keys, bytes.Clone(key[8:]))
		return true, nil
	})
	return keys, err
}

// TableRows calls fn for each small row of a table, in key order. What fn is
// given is valid until Release.
func (v *View) TableRows(t Table, fn func(key, value []byte) error) (err error) {
	defer catchFault(v.file, debug.SetPanicOnFault(true), &err)
	return v.rows.scan([]byte{byte(t)}, func(key, payload []byte) (bool, error) {
		if key[0] != byte(t) {
			return false, nil
		}
		return true, fn(key[1:], payload)
	})
}

// scan calls fn for each row from a key on until it says stop.
func (t *tree) scan(from []byte, fn func(key, payload []byte) (more bool, err error)) error {
	var c treeCursor
	c.tree = t
	ok, err := c.from(from)
	for ok && err == nil {
		var key, payload []byte
		if key, payload, err = c.row(); err != nil {
			return err
		}
		if ok, err = fn(key, payload); !ok || err != nil {
			return err
		}
		ok, err = c.next()
	}
	return err
}

package backend

import (
	"bytes"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// KeyChange sets the KeyValue of a key, or deletes the key when KV is nil.
type KeyChange struct {
	Key []byte
	KV  []byte // mvccpb.KeyValue in wire form.
}

// Merge writes the last version of keys, sorted by key, in one transaction: a
// few thousand at most. Merging the same again changes nothing. The last
// transaction of a merge names the point up to which base then is (done).
func (db *DB) Merge(changes []KeyChange, done *Point) error {
	return db.update(func(b *batch) error {
		m := newMerger(b)
		if len(changes) > 0 && bytes.Compare(changes[0].Key, b.meta.lastKey) > 0 {
			m.keys.FillPercent = fillPercent // Rows that come in order leave no page half empty.
		}
		for _, c := range changes {
			old, err := m.lookup(c.Key)
			if err != nil {
				return err
			}
			if err := m.change(c.Key, old, c.KV); err != nil {
				return err
			}
		}
		if done != nil {
			b.meta.Merged = *done
		}
		return m.finish()
	})
}

// merger changes keys within a batch, and everything that follows from them.
type merger struct {
	*batch
	keys     *bbolt.Bucket
	longKeys *bbolt.Bucket
	last     []byte // The key before, to see that they rise.
	leases   []leaseChange
	longs    []*longKey
}

// leaseChange attaches a key to a lease or detaches it.
type leaseChange struct {
	key    []byte // In bucket leasekeys.
	attach bool
}

func newMerger(b *batch) *merger {
	return &merger{batch: b, keys: b.tx.Bucket(sectionKeys.name), longKeys: b.tx.Bucket(sectionLongKeys.name)}
}

// lookup reads the row as it is before the batch. It goes by way of the checks
// that readers make, so that a damaged page is noticed before bbolt builds on
// it.
func (m *merger) lookup(key []byte) ([]byte, error) {
	if err := m.inOrder(key); err != nil {
		return nil, err
	}
	return m.view.get(key)
}

func (m *merger) inOrder(key []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("empty key: %w", ErrBadRow)
	}
	if bytes.Compare(key, m.last) <= 0 {
		return fmt.Errorf("key of %d bytes after one of %d: %w", len(key), len(m.last), ErrUnsorted)
	}
	m.last = append(m.last[:0], key...)
	return nil
}

func (m *merger) change(key, old, now []byte) error {
	if old == nil && now == nil || old != nil && now != nil && bytes.Equal(old, now) {
		return nil
	}
	lease, err := leaseOf(now)
	if err != nil {
		return err
	}
	m.meta.Rows += m.track(&m.meta.StateHash, key, old, now)
	if len(key) > shortKeyBytesMax {
		return m.changeLong(key, lease, now)
	}
	oldLease, err := leaseOf(old)
	if err != nil {
		return err
	}
	if oldLease != lease {
		m.moveLease(key, oldLease, false)
		m.moveLease(key, lease, true)
	}
	return m.set(m.keys, sectionKeys, key, now)
}

func (m *merger) changeLong(key []byte, lease ident.LeaseID, now []byte) error {
	k := &longKey{key: bytes.Clone(key), lease: lease}
	if i, found := m.view.long.search(key); found {
		k.ordinal = m.view.long[i].ordinal
	} else {
		m.meta.LongOrdinal++
		k.ordinal = m.meta.LongOrdinal
	}
	var payload []byte
	if now != nil {
		payload = appendLong(make([]byte, 0, 4+len(key)+len(now)), key, now)
	}
	if err := m.set(m.longKeys, sectionLongKeys, ordinalKey(k.ordinal), payload); err != nil {
		return err
	}
	if now == nil {
		k.ordinal = 0
	}
	m.longs = append(m.longs, k)
	return nil
}

func (m *merger) moveLease(key []byte, lease ident.LeaseID, attach bool) {
	if lease != 0 {
		m.leases = append(m.leases, leaseChange{leaseKey(lease, key), attach})
	}
}

// finish writes what follows from the rows: the keys of leases, in their own
// order, the ends of bucket keys, and the index of long keys.
func (m *merger) finish() error {
	slices.SortFunc(m.leases, func(a, b leaseChange) int { return bytes.Compare(a.key, b.key) })
	bucket := m.tx.Bucket(sectionLeaseKeys.name)
	nothing := []byte{}
	for _, c := range m.leases {
		old, now := nothing, []byte(nil)
		if c.attach {
			old, now = nil, nothing
		}
		m.meta.leaseRows += m.track(&m.meta.leaseHash, c.key, old, now)
		if err := m.set(bucket, sectionLeaseKeys, c.key, now); err != nil {
			return err
		}
	}
	if len(m.longs) > 0 {
		m.long = m.long.merge(m.longs)
	}
	m.meta.firstKey, m.meta.lastKey = nil, nil
	if m.meta.Rows > int64(len(m.long)) { // bbolt looks for ever for the last row when all were deleted in this transaction.
		c := m.keys.Cursor()
		first, _ := c.First()
		last, _ := c.Last()
		m.meta.firstKey, m.meta.lastKey = bytes.Clone(first), bytes.Clone(last)
	}
	return nil
}

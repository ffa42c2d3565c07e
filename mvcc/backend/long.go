package backend

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// longKey is a key of more than 1 KiB. The row lies in bucket longkeys under
// the ordinal; order is kept here, in memory, because there are few.
type longKey struct {
	key     []byte
	ordinal uint64
	lease   ident.LeaseID
}

// longIndex is sorted by key. It is never changed, only replaced, so that each
// view has its own.
type longIndex []*longKey

func (x longIndex) search(key []byte) (int, bool) {
	return sort.Find(len(x), func(i int) int { return bytes.Compare(key, x[i].key) })
}

// leased returns the keys of a lease that come after one of them.
func (x longIndex) leased(id ident.LeaseID, after []byte) [][]byte {
	var keys [][]byte
	for _, k := range x {
		if k.lease == id && (after == nil || bytes.Compare(k.key, after) > 0) {
			keys = append(keys, bytes.Clone(k.key))
		}
	}
	return keys
}

// merge returns the index after changes, which are sorted by key. One whose
// ordinal is 0 removes its key.
func (x longIndex) merge(changes []*longKey) longIndex {
	merged := make(longIndex, 0, len(x)+len(changes))
	for _, c := range changes {
		i, found := x.search(c.key)
		merged = append(merged, x[:i]...)
		x = x[i:]
		if found {
			x = x[1:]
		}
		if c.ordinal != 0 {
			merged = append(merged, c)
		}
	}
	return append(merged, x...)
}

// readLong builds the index from the file.
func (v *View) readLong() (longIndex, error) {
	index := longIndex{}
	err := v.longKeys.scan(nil, func(k, payload []byte) (bool, error) {
		key, kv, ok := splitLong(payload)
		if !ok || len(k) != 8 || len(key) <= shortKeyBytesMax {
			return false, &DamageError{File: v.file, Row: -1, Reason: "row of bucket longkeys is not valid"}
		}
		lease, err := leaseOf(kv)
		if err != nil {
			return false, err
		}
		index = append(index, &longKey{key: bytes.Clone(key), ordinal: binary.BigEndian.Uint64(k), lease: lease})
		return true, nil
	})
	slices.SortFunc(index, func(a, b *longKey) int { return bytes.Compare(a.key, b.key) })
	return index, err
}

// longRow returns the KeyValue of a long key.
func (v *View) longRow(k *longKey) ([]byte, error) {
	payload, err := v.longKeys.get(ordinalKey(k.ordinal))
	if err != nil {
		return nil, err
	}
	key, kv, ok := splitLong(payload)
	if !ok || !bytes.Equal(key, k.key) {
		return nil, &DamageError{File: v.file, Row: -1, Reason: "row of a long key is missing or another one's"}
	}
	return kv, nil
}

package mvcc

import (
	"bytes"
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// leaseKeys returns the keys that hang on a lease at revision at, sorted. Base
// knows who did as of M, the generations who did since at some time; both are
// hints, the key itself decides (rule 7).
func (s *source) leaseKeys(id ident.LeaseID, at ident.Revision) ([][]byte, error) {
	if id == 0 {
		return nil, nil
	}
	keys := s.layout.active.leaseHints(id, nil)
	for _, g := range s.layout.older {
		if g.last <= s.layout.merged.Revision {
			break
		}
		keys = g.leaseHints(id, keys)
	}
	var after []byte
	for {
		page, err := s.baseView().LeaseKeys(id, after, leaseKeysPage)
		if err != nil {
			return nil, err
		}
		keys = append(keys, page...)
		if len(page) < leaseKeysPage {
			break
		}
		after = page[len(page)-1]
	}
	slices.SortFunc(keys, bytes.Compare)
	keys = slices.CompactFunc(keys, bytes.Equal)
	attached := keys[:0]
	for _, key := range keys {
		m, ok, err := s.meta(key, at)
		if err != nil {
			return nil, err
		}
		if ok && m.Lease == id {
			attached = append(attached, key)
		}
	}
	return attached, nil
}

// leaseHints appends the keys that had the lease at some revision in here.
func (g *generation) leaseHints(id ident.LeaseID, keys [][]byte) [][]byte {
	hints := &generation{list: g.leaseList.Load(), table: g.leaseTable}
	if hints.list == nil && hints.table == nil {
		return keys
	}
	prefix := appendLeaseKey(nil, id, nil)
	for c := hints.seek(prefix); bytes.HasPrefix(c.key, prefix); c.next() {
		keys = append(keys, bytes.Clone(c.key[len(prefix):]))
	}
	return keys
}

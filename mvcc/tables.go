package mvcc

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// How lists become tables, and many tables few. All of it is done in the
// background, on generations that no longer change.

// convert turns the list of a sealed segment into a table, which it stores
// beside the segment for the next start.
func (s *Store) convert(g *generation) (*generation, error) {
	segment := g.list.segment
	b := history.NewKeyTableBuilder(segment)
	if err := addAll(b, g); err != nil {
		return nil, fmt.Errorf("key table of segment %d: %w", segment, err)
	}
	if err := s.history.WriteIndex(segment, b.Finish()); err != nil {
		return nil, err
	}
	// What is used from here on is what a restart will find.
	t, err := s.history.ReadIndex(segment)
	if err != nil {
		return nil, err
	}
	c := newTable(g.first, g.last, t, []span{{g.first, segment}})
	if leases := g.leaseList.Load(); leases != nil {
		c.leaseTable, err = hintTable(leases.allKeys())
	}
	return c, err
}

func newTable(first, last ident.Revision, t *history.KeyTable, spans []span) *generation {
	return &generation{first: first, last: last, table: t, spans: spans}
}

// addAll adds all keys of a generation and their versions.
func addAll(b *history.KeyTableBuilder, g *generation) error {
	var versions []history.Version
	for c := g.seek(nil); c.key != nil; c.next() {
		versions = c.versions(versions[:0])
		if len(versions) == 0 {
			continue // A put that was taken back.
		}
		if err := b.Add(c.key, versions); err != nil {
			return err
		}
	}
	return nil
}

func (s *skiplist) allKeys() [][]byte {
	keys := make([][]byte, 0, s.count)
	for n := s.next(0, 0); n != 0; n = s.next(n, 0) {
		keys = append(keys, s.key(n))
	}
	return keys
}

// leaseTable finds the leases in a table.
func leaseTable(g *generation) (*history.KeyTable, error) {
	var keys [][]byte
	var versions []history.Version
	for c := g.seek(nil); c.key != nil; c.next() {
		versions = c.versions(versions[:0])
		for i := range versions {
			if id := versions[i].Lease; id != 0 && (i == 0 || versions[i-1].Lease != id) {
				keys = append(keys, appendLeaseKey(nil, id, c.key))
			}
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return hintTable(slices.CompactFunc(keys, bytes.Equal))
}

// hintTable is a table of keys alone, nil without any.
func hintTable(keys [][]byte) (*history.KeyTable, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	b := history.NewKeyTableBuilder(0)
	version := []history.Version{{Mod: 1, Tombstone: true}} // A table wants one.
	for _, key := range keys {
		if err := b.Add(key, version); err != nil {
			return nil, fmt.Errorf("table of leases: %w", err)
		}
	}
	return b.Finish(), nil
}

// mergeTables makes one generation of two adjacent ones, younger and older.
func mergeTables(younger, older *generation) (*generation, error) {
	b := history.NewKeyTableBuilder(0)
	var versions []history.Version
	y, o := younger.seek(nil), older.seek(nil)
	for y.key != nil || o.key != nil {
		order := -1
		switch {
		case y.key == nil:
			order = 1
		case o.key != nil:
			order = bytes.Compare(y.key, o.key)
		}
		versions = versions[:0]
		key := y.key
		if order > 0 {
			key = o.key
		}
		if order >= 0 {
			versions = o.versions(versions)
		}
		if order <= 0 {
			versions = y.versions(versions)
		}
		for i := range versions {
			versions[i].Loc.Segment = 0 // The spans tell.
		}
		if err := b.Add(key, versions); err != nil {
			return nil, fmt.Errorf("merge key tables: %w", err)
		}
		if order >= 0 {
			o.next()
		}
		if order <= 0 {
			y.next()
		}
	}
	m := newTable(older.first, younger.last, b.Finish(), slices.Concat(older.spans, younger.spans))
	var err error
	m.leaseTable, err = leaseTable(m)
	return m, err
}

// crowded picks the adjacent tables that are cheapest to merge when a read
// meets too many generations: the younger one's place in older, -1 for none.
func (l *layout) crowded() int {
	if len(l.older) < generationsMax {
		return -1
	}
	best, least := -1, int64(tableBytesMax)
	for i := 0; i+1 < len(l.older); i++ {
		younger, older := l.older[i], l.older[i+1]
		if younger.table == nil || older.table == nil {
			continue
		}
		if n := younger.bytes() + older.bytes(); n < least {
			best, least = i, n
		}
	}
	return best
}

package history

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// KeyTable is the sorted index of the keys that changed in one segment. It
// never changes, so that any number of goroutines may read it. What is in
// memory is what is in the file, some fifteen bytes a version besides the part
// of the key that the one before does not have, and six bytes a key to find it
// at once.
//
// Invariant: the bytes were checked whole when they came in, so that reading
// needs no further checks.
type KeyTable struct {
	data     []byte // All of it, with header.
	entries  []byte
	restarts []byte
	segment  uint64
	keys     int
	versions int
	slots    slots
}

func newKeyTable(data []byte, entries int) *KeyTable {
	return &KeyTable{
		data:     data,
		entries:  data[tableHeaderBytes : tableHeaderBytes+entries],
		restarts: data[tableHeaderBytes+entries:],
		keys:     int(binary.LittleEndian.Uint64(data[8:])),
		versions: int(binary.LittleEndian.Uint64(data[16:])),
		segment:  binary.LittleEndian.Uint64(data[24:]),
	}
}

// decodeKeyTable checks every byte of a table.
func decodeKeyTable(data []byte) (*KeyTable, error) {
	if len(data) < tableHeaderBytes || len(data) > math.MaxUint32 {
		return nil, malformed("a key table of %d bytes", len(data))
	}
	if checksum(0, data[4:]) != binary.LittleEndian.Uint32(data) {
		return nil, malformed("checksum of a key table of %d bytes", len(data))
	}
	restarts := uint64(binary.LittleEndian.Uint32(data[4:]))
	entries := binary.LittleEndian.Uint64(data[32:])
	if entries > math.MaxUint32 || tableHeaderBytes+entries+4*restarts != uint64(len(data)) {
		return nil, malformed("a key table of %d bytes with %d of entries and %d restarts", len(data), entries, restarts)
	}
	t := newKeyTable(data, int(entries))
	if err := t.check(restarts); err != nil {
		return nil, err
	}
	t.slots = newSlots(t)
	return t, nil
}

// check walks through all entries and sees whether the builder would have
// written the same.
func (t *KeyTable) check(restarts uint64) error {
	var c entryChecker
	rest := t.entries
	for len(rest) > 0 {
		at := uint32(len(t.entries) - len(rest))
		if c.keys%restartKeys == 0 {
			if i := c.keys / restartKeys; i >= restarts || t.restart(int(i)) != at {
				return malformed("restart %d of the key table", i)
			}
		}
		var ok bool
		if rest, ok = c.entry(rest, t.segment); !ok {
			return malformed("key %d of the table, at %d", c.keys, at)
		}
	}
	if c.keys != binary.LittleEndian.Uint64(t.data[8:]) || c.versions != binary.LittleEndian.Uint64(t.data[16:]) ||
		restarts != (c.keys+restartKeys-1)/restartKeys {
		return malformed("a table of %d keys, %d versions, %d restarts says otherwise", c.keys, c.versions, restarts)
	}
	return nil
}

type entryChecker struct {
	key      []byte
	keys     uint64
	versions uint64
}

func (c *entryChecker) entry(data []byte, segment uint64) ([]byte, bool) {
	shared, rest, ok1 := cutUvarint(data)
	suffix, rest, ok2 := cutSized(rest)
	count, rest, ok3 := cutUvarint(rest)
	body, rest, ok4 := cutSized(rest)
	if !ok1 || !ok2 || !ok3 || !ok4 || count == 0 || shared > uint64(len(c.key)) || len(suffix) == 0 {
		return nil, false
	}
	// The key is greater than the last one exactly if it differs upwards where
	// they part, or goes on where that one ends.
	switch {
	case c.keys%restartKeys == 0:
		if shared != 0 || c.keys > 0 && bytes.Compare(suffix, c.key) <= 0 {
			return nil, false
		}
	case shared < uint64(len(c.key)) && suffix[0] <= c.key[shared]:
		return nil, false
	}
	c.key = append(c.key[:shared], suffix...)
	if !c.body(body, count, segment) {
		return nil, false
	}
	c.keys++
	c.versions += count
	return rest, true
}

func (c *entryChecker) body(body []byte, count, segment uint64) bool {
	if count > uint64(len(body)) {
		return false
	}
	runs := 4 * runCount(count)
	if runs > uint64(len(body)) {
		return false
	}
	versions := body[runs:]
	rest := versions
	var last ident.Revision
	for i := range count {
		if i > 0 && i%runVersions == 0 {
			if binary.LittleEndian.Uint32(body[4*(i/runVersions-1):]) != uint32(len(versions)-len(rest)) {
				return false
			}
		}
		var v Version
		var ok bool
		if rest, ok = cutVersion(rest, segment, &v); !ok || v.Mod < last {
			return false
		}
		last = v.Mod
	}
	return len(rest) == 0
}

// Segment is the id of the segment that the table belongs to.
func (t *KeyTable) Segment() uint64 { return t.segment }

// Len is how many keys there are.
func (t *KeyTable) Len() int { return t.keys }

// Versions is how many versions of keys there are.
func (t *KeyTable) Versions() int { return t.versions }

// Bytes is how much memory the table takes.
func (t *KeyTable) Bytes() int { return len(t.data) + t.slots.bytes() }

// Find returns the newest version of a key at a revision.
func (t *KeyTable) Find(key []byte, at ident.Revision) (Version, bool) {
	e, ok := t.find(key)
	if !ok {
		return Version{}, false
	}
	return e.find(t.segment, at)
}

// Each calls a function with each key in order, and its versions, newest last.
// What it gets is good until it returns.
func (t *KeyTable) Each(fn func(key []byte, versions []Version) error) error {
	var versions []Version
	it := t.Iter()
	for ok := it.First(); ok; ok = it.Next() {
		versions = it.Versions(versions[:0])
		if err := fn(it.Key(), versions); err != nil {
			return err
		}
	}
	return nil
}

// Iter returns an iterator, which belongs to one goroutine.
func (t *KeyTable) Iter() KeyIterator { return KeyIterator{table: t} }

func (t *KeyTable) restart(i int) uint32 { return binary.LittleEndian.Uint32(t.restarts[4*i:]) }

// restartBefore returns where to begin to look for a key: at the last restart
// that is not greater.
func (t *KeyTable) restartBefore(key []byte) []byte {
	lo, hi := 0, len(t.restarts)/4
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		suffix, _ := takeSized(t.entries[t.restart(mid)+1:]) // After "shared", which is one zero byte.
		if bytes.Compare(suffix, key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil
	}
	return t.entries[t.restart(lo-1):]
}

// find looks for a key in the few places where it may be.
func (t *KeyTable) find(key []byte) (entry, bool) {
	for p := t.slots.first(key); p.next(); {
		if e, ok := findFrom(t.entries[t.restart(p.restart()):], key); ok {
			return e, true
		}
	}
	return entry{}, false
}

// findFrom looks for a key behind one restart, without putting together the
// keys before it.
func findFrom(rest, key []byte) (entry, bool) {
	matched := 0 // Bytes that key has in common with the entry before, which is smaller.
	for range restartKeys {
		if len(rest) == 0 {
			break
		}
		var e entry
		e, rest = takeEntry(rest)
		if e.shared > matched {
			continue // Parts from the key where the entry before did.
		}
		if e.shared < matched {
			break
		}
		n := commonPrefix(e.suffix, key[matched:])
		matched += n
		if n == len(e.suffix) {
			if matched == len(key) {
				return e, true
			}
			continue
		}
		if matched == len(key) || e.suffix[n] > key[matched] {
			break
		}
	}
	return entry{}, false
}

// entry is one key of a table, taken apart but for its versions.
type entry struct {
	shared int
	suffix []byte
	count  uint64
	body   []byte
}

func takeEntry(data []byte) (e entry, rest []byte) {
	shared, suffix, rest := takePair(data)
	e.shared, e.suffix, rest = int(shared), rest[:suffix], rest[suffix:]
	count, body, rest := takePair(rest)
	e.count, e.body, rest = count, rest[:body], rest[body:]
	return e, rest
}

// takePair takes two numbers, which mostly have one byte each.
func takePair(data []byte) (a, b uint64, rest []byte) {
	if x, y := data[0], data[1]; x|y < 0x80 {
		return uint64(x), uint64(y), data[2:]
	}
	a, rest = takeUvarint(data)
	b, rest = takeUvarint(rest)
	return a, b, rest
}

// find returns the newest version at a revision.
func (e *entry) find(segment uint64, at ident.Revision) (Version, bool) {
	runs := int(runCount(e.count))
	versions := e.body[4*runs:]
	left := e.count
	if runs > 0 {
		// The last run that begins at or before the revision.
		lo, hi := 0, runs
		for lo < hi {
			mid := int(uint(lo+hi) / 2)
			head, _ := takeUvarint(versions[e.run(mid):])
			if ident.Revision(head>>flagBits) <= at {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		if lo > 0 {
			versions = versions[e.run(lo-1):]
			left -= uint64(lo) * runVersions
		}
	}
	var found, v Version
	for range min(left, runVersions) {
		versions, _ = cutVersion(versions, segment, &v)
		if v.Mod > at {
			break
		}
		found = v
	}
	return found, found.Mod > 0
}

func (e *entry) run(i int) uint32 { return binary.LittleEndian.Uint32(e.body[4*i:]) }

// KeyIterator goes through the keys of a table in order.
type KeyIterator struct {
	table *KeyTable
	rest  []byte
	key   []byte
	entry entry
	valid bool
}

// First goes to the first key.
func (i *KeyIterator) First() bool {
	i.rest, i.key = i.table.entries, i.key[:0]
	return i.Next()
}

// Seek goes to the first key that is not smaller.
func (i *KeyIterator) Seek(key []byte) bool {
	i.rest, i.key = i.table.restartBefore(key), i.key[:0]
	if i.rest == nil {
		i.rest = i.table.entries
	}
	for i.Next() {
		if bytes.Compare(i.key, key) >= 0 {
			return true
		}
	}
	return false
}

// Next goes to the key after.
func (i *KeyIterator) Next() bool {
	if i.valid = len(i.rest) > 0; !i.valid {
		return false
	}
	i.entry, i.rest = takeEntry(i.rest)
	i.key = append(i.key[:i.entry.shared], i.entry.suffix...)
	return true
}

// Valid tells whether the iterator stands at a key.
func (i *KeyIterator) Valid() bool { return i.valid }

// Key is the key it stands at, good until it moves.
func (i *KeyIterator) Key() []byte { return i.key }

// Count is how many versions the key has.
func (i *KeyIterator) Count() int { return int(i.entry.count) }

// Find returns the newest version of the key at a revision.
func (i *KeyIterator) Find(at ident.Revision) (Version, bool) {
	return i.entry.find(i.table.segment, at)
}

// Versions appends the versions of the key, newest last.
func (i *KeyIterator) Versions(dst []Version) []Version {
	dst = slices.Grow(dst, int(i.entry.count))
	versions := i.entry.body[4*runCount(i.entry.count):]
	for range i.entry.count {
		var v Version
		versions, _ = cutVersion(versions, i.table.segment, &v)
		dst = append(dst, v)
	}
	return dst
}

// takeUvarint is cutUvarint for bytes that were checked.
func takeUvarint(data []byte) (uint64, []byte) {
	v, n := binary.Uvarint(data)
	return v, data[n:]
}

func takeSized(data []byte) ([]byte, []byte) {
	n, rest := takeUvarint(data)
	return rest[:n], rest[n:]
}

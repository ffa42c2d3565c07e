package mvcc

import (
	"encoding/binary"
	"math"
	"sort"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// generation is the young index of one history segment, or, once tables were
// merged, of several adjacent ones: which keys changed there, to what, and
// where the values lie.
//
// It begins as a list that the apply goroutine extends. After its segment was
// sealed, a table takes its place: the same content, immutable, smaller, and
// stored beside the segment. Generations cover disjoint, rising ranges of
// revisions.
type generation struct {
	first, last ident.Revision // Revisions that may be in here. last is without bound while the list is written.

	list  *skiplist // One of list and table is set.
	table *history.KeyTable
	spans []span // Where the revisions of a table lie.

	// Keys that had a lease at some revision in here, as lease ‖ key. A hint: the
	// key itself tells whether it still has.
	leaseList  atomic.Pointer[skiplist] // Beside list.
	leaseTable *history.KeyTable        // Beside table, nil when there are none.
}

// span says that revisions from first on lie in a segment.
type span struct {
	first   ident.Revision
	segment uint64
}

const noBound = ident.Revision(math.MaxInt64)

func newActive(segment uint64, head ident.Revision) *generation {
	return &generation{first: head + 1, last: noBound, list: newSkiplist(segment, head)}
}

// sealed is the same list, known to hold nothing newer than head.
func (g *generation) sealed(head ident.Revision) *generation {
	s := &generation{first: g.first, last: head, list: g.list}
	s.leaseList.Store(g.leaseList.Load())
	return s
}

// put is skiplist.put, and remembers the lease.
func (g *generation) put(key []byte, v *history.Version, pending bool) versionRef {
	if v.Lease != 0 {
		leases := g.leaseList.Load()
		if leases == nil {
			leases = newSkiplist(g.list.segment, g.list.base)
			g.leaseList.Store(leases)
		}
		leases.node(appendLeaseKey(nil, v.Lease, key))
	}
	return g.list.put(key, v, pending)
}

func appendLeaseKey(dst []byte, id ident.LeaseID, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(dst, uint64(id)), key...)
}

// find returns the newest version of key not above revision at.
func (g *generation) find(key []byte, at ident.Revision, v *history.Version) bool {
	if g.list != nil {
		node := g.list.lookup(key)
		return node != 0 && g.list.at(node, at, v)
	}
	var ok bool
	if *v, ok = g.table.Find(key, at); ok {
		g.locate(v)
	}
	return ok
}

// locate sets the segment of a version out of a table.
func (g *generation) locate(v *history.Version) {
	if len(g.spans) == 1 {
		v.Loc.Segment = g.spans[0].segment
		return
	}
	i := sort.Search(len(g.spans), func(i int) bool { return g.spans[i].first > v.Mod })
	v.Loc.Segment = g.spans[i-1].segment
}

// bytes is about what the index takes in memory.
func (g *generation) bytes() int64 {
	n := 0
	if g.list != nil {
		n += g.list.bytes()
	} else {
		n += g.table.Bytes()
	}
	if l := g.leaseList.Load(); l != nil {
		n += l.bytes()
	}
	if g.leaseTable != nil {
		n += g.leaseTable.Bytes()
	}
	return int64(n)
}

// cursor walks the keys of a generation in order.
type cursor struct {
	g     *generation
	list  *skiplist
	node  uint32
	table history.KeyIterator
	key   []byte // Nil at the end.
}

func (g *generation) seek(key []byte) cursor {
	c := cursor{g: g, list: g.list}
	if c.list != nil {
		c.node = c.list.seek(key, nil)
		c.loadKey()
		return c
	}
	c.table = g.table.Iter()
	c.table.Seek(key)
	c.loadKey()
	return c
}

func (c *cursor) next() {
	if c.list != nil {
		c.node = c.list.next(c.node, 0)
	} else {
		c.table.Next()
	}
	c.loadKey()
}

func (c *cursor) loadKey() {
	switch {
	case c.list != nil && c.node != 0:
		c.key = c.list.key(c.node)
	case c.list == nil && c.table.Valid():
		c.key = c.table.Key()
	default:
		c.key = nil
	}
}

// at returns the newest version of the current key not above revision rev.
func (c *cursor) at(rev ident.Revision, v *history.Version) bool {
	if c.list != nil {
		return c.list.at(c.node, rev, v)
	}
	var ok bool
	if *v, ok = c.table.Find(rev); ok {
		c.g.locate(v)
	}
	return ok
}

// versions appends all versions of the current key, newest last.
func (c *cursor) versions(dst []history.Version) []history.Version {
	n := len(dst)
	if c.list != nil {
		return c.list.versions(c.node, dst)
	}
	dst = c.table.Versions(dst)
	for i := n; i < len(dst); i++ {
		c.g.locate(&dst[i])
	}
	return dst
}

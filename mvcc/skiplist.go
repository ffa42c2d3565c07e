package mvcc

import (
	"bytes"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// skiplist is the young index of the history segment that is being written:
// key → versions, newest first.
//
// The apply goroutine writes, anybody reads without a lock. Nodes and versions
// lie in chunks of words and name each other by address, not by pointer, so
// that the collector meets a few hundred pointers and not millions; nothing is
// ever freed or moved before the whole list goes.
//
//	node:    key address │ key length, height │ newest version* │ next*, one per level
//	version: older version │ revision - base │ value offset │ value length │ flags │ extras
//
// Words marked * change after they can be seen and are accessed atomically.
// All others are written before the word that leads to them, or, for value
// offset, length and flags of a pending put, before the revision that makes
// them readable is published: readers compare revisions first.
type skiplist struct {
	segment uint64
	base    ident.Revision // Before the first revision of this list.

	height atomic.Uint32 // Levels in use.
	head   [skipHeightMax]atomic.Uint32

	index nodeIndex

	words    [wordChunksMax]*wordChunk
	keys     [keyChunksMax][]byte
	nextWord uint32 // Owned by the writer, as all below.
	keyChunk int
	keyUsed  int
	keyBytes int // All keys together.
	random   uint64
	count    int
}

type wordChunk [1 << wordChunkBits]uint32

const (
	wordChunkBits = 18 // 1 MiB.
	wordChunkMask = 1<<wordChunkBits - 1
	keyChunkBits  = 20 // 1 MiB; a longer key has a chunk of its own.
	keyChunkMask  = 1<<keyChunkBits - 1
	keyFirstBytes = 64 << 10 // The first one: most lists are sealed with few keys.

	nodeKey     = 0
	nodeLength  = 1 // Key length << 8 | height.
	nodeNewest  = 2
	nodeNext    = 3
	versionWord = 5 // Words of a version without extras.
)

const (
	flagTombstone = 1 << iota
	flagPending   // The value is not in history yet: the offset counts pending puts.
	flagFirst     // Created here: create = mod, version = 1. No extras but the lease.
	flagFar       // Create and version take two words each.
	flagLease     // Two words.
)

func newSkiplist(segment uint64, base ident.Revision) *skiplist {
	s := &skiplist{segment: segment, base: base, nextWord: 1, keyChunk: -1, random: 0x9e3779b97f4a7c15}
	s.height.Store(1)
	s.index.init()
	return s
}

// full reports whether the list should be sealed before another entry.
func (s *skiplist) full() bool {
	return s.nextWord>>wordChunkBits > wordChunksMax/4 || s.keyChunk > keyChunksMax/4
}

// bytes is how much memory the list takes.
func (s *skiplist) bytes() int {
	return int(s.nextWord)*4 + s.keyBytes + 8*len(*s.index.slots.Load())
}

func (s *skiplist) word(at uint32) *uint32 {
	return &s.words[at>>wordChunkBits][at&wordChunkMask]
}

func (s *skiplist) key(node uint32) []byte {
	c := s.words[node>>wordChunkBits]
	at, n := c[node&wordChunkMask+nodeKey], c[node&wordChunkMask+nodeLength]>>8
	off := at & keyChunkMask
	return s.keys[at>>keyChunkBits][off : off+n : off+n]
}

// next is the node after node on a level; node 0 is the head.
func (s *skiplist) next(node uint32, level int) uint32 {
	if node == 0 {
		return s.head[level].Load()
	}
	return atomic.LoadUint32(s.word(node + nodeNext + uint32(level)))
}

// seek returns the first node whose key is not below key. With path, it also
// notes the node before it on each level.
func (s *skiplist) seek(key []byte, path *[skipHeightMax]uint32) (node uint32) {
	at, beyond := uint32(0), uint32(0)
	for level := int(s.height.Load()) - 1; level >= 0; level-- {
		for {
			n := s.next(at, level)
			if n == 0 || n == beyond {
				break
			}
			if bytes.Compare(s.key(n), key) >= 0 {
				beyond = n
				break
			}
			at = n
		}
		if path != nil {
			path[level] = at
		}
	}
	return beyond
}

// alloc reserves n adjacent words.
func (s *skiplist) alloc(n uint32) uint32 {
	if s.nextWord&wordChunkMask+n > 1<<wordChunkBits {
		s.nextWord = (s.nextWord | wordChunkMask) + 1
	}
	at := s.nextWord
	chunk := at >> wordChunkBits
	if chunk >= wordChunksMax {
		assert.Failf("young index of segment %d needs over %d chunks", s.segment, wordChunksMax)
	}
	if s.words[chunk] == nil {
		s.words[chunk] = new(wordChunk)
	}
	s.nextWord += n
	return at
}

// node finds or makes the node of a key.
func (s *skiplist) node(key []byte) uint32 {
	if n := s.lookup(key); n != 0 {
		return n
	}
	var path [skipHeightMax]uint32
	s.seek(key, &path)
	h := s.drawHeight()
	n := s.alloc(nodeNext + uint32(h))
	*s.word(n + nodeKey) = s.storeKey(key)
	*s.word(n + nodeLength) = uint32(len(key))<<8 | uint32(h)
	for level := range h {
		*s.word(n + nodeNext + uint32(level)) = s.next(path[level], level) // Levels not in use yet begin at the head: path is 0 there.
	}
	for level := range h {
		if path[level] == 0 {
			s.head[level].Store(n)
		} else {
			atomic.StoreUint32(s.word(path[level]+nodeNext+uint32(level)), n)
		}
	}
	if uint32(h) > s.height.Load() {
		s.height.Store(uint32(h))
	}
	s.count++
	s.index.add(s, key, n)
	return n
}

// drawHeight gives each level a quarter of the nodes of the one below. The
// seed is fixed: two members, or two runs, build the same list.
func (s *skiplist) drawHeight() int {
	s.random ^= s.random << 13
	s.random ^= s.random >> 7
	s.random ^= s.random << 17
	h := 1 + bits.TrailingZeros64(s.random|1<<63)/2
	return min(h, skipHeightMax)
}

func (s *skiplist) storeKey(key []byte) uint32 {
	if s.keyChunk < 0 || len(s.keys[s.keyChunk])-s.keyUsed < len(key) {
		s.keyChunk++
		if s.keyChunk >= keyChunksMax {
			assert.Failf("young index of segment %d needs over %d chunks of keys", s.segment, keyChunksMax)
		}
		size := 1 << keyChunkBits
		if s.keyChunk == 0 {
			size = keyFirstBytes
		}
		s.keys[s.keyChunk] = make([]byte, max(size, len(key)))
		s.keyUsed = 0
	}
	at := uint32(s.keyChunk)<<keyChunkBits | uint32(s.keyUsed)
	copy(s.keys[s.keyChunk][s.keyUsed:], key)
	s.keyUsed += len(key)
	s.keyBytes += len(key)
	return at
}

// versionRef names a version so that its writer can complete or undo it.
type versionRef struct{ node, at, older uint32 }

// put makes v the newest version of key. A version with the same revision,
// made by the same request, is replaced.
func (s *skiplist) put(key []byte, v *history.Version, pending bool) versionRef {
	node := s.node(key)
	older := atomic.LoadUint32(s.word(node + nodeNewest))
	ref := versionRef{node: node, older: older}
	if older != 0 && s.mod(older) == v.Mod {
		older = *s.word(older)
	}
	flags, n := versionShape(v, pending)
	at := s.alloc(n)
	w := s.words[at>>wordChunkBits][at&wordChunkMask:][:n]
	w[0], w[1], w[2], w[3], w[4] = older, uint32(v.Mod-s.base), v.Loc.Offset, v.Loc.Length, flags
	x := w[versionWord:]
	switch {
	case flags&(flagFirst|flagTombstone) != 0:
	case flags&flagFar != 0:
		x[0], x[1] = uint32(v.Create>>32), uint32(v.Create)
		x[2], x[3] = uint32(v.Version>>32), uint32(v.Version)
		x = x[4:]
	default:
		x[0], x[1] = uint32(v.Mod-v.Create), uint32(v.Version)
		x = x[2:]
	}
	if flags&flagLease != 0 {
		x[0], x[1] = uint32(uint64(v.Lease)>>32), uint32(v.Lease)
	}
	ref.at = at
	atomic.StoreUint32(s.word(node+nodeNewest), at)
	return ref
}

func versionShape(v *history.Version, pending bool) (flags, words uint32) {
	words = versionWord
	if pending {
		flags |= flagPending
	}
	switch {
	case v.Tombstone:
		return flags | flagTombstone, words
	case v.Create == v.Mod && v.Version == 1:
		flags |= flagFirst
	case v.Mod-v.Create >= 1<<32 || v.Version >= 1<<32:
		flags |= flagFar
		words += 4
	default:
		words += 2
	}
	if v.Lease != 0 {
		flags |= flagLease
		words += 2
	}
	return flags, words
}

// settle says where in the segment the value of a pending put came to lie.
func (s *skiplist) settle(ref versionRef, loc history.Loc) {
	w := s.words[ref.at>>wordChunkBits][ref.at&wordChunkMask:][:versionWord]
	w[2], w[3], w[4] = loc.Offset, loc.Length, w[4]&^flagPending
}

// undo takes back a put that nobody was told of. Its node stays, maybe without
// any version, which reads as no key.
func (s *skiplist) undo(ref versionRef) {
	atomic.StoreUint32(s.word(ref.node+nodeNewest), ref.older)
}

func (s *skiplist) mod(version uint32) ident.Revision {
	return s.base + ident.Revision(*s.word(version + 1))
}

// at finds the newest version of a node not above revision rev.
func (s *skiplist) at(node uint32, rev ident.Revision, v *history.Version) bool {
	for at := atomic.LoadUint32(s.word(node + nodeNewest)); at != 0; at = *s.word(at) {
		if s.mod(at) <= rev {
			s.load(at, v)
			return true
		}
	}
	return false
}

// pendingSegment marks a Loc that counts pending puts.
const pendingSegment = ^uint64(0)

func (s *skiplist) load(at uint32, v *history.Version) {
	w := s.words[at>>wordChunkBits][at&wordChunkMask:]
	flags := w[4]
	*v = history.Version{Mod: s.base + ident.Revision(w[1]), Tombstone: flags&flagTombstone != 0}
	if v.Tombstone {
		return
	}
	v.Loc = history.Loc{Segment: s.segment, Offset: w[2], Length: w[3]}
	if flags&flagPending != 0 {
		v.Loc.Segment = pendingSegment
	}
	x := w[versionWord:]
	switch {
	case flags&flagFirst != 0:
		v.Create, v.Version = v.Mod, 1
	case flags&flagFar != 0:
		v.Create = ident.Revision(x[0])<<32 | ident.Revision(x[1])
		v.Version = int64(x[2])<<32 | int64(x[3])
		x = x[4:]
	default:
		v.Create, v.Version = v.Mod-ident.Revision(x[0]), int64(x[1])
		x = x[2:]
	}
	if flags&flagLease != 0 {
		v.Lease = ident.LeaseID(uint64(x[0])<<32 | uint64(x[1]))
	}
}

// versions appends all versions of a node, newest last.
func (s *skiplist) versions(node uint32, dst []history.Version) []history.Version {
	n := len(dst)
	for at := atomic.LoadUint32(s.word(node + nodeNewest)); at != 0; at = *s.word(at) {
		dst = append(dst, history.Version{})
		s.load(at, &dst[len(dst)-1])
	}
	slices.Reverse(dst[n:])
	return dst
}

package mvcc

import (
	"bytes"
	"hash/maphash"
	"sync/atomic"
)

// nodeIndex finds the node of a key at once, where the list would compare some
// twenty keys. Point reads and puts go through it; the list is for ranges. Who
// writes the list writes the index; anybody reads.
//
// A slot holds the upper half of a key's hash and the address of its node. The
// hash differs from process to process, which nothing can see.
type nodeIndex struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]atomic.Uint64] // A power of two. Replaced when three quarters are taken.
	taken int
}

func (x *nodeIndex) hash(key []byte) uint64 { return maphash.Bytes(x.seed, key) }

func (x *nodeIndex) init() {
	slots := make([]atomic.Uint64, indexSlotsMin)
	x.seed = maphash.MakeSeed()
	x.slots.Store(&slots)
}

// lookup returns the node of a key, 0 when there is none.
func (s *skiplist) lookup(key []byte) uint32 {
	h := s.index.hash(key)
	slots := *s.index.slots.Load()
	for i := h; ; i++ {
		slot := slots[i&uint64(len(slots)-1)].Load()
		if slot == 0 {
			return 0
		}
		if slot>>32 == h>>32 {
			if node := uint32(slot); bytes.Equal(s.key(node), key) {
				return node
			}
		}
	}
}

// add adds a node that is not there yet.
func (x *nodeIndex) add(s *skiplist, key []byte, node uint32) {
	slots := *x.slots.Load()
	if 4*x.taken >= 3*len(slots) {
		slots = x.grow(s, slots)
	}
	x.taken++
	place(slots, x.hash(key), node)
}

func (x *nodeIndex) grow(s *skiplist, old []atomic.Uint64) []atomic.Uint64 {
	slots := make([]atomic.Uint64, 2*len(old))
	for i := range old {
		if slot := old[i].Load(); slot != 0 {
			node := uint32(slot)
			place(slots, x.hash(s.key(node)), node)
		}
	}
	x.slots.Store(&slots)
	return slots
}

func place(slots []atomic.Uint64, h uint64, node uint32) {
	for i := h; ; i++ {
		if slot := &slots[i&uint64(len(slots)-1)]; slot.Load() == 0 {
			slot.Store(h>>32<<32 | uint64(node))
			return
		}
	}
}

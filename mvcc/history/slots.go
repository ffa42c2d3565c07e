package history

import (
	"hash/maphash"
	"math/bits"
)

// slots tells behind which restart of a table a key may be, and for most keys
// that are not in the table that they are not: a read asks several tables, of
// which one has the key. It is made when a table comes into memory.
//
// A slot is a restart, counted from 1, and in the bits that are left a part of
// the key's hash. Zero is free; a key is in the first free slot from its own
// place on.
type slots struct {
	slots   []uint32
	tagBits int
}

// hashSeed differs from process to process, and no byte that is kept or sent
// depends on it.
var hashSeed = maphash.MakeSeed()

func newSlots(t *KeyTable) slots {
	restarts := len(t.restarts) / 4
	s := slots{
		slots:   make([]uint32, t.keys+t.keys/3+1), // A quarter stays free: few slots to look at.
		tagBits: 32 - bits.Len32(uint32(restarts)),
	}
	it := t.Iter()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		at, tag := s.place(it.key)
		for s.slots[at] != 0 {
			at = s.after(at)
		}
		s.slots[at] = uint32(n/restartKeys+1)<<s.tagBits | tag
		n++
	}
	return s
}

func (s *slots) bytes() int { return 4 * len(s.slots) }

// place returns the slot where a key would be if nothing was in the way.
func (s *slots) place(key []byte) (at int, tag uint32) {
	h := maphash.Bytes(hashSeed, key)
	at = int(h >> 32 * uint64(len(s.slots)) >> 32)
	return at, uint32(h) & (1<<s.tagBits - 1)
}

func (s *slots) after(at int) int {
	if at++; at == len(s.slots) {
		return 0
	}
	return at
}

// probe goes through the slots where a key may be.
type probe struct {
	slots *slots
	at    int
	tag   uint32
	slot  uint32
}

func (s *slots) first(key []byte) probe {
	at, tag := s.place(key)
	return probe{slots: s, at: at, tag: tag}
}

// next goes to the next slot that may be the key's, false when there is none.
func (p *probe) next() bool {
	for {
		p.slot = p.slots.slots[p.at]
		if p.slot == 0 {
			return false
		}
		p.at = p.slots.after(p.at)
		if p.slot&(1<<p.slots.tagBits-1) == p.tag {
			return true
		}
	}
}

func (p *probe) restart() int { return int(p.slot>>p.slots.tagBits) - 1 }

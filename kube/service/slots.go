package service

import (
	"hash/fnv"
	"net/netip"
	"slices"
)

// slotsFor is how many slots some endpoints share: a power of two.
func slotsFor(endpoints int) int {
	size := slotsMin
	for size < slotsPerEndpoint*endpoints && size < slotsMax {
		size *= slotsGrowth
	}
	return min(size, slotsMax)
}

// Assign gives each slot an endpoint, as evenly as it goes. Endpoints keep the slots that
// they had, as far as they do not have more than their share: one that goes moves its
// own, one that comes takes its share. Without what was before it follows from the
// endpoints alone, through a permutation of the slots that each of them prefers.
// Endpoints are sorted, and there is at least one.
func Assign(before, endpoints []netip.AddrPort) []netip.AddrPort {
	size := slotsFor(len(endpoints))
	if len(before) > size && len(before) <= slotsFor(2*len(endpoints)) {
		size = len(before) // One endpoint more or less must not move all again and again.
	}
	if len(endpoints) > size {
		endpoints = endpoints[:size]
	}
	if len(before) != size {
		before = nil
	}
	place := make(map[netip.AddrPort]int, len(endpoints))
	for i, e := range endpoints {
		place[e] = i
	}
	had, share := shares(before, place, size)
	slots := make([]netip.AddrPort, size)
	for slot, e := range before { // Mostly nobody has more than his share.
		if i, ok := place[e]; ok && had[i] <= share[i] {
			slots[slot] = e
		}
	}
	for i, e := range endpoints {
		if had[i] <= share[i] {
			share[i] -= had[i]
			continue
		}
		for next := preferred(e, size); share[i] > 0; { // Those that it prefers; it has enough.
			if slot, _ := next(); before[slot] == e {
				slots[slot] = e
				share[i]--
			}
		}
	}
	fill(slots, endpoints, share)
	return slots
}

// shares is how many slots each endpoint had, and is to have. The remainder goes to
// those who have more already.
func shares(before []netip.AddrPort, place map[netip.AddrPort]int, size int) (had, share []int) {
	n := len(place)
	had = make([]int, n)
	for _, e := range before {
		if i, ok := place[e]; ok {
			had[i]++
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return had[b] - had[a] })
	share = make([]int, n)
	for rank, i := range order {
		share[i] = size / n
		if rank < size%n {
			share[i]++
		}
	}
	return had, share
}

// fill gives free slots to those who have less than their share, in turn.
func fill(slots, endpoints []netip.AddrPort, share []int) {
	next := make([]func() (int, bool), len(endpoints))
	for left := true; left; {
		left = false
		for i, e := range endpoints {
			if share[i] == 0 {
				continue
			}
			if next[i] == nil {
				next[i] = preferred(e, len(slots))
			}
			slot, ok := next[i]()
			for ok && slots[slot].IsValid() {
				slot, ok = next[i]()
			}
			if !ok {
				continue // Nothing is free: shares add up to all slots, so this is the end.
			}
			slots[slot] = e
			share[i]--
			left = left || share[i] > 0
		}
	}
}

// preferred tells all slots in the order in which an endpoint likes them: steps of an
// odd width meet each of a power of two once.
func preferred(e netip.AddrPort, size int) func() (int, bool) {
	h := fnv.New64a()
	b, _ := e.MarshalBinary() // It cannot fail.
	h.Write(b)
	sum := h.Sum64()
	sum ^= sum >> 29 // The low bits of FNV alone hardly differ between neighbours.
	sum *= 0xbf58476d1ce4e5b9
	sum ^= sum >> 32
	at, step := int(sum%uint64(size)), int(sum>>33|1)%size
	told := 0
	return func() (int, bool) {
		if told == size {
			return 0, false
		}
		told++
		slot := at
		at = (at + step) % size
		return slot, true
	}
}

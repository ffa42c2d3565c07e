package history

import "sync/atomic"

// block is a piece of the ring: bytes of one segment as they will be in its
// file. A record never lies in two blocks, so that values can be read without
// copying.
type block struct {
	segment   *segment
	start     int64 // Offset in the file of data[0].
	data      []byte
	published atomic.Int64 // Readers may look at data[:published]: whole records.
	flushed   atomic.Int64 // data[:flushed] is in the file. Only a flush moves it.
	cost      int64        // Memory it stands for; owned by the writer.
}

// ring is the blocks in memory, oldest first. A ring is never changed, the
// writer publishes another.
type ring []*block

// find returns the block that holds the byte at an offset of a segment, nil
// when it is not in memory.
func (r ring) find(segment uint64, offset int64) *block {
	lo, hi := 0, len(r)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if b := r[mid]; b.segment.id < segment || b.segment.id == segment && b.start <= offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil
	}
	b := r[lo-1]
	if b.segment.id != segment || offset >= b.start+b.published.Load() {
		return nil
	}
	return b
}

package load

import (
	"math/bits"
	"time"
)

// histogram counts latencies with an error below two percent.
type histogram struct {
	counts [64 << subBits]uint64
	total  uint64
}

const subBits = 6

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d, 1))
	shift := max(0, bits.Len64(v)-subBits-1)
	h.counts[shift<<subBits+int(v>>shift)]++
	h.total++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// quantile returns the latency that a share of all stayed below.
func (h *histogram) quantile(share float64) time.Duration {
	rank := uint64(share * float64(h.total))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen > rank {
			shift := max(0, i>>subBits-1)
			return time.Duration(uint64(i-shift<<subBits) << shift)
		}
	}
	return 0
}

package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations. A value is kept to within one part in 128, from
// nanoseconds to hours, in a fixed amount of memory.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	sum    float64
	max    time.Duration
}

const (
	subBits = 7                         // Buckets within a power of two: 128.
	buckets = (45 - subBits) << subBits // To 2^44 ns, five hours.
)

// Record counts one duration.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)]++
	h.n++
	h.sum += float64(d)
	h.max = max(h.max, d)
}

// Below 2^subBits each value has a bucket; above, each power of two has
// 2^subBits of them.
func bucket(d time.Duration) int {
	v := uint64(d)
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return min((shift+1)<<subBits|int(v>>shift)&(1<<subBits-1), buckets-1)
}

// upper is the largest duration of a bucket.
func upper(i int) time.Duration {
	if i < 1<<subBits {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	return time.Duration((uint64(i&(1<<subBits-1)|1<<subBits)+1)<<shift - 1)
}

// Add counts all of another histogram.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range &o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Count is how many durations there are.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average; zero when there is none.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile is what a share of all, from 0 to 1, does not exceed.
func (h *Histogram) Quantile(share float64) time.Duration {
	want := uint64(share*float64(h.n) + 0.5)
	want = min(max(want, 1), h.n)
	seen := uint64(0)
	for i, n := range &h.counts {
		if seen += n; seen >= want && n > 0 {
			return min(upper(i), h.max)
		}
	}
	return 0
}

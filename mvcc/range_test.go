package mvcc

import (
	"math"
	"testing"
)

// TestWhatIsKeptForSortingIsSortedSeldom counts how often many rows are sorted while they
// are gathered: with a limit beyond their number not at all.
func TestWhatIsKeptForSortingIsSortedSeldom(t *testing.T) {
	const rows = 100_000
	for limit, want := range map[int64]int{
		0: 0, -1: 0, math.MinInt64: 0, // No limit.
		1: 97, 1000: 48, 2 * rows: 0, // Each time twice the limit and rangeCheckKeys have gathered.
		math.MaxInt64: 0, math.MaxInt64 - 1: 0, math.MaxInt64/2 + 1: 0, math.MaxInt64 / 2: 0,
	} {
		a := RangeArgs{Limit: limit}
		sorts, kept := 0, 0
		for range rows {
			if kept++; a.overfull(kept) {
				sorts++
				kept = int(limit)
			}
		}
		if sorts != want {
			t.Errorf("limit %d: sorted %d times, want %d", limit, sorts, want)
		}
	}
}

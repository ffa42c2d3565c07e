package api

import (
	"math"
	"testing"
	"time"
)

func TestSecondsStayATimeWhateverTheyAre(t *testing.T) {
	for n, want := range map[int64]time.Duration{0: 0, 7: 7 * time.Second, -1: 0, math.MinInt64: 0, 9_999_999_999: SecondsMax * time.Second, math.MaxInt64: SecondsMax * time.Second} {
		if got := Seconds(n); got != want {
			t.Errorf("%d seconds are %v, want %v", n, got, want)
		}
	}
}

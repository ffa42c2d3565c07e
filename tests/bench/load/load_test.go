package load

import (
	"math"
	"testing"
	"time"
)

func TestAQuantileIsNearTheValueThatWasCounted(t *testing.T) {
	for _, d := range []time.Duration{1, 63, 64, 127, 128, 12345, 1e6, 987654321, time.Hour} {
		var h histogram
		h.add(d)
		if got := h.quantile(0.5); math.Abs(float64(got-d)) > 0.02*float64(d) {
			t.Errorf("quantile of %d alone is %d", d, got)
		}
	}
}

func TestQuantilesOfEvenCountsLieWhereTheyShould(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i) * time.Microsecond)
	}
	for share, want := range map[float64]float64{0.5: 500e3, 0.99: 990e3, 0: 1} {
		if got := float64(h.quantile(share)); math.Abs(got-want) > 0.02*want+1000 {
			t.Errorf("quantile %g is %g, want about %g", share, got, want)
		}
	}
}

func TestScatterTouchesEveryNumberOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 97, 1000, 1024, 10000} {
		seen := map[int]bool{}
		for i := range n {
			seen[scatter(i, n)] = true
		}
		if len(seen) != n {
			t.Errorf("scatter over %d touches %d", n, len(seen))
		}
	}
}

func TestAKeyHasItsSizeAndBelongsToOneClient(t *testing.T) {
	p := &Puts{Prefix: "put/", KeyBytes: 32, ValueBytes: 16, Keys: 100}
	seen := map[string]bool{}
	for client := range 3 {
		for n := range p.Keys {
			key := p.key(nil, client, n)
			if len(key) != p.KeyBytes || seen[string(key)] {
				t.Fatalf("key %q of client %d is of the wrong size, or another's", key, client)
			}
			seen[string(key)] = true
		}
	}
}

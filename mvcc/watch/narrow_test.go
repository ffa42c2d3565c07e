package watch

import (
	"fmt"
	"testing"
)

// longHistory is 20,000 puts to 4,000 keys, and among them a key that is put 40
// times, and deleted together with puts of others ten times.
func longHistory(t *testing.T) (w *world, bytes int64) {
	w = newWorld(t, 0)
	value := make([]byte, 300)
	const rounds = 50
	for round := range rounds {
		var requests [][]op
		for i := range 400 {
			requests = append(requests, []op{{fmt.Sprintf("pods/%04d", (round*400+i)%4000), value}})
		}
		requests = append(requests, []op{{"jobs/one", fmt.Appendf(nil, "round %d", round)}})
		if round%5 == 0 { // Which of them comes first only history knows.
			requests[len(requests)-1] = []op{{"jobs/two", value}, {"jobs/one", nil}, {"jobs/zero", value}}
		}
		w.apply(requests...)
		w.background()
	}
	for _, s := range w.store.History().Segments() {
		bytes += s.Bytes
	}
	return w, bytes
}

func TestAWatcherOfFewKeysDoesNotReadALongHistory(t *testing.T) {
	w, history := longHistory(t)
	for _, c := range []struct {
		name    string
		request Request
		events  int
		looked  int64
		scanned int64
	}{
		{"one key", Request{Key: []byte("jobs/one"), Start: 1, PrevKV: true}, 49, 49 * 64, 0},
		{"a prefix", Request{Key: []byte("jobs/"), End: []byte("jobs0"), Start: 1, PrevKV: true}, 69, 49 * 64, history / 4},
		{"no deletions", Request{Key: []byte("jobs/one"), Start: 1, NoDelete: true}, 40, 49 * 64, 0},
		{"keys that never were", Request{Key: []byte("jobs/three"), End: []byte("jobs/two"), Start: 1}, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.hub.Stats()
			o := w.observe()
			defer o.stream.Close()
			o.watch(c.request)
			o.settle()
			after := w.hub.Stats()
			scanned, looked := after.ScannedBytes-before.ScannedBytes, after.LookedBytes-before.LookedBytes
			t.Logf("%d events, %d bytes scanned and %d looked up of %d", o.got, scanned, looked, history)
			if o.got != c.events || looked > c.looked || scanned > c.scanned {
				t.Errorf("%d events, want %d; %d bytes scanned and %d looked up, want at most %d and %d", o.got, c.events, scanned, looked, c.scanned, c.looked)
			}
		})
	}
}

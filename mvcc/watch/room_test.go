package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// taken reads events until there were so many, each after the one before.
func taken(t *testing.T, s *Stream, n int) {
	t.Helper()
	for got := 0; got < n; {
		line := next(t, s)
		got += strings.Count(line, "PUT ")
		if got > n {
			t.Fatalf("%d events, not %d", got, n)
		}
	}
}

// Many clients that do not read have less than each of them may have; whoever reads
// goes on, and nobody misses anything.
func TestClientsThatDoNotReadShareWhatThereIs(t *testing.T) {
	const (
		clients, rounds  = 50, 40
		one, all, margin = 64 << 10, 128 << 10, 8 << 10 // One frame more, of pump and catch-up each.
	)
	w := newWorldOfBytes(t, one, all)
	var lazy []*Stream
	for i := range clients {
		s := w.hub.NewStream()
		mustWatch(t, s, Request{Key: fmt.Appendf(nil, "k%02d", i)})
		next(t, s)
		lazy = append(lazy, s)
	}
	reader := w.hub.NewStream()
	mustWatch(t, reader, Request{Key: []byte("k"), End: []byte("l")})
	next(t, reader)
	value := strings.Repeat("v", 1<<10)
	most := int64(0)
	for range rounds {
		for i := range clients {
			w.apply([]op{put(fmt.Sprintf("k%02d", i), value)})
		}
		w.settled()
		taken(t, reader, clients)
		most = max(most, w.hub.Stats().WaitingBytes)
	}
	if most > all+margin || most < all/2 {
		t.Errorf("%d bytes waited, %d may", most, all)
	}
	for _, s := range lazy[:clients-1] {
		taken(t, s, rounds)
	}
	lazy[clients-1].Close()
	if n := w.hub.Stats().WaitingBytes; n != 0 {
		t.Errorf("%d bytes wait, and all was taken", n)
	}
}

// What many wait for is there once, and is counted so.
func TestWhatManyWaitForIsCountedOnce(t *testing.T) {
	w := newWorldOfBytes(t, 64<<10, 1<<20)
	var streams []*Stream
	for range 100 {
		s := w.hub.NewStream()
		mustWatch(t, s, Request{Key: []byte("k")})
		next(t, s)
		streams = append(streams, s)
	}
	for range 30 {
		w.apply([]op{put("k", strings.Repeat("v", 1<<10))})
	}
	for end := time.Now().Add(patience); w.hub.Stats().Delivered < 30*100; w.settled() {
		if time.Now().After(end) {
			t.Fatalf("delivered: %+v", w.hub.Stats())
		}
	}
	if n := w.hub.Stats().WaitingBytes; n < 30<<10 || n > 40<<10 {
		t.Errorf("%d bytes wait", n)
	}
	if slow := w.hub.Stats().Slow; slow != 0 {
		t.Errorf("%d are slow", slow)
	}
	for _, s := range streams {
		taken(t, s, 30)
	}
}

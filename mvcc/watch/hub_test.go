package watch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func put(key, value string) op { return op{key, []byte(value)} }

// patience with what takes milliseconds, on a machine that others keep busy.
const patience = time.Minute

// next returns the next batch as a line of text.
func next(t *testing.T, s *Stream) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%d: ", b.ID)
	switch b.Kind {
	case Created:
		return line + fmt.Sprintf("created at %d", b.Revision)
	case Progress:
		return line + fmt.Sprintf("progress %d", b.Revision)
	case Canceled:
		return line + fmt.Sprintf("canceled, compacted %d", b.Compact)
	case Refused:
		return line + fmt.Sprintf("refused, %v", b.Err)
	}
	for _, wire := range b.Events {
		var e mvccpb.Event
		if err := e.UnmarshalVT(wire); err != nil {
			t.Fatal(err)
		}
		line += fmt.Sprintf("%s %s@%d=%s", e.Type, e.Kv.Key, e.Kv.ModRevision, e.Kv.Value)
		if e.PrevKv != nil {
			line += fmt.Sprintf(" before %d=%s", e.PrevKv.ModRevision, e.PrevKv.Value)
		}
		line += ", "
	}
	return line + fmt.Sprintf("through %d", b.Revision)
}

func expect(t *testing.T, s *Stream, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if got := next(t, s); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func mustWatch(t *testing.T, s *Stream, r Request) int64 {
	t.Helper()
	id, err := s.Watch(r)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNumbersAreChosenInOrderAndNeverTwice(t *testing.T) {
	w := newWorld(t, 0)
	s := w.hub.NewStream()
	if a, b := mustWatch(t, s, Request{Key: []byte("a")}), mustWatch(t, s, Request{Key: []byte("a"), ID: 1}); a != 0 || b != 1 {
		t.Fatal(a, b)
	}
	if id := mustWatch(t, s, Request{Key: []byte("a")}); id != 2 {
		t.Fatal(id)
	}
	if _, err := s.Watch(Request{Key: []byte("a"), ID: 1}); !errors.Is(err, ErrDuplicateID) {
		t.Fatal(err)
	}
	if _, err := s.Watch(Request{Key: []byte("b"), End: []byte("b")}); !errors.Is(err, ErrEmptyRange) {
		t.Fatal(err)
	}
	if _, err := s.Watch(Request{Key: []byte("b"), Start: -1}); !errors.Is(err, mvcc.ErrCompacted) {
		t.Fatal(err)
	}
	s.Refuse(errors.New("why"))
	if s.Cancel(7) {
		t.Fatal("canceled a watcher that is not")
	}
	expect(t, s, "0: created at 1", "1: created at 1", "2: created at 1", "-1: refused, why")
	if st := w.hub.Stats(); st.Watchers != 3 || st.Streams != 1 || st.Slow != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestAWatcherBeginsWhereItAskedTo(t *testing.T) {
	w := newWorld(t, 0)
	w.apply([]op{put("a", "2")}, []op{put("a", "3")})
	w.apply([]op{put("b", "4"), {key: "a"}})
	s := w.hub.NewStream()
	all := Request{Key: []byte{0}, End: []byte{0}, PrevKV: true}
	all.Start = 3
	mustWatch(t, s, all)
	expect(t, s, "0: created at 4", "0: PUT a@3=3 before 2=2, PUT b@4=4, DELETE a@4= before 3=3, through 4")
	s.Cancel(0)
	expect(t, s, "0: canceled, compacted 0")
	mustWatch(t, s, Request{Key: []byte("a"), Start: 7})
	mustWatch(t, s, Request{Key: []byte("a")})
	mustWatch(t, s, Request{Key: []byte("a"), NoPut: true})
	expect(t, s, "1: created at 4", "2: created at 4", "3: created at 4")
	s.Progress(AllWatchers) // Nothing: watcher 1 has not begun.
	w.apply([]op{put("a", "5")})
	expect(t, s, "2: PUT a@5=5, through 5")
	w.apply([]op{put("c", "6")})
	w.apply([]op{{key: "a"}})
	expect(t, s, "1: DELETE a@7=, through 7", "2: DELETE a@7=, through 7", "3: DELETE a@7=, through 7")
	s.Progress(AllWatchers)
	expect(t, s, "-1: progress 7")
	s.Progress(2)
	s.Progress(9)
	expect(t, s, "2: progress 7")
}

func TestCompactionEndsOnlyWhoWantsWhatIsGone(t *testing.T) {
	w := newWorld(t, 0)
	for i := range 8 {
		w.apply([]op{put("a", fmt.Sprint(i+2))})
	}
	w.apply([]op{{key: "a"}})
	w.compact(10)
	w.background()
	s := w.hub.NewStream()
	mustWatch(t, s, Request{Key: []byte("a"), Start: 9})
	expect(t, s, "0: created at 10", "0: canceled, compacted 10")
	mustWatch(t, s, Request{Key: []byte("a"), Start: 10, PrevKV: true}) // A tombstone at C itself.
	expect(t, s, "1: created at 10", "1: DELETE a@10=, through 10")
	w.apply([]op{put("b", "x")})
	w.compact(11)
	w.background()
	w.apply([]op{put("a", "y")})
	expect(t, s, "1: PUT a@12=y, through 12")
}

func TestOneEntryOfManyRequestsIsDeliveredInBoundedAnswers(t *testing.T) {
	w := newWorld(t, 0)
	o := w.observe()
	o.watch(Request{Key: []byte("a"), End: []byte("b")})
	var requests [][]op
	for i := range 2500 {
		requests = append(requests, []op{put(fmt.Sprintf("a%d", i), "")})
	}
	w.apply(requests...)
	o.settle()
	o.watch(Request{Key: []byte("a"), End: []byte("b"), Start: 2})
	o.settle()
	if o.got != 5000 {
		t.Fatal(o.got)
	}
}

func TestARevisionLargerThanTheBudgetComesWhole(t *testing.T) {
	w := newWorld(t, 1000)
	o := w.observe()
	o.watch(Request{Key: []byte{0}, End: []byte{0}, PrevKV: true})
	for round := range 3 {
		var ops []op
		for i := range 100 {
			ops = append(ops, op{fmt.Sprintf("%03d", i), make([]byte, 100+round)})
		}
		w.apply(ops)
	}
	o.settle()
	if o.got != 300 {
		t.Fatal(o.got)
	}
}

func TestEndingStreamsAndTheHubWakesWhoWaits(t *testing.T) {
	leak.Check(t)
	w := newWorld(t, 0)
	s, other := w.hub.NewStream(), w.hub.NewStream()
	mustWatch(t, other, Request{Key: []byte("a")})
	expect(t, other, "0: created at 1")
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := s.Next(context.Background()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	wait.Go(func() {
		if _, err := other.Next(context.Background()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	s.Close()
	s.Close()
	if err := w.hub.Close(); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if _, err := w.hub.NewStream().Watch(Request{Key: []byte("a")}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if st := w.hub.Stats(); st.Watchers != 0 || st.Streams != 0 {
		t.Fatalf("%+v", st)
	}
}

// W10: a snapshot puts another store in place. Who is within its history goes
// on there; who is not learns so.
func TestWatchersLiveThroughTheExchangeOfTheStore(t *testing.T) {
	w := newWorld(t, 0)
	s := w.hub.NewStream()
	mustWatch(t, s, Request{Key: []byte("a")})
	mustWatch(t, s, Request{Key: []byte("a"), Start: 20})
	expect(t, s, "0: created at 1", "1: created at 1")
	w.apply([]op{put("a", "2")})
	expect(t, s, "0: PUT a@2=2, through 2")

	// The same history, further on, with and without what watcher 0 needs.
	for _, c := range []struct {
		compacted ident.Revision
		want      []string
	}{
		{-1, []string{"0: PUT a@3=, PUT a@4=, PUT a@5=, through 5"}},
		{9, []string{"0: canceled, compacted 9"}},
	} {
		next := copyStore(t, w, 3, c.compacted)
		w.hub.Swap(next)
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
		w.store = next
		expect(t, s, c.want...)
	}
	for w.head < 20 {
		w.apply([]op{put("a", "")})
	}
	expect(t, s, "1: PUT a@20=, through 20")
}

// copyStore makes another store with the history of the world's, and more.
func copyStore(t *testing.T, w *world, more int, compacted ident.Revision) *mvcc.Store {
	t.Helper()
	old := w.store
	cfg := mvcc.Config{
		FS: vfs.OS(), Dir: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(),
		SegmentBytes: 16 << 10, RingBytes: 32 << 10, Manual: true, BaseNoSync: true, BaseMapBytes: 64 << 20,
	}
	store, err := mvcc.Create(cfg, mvcc.Identity{Cluster: 7})
	if err != nil {
		t.Fatal(err)
	}
	r, err := old.History().Scan(ident.Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if err != nil {
			break
		}
		if err := store.ApplyRecord(cloneRecord(t, rec)); err != nil {
			t.Fatal(err)
		}
	}
	w.store = store
	for range more {
		w.apply([]op{put("a", "")})
	}
	if compacted > 0 {
		for w.head < compacted {
			w.apply([]op{put("a", "")})
		}
		w.compact(compacted)
	}
	w.store = old
	return store
}

func cloneRecord(t *testing.T, rec *history.Record) *history.Record {
	t.Helper()
	b, err := rec.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	clone, _, err := history.DecodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	return clone
}

// Streams read by goroutines of their own, some slow, while others write,
// compact and open more. Run with -race.
func TestManyReadersAtOnceGetEverything(t *testing.T) {
	w := newWorld(t, 2000)
	var readers sync.WaitGroup
	const last = 1500
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	for i := range 20 {
		readers.Go(func() {
			s := w.hub.NewStream()
			defer s.Close()
			if _, err := s.Watch(Request{Key: []byte("k"), End: []byte("l"), Start: ident.Revision(1 + i%5), PrevKV: i%2 == 0}); err != nil {
				t.Error(err)
				return
			}
			want := max(int64(1+i%5), 2)
			for want <= last {
				b, err := s.Next(ctx)
				if err != nil {
					t.Errorf("reader %d at %d: %v", i, want, err)
					return
				}
				for _, wire := range b.Events {
					var e mvccpb.Event
					if err := e.UnmarshalVT(wire); err != nil || e.Kv.ModRevision != want {
						t.Errorf("reader %d: revision %d, want %d: %v", i, e.Kv.ModRevision, want, err)
						return
					}
					want++
				}
				s.Progress(AllWatchers)
			}
		})
	}
	for w.head < last {
		w.apply([]op{put(fmt.Sprintf("k%d", w.head%7), "value")})
		if w.head%100 == 0 {
			w.background()
		}
	}
	readers.Wait()
}

func TestAMarkThatWaitsDoesNotAnswerForALaterOne(t *testing.T) {
	w := newWorld(t, 0)
	s := w.hub.NewStream()
	mustWatch(t, s, Request{Key: []byte("a")})
	expect(t, s, "0: created at 1")
	w.apply([]op{put("b", "2")})
	s.Progress(AllWatchers)
	w.settled()
	w.apply([]op{put("b", "3")})
	s.Progress(AllWatchers)
	w.settled()
	s.Progress(AllWatchers) // Nothing new: the one that waits says it.
	w.apply([]op{put("a", "4")})
	expect(t, s, "-1: progress 2", "-1: progress 3", "0: PUT a@4=4, through 4")
	s.Progress(AllWatchers)
	expect(t, s, "-1: progress 4")
}

// settled waits until the pump is through and what was asked of it is in the queues.
func (w *world) settled() {
	for done := false; !done; {
		w.hub.mu.Lock()
		done = len(w.hub.mu.wanted) == 0 && w.hub.mu.pushed == w.head
		w.hub.mu.Unlock()
		runtime.Gosched()
	}
}

func TestWhoDoesNotReadIsNotAskedFurther(t *testing.T) {
	w := newWorld(t, 0)
	s := w.hub.NewStream()
	mustWatch(t, s, Request{Key: []byte("a")})
	for range AnswersMax - 1 {
		s.Refuse(errors.New("why"))
	}
	w.apply([]op{put("a", "2")})
	w.settled()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Room(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("%d answers wait, and there is room: %v", AnswersMax, err)
	}
	waited := make(chan error)
	wait := func() { waited <- s.Room(t.Context()) }
	go wait()
	next(t, s)
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	s.Refuse(errors.New("why"))
	go wait()
	s.Close()
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
}

// TestAnAnswerIsBoundedWithPreviousValuesToo has deletions, small by themselves, carry
// what was there before.
func TestAnAnswerIsBoundedWithPreviousValuesToo(t *testing.T) {
	w := newWorld(t, 0)
	large := string(make([]byte, windowBytesMax*2/5))
	var puts []op
	for i := range 9 {
		puts = append(puts, put(fmt.Sprint(i), large))
	}
	w.apply(puts)
	gone := func(keys ...string) (ops []op) {
		for _, key := range keys {
			ops = append(ops, op{key: key})
		}
		return ops
	}
	w.apply(gone("0"), gone("1"), gone("2", "3", "4"), gone("5"), gone("6"), gone("7"))
	w.apply(gone("8"))
	all := Request{Key: []byte{0}, End: []byte{0}, PrevKV: true}
	live, late := w.hub.NewStream(), w.hub.NewStream()
	mustWatch(t, live, all)
	w.apply([]op{put("end", "x")})
	all.Start = 3
	mustWatch(t, late, all)
	next(t, late)
	want := []ident.Revision{4, 5, 7, 10}
	for _, through := range want {
		b, err := late.Next(t.Context())
		if err != nil || b.Kind != Events || b.Revision != through {
			t.Fatalf("%+v, %v, want everything through %d", b.Revision, err, through)
		}
		size := 0
		for _, e := range b.Events {
			size += len(e)
		}
		if size > windowBytesMax && len(b.Events) != 3 {
			t.Errorf("%d bytes in %d events", size, len(b.Events))
		}
	}
	expect(t, live, "0: created at 9", "0: PUT end@10=x, through 10")
}

// TestManyWatchersOfTheSameKeysComeAndGo looks at what is allocated for them: were the
// list of all copied with each, it would be gigabytes, while the hub stands still.
func TestManyWatchersOfTheSameKeysComeAndGo(t *testing.T) {
	const watchers, bytesMax = 16000, 4096
	w := newWorld(t, 0)
	stays := w.hub.NewStream()
	mustWatch(t, stays, Request{Key: []byte("a"), End: []byte("b")})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := w.hub.NewStream()
	for range watchers {
		mustWatch(t, s, Request{Key: []byte("a"), End: []byte("b")})
	}
	mustWatch(t, s, Request{Key: []byte("a"), Start: 1})
	s.Close()
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / watchers; each > bytesMax {
		t.Errorf("%d bytes were allocated for each watcher", each)
	}
	if st := w.hub.Stats(); st.Watchers != 1 || st.Streams != 1 || st.Slow != 0 {
		t.Errorf("%+v", st)
	}
	w.apply([]op{put("a", "2")})
	expect(t, stays, "0: created at 1", "0: PUT a@2=2, through 2")
}

// counting is a clock that counts how often it is asked: at least once in each
// turn of the catch-up.
type counting struct {
	clock.Clock
	asked atomic.Int64
}

func (c *counting) Mono() time.Duration {
	c.asked.Add(1)
	return c.Clock.Mono()
}

func TestWhoDoesNotReadIsNotLookedAtWithEachEntry(t *testing.T) {
	w := newWorld(t, 0)
	c := &counting{Clock: clock.Real()}
	hub := NewHub(Config{StreamBytes: 1 << 10, Clock: c, Logger: hclog.NewNullLogger()}, w.store)
	defer hub.Close()
	stuck, reads := hub.NewStream(), hub.NewStream()
	mustWatch(t, stuck, Request{Key: []byte("a")})
	mustWatch(t, reads, Request{Key: []byte("b")})
	take := func() {
		t.Helper()
		if _, err := reads.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	take() // That it was created.
	for range 5 {
		w.apply([]op{put("a", strings.Repeat("v", 500)), put("b", "")})
		take()
	}
	if n := hub.Stats().Slow; n != 1 {
		t.Fatalf("%d watchers are behind", n)
	}
	before := c.asked.Load()
	for range 500 {
		w.apply([]op{put("b", "")})
		take()
	}
	if n := c.asked.Load() - before; n > 10 {
		t.Errorf("the catch-up had up to %d turns for a client that takes nothing", n)
	}
}

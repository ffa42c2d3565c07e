package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

func TestWhatWouldBreakTheOrderIsRefused(t *testing.T) {
	fs := newMem(t)
	l, err := Create(testConfig(fs), Mark{10, 2})
	must(t, err)
	must(t, l.Append(makeEntries(11, 3, 5, 10), &HardState{Term: 3, Vote: 7, Commit: 12}))
	must(t, l.Sync())
	must(t, l.Append(nil, &HardState{Term: 3, Vote: 7, Commit: 12}))
	gap := []*raftpb.Entry{makeEntry(16, 3, 1), makeEntry(18, 3, 1)}
	back := []*raftpb.Entry{makeEntry(16, 4, 1), makeEntry(17, 3, 1)}
	for _, c := range []struct {
		name    string
		entries []*raftpb.Entry
		hs      *HardState
		want    error
	}{
		{"a gap to the last", makeEntries(17, 3, 1, 1), nil, ErrOrder},
		{"a gap within", gap, nil, ErrOrder},
		{"a term that goes back", makeEntries(16, 2, 1, 1), nil, ErrOrder},
		{"a term that goes back within", back, nil, ErrOrder},
		{"superseding what is committed", makeEntries(12, 4, 1, 1), nil, ErrOrder},
		{"superseding what is compacted", makeEntries(10, 4, 1, 1), nil, ErrOrder},
		{"an older hard state", nil, &HardState{Term: 2}, ErrOrder},
		{"a second vote in one term", nil, &HardState{Term: 3, Vote: 8}, ErrOrder},
		{"a vote taken back", nil, &HardState{Term: 3}, ErrOrder},
		{"an entry no segment holds", makeEntries(16, 3, 1, SegmentBytesMin), nil, ErrTooLarge},
	} {
		if err := l.Append(c.entries, c.hs); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := l.Reset(Mark{11, 3}); !errors.Is(err, ErrOrder) {
		t.Errorf("reset below the commit: %v", err)
	}
	if err := l.Compact(16); !errors.Is(err, ErrUnavailable) {
		t.Errorf("compact above the last: %v", err)
	}
	if err := l.Note(Note{Kind: 1, Data: make([]byte, NoteBytesMax+1)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large note: %v", err)
	}
	if err := l.Note(Note{Kind: NoteCut, Data: []byte("x")}); !errors.Is(err, ErrOrder) {
		t.Errorf("the log's own note: %v", err)
	}
	must(t, l.Append(makeEntries(13, 4, 1, 1), nil)) // All that left no trace.
	must(t, l.Close())
	must(t, l.Close())
	if err := l.Append(nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := l.Entries(11, 12, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := Create(testConfig(fs), Mark{}); !errors.Is(err, ErrExists) {
		t.Errorf("create over a log: %v", err)
	}
	if _, _, err := Open(testConfig(newMem(t))); !errors.Is(err, ErrNotFound) {
		t.Errorf("open of nothing: %v", err)
	}
	_, r, err := openView(fs)
	must(t, err)
	if want := (HardState{Term: 3, Vote: 7, Commit: 12}); r.HardState != want || r.Last != (Mark{13, 4}) {
		t.Errorf("recovered %+v", r)
	}
}

func TestAStoredCommitWaitsForItsEntries(t *testing.T) {
	fs := newMem(t)
	m := &model{}
	must(t, m.create(testConfig(fs), Mark{}))
	must(t, m.append(makeEntries(1, 1, 5, 10), &HardState{Term: 1, Commit: 4}))
	must(t, m.sync())
	if got := m.log.w.state.hs.Commit; got != 0 {
		t.Fatalf("stored commit %d before its entries were durable", got)
	}
	must(t, m.append(nil, &HardState{Term: 1, Commit: 4}))
	must(t, m.sync())
	_, r, err := openView(fs)
	must(t, err)
	if r.HardState.Commit != 4 {
		t.Fatalf("recovered commit %d", r.HardState.Commit)
	}
}

func TestReadersGetSyncedEntriesWithinTheirBudget(t *testing.T) {
	cfg := testConfig(newMem(t))
	cfg.SegmentBytes = 2 * SegmentBytesMin // The second batch then fits the second segment.
	l, err := Create(cfg, Mark{})
	must(t, err)
	must(t, l.Append(makeEntries(1, 1, 20, 500), nil))
	must(t, l.Sync())
	must(t, l.Append(makeEntries(18, 2, 5, 500), nil))
	one := uint64(recordBytes(entryBytes + 500))
	for _, c := range []struct {
		lo, hi   ident.Index
		maxBytes uint64
		count    int
		want     error
	}{
		{1, 2, 0, 1, nil}, {1, 21, 0, 1, nil}, {1, 21, one, 1, nil}, {1, 21, 2*one - 1, 1, nil}, {1, 21, 2 * one, 2, nil},
		{1, 21, 13 * one, 13, nil}, {3, 5, 1 << 20, 2, nil}, {1, 1 << 40, 1 << 62, 17, nil}, {17, 23, 1 << 20, 1, nil},
		{18, 19, 1 << 20, 0, ErrUnavailable}, {0, 5, 1 << 20, 0, ErrCompacted}, {5, 5, 1 << 20, 0, nil},
	} {
		got, err := l.Entries(c.lo, c.hi, c.maxBytes)
		if len(got) != c.count || !errors.Is(err, c.want) {
			t.Errorf("%d to %d in %d bytes: %d entries, %v; want %d, %v", c.lo, c.hi, c.maxBytes, len(got), err, c.count, c.want)
		}
		for i, e := range got {
			if entryText(e) != entryText(makeEntry(c.lo+ident.Index(i), 1, 500)) {
				t.Errorf("%d to %d: entry %d is %s", c.lo, c.hi, i, entryText(e))
			}
		}
	}
	must(t, l.Close())
}

func TestADamagedEntryIsNotReadThoughItWasIndexed(t *testing.T) {
	fs := newMem(t)
	l, err := Create(testConfig(fs), Mark{})
	must(t, err)
	must(t, l.Append(makeEntries(1, 1, 3, 300), nil))
	must(t, l.Sync())
	must(t, fs.Flip(testDir+"/"+segmentName(1), int64(l.mu.index.segments[0].offsets[1])+100, 3))
	var damage *DamageError
	if _, err := l.Entries(2, 3, 1000); !errors.As(err, &damage) || damage.Offset != int64(l.mu.index.segments[0].offsets[1]) {
		t.Errorf("got %v", err)
	}
	if got, err := l.Entries(3, 4, 1000); err != nil || len(got) != 1 {
		t.Errorf("the one after: %v, %v", got, err)
	}
	must(t, l.Close())
}

// Entries carry what they must be in their data, so that a reader can tell a
// wrong one whatever the writer does meanwhile.
func TestReadersAreRightWhileTheWriterAppendsSupersedesAndCompacts(t *testing.T) {
	rnd := seededRand(t, 3)
	fs := newMem(t)
	l, err := Create(testConfig(fs), Mark{})
	must(t, err)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { readAtRandom(t, l, rand.New(rand.NewPCG(uint64(i), 9)), done) })
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := l.Prepare(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	term := ident.Term(1)
	for i := range 300 {
		first := l.Last().Index + 1
		if i%7 == 0 && first > l.w.state.hs.Commit+3 {
			term++
			first -= ident.Index(rnd.IntN(3))
		}
		count := 1 + rnd.IntN(6)
		hs := &HardState{Term: term, Commit: l.w.state.hs.Commit}
		if i%3 == 0 {
			hs.Commit = first - 1
		}
		must(t, l.Append(makeEntries(first, term, count, rnd.IntN(500)+1), hs))
		must(t, l.Sync())
		if i%25 == 24 {
			must(t, l.Compact(l.w.state.hs.Commit))
		}
		if i%100 == 99 {
			must(t, l.Reset(Mark{l.Last().Index + 100, term}))
		}
	}
	close(done)
	wg.Wait()
	if s := l.Stats(); s.Syncs == 0 || s.SyncedBytes == 0 || s.Segments == 0 || s.Bytes < int64(s.Segments)*SegmentBytesMin {
		t.Errorf("stats %+v", s)
	}
	must(t, l.Close())
}

func readAtRandom(t *testing.T, l *Log, rnd *rand.Rand, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		start, last := l.Start().Index, l.Last().Index
		if last <= start {
			continue
		}
		lo := start + 1 + ident.Index(rnd.Uint64N(uint64(last-start)))
		entries, err := l.Entries(lo, lo+10, uint64(rnd.IntN(3000)))
		if err != nil && !errors.Is(err, ErrCompacted) && !errors.Is(err, ErrUnavailable) {
			t.Error(err)
			return
		}
		for i, e := range entries {
			index, term := ident.Index(e.GetIndex()), ident.Term(e.GetTerm())
			if want := makeEntry(index, term, len(e.Data)); index != lo+ident.Index(i) || entryText(e) != entryText(want) {
				t.Errorf("entry %d of a read from %d: %s", i, lo, entryText(e))
				return
			}
		}
	}
}

func TestNotesOfEachKindOutliveTheSegmentsTheyWereWrittenIn(t *testing.T) {
	fs := newMem(t)
	cfg := testConfig(fs)
	l, err := Create(cfg, Mark{})
	must(t, err)
	for i := range ident.Index(40) {
		must(t, l.Note(Note{Kind: uint8(1 + i%3), Data: fmt.Appendf(nil, "note %d", i)}))
		must(t, l.Append(makeEntries(i+1, 1, 1, 700), nil))
		must(t, l.Sync())
		must(t, l.Compact(i))
		must(t, l.Prepare())
	}
	must(t, l.Note(Note{Kind: 2}))
	must(t, l.Close())
	_, r, err := openView(fs)
	must(t, err)
	if got, want := notesText(r.Notes), notesText([]Note{{1, []byte("note 39")}, {3, []byte("note 38")}}); got != want {
		t.Errorf("notes %s, want %s", got, want)
	}
	if names, err := fs.List(testDir); err != nil || len(names) > 4 {
		t.Errorf("files %q, %v", names, err)
	}
}

func TestTheSegmentSizeMayChangeBetweenBoots(t *testing.T) {
	fs := newMem(t)
	m := &model{}
	cfg := testConfig(fs)
	must(t, m.create(cfg, Mark{}))
	for i := range 8 {
		must(t, m.append(makeEntries(m.log.Last().Index+1, 1, 6, 900), nil))
		must(t, m.sync())
		must(t, m.prepare())
		cfg.SegmentBytes = SegmentBytesMin * int64(1+i%3)
		must(t, m.reopen(cfg))
		must(t, m.compact(m.log.Last().Index-2))
	}
	if _, err := Create(Config{FS: fs, Dir: testDir, SegmentBytes: 100}, Mark{}); err == nil {
		t.Error("a segment of 100 bytes was accepted")
	}
}

func TestAppendAllocatesNothingForAnEntry(t *testing.T) {
	cfg := testConfig(newMem(t))
	cfg.SegmentBytes = SegmentBytesDefault
	l, err := Create(cfg, Mark{})
	must(t, err)
	entries := makeEntries(1, 1, 64, 200)
	allocs := testing.AllocsPerRun(100, func() { // Superseding: the same indexes again.
		must(t, l.Append(entries, nil))
		l.w.buf = l.w.buf[:0]
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for %d entries", allocs, len(entries))
	}
}

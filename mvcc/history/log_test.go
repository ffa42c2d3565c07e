package history

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// numbered is a record that changes one key, of about that size.
func numbered(i, size int) *Record {
	rev := ident.Revision(i)
	return &Record{Index: ident.Index(i), Term: 1, Groups: []Group{{
		Revision: rev, Mutations: []Mutation{put("key", 1, rev, int64(i), make([]byte, size))},
	}}}
}

// TestReadersSeeWholeRecordsWhileTheWriterGoesOn lets everybody work at once;
// the race detector looks on.
func TestReadersSeeWholeRecordsWhileTheWriterGoesOn(t *testing.T) {
	const records = 3000
	l := mustCreate(t, testConfig(newMem(t)))
	m := newMaker(t, 21)
	var appended atomic.Pointer[Record]
	var done atomic.Bool
	var group sync.WaitGroup
	run := func(f func() error) {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := f(); err != nil {
				t.Error(err)
			}
		}()
	}
	for range 2 {
		r, err := l.Scan(ident.Position{Index: 1})
		if err != nil {
			t.Fatal(err)
		}
		run(func() error { return followTo(r, records, &done) })
	}
	run(func() error {
		for !done.Load() {
			if _, err := l.Sync(); err != nil {
				return err
			}
			l.Segments()
			if _, err := l.Drop(l.End().Segment); err != nil {
				return err
			}
		}
		return nil
	})
	run(func() error {
		for !done.Load() {
			if rec := appended.Load(); rec != nil {
				if err := checkValues(l, rec); err != nil {
					return err
				}
			}
		}
		return nil
	})
	run(func() error {
		defer done.Store(true)
		for range records {
			rec := m.record()
			if err := l.Append(rec); err != nil {
				return err
			}
			appended.Store(rec)
		}
		return nil
	})
	group.Wait()
}

// followTo reads until it has met all records.
func followTo(r *Reader, records int, done *atomic.Bool) error {
	defer r.Close()
	r.VerifyDigests()
	for n := 0; n < records; {
		_, err := r.Next()
		switch {
		case err == nil:
			n++
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("record %d: %w", n, err)
		case done.Load() && n < records && r.Mark() == r.log.End():
			return fmt.Errorf("the end after %d records", n)
		}
	}
	return nil
}

func checkValues(l *Log, rec *Record) error {
	for _, g := range rec.Groups {
		for _, m := range g.Mutations {
			if m.Kind != KeyPut {
				continue
			}
			got, err := l.Value(m.Loc)
			if errors.Is(err, ErrDropped) {
				continue
			}
			if err != nil || !bytes.Equal(got, m.Value) {
				return fmt.Errorf("value of entry %d: %w", rec.Index, err)
			}
		}
	}
	return nil
}

func TestWhatIsHeldIsNotDropped(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	for i := range 50 {
		mustAppend(t, l, numbered(i+1, 1000))
	}
	mustSync(t, l)
	last := l.End().Segment
	oldest := func() uint64 { return l.Segments()[0].ID }
	drop := func(want uint64) {
		t.Helper()
		if _, err := l.Drop(last + 1); err != nil || oldest() != want {
			t.Fatalf("segments begin with %d, want %d, %v", oldest(), want, err)
		}
	}
	release3, release5 := l.Hold(3), l.Hold(5)
	r, err := l.ScanRevision(ident.Revision(l.Segments()[3].FirstRevision)) // The fourth: id 4.
	if err != nil {
		t.Fatal(err)
	}
	again := l.Hold(3)
	drop(3)
	release3()
	release3() // Twice is once.
	drop(3)
	again()
	drop(4)
	readAll(t, r) // Reading on lets go of what is behind.
	drop(5)
	r.Close()
	release5()
	drop(last) // The active one stays.
}

func TestWhatWasDroppedIsNotEmpty(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	var first Loc
	for i := range 50 {
		rec := numbered(i+1, 1000)
		mustAppend(t, l, rec)
		if i == 0 {
			first = rec.Groups[0].Mutations[0].Loc
		}
	}
	for i := range 2 { // Nothing is missing before the first, so nothing is said to be.
		r, err := l.ScanRevision(ident.Revision(i))
		if err != nil || len(readAll(t, r)) != 50 {
			t.Fatalf("scan from %d: %v", i, err)
		}
		r.Close()
	}
	mustSync(t, l)
	if _, err := l.Drop(4); err != nil {
		t.Fatal(err)
	}
	info := l.Segments()[0]
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrDropped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := l.ScanRevision(info.FirstRevision - 1)
	check("scan from a revision", err)
	_, err = l.Scan(ident.Position{Index: info.FirstIndex - 1})
	check("scan from an entry", err)
	_, err = l.ScanSegment(3)
	check("scan of a segment", err)
	_, err = l.ReadIndex(3)
	check("key index", err)
	_, err = l.OpenSegment(3)
	check("file", err)
	_, err = l.Value(first)
	check("value", err)
	r, err := l.ScanRevision(info.FirstRevision)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if rec, err := r.Next(); err != nil || rec.Index != info.FirstIndex {
		t.Errorf("%+v, %v", rec, err)
	}
}

// A store restored at a position has no history before it, and must not say
// that nothing happened there.
func TestAHistoryThatBeginsLaterSaysSo(t *testing.T) {
	start := Mark{Index: 100, Term: 3, Revision: 50, Digest: ident.Digest{1, 2, 3}}
	cfg := testConfig(newMem(t))
	l, err := Create(cfg, start)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.ScanRevision(50); !errors.Is(err, ErrDropped) {
		t.Errorf("%v", err)
	}
	rec := numbered(101, 10)
	mustAppend(t, l, rec)
	if rec.PrevIndex != 100 || rec.PrevDigest != start.Digest {
		t.Errorf("follows entry %d, digest %v", rec.PrevIndex, rec.PrevDigest)
	}
	r, err := l.ScanRevision(51)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := readAll(t, r); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
}

func TestMemoryIsBoundedAndValuesAreNotCopied(t *testing.T) {
	cfg := testConfig(newMem(t))
	cfg.SegmentBytes = 1 << 20
	l := mustCreate(t, cfg)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		rec := numbered(i+1, rng.IntN(3000))
		mustAppend(t, l, rec)
		if i%50 == 0 {
			if _, err := l.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		var total int64
		for _, b := range *l.blocks.Load() {
			total += b.cost
		}
		if total > cfg.RingBytes || total != l.writer.ringBytes {
			t.Fatalf("record %d: the ring has %d bytes, counted %d", i, total, l.writer.ringBytes)
		}
		value, err := l.Value(rec.Groups[0].Mutations[0].Loc)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := l.Value(rec.Groups[0].Mutations[0].Loc)
		if &value[0] != &again[0] || cap(value) != len(value) {
			t.Fatal("a value in memory was copied, or can be appended to")
		}
	}
	// Without anybody else flushing, the writer did.
	if l.Unflushed() > cfg.RingBytes {
		t.Errorf("%d bytes are not in files", l.Unflushed())
	}
}

func TestALargeRecordGetsItsOwnSegment(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	for i, size := range []int{10, 100_000, 10, 50_000, 60_000, 10} {
		mustAppend(t, l, numbered(i+1, size))
	}
	var got []int64
	for _, info := range l.Segments() {
		if info.LastIndex > info.FirstIndex {
			t.Errorf("segment %d has entries %d to %d", info.ID, info.FirstIndex, info.LastIndex)
		}
		got = append(got, info.Bytes/1000)
	}
	if want := []int64{0, 100, 0, 50, 60, 0}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("segments of %v kB", got)
	}
}

func TestSealingAnEmptySegmentChangesNothing(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	for _, want := range []uint64{0, 0} {
		if id, err := l.Seal(); err != nil || id != want {
			t.Errorf("sealed %d, %v", id, err)
		}
	}
	mustAppend(t, l, numbered(1, 10))
	for range 2 {
		if id, err := l.Seal(); err != nil || id != 1 {
			t.Errorf("sealed %d, %v", id, err)
		}
	}
	if infos := l.Segments(); len(infos) != 2 || !infos[0].Sealed || infos[1].Sealed {
		t.Errorf("%+v", infos)
	}
}

// A key index that a crash has kept from another life of the same segment must
// not be taken for its own: its places would point at other values.
func TestAKeyIndexOfAnotherLifeIsRefused(t *testing.T) {
	mem := newMem(t)
	cfg := testConfig(mem)
	build := func(dir string, sizes ...int) *Log {
		c := cfg
		c.Dir = dir
		l := mustCreate(t, c)
		for i, size := range sizes {
			mustAppend(t, l, numbered(i+1, size))
		}
		if _, err := l.Seal(); err != nil {
			t.Fatal(err)
		}
		table, err := l.RebuildIndex(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.WriteIndex(1, table); err != nil {
			t.Fatal(err)
		}
		return l
	}
	a := build("gen/history", 10, 20, 30)
	build("gen/other", 10, 20)
	if err := mem.Rename("gen/other/"+IndexName(1), "gen/history/"+IndexName(1)); err != nil {
		t.Fatal(err)
	}
	var damage *DamageError
	if _, err := a.ReadIndex(1); !errors.As(err, &damage) {
		t.Errorf("%v", err)
	}
	if _, err := a.ReadIndex(2); !errors.Is(err, ErrNotSealed) {
		t.Errorf("%v", err)
	}
	rebuilt, err := a.RebuildIndex(1)
	if err != nil || rebuilt.Versions() != 3 {
		t.Errorf("%v", err)
	}
}

// The files of sealed segments are what a snapshot carries.
func TestCopiedSegmentsAreAHistory(t *testing.T) {
	mem := newMem(t)
	l := mustCreate(t, testConfig(mem))
	m := newMaker(t, 8)
	for range 60 {
		mustAppend(t, l, m.record())
	}
	if _, err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	copied := testConfig(mem)
	copied.Dir = "gen/copy"
	if err := mem.MkdirAll(copied.Dir); err != nil {
		t.Fatal(err)
	}
	infos := l.Segments()
	var end Mark
	for _, info := range infos[2 : len(infos)-1] {
		f, err := l.OpenSegment(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Info.Bytes))
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		w, err := mem.Create(copied.Dir + "/" + SegmentName(info.ID))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		w.Close()
		end = f.Info.End
	}
	c, err := Open(copied, end)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Scan(ident.Position{Index: infos[2].FirstIndex})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.VerifyDigests()
	if got := readAll(t, r); got[len(got)-1].Groups[0].Digest == (ident.Digest{}) || r.Mark() != end {
		t.Errorf("ends %v, want %v", r.Mark(), end)
	}
}

func TestAClosedHistoryRefusesToWrite(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	mustAppend(t, l, numbered(1, 10))
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, syncErr := l.Sync()
	_, sealErr := l.Seal()
	for _, err := range []error{syncErr, sealErr, l.Flush(), l.Append(numbered(2, 10))} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	_, err := Create(Config{SegmentBytes: 1, RingBytes: 1}, Mark{})
	for _, want := range []string{"required", "SegmentBytes 1", "RingBytes 1"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	good := Config{FS: vfstest.NewMem(), Dir: "x", Logger: hclog.NewNullLogger()}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

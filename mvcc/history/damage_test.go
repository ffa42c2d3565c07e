package history

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

var flipStride = flag.Int64("flip-stride", 12, "largest distance between bits that are turned over")

// TestNoFlippedBitIsServed turns over bits everywhere, one at a time. What is
// read is right, or an error that names the file.
func TestNoFlippedBitIsServed(t *testing.T) {
	w := newWorkload(t, 13, newMem(t))
	if err := w.run(); err != nil {
		t.Fatal(err)
	}
	if err := w.sync(); err != nil {
		t.Fatal(err)
	}
	if err := w.index(); err != nil {
		t.Fatal(err)
	}
	mark := w.marks[1]
	first := w.log.Segments()[0]
	w.log.Close()
	mem := w.cfg.FS.(*vfstest.Mem)
	names, err := mem.List(w.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(13, 5))
	flips, refused := 0, 0
	for _, name := range names {
		path := filepath.Join(w.cfg.Dir, name)
		info, err := mem.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for offset := rng.Int64N(*flipStride); offset < info.Size; offset += 1 + rng.Int64N(*flipStride) {
			flips++
			bit := rng.UintN(8)
			if err := mem.Flip(path, offset, bit); err != nil {
				t.Fatal(err)
			}
			if w.checkDamaged(t, mark, first, name, fmt.Sprintf("%s, byte %d, bit %d", name, offset, bit)) {
				refused++
			}
			if err := mem.Flip(path, offset, bit); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d bits in %d files", flips, len(names))
	if refused != flips {
		t.Errorf("%d of %d were noticed", refused, flips)
	}
}

// checkDamaged reads everything there is, and tells whether damage was found.
func (w *workload) checkDamaged(t *testing.T, mark Mark, first SegmentInfo, name, what string) (noticed bool) {
	t.Helper()
	note := func(err error) {
		if err == nil {
			return
		}
		noticed = true
		var damage *DamageError
		if !errors.As(err, &damage) || !strings.Contains(err.Error(), name) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	l, err := Open(w.cfg, mark)
	note(err)
	if err != nil {
		return noticed
	}
	defer l.Close()
	for _, info := range l.Segments() {
		if info.Sealed {
			_, err := l.ReadIndex(info.ID)
			note(err)
		}
	}
	for _, rec := range w.records {
		for _, g := range rec.Groups {
			for _, m := range g.Mutations {
				if m.Kind != KeyPut || m.Loc.Segment < first.ID {
					continue
				}
				got, err := l.Value(m.Loc)
				note(err)
				if err == nil && !bytes.Equal(got, m.Value) {
					t.Fatalf("%s: a wrong value was served", what)
				}
			}
		}
	}
	note(w.scanDamaged(t, l, first.FirstIndex, what))
	return noticed
}

func (w *workload) scanDamaged(t *testing.T, l *Log, from ident.Index, what string) error {
	t.Helper()
	r, err := l.Scan(ident.Position{Index: from})
	if err != nil {
		return err
	}
	defer r.Close()
	for _, rec := range w.records {
		if rec.Index < from {
			continue
		}
		got, err := r.Next()
		if err != nil {
			return err
		}
		compareRecords(t, what, got, rec, true)
	}
	return nil
}

// sealedSegments is a history of several segments, and the mark of its end.
func sealedSegments(t *testing.T) (*vfstest.Mem, Mark) {
	mem := newMem(t)
	l := mustCreate(t, testConfig(mem))
	m := newMaker(t, 3)
	for i := range 40 {
		mustAppend(t, l, m.record())
		if i%10 == 9 && i < 39 {
			if _, err := l.Seal(); err != nil {
				t.Fatal(err)
			}
		}
	}
	mark := mustSync(t, l)
	l.Close()
	return mem, mark
}

func TestWhatIsNeededAndMissingIsNamed(t *testing.T) {
	_, end := sealedSegments(t)
	if end.Segment < 4 {
		t.Fatal("too few segments")
	}
	seg := func(id uint64) string { return "gen/history/" + SegmentName(id) }
	truncate := func(mem *vfstest.Mem, name string, by int64) error {
		f, err := mem.OpenWrite(name)
		if err != nil {
			return err
		}
		defer f.Close()
		size, err := f.Size()
		if err != nil {
			return err
		}
		return f.Truncate(size + by)
	}
	cases := map[string]struct {
		spoil func(mem *vfstest.Mem, mark *Mark) error
		file  uint64
	}{
		"the last segment is missing":    {func(m *vfstest.Mem, _ *Mark) error { return m.Remove(seg(end.Segment)) }, end.Segment},
		"one in the middle is missing":   {func(m *vfstest.Mem, _ *Mark) error { return m.Remove(seg(2)) }, 2},
		"the last segment is cut":        {func(m *vfstest.Mem, _ *Mark) error { return truncate(m, seg(end.Segment), -1) }, end.Segment},
		"one in the middle is cut":       {func(m *vfstest.Mem, _ *Mark) error { return truncate(m, seg(2), -1) }, 2},
		"one in the middle has grown":    {func(m *vfstest.Mem, _ *Mark) error { return truncate(m, seg(2), 1) }, 2},
		"segments were exchanged":        {func(m *vfstest.Mem, _ *Mark) error { return m.Rename(seg(1), seg(2)) }, 2},
		"the mark has another digest":    {func(_ *vfstest.Mem, k *Mark) error { k.Digest[0]++; return nil }, end.Segment},
		"the mark has another revision":  {func(_ *vfstest.Mem, k *Mark) error { k.Revision++; return nil }, end.Segment},
		"the mark is within a record":    {func(_ *vfstest.Mem, k *Mark) error { k.Offset--; return nil }, end.Segment},
		"the mark is within the header":  {func(_ *vfstest.Mem, k *Mark) error { k.Offset = 10; return nil }, end.Segment},
		"the mark is beyond what is":     {func(_ *vfstest.Mem, k *Mark) error { k.Segment++; return nil }, end.Segment + 1},
		"the file is shorter than marks": {func(_ *vfstest.Mem, k *Mark) error { k.Offset++; return nil }, end.Segment},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			mem, mark := sealedSegments(t)
			if err := c.spoil(mem, &mark); err != nil {
				t.Fatal(err)
			}
			before, _ := mem.List("gen/history")
			l, err := Open(testConfig(mem), mark)
			if err == nil {
				l.Close()
			}
			var damage *DamageError
			if !errors.As(err, &damage) || filepath.Base(damage.File) != SegmentName(c.file) {
				t.Errorf("%v", err)
			}
			// A refusal changes nothing: somebody may want to look.
			if after, _ := mem.List("gen/history"); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("files were %v, are %v", before, after)
			}
		})
	}
}

func TestCreateRefusesAFolderThatHasSomething(t *testing.T) {
	mem := newMem(t)
	mustCreate(t, testConfig(mem))
	if _, err := Create(testConfig(mem), Mark{}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("%v", err)
	}
	if _, err := Open(Config{FS: mem, Dir: "elsewhere", Logger: testConfig(mem).Logger}, Mark{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// Rule 15: with every checksum right, a record that is missing still shows.
func TestARecordTakenOutShowsInTheOneAfterIt(t *testing.T) {
	mem := newMem(t)
	l := mustCreate(t, testConfig(mem))
	m := newMaker(t, 15)
	var starts []int64
	for range 3 {
		starts = append(starts, l.End().Offset)
		mustAppend(t, l, m.record())
	}
	mustSync(t, l)
	segment := l.End().Segment
	r, err := l.ScanSegment(segment)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	records := readAll(t, r)
	if len(records) != 3 {
		t.Fatalf("%d records in one segment, want 3", len(records))
	}
	name := "gen/history/" + SegmentName(segment)
	data, err := vfs.ReadFile(mem, name)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := appendRecord(slices.Clone(data[:starts[1]]), records[2], Loc{Segment: segment, Offset: uint32(starts[1])}, segmentSeed(segment), false)
	if err := vfs.ReplaceFile(mem, name, spoilt); err != nil {
		t.Fatal(err)
	}
	at, err := Verify(mem, "gen/history", nil)
	if err == nil || !strings.Contains(err.Error(), "before it lies entry") {
		t.Fatalf("read up to %v without the second of three records: %v", at, err)
	}
}

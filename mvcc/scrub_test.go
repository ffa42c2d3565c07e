package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// scrubAll makes a pass in small steps.
func scrubAll(s *Store, between func()) (ScrubProgress, error) {
	c := s.Scrub()
	defer c.Close()
	for {
		_, done, err := c.Step(500)
		if done || err != nil {
			return c.Progress, err
		}
		between()
	}
}

// newScrubbed is a store on disk, with rows in base and sealed segments.
func newScrubbed(t *testing.T) *Store {
	t.Helper()
	cfg := diskConfig(t)
	cfg.BaseFS, cfg.BaseDir = cfg.FS, cfg.Dir
	s := mustCreate(t, cfg)
	t.Cleanup(func() { s.Close() })
	w := &writer{t: t, s: s}
	for i := range 60 {
		w.put(fmt.Sprint("base", i), fmt.Sprintf("row %0200d", i))
	}
	w.put("long"+string(make([]byte, 5000)), "of a long key")
	w.compact(s.Head())
	stepAll(t, s)
	for i := range 60 {
		w.put(fmt.Sprint("young", i), fmt.Sprintf("record %0200d", i))
	}
	if err := s.history.Flush(); err != nil {
		t.Fatal(err)
	}
	stepAll(t, s)
	if err := s.checkpoint(); err != nil {
		t.Fatal(err)
	}
	return s
}

func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (at % 8)
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestAScrubOfIntactFilesReadsAllAndFindsNothing(t *testing.T) {
	s := newScrubbed(t)
	p, err := scrubAll(s, func() {})
	if err != nil {
		t.Fatal(err)
	}
	sealed := 0
	for _, info := range s.history.Segments() {
		if info.Sealed {
			sealed++
		}
	}
	if p.Segments != sealed || sealed < 3 || !p.Whole || p.BaseBytes < 61*200 || p.HistoryBytes < 40*200 || p.Tables != 0 {
		t.Fatalf("%+v, with %d sealed segments", p, sealed)
	}
	i := 0
	p, err = scrubAll(s, func() { // Commits go on meanwhile.
		i++
		(&writer{t: t, s: s}).put(fmt.Sprint("more", i), "x")
		if err := s.checkpoint(); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil || p.Segments < sealed {
		t.Fatalf("while commits go on: %+v, %v", p, err)
	}
}

func TestAScrubFindsEveryBitOfASealedSegment(t *testing.T) {
	s := newScrubbed(t)
	first := s.history.Segments()[0]
	name := filepath.Join(s.cfg.Dir, historyName, history.SegmentName(first.ID))
	for at := int64(0); at < first.Bytes; at += 7 {
		flip(t, name, at)
		_, err := scrubAll(s, func() {})
		var damage *history.DamageError
		if !errors.As(err, &damage) {
			t.Fatalf("a flipped bit of byte %d of %d: %v", at, first.Bytes, err)
		}
		flip(t, name, at)
	}
	if _, err := scrubAll(s, func() {}); err != nil {
		t.Fatalf("the test did not mend what it broke: %v", err)
	}
}

func TestAScrubFindsEveryBitOfARow(t *testing.T) {
	s := newScrubbed(t)
	name := filepath.Join(s.cfg.BaseDir, baseName)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	row := fmt.Appendf(nil, "row %0200d", 41)
	v := s.db.View()
	kv, err := v.Get([]byte("base41"))
	v.Release()
	if err != nil || !bytes.Contains(kv, row) {
		t.Fatalf("the row is %q, %v", kv, err)
	}
	found := 0
	for from := 0; ; { // Pages that are free now may have copies.
		i := bytes.Index(data[from:], row)
		if i < 0 {
			break
		}
		from += i + len(row)
		at := int64(from - len(row)/2)
		flip(t, name, at)
		if _, err := scrubAll(s, func() {}); errors.Is(err, backend.ErrDamaged) {
			found++
		} else if err != nil {
			t.Fatal(err)
		}
		flip(t, name, at)
	}
	if found != 1 {
		t.Fatalf("damage of the row in force was found %d times", found)
	}
	if _, err := scrubAll(s, func() {}); err != nil {
		t.Fatal(err)
	}
}

// A key table is derived: it is no reason to give up the state.
func TestAScrubMakesADamagedKeyTableAnew(t *testing.T) {
	s := newScrubbed(t)
	var name string
	for _, info := range s.history.Segments() {
		path := filepath.Join(s.cfg.Dir, historyName, history.IndexName(info.ID))
		if there, _ := vfs.Exists(s.cfg.FS, path); there {
			name = path
		}
	}
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, name, int64(len(before)/2))
	if p, err := scrubAll(s, func() {}); err != nil || p.Tables != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(after, before) {
		t.Fatalf("the table is another: %v", err)
	}
}

package history

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"reflect"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

var seeds = flag.Int("seeds", 6, "seeds of randomized tests")

// model is a history as a slice.
type model struct {
	*testing.T
	m       *maker
	cfg     Config
	log     *Log
	records []*Record
	mark    Mark
	tail    *Reader
	tailed  int
}

// TestAHistoryBehavesLikeASlice does at random what owners do, and compares
// all that can be read with a slice of the records.
func TestAHistoryBehavesLikeASlice(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{T: t, m: newMaker(t, uint64(seed)), cfg: testConfig(newMem(t))}
			switch seed % 3 {
			case 1:
				m.m.valueMax = 6000 // Larger than segments and blocks.
			case 2:
				m.m.valueMax = 6000 // Segments in which a scan begins in the middle.
				m.cfg.SegmentBytes = 8 * waypointBytes
			}
			m.log = mustCreate(t, m.cfg)
			m.mark = mustSync(t, m.log)
			m.follow()
			for range 400 {
				m.step()
			}
			m.checkAll()
		})
	}
}

func (m *model) step() {
	switch n := m.m.IntN(100); {
	case n < 70:
		rec := m.m.record()
		mustAppend(m, m.log, rec)
		m.records = append(m.records, copyRecord(rec))
	case n < 78:
		if err := m.log.Flush(); err != nil {
			m.Fatal(err)
		}
	case n < 82:
		m.mark = mustSync(m, m.log)
	case n < 84:
		m.seal()
	case n < 86:
		m.reopen()
	case n < 90:
		m.readTail()
	case n < 92:
		m.drop()
	case n < 94:
		m.checkIndexes()
	default:
		m.checkScan()
	}
}

func (m *model) seal() {
	id, err := m.log.Seal()
	if err != nil {
		m.Fatal(err)
	}
	if end := m.log.End(); end.Offset != segmentHeaderBytes || end.Segment != id+1 {
		m.Fatalf("sealed %d, end %v", id, end)
	}
}

// reopen loses what was not synced, as a crash may, and appends it again.
func (m *model) reopen() {
	m.tail.Close()
	if err := m.log.Close(); err != nil {
		m.Fatal(err)
	}
	l, err := Open(m.cfg, m.mark)
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { l.Close() })
	m.log = l
	if l.End() != m.mark {
		m.Fatalf("end %v, mark %v", l.End(), m.mark)
	}
	for i, rec := range m.records {
		if rec.Index <= m.mark.Index {
			continue
		}
		again := copyRecord(rec)
		mustAppend(m, l, again)
		compareRecords(m.T, "replayed", again, rec, false)
		m.records[i] = again
	}
	m.follow()
}

// follow begins a reader at the beginning, which goes on later.
func (m *model) follow() {
	r, err := m.log.ScanSegment(m.log.Segments()[0].ID)
	if err != nil {
		m.Fatal(err)
	}
	r.only = false
	r.VerifyDigests()
	m.tail, m.tailed = r, m.firstKept()
}

func (m *model) firstKept() int {
	first := m.log.Segments()[0].FirstIndex
	for i, rec := range m.records {
		if rec.Index >= first {
			return i
		}
	}
	return len(m.records)
}

func (m *model) readTail() {
	for _, rec := range readAll(m, m.tail) {
		compareRecords(m.T, "followed", rec, m.records[m.tailed], true)
		m.tailed++
	}
	if m.tailed != len(m.records) {
		m.Fatalf("followed %d of %d records", m.tailed, len(m.records))
	}
}

func (m *model) drop() {
	m.mark = mustSync(m, m.log)
	list := m.log.Segments()
	below := list[m.m.IntN(len(list))].ID
	m.readTail()
	before := m.log.Bytes()
	freed, err := m.log.Drop(below)
	if err != nil {
		m.Fatal(err)
	}
	if got := m.log.Bytes(); got != before-freed {
		m.Fatalf("%d bytes, of %d %d were freed", got, before, freed)
	}
	if first := m.log.Segments()[0].ID; first != max(list[0].ID, below) {
		m.Fatalf("dropped below %d, first is %d", below, first)
	}
}

func (m *model) checkIndexes() {
	for _, info := range m.log.Segments() {
		if !info.Sealed {
			continue
		}
		built, err := m.log.RebuildIndex(info.ID)
		if err != nil {
			m.Fatal(err)
		}
		if err := m.log.WriteIndex(info.ID, built); err != nil {
			m.Fatal(err)
		}
		read, err := m.log.ReadIndex(info.ID)
		if err != nil {
			m.Fatal(err)
		}
		if !bytes.Equal(read.data, built.data) {
			m.Fatal("another table was read than written")
		}
		m.checkTable(read, info)
	}
}

func (m *model) checkTable(table *KeyTable, info SegmentInfo) {
	want := make(map[string][]Version)
	for _, rec := range m.records {
		if rec.Index < info.FirstIndex || rec.Index > info.LastIndex {
			continue
		}
		for _, g := range rec.Groups {
			for _, mut := range g.Mutations {
				v := Version{Mod: g.Revision, Tombstone: true}
				if mut.Kind == KeyPut {
					var err error
					if v, err = rowVersion(mut.Value); err != nil {
						m.Fatal(err)
					}
					v.Loc = mut.Loc
				} else if mut.Kind != KeyDelete {
					continue
				}
				want[string(mut.Key)] = append(want[string(mut.Key)], v)
			}
		}
	}
	got := make(map[string][]Version)
	_ = table.Each(func(key []byte, versions []Version) error {
		got[string(key)] = append([]Version(nil), versions...)
		return nil
	})
	if !reflect.DeepEqual(got, want) {
		m.Fatalf("segment %d: table has %v, want %v", info.ID, got, want)
	}
}

func (m *model) checkScan() {
	from := m.firstKept()
	if from == len(m.records) {
		return
	}
	i := from + m.m.IntN(len(m.records)-from)
	rec := m.records[i]
	g := rec.Groups[m.m.IntN(len(rec.Groups))]
	r, err := m.log.Scan(ident.Position{Index: rec.Index, Group: g.Ordinal})
	if err != nil {
		m.Fatal(err)
	}
	defer r.Close()
	m.compare("scan", readAll(m, r), m.records[i:])
	if g.Revision == 0 {
		return
	}
	r2, err := m.log.ScanRevision(g.Revision)
	if err != nil {
		m.Fatal(err)
	}
	defer r2.Close()
	m.compare("scan revision", readAll(m, r2), m.records[i:])
}

func (m *model) compare(what string, got, want []*Record) {
	m.Helper()
	if len(got) != len(want) {
		m.Fatalf("%s: %d records, want %d", what, len(got), len(want))
	}
	for i := range got {
		compareRecords(m.T, what, got[i], want[i], true)
	}
}

func (m *model) checkAll() {
	m.readTail()
	m.tail.Close()
	m.checkIndexes()
	first := m.firstKept()
	for i, rec := range m.records {
		for _, g := range rec.Groups {
			for _, mut := range g.Mutations {
				if mut.Kind != KeyPut {
					continue
				}
				got, err := m.log.Value(mut.Loc)
				if i < first && errors.Is(err, ErrDropped) {
					continue
				}
				if err != nil || !bytes.Equal(got, mut.Value) {
					m.Fatalf("value at %v: %v, %x, want %x", mut.Loc, err, got, mut.Value)
				}
			}
		}
	}
	var bytes int64
	for _, info := range m.log.Segments() {
		bytes += info.Bytes + m.log.find(info.ID).indexBytes.Load()
	}
	if bytes != m.log.Bytes() {
		m.Fatalf("%d bytes, the segments have %d", m.log.Bytes(), bytes)
	}
	mark := mustSync(m, m.log)
	found := first
	end, err := Verify(m.cfg.FS, m.cfg.Dir, func(f Found) error {
		compareRecords(m.T, "verified", f.Record, m.records[found], true)
		found++
		return nil
	})
	if err != nil || end != mark || found != len(m.records) {
		m.Fatalf("verify: %v, ends %v, want %v, %d records of %d", err, end, mark, found, len(m.records))
	}
}

// compareRecords compares all that a record has, places of values as well if
// it was not written again since.
func compareRecords(t *testing.T, what string, got, want *Record, places bool) {
	t.Helper()
	g, w := copyRecord(got), copyRecord(want)
	for _, rec := range []*Record{g, w} {
		for i := range rec.Groups {
			if len(rec.Groups[i].Mutations) == 0 {
				rec.Groups[i].Mutations = nil
			}
			for j := range rec.Groups[i].Mutations {
				m := &rec.Groups[i].Mutations[j]
				m.Key, m.Value = append([]byte{}, m.Key...), append([]byte{}, m.Value...)
				if !places {
					m.Loc = Loc{}
				}
			}
		}
	}
	if !reflect.DeepEqual(g, w) {
		t.Fatalf("%s: got\n%+v, want\n%+v", what, g, w)
	}
}

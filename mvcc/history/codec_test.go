package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// allKinds is a history with everything that the format has.
func allKinds() []*Record {
	compact := binary.BigEndian.AppendUint64(nil, 1)
	return []*Record{
		{Index: 3, Term: 1, Time: 1_900_000_000_000_000_000, Groups: []Group{
			{Ordinal: 0, Revision: 2, Mutations: []Mutation{put("key/a", 2, 2, 1, []byte("one")), put("key/b", 2, 2, 1, nil)}},
			{Ordinal: 2, Mutations: []Mutation{{Kind: RowPut, Table: TableLease, Key: []byte("7"), Value: []byte("ttl")}}},
		}},
		{Index: 4, Term: 2, Time: 1_900_000_000_000_000_001, Groups: []Group{
			{Ordinal: 0, Revision: 3, Mutations: []Mutation{
				{Kind: KeyPut, Key: []byte("key/a"), Value: row("key/a", 2, 3, 2, []byte("two"), 7)},
				{Kind: KeyDelete, Key: []byte("key/b")},
			}},
			{Ordinal: 1, Mutations: []Mutation{{Kind: RowDelete, Table: TableUser, Key: []byte("eve")}}},
			{Ordinal: 300, Mutations: []Mutation{{Kind: Compact, Value: compact}}},
			{Ordinal: 301},
		}},
	}
}

// goldenDir writes a history with every kind of bytes: a sealed segment with a
// key index, and an active one.
func goldenDir(t testing.TB) *vfstest.Mem {
	t.Helper()
	mem := newMem(t)
	l := mustCreate(t, testConfig(mem))
	for i, rec := range allKinds() {
		mustAppend(t, l, rec)
		if i == 0 {
			if _, err := l.Seal(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	mustSync(t, l)
	for _, id := range []uint64{1, 2} {
		table, err := l.RebuildIndex(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.WriteIndex(id, table); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return mem
}

func TestVersion1IsWrittenAsTheGoldenFilesSay(t *testing.T) {
	mem := goldenDir(t)
	names, err := mem.List("gen/history")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := vfs.ReadFile(mem, filepath.Join("gen/history", name))
		if err != nil {
			t.Fatal(err)
		}
		golden.File(t, filepath.Join("testdata/v1", name), string(data))
	}
}

// loadTestdata puts the files of a folder of testdata into memory.
func loadTestdata(t *testing.T, dir string) *vfstest.Mem {
	t.Helper()
	mem := newMem(t)
	if err := mem.MkdirAll("gen/history"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := vfs.ReplaceFile(mem, filepath.Join("gen/history", e.Name()), data); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

func TestVersion1IsRead(t *testing.T) {
	mem := loadTestdata(t, "testdata/v1")
	want := allKinds()
	end, err := Verify(mem, "gen/history", func(f Found) error {
		rec := copyRecord(f.Record)
		w := want[0]
		want = want[1:]
		w.PrevIndex, w.PrevDigest = rec.PrevIndex, rec.PrevDigest
		for i := range w.Groups {
			w.Groups[i].Digest = rec.Groups[i].Digest
		}
		compareRecords(t, f.File, rec, w, false)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Fatalf("%v, %d records are missing", err, len(want))
	}
	l, err := Open(testConfig(mem), end)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	table, err := l.ReadIndex(2)
	if err != nil {
		t.Fatal(err)
	}
	v, ok := table.Find([]byte("key/a"), 3)
	if !ok || v.Version != 2 || v.Create != 2 || v.Lease != 7 {
		t.Errorf("key/a at revision 3 is %+v, %v", v, ok)
	}
	if value, err := l.Value(v.Loc); err != nil || !bytes.Equal(value, row("key/a", 2, 3, 2, []byte("two"), 7)) {
		t.Errorf("value %x, %v", value, err)
	}
	// The digest is part of the protocol between members.
	const digest = "5f68b45d624424c7"
	if got := end.Digest.String(); !strings.HasPrefix(got, digest) {
		t.Errorf("digest %s, want %s...", got, digest)
	}
}

// A newer version keeps the magic and the places of version and checksum, and its
// checksum is another; nothing else about it is known. That a version alone that
// was damaged is found as damage is shown by the flips of TestNoFlippedBitIsServed.
func TestANewerVersionIsRefusedByName(t *testing.T) {
	for _, name := range []string{"0000000000000001.seg", "0000000000000001.idx"} {
		mem := goldenDir(t)
		path := "gen/history/" + name
		for _, offset := range []int64{8, 12} { // Version 3, and a checksum that is not that of version 1.
			if err := mem.Flip(path, offset, 1); err != nil {
				t.Fatal(err)
			}
		}
		end := Mark{Segment: 3}
		l, err := Open(testConfig(mem), end)
		if strings.HasSuffix(name, indexSuffix) {
			_, err = Verify(mem, "gen/history", nil)
		}
		if l != nil {
			l.Close()
		}
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "version 3") {
			t.Errorf("%s of version 3: %v", name, err)
		}
	}
}

func TestAMarkSurvivesItsBinaryForm(t *testing.T) {
	m := Mark{Segment: 1 << 60, Offset: 2, Index: 3, Term: 4, Digest: ident.Digest{5, 15: 6}, Revision: 7}
	data, err := m.AppendBinary([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMark(data[1:])
	if err != nil || got != m {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := DecodeMark(data); !errors.Is(err, ErrMalformed) {
		t.Errorf("a mark that is too long: %v", err)
	}
}

func TestARecordTravelsUnchanged(t *testing.T) {
	l := mustCreate(t, testConfig(newMem(t)))
	for _, rec := range allKinds() {
		mustAppend(t, l, rec)
		data, err := rec.AppendBinary([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, "after"...)
		got, n, err := DecodeRecord(data[len("before"):])
		if err != nil || n != len(data)-len("beforeafter") {
			t.Fatalf("%d bytes of %d: %v", n, len(data), err)
		}
		compareRecords(t, "travelled", got, rec, false)
		for i := range n * 8 {
			bad := bytes.Clone(data[len("before"):])
			bad[i/8] ^= 1 << (i % 8)
			if rec, _, err := DecodeRecord(bad); err == nil {
				t.Fatalf("bit %d was turned over, decoded as %+v", i, rec)
			}
		}
	}
}

func TestWhatCannotBeWrittenIsRefused(t *testing.T) {
	ok := func() *Record {
		return &Record{Index: 5, Groups: []Group{{Revision: 5, Mutations: []Mutation{put("a", 5, 5, 1, nil)}}}}
	}
	cases := map[string]func(*Record){
		"no groups":                 func(r *Record) { r.Groups = nil },
		"an index that was":         func(r *Record) { r.Index = 2 },
		"a revision that was":       func(r *Record) { r.Groups[0].Revision = 2 },
		"a negative revision":       func(r *Record) { r.Groups[0].Revision = -1 },
		"the same request twice":    func(r *Record) { r.Groups = append(r.Groups, Group{}) },
		"a put without a revision":  func(r *Record) { r.Groups[0].Revision = 0 },
		"a put of another key":      func(r *Record) { r.Groups[0].Mutations[0].Key = []byte("b") },
		"a put that is not a row":   func(r *Record) { r.Groups[0].Mutations[0].Value = []byte("a") },
		"a deletion without a key":  func(r *Record) { r.Groups[0].Mutations[0] = Mutation{Kind: KeyDelete} },
		"a compaction to nowhere":   func(r *Record) { r.Groups[0].Mutations[0] = Mutation{Kind: Compact} },
		"an unknown kind":           func(r *Record) { r.Groups[0].Mutations[0].Kind = 6 },
		"a revision twice in order": func(r *Record) { r.Groups = append(r.Groups, Group{Ordinal: 1, Revision: 5}) },
	}
	for name, spoil := range cases {
		l := mustCreate(t, testConfig(newMem(t)))
		mustAppend(t, l, &Record{Index: 2, Groups: []Group{{Revision: 2}}})
		before := l.End()
		rec := ok()
		spoil(rec)
		if err := l.Append(rec); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if l.End() != before {
			t.Errorf("%s: the end moved to %v", name, l.End())
		}
		mustAppend(t, l, ok())
	}
}

func FuzzRecord(f *testing.F) {
	prev := ident.Digest{}
	for i, rec := range allKinds() {
		if _, err := recordSize(rec); err != nil {
			f.Fatal(err)
		}
		rec.PrevIndex, rec.PrevDigest = ident.Index(i), prev
		f.Add(appendRecord(nil, rec, Loc{}, 0, true))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if rec, n, err := DecodeRecord(data); err == nil {
			again, err := rec.AppendBinary(nil)
			if err != nil || !bytes.Equal(again, data[:n]) {
				t.Fatalf("encodes as %x, %v", again, err)
			}
		}
		// Behind the checksum as well.
		if len(data) < recordHeaderBytes {
			return
		}
		data = bytes.Clone(data)
		binary.LittleEndian.PutUint32(data, uint32(len(data)))
		binary.LittleEndian.PutUint32(data[4:], checksum(0, data[8:]))
		var rec Record
		if _, err := decodeRecord(data, &rec, Loc{}, 0); err != nil {
			return
		}
		_ = verifyDigests(data, &rec, new(Group))
		again, err := rec.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x encodes as %x, %v", data, again, err)
		}
	})
}

// FuzzSegment opens, reads and verifies a history of which one file is
// anything.
func FuzzSegment(f *testing.F) {
	mem := goldenDir(f)
	for which, name := range []string{SegmentName(1), SegmentName(2), IndexName(1)} {
		data, err := vfs.ReadFile(mem, "gen/history/"+name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint8(which))
	}
	end, err := Verify(mem, "gen/history", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		mem := goldenDir(t)
		name := []string{SegmentName(1), SegmentName(2), IndexName(1)}[which%3]
		original, _ := vfs.ReadFile(mem, "gen/history/"+name)
		if bytes.Equal(original, data) {
			return
		}
		if err := vfs.ReplaceFile(mem, "gen/history/"+name, data); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(mem, "gen/history", nil); err == nil {
			t.Fatalf("%s was accepted with other bytes", name)
		}
		if l, err := Open(testConfig(mem), end); err == nil {
			if _, err := l.ReadIndex(1); err == nil && which%3 == 2 {
				t.Fatal("the key index was accepted with other bytes")
			}
			l.Close()
		}
	})
}

func FuzzKeyTable(f *testing.F) {
	mem := goldenDir(f)
	data, err := vfs.ReadFile(mem, "gen/history/"+IndexName(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[indexHeaderBytes:])
	rng := rand.New(rand.NewPCG(1, 3))
	small, _ := tableOf(f, map[string][]Version{"a": randomVersions(rng, 1), "ab": randomVersions(rng, 1), "b": randomVersions(rng, 1)}, 1)
	f.Add(small.data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < tableHeaderBytes {
			return
		}
		data = bytes.Clone(data)
		binary.LittleEndian.PutUint32(data, checksum(0, data[4:]))
		table, err := decodeKeyTable(data)
		if err != nil {
			return
		}
		b := NewKeyTableBuilder(table.segment)
		err = table.Each(func(key []byte, versions []Version) error {
			last := versions[len(versions)-1]
			if v, ok := table.Find(key, last.Mod); !ok || !reflect.DeepEqual(v, last) {
				t.Fatalf("key %x: found %+v, want %+v", key, v, last)
			}
			return b.Add(key, versions)
		})
		if err != nil {
			t.Fatal(err)
		}
		if again := b.Finish(); !bytes.Equal(again.data, data) {
			t.Fatalf("%x is built as %x", data, again.data)
		}
	})
}

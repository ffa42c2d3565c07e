package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

func mustSealer(t testing.TB, r Recipients) *sealer {
	t.Helper()
	s, err := newSealer(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpener(t testing.TB, ids ...age.Identity) *opener {
	t.Helper()
	o, err := newOpener(ids)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// small is a segment of a few records, as an object and its name.
func small(t testing.TB, sealer *sealer) (string, segmentName, []byte) {
	t.Helper()
	c := newCluster(t, 1)
	c.run(6)
	var name string
	var data []byte
	c.segments(Point{Revision: 1, Compacted: -1}, 100, func(s *segment) {
		var err error
		if name, data, err = s.seal(testPlace, sealer); err != nil {
			t.Fatal(err)
		}
	})
	id, ok := parseSegmentName(name)
	if !ok {
		t.Fatalf("segment is called %s", name)
	}
	return name, id, data
}

func TestFormatV1(t *testing.T) {
	h := head{Kind: kindPart, Cluster: testUUID, Timeline: 3, Plain: 5, Codec: codecNone, Part: &partHead{Base: baseName{7, 9}.String(), Number: 1, Offset: 4}}
	data, err := encodeObject(h, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/v1/object.hex", hex.Dump(data))
	manifest, err := encodeText(&Manifest{
		Format: FormatVersion, Cluster: testUUID, Timeline: 3, At: Point{Index: 8, Term: 2, Time: 1e18, Revision: 9, Compacted: -1}, Last: 7, Bytes: 5,
		SHA256: "00", Made: "2030-01-01T00:00:00Z", Member: "a", Parts: []Part{{Name: "part-00000-00", Bytes: 5, Stored: 900}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/v1/MANIFEST.json", string(manifest))
	text, id, old := goldenSegment(t)
	s, err := openSegment(mustOpener(t), testPlace, text, id, old)
	if err != nil || s.records != 5 || s.end.Digest != id.Digest {
		t.Fatalf("%+v: %v", s, err)
	}
}

// goldenSegment was made once, for every later version to read.
func goldenSegment(t testing.TB) (string, segmentName, []byte) {
	t.Helper()
	data, err := os.ReadFile("testdata/v1/segment.hist")
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile("testdata/v1/segment.name")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(name))
	id, ok := parseSegmentName(text)
	if !ok {
		t.Fatalf("%q is no name of a segment", text)
	}
	return text, id, data
}

func TestANewerFormatIsRefusedByItsNumber(t *testing.T) {
	name, id, data := small(t, mustSealer(t, Recipients{}))
	data[len(magic)] = 9
	if _, err := openSegment(mustOpener(t), testPlace, name, id, data); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format 9") {
		t.Error(err)
	}
	if err := decodeText("META.json", []byte(`{"format": 9, "what": 1}`), &Meta{}); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format 9") {
		t.Error(err)
	}
}

func TestEveryFlippedBitAndEveryCutOfASegmentIsFoundAndLocated(t *testing.T) {
	name, id, data := small(t, mustSealer(t, Recipients{}))
	o := mustOpener(t)
	for at := range data {
		bad := bytes.Clone(data)
		bad[at] ^= 1 << (at % 8)
		_, err := openSegment(o, testPlace, name, id, bad)
		var damage *DamageError
		if !errors.As(err, &damage) && !errors.Is(err, ErrNewerFormat) {
			t.Fatalf("a flip at %d of %d: %v", at, len(data), err)
		}
		if damage != nil && (damage.Offset > int64(at) || damage.Object != name) {
			t.Fatalf("a flip at %d is said to be at %d of %s", at, damage.Offset, damage.Object)
		}
		if _, err := openSegment(o, testPlace, name, id, bytes.Clone(data[:at])); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	if _, err := openSegment(o, testPlace, name, id, append(bytes.Clone(data), 0)); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a byte more: %v", err)
	}
}

func TestAnObjectInTheWrongPlaceIsRefused(t *testing.T) {
	name, id, data := small(t, mustSealer(t, Recipients{}))
	elsewhere, other := testPlace, id
	elsewhere.timeline++
	other.Last++
	for _, c := range []struct {
		at place
		id segmentName
	}{{elsewhere, id}, {testPlace, other}, {place{UUID{1}, testPlace.timeline}, id}} {
		if _, err := openSegment(mustOpener(t), c.at, name, c.id, bytes.Clone(data)); !errors.Is(err, ErrForeign) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAnEncryptedObjectOpensForItsRecipientsAndNamesThemToOthers(t *testing.T) {
	var ids []age.Identity
	var names []string
	for range 3 {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		ids, names = append(ids, id), append(names, id.Recipient().String())
	}
	r, err := ParseRecipients(names[:2])
	if err != nil {
		t.Fatal(err)
	}
	name, id, data := small(t, mustSealer(t, r))
	if bytes.Contains(data, []byte("old0")) {
		t.Error("rows can be read in the object")
	}
	for i, want := range []error{nil, nil, ErrNoKey} {
		_, err := openSegment(mustOpener(t, ids[i]), testPlace, name, id, bytes.Clone(data))
		if !errors.Is(err, want) {
			t.Errorf("identity %d: %v", i, err)
		}
		if want != nil && (!strings.Contains(err.Error(), names[0]) || !strings.Contains(err.Error(), names[1])) {
			t.Errorf("the recipients are not named: %v", err)
		}
	}
	if _, err := openSegment(mustOpener(t), testPlace, name, id, bytes.Clone(data)); !errors.Is(err, ErrNoKey) {
		t.Errorf("no identity: %v", err)
	}
	if _, err := ParseRecipients([]string{"ssh-rsa AAAA"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a key that is not one: %v", err)
	}
}

func TestNamesAreWhatTheySay(t *testing.T) {
	n := segmentName{First: 3, Last: 1<<64 - 1, Digest: Digest{9}}
	b := baseName{Index: 4, Revision: 1 << 60}
	tl := timelinePath(12)
	for name, want := range map[string]located{
		metaName: {kind: ofCluster, rest: metaName}, ownerName: {kind: ofCluster, rest: ownerName},
		tl + historyName:                                     {kind: ofHistory, timeline: 12},
		tl + logFolder + n.String():                          {kind: ofSegment, timeline: 12, segment: n},
		tl + baseFolder + b.String() + "/" + manifestName:    {kind: ofManifest, timeline: 12, base: b, rest: manifestName},
		tl + baseFolder + b.String() + "/part-00000-00":      {kind: ofPart, timeline: 12, base: b, rest: "part-00000-00"},
		"verify/x.json":                                      {kind: ofVerify, rest: "x.json"},
		"trash/y/META.json":                                  {kind: ofTrash, rest: "y/META.json"},
		"tl/12/" + historyName:                               {}, // Not in the one form that a list sorts.
		tl + logFolder + strings.ToUpper(n.String()):         {},
		tl + logFolder + "x" + n.String():                    {},
		tl + logFolder + segmentName{First: 3}.String():      {}, // Ends before it begins.
		tl + baseFolder + b.String() + "/else":               {},
		tl + baseFolder + "+" + b.String()[1:] + "/MANIFEST": {},
		"": {}, "tl/": {}, "notes.txt": {},
	} {
		if got := locate(name); got != want && (want.kind != foreign || got.kind != foreign) {
			t.Errorf("%q is %+v, want %+v", name, got, want)
		}
	}
}

func FuzzLocate(f *testing.F) {
	f.Add(timelinePath(3) + logFolder + segmentName{First: 1, Last: 2}.String())
	f.Add(timelinePath(3) + baseFolder + baseName{4, 5}.String() + "/" + manifestName)
	f.Fuzz(func(t *testing.T, name string) {
		l := locate(name)
		again := name
		switch l.kind {
		case ofSegment:
			again = timelinePath(l.timeline) + logFolder + l.segment.String()
		case ofManifest, ofPart:
			again = timelinePath(l.timeline) + baseFolder + l.base.String() + "/" + l.rest
		}
		if again != name {
			t.Errorf("%q is taken for %q", name, again)
		}
	})
}

// FuzzOpenSegment opens anything: it is refused, or leads from one end to the other.
func FuzzOpenSegment(f *testing.F) {
	name, id, data := goldenSegment(f)
	f.Add(data)
	o := mustOpener(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := openSegment(o, testPlace, name, id, bytes.Clone(data)) // It uses the memory.
		if err != nil {
			return
		}
		n := 0
		if err := s.each(name, func(*history.Record) error { n++; return nil }); err != nil || n != s.records || s.end.Digest != id.Digest {
			t.Errorf("%d records, %d were said: %v", n, s.records, err)
		}
	})
}

// FuzzDecodeText reads anything as each of the JSON objects.
func FuzzDecodeText(f *testing.F) {
	f.Add([]byte(`{"format": 1, "cluster": "07070707070707070707070707070707", "last": 3, "at": {"index": 3, "digest": "00000000000000000000000000000000"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &Manifest{}
		if decodeText("x", data, m) == nil && m.validate("x", testPlace, baseName{m.Last, m.At.Revision}) == nil && (len(m.Parts) == 0 || m.Bytes <= 0) {
			t.Errorf("%+v is taken for a base", m)
		}
		for _, v := range []any{&Meta{}, &History{}, &ownerLease{}, &Ceiling{}, &Epoch{}, &Drill{}, &trashList{}} {
			if decodeText("x", data, v) != nil {
				continue
			}
			if _, err := encodeText(v); err != nil {
				t.Errorf("%T was read and cannot be written: %v", v, err)
			}
		}
	})
}

// FuzzParseTarget: what is understood names one position, and says how.
func FuzzParseTarget(f *testing.F) {
	for _, text := range []string{"latest", "index=7.3", "index=7", "revision=9", "before-revision=9", "time=2030-01-01T00:00:00Z"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := ParseTarget(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if again, err := ParseTarget(target.String()); err != nil || again != target {
			t.Errorf("%q is %+v, then %+v: %v", text, target, again, err)
		}
	})
}

func TestCutKeepsWholeRequests(t *testing.T) {
	rec := &history.Record{Index: 9, Groups: []history.Group{{Ordinal: 1}, {Ordinal: 4}}}
	for group, want := range []int{0, 1, 1, 1, 2, 2} {
		got := 0
		if short := cut(rec, uint32(group)); short != nil {
			got = len(short.Groups)
		}
		if got != want || len(rec.Groups) != 2 {
			t.Errorf("cut at %d leaves %d groups", group, got)
		}
	}
}

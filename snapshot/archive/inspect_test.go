package archive

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// inspect tells what was found, by name.
func inspect(t *testing.T, a *Archive) map[string]Found {
	t.Helper()
	all := map[string]Found{}
	_, err := a.Inspect(t.Context(), func(f Found) error {
		if _, again := all[f.Name]; again {
			t.Errorf("%s is told twice", f.Name)
		}
		all[f.Name] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wrong are the names of objects that something is wrong with.
func wrong(all map[string]Found) (names []string) {
	for name, f := range all {
		if f.Err != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAnInspectionReadsEveryObject(t *testing.T) {
	c, store := newCluster(t, 31), newMemStore()
	c.run(30)
	a := c.archived(store, c.config(store, &alarms{}), 2, 20)
	if _, err := drill(t, a); err != nil {
		t.Fatal(err)
	}
	store.objects[a.path("notes.txt")] = []byte("x")
	extra := ""
	for _, name := range store.names() { // Of a try that was given up.
		if strings.Contains(name, partPrefix) && extra == "" {
			extra = strings.Replace(name, baseFolder+"0", baseFolder+"1", 1)
			store.objects[extra] = bytes.Clone(store.objects[name])
		}
	}
	all, kinds := inspect(t, a), map[string]int{}
	for _, name := range store.names() {
		f, ok := all[strings.TrimPrefix(name, a.path(""))]
		if !ok || f.Bytes != int64(len(store.objects[name])) && f.Kind != foundForeign {
			t.Errorf("%s: %+v, %v", name, f, ok)
		}
		kinds[f.Kind]++
	}
	if bad := wrong(all); len(bad) != 1 || a.path(bad[0]) != extra || !errors.Is(all[bad[0]].Err, ErrForeign) {
		t.Errorf("wrong are %q", bad) // It says of which base it is.
	}
	if len(all) != len(store.objects) || kinds[foundMeta] != 1 || kinds[foundOwner] != 1 || kinds[foundCeiling] == 0 || kinds[foundTimeline] != 1 ||
		kinds[foundBase] < 2 || kinds[foundPart] <= kinds[foundBase] || kinds[foundSegment] < 5 || kinds[foundDrill] != 1 || kinds[foundForeign] != 1 {
		t.Errorf("%d of %d objects: %v", len(all), len(store.objects), kinds)
	}
	delete(store.objects, extra)
	down := errors.New("down")
	store.before = func(verb, name string) error {
		if verb == "get" && strings.HasSuffix(name, segmentSuffix) {
			return down
		}
		return nil
	}
	if _, err := a.Inspect(t.Context(), func(Found) error { return nil }); !errors.Is(err, down) {
		t.Errorf("a store that does not answer: %v", err)
	}
}

func TestAnInspectionNamesEveryChangedObjectAndNoOther(t *testing.T) {
	c, store := newCluster(t, 32), newMemStore()
	c.run(30)
	a := c.archived(store, c.config(store, &alarms{}), 1, 20)
	var names []string
	for _, name := range store.names() {
		if kind := locate(strings.TrimPrefix(name, a.path(""))).kind; kind == ofSegment || kind == ofPart {
			names = append(names, name)
		}
	}
	t.Logf("seed %d", *seedFlag)
	r := rand.New(rand.NewPCG(*seedFlag, 1))
	for i := range *changesFlag {
		name := names[r.IntN(len(names))]
		short := strings.TrimPrefix(name, a.path(""))
		good := store.objects[name]
		bad, located := bytes.Clone(good), true
		switch i % 4 {
		case 0:
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		case 1:
			bad = bad[:r.IntN(len(bad))]
		case 2:
			bad = append(bad, 0)
		default:
			other := names[r.IntN(len(names))]
			if other == name {
				continue
			}
			bad, located = bytes.Clone(store.objects[other]), false
		}
		store.objects[name] = bad
		all := inspect(t, a)
		var where *DamageError
		err := all[short].Err
		if got := wrong(all); !slices.Equal(got, []string{short}) || !strings.Contains(err.Error(), short) ||
			located && !(errors.As(err, &where) && where.Offset >= 0 && where.Offset <= int64(len(bad)) || errors.Is(err, ErrNewerFormat)) {
			t.Fatalf("change %d of %s: wrong are %q: %v", i, short, got, err)
		}
		store.objects[name] = good
	}
}

// No hash covers a manifest. Where entries that changed nothing come last, and no
// log after them, it alone tells a restore the term and the time of the state.
func TestAManifestThatTellsAnotherStateThanItsPiecesIsRefusedAndFound(t *testing.T) {
	c, store := newCluster(t, 34), newMemStore()
	c.run(30)
	c.index += 3
	c.commit(c.store.Begin(c.index, c.term, 0))
	a := c.archived(store, c.config(store, &alarms{}), 1, 0)
	p, s := restoreTo(t, a, "latest")
	if err := s.Close(); err != nil || len(p.Log) > 0 || p.Base.Last == p.To.Index {
		t.Fatalf("log %v, base %+v: %v", p.Log, p.Base, err)
	}
	name := p.folder + manifestName
	for what, change := range map[string]func(*Point){
		"position": func(at *Point) { at.Group++ }, "index": func(at *Point) { at.Index += 100 },
		"term": func(at *Point) { at.Term++ }, "time": func(at *Point) { at.Time += 1e17 },
		"compacted": func(at *Point) { at.Compacted++ }, "digest": func(at *Point) { at.Digest[0]++ },
	} {
		m := p.Base
		change(&m.At)
		text, err := encodeText(m)
		if err != nil {
			t.Fatal(err)
		}
		store.objects[a.path(name)] = text
		bad, err := a.Plan(t.Context(), 0, Target{kind: toLatest})
		if err == nil {
			_, err = a.Restore(t.Context(), io.Discard, bad)
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("another %s is restored: %v", what, err)
		}
		if got := wrong(inspect(t, a)); !slices.Equal(got, []string{name}) {
			t.Errorf("another %s: wrong are %q", what, got)
		}
	}
}

func TestAnInspectionFindsWhatIsMissing(t *testing.T) {
	c, store := newCluster(t, 33), newMemStore()
	c.run(30)
	a := c.archived(store, c.config(store, &alarms{}), 1, 20)
	var part, manifest string
	for _, name := range store.names() {
		switch l := locate(strings.TrimPrefix(name, a.path(""))); l.kind {
		case ofPart:
			part = name
		case ofManifest:
			manifest = name
		}
	}
	short := func(name string) string { return strings.TrimPrefix(name, a.path("")) }
	for _, x := range []struct {
		change func()
		name   string
		want   error
	}{
		{func() { delete(store.objects, part) }, part, blobstore.ErrNotFound},
		{func() {
			store.objects[manifest] = bytes.Replace(store.objects[manifest], []byte(`"sha256": "`), []byte(`"sha256": "0`), 1)
		}, manifest, ErrDamaged},
		{func() { store.objects[manifest] = []byte("{") }, manifest, ErrDamaged},
	} {
		before := maps.Clone(store.objects)
		x.change()
		if all := inspect(t, a); !errors.Is(all[short(x.name)].Err, x.want) {
			t.Errorf("%s: %v, wrong are %q", x.name, all[short(x.name)].Err, wrong(all))
		}
		store.objects = before
	}
}

func TestAnInspectionFindsPastsThatContradictEachOther(t *testing.T) {
	store := newMemStore()
	a := &Archive{store: store, cluster: testUUID, opener: mustOpener(t)}
	ship := func(seed uint64) {
		c := newCluster(t, seed)
		c.run(20)
		c.segments(Point{Revision: 1, Compacted: -1}, 1, func(s *segment) {
			name, data, err := s.seal(testPlace, mustSealer(t, Recipients{}))
			if err != nil {
				t.Fatal(err)
			}
			store.objects[a.path(timelinePath(testPlace.timeline)+logFolder+name)] = data
		})
	}
	ship(36)
	if bad := wrong(inspect(t, a)); len(bad) != 0 {
		t.Fatalf("wrong are %q", bad)
	}
	ship(37)
	all := inspect(t, a)
	bad := wrong(all)
	if len(bad) == 0 {
		t.Fatal("nothing is wrong with two pasts")
	}
	for _, name := range bad {
		if f := all[name]; !errors.Is(f.Err, ErrDisagree) || strings.Count(f.Err.Error(), segmentSuffix) != 2 {
			t.Errorf("%s: %v", name, f.Err)
		}
	}
}

func TestWithoutAKeyAnInspectionVerifiesWhatIsStored(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	c, store := newCluster(t, 35), newMemStore()
	c.run(30)
	cfg := c.config(store, &alarms{})
	if cfg.Recipients, err = ParseRecipients([]string{key.Recipient().String()}); err != nil {
		t.Fatal(err)
	}
	blind := c.archived(store, cfg, 1, 20)
	seeing, err := Open(t.Context(), store, UUID{}, Identities{key})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		archive *Archive
		sealed  bool
	}{{blind, true}, {seeing, false}} {
		all := inspect(t, x.archive)
		if bad := wrong(all); len(bad) != 0 {
			t.Errorf("wrong are %q", bad)
		}
		for name, f := range all {
			binary := f.Kind == foundSegment || f.Kind == foundPart
			if f.Sealed != (binary && x.sealed) || f.Sealed && !strings.Contains(f.Note, key.Recipient().String()) {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
	for _, name := range store.names() {
		if strings.HasSuffix(name, segmentSuffix) {
			store.objects[name][len(store.objects[name])-40] ^= 1
		}
	}
	if bad := wrong(inspect(t, blind)); len(bad) < 5 {
		t.Errorf("wrong are %q", bad)
	}
}

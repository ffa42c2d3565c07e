package archive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// TestCatalogue shows what a list of names tells.
func TestCatalogue(t *testing.T) {
	golden.Script(t, "testdata/catalogue.txt", func(c golden.Command) string {
		store := newMemStore()
		a := &Archive{store: store, cluster: testUUID}
		for line := range strings.Lines(c.Input) {
			store.objects[a.path(nameOf(t, strings.Fields(line)))] = []byte("x")
		}
		cat, err := a.Catalogue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, tl := range cat.Timelines {
			for _, r := range tl.Runs() {
				fmt.Fprintf(&b, "base %d and", r.Base.Index)
				for _, s := range r.Log {
					fmt.Fprintf(&b, " %d-%d", s.First, s.Last)
				}
				fmt.Fprintf(&b, " reach %d\n", r.Last)
			}
			if w, ok := tl.Window(); ok {
				fmt.Fprintf(&b, "%s\n", w)
			}
			for _, g := range tl.Gaps() {
				fmt.Fprintf(&b, "gap between %d and %d\n", g.After, g.Before)
			}
			for _, x := range tl.Conflicts() {
				fmt.Fprintf(&b, "two pasts at %d\n", x.A.Last)
			}
		}
		for _, name := range cat.Foreign {
			fmt.Fprintf(&b, "foreign %s\n", name)
		}
		return b.String()
	})
}

// nameOf makes a name of words: log FIRST LAST [DIGEST], base INDEX, part INDEX, else NAME.
func nameOf(t *testing.T, words []string) string {
	t.Helper()
	number := func(i int) ident.Index {
		if i >= len(words) {
			return 0
		}
		var n ident.Index
		if _, err := fmt.Sscan(words[i], &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	tl := timelinePath(1)
	switch words[0] {
	case "log":
		return tl + logFolder + segmentName{number(1), number(2), Digest{byte(number(3))}}.String()
	case "base":
		return tl + baseFolder + baseName{number(1), 1}.String() + "/" + manifestName
	case "part":
		return tl + baseFolder + baseName{number(1), 1}.String() + "/" + partName(0, [16]byte{})
	}
	return words[1]
}

func TestTheArchiveOfAClusterIsFound(t *testing.T) {
	store := newMemStore()
	if _, err := Open(t.Context(), store, UUID{}, nil); !errors.Is(err, ErrNoArchive) || !strings.Contains(err.Error(), "mem://") {
		t.Errorf("an empty store: %v", err)
	}
	other := UUID{1}
	for _, u := range []UUID{testUUID, other} {
		text, err := encodeText(Meta{FormatVersion, u})
		if err == nil {
			_, err = store.Put(t.Context(), u.String()+"/"+metaName, text, blobstore.Condition{})
		}
		if err != nil {
			t.Fatal(err)
		}
		if a, err := Open(t.Context(), store, u, nil); err != nil || a.Cluster() != u {
			t.Errorf("%s: %v", u, err)
		}
	}
	if _, err := Open(t.Context(), store, UUID{}, nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), other.String()) {
		t.Errorf("two clusters: %v", err)
	}
	if list, err := Clusters(t.Context(), store); err != nil || !reflect.DeepEqual(list, []UUID{other, testUUID}) {
		t.Errorf("%v: %v", list, err)
	}
	store.objects[testUUID.String()+"/"+metaName] = store.objects[other.String()+"/"+metaName]
	if _, err := Open(t.Context(), store, testUUID, nil); !errors.Is(err, ErrForeign) {
		t.Errorf("META.json of another: %v", err)
	}
}

// drawnArchive is one of three timelines, with hand-overs, gaps and two pasts.
func drawnArchive(r *rand.Rand) *Archive {
	store := newMemStore()
	a := &Archive{store: store, cluster: testUUID}
	put := func(name string) { store.objects[a.path(name)] = []byte("x") }
	for _, timeline := range []ident.Timeline{1, 2, 3} {
		at := timelinePath(timeline)
		put(ceilingName(ident.Revision(timeline)))
		for first := ident.Index(1); first < 200; {
			s := segmentName{First: first, Last: first + ident.Index(r.IntN(5)), Digest: Digest{byte(r.IntN(3))}}
			put(at + logFolder + s.String())
			switch r.IntN(12) {
			case 0: // A hand-over: another one that begins within it.
				first += ident.Index(r.IntN(3))
			case 1: // Two pasts.
				s.Digest[1]++
				put(at + logFolder + s.String())
				first = s.Last + 1
			case 2:
				first = s.Last + 2 // A gap.
			default:
				first = s.Last + 1
			}
		}
		for range r.IntN(3) {
			base := at + baseFolder + baseName{Index: ident.Index(1 + r.IntN(190))}.String() + "/"
			put(base + partName(0, [16]byte{}))
			if r.IntN(3) > 0 {
				put(base + manifestName)
			}
		}
	}
	return a
}

func lastRun(t *Timeline) (r Run) {
	if runs := t.Runs(); len(runs) > 0 {
		r = runs[len(runs)-1]
	}
	return r
}

// A member that begins to archive lists years of it, and wants to know where it ends.
func TestAListOfYearsLeavesOnlyWhatTheEndTells(t *testing.T) {
	t.Logf("seed %d", *seedFlag)
	r := rand.New(rand.NewPCG(*seedFlag, 7))
	conflicts, most := 0, 0
	for range 300 {
		a := drawnArchive(r)
		whole, err := a.Catalogue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		spared, err := a.list(t.Context(), "", func(c *Catalogue) error {
			c.spare(2)
			most = max(most, len(c.objects))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want, got := whole.find(2), spared.find(2)
		if !reflect.DeepEqual(got.Conflicts(), want.Conflicts()) || spared.Ceiling != whole.Ceiling {
			t.Fatalf("conflicts %+v, of the whole list %+v", got.Conflicts(), want.Conflicts())
		}
		conflicts += len(want.Conflicts())
		if !reflect.DeepEqual(lastRun(got), lastRun(want)) {
			t.Fatalf("ends with %+v, of the whole list %+v", lastRun(got), lastRun(want))
		}
		if b := lastRun(want).Base; b != nil {
			for i, s := range got.Log[:max(len(got.Log)-1, 0)] {
				if s.Last < b.Index && s.Last < got.Log[i+1].First && !overlaps(got.Log[:i], s) {
					t.Fatalf("kept %+v, before the base at %d", s, b.Index)
				}
			}
		}
	}
	if conflicts == 0 || most != 0 {
		t.Errorf("%d conflicts drawn; %d objects were held", conflicts, most)
	}
}

package archive

import (
	"errors"
	"fmt"
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

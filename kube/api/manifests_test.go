package api

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// TestManifestsAsPeopleWriteThem reads each file of testdata/manifests; what it
// gives stands beside it.
func TestManifestsAsPeopleWriteThem(t *testing.T) {
	var files []string
	for _, form := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob("testdata/manifests/" + form)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 25 {
		t.Fatalf("%d files", len(files))
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			manifests, err := ReadManifests(strings.NewReader(string(text)), filepath.Base(name))
			golden.File(t, name+".txt", readText(manifests, err))
			for i := range manifests {
				keepsItsForm(t, &manifests[i])
			}
		})
	}
}

func readText(manifests []Manifest, err error) string {
	var b strings.Builder
	for _, m := range manifests {
		fmt.Fprintf(&b, "%s:%d: %s %s\n", m.File, m.Line, KindOf(m.Object).Name, strings.TrimPrefix(m.Object.GetNamespace()+"/"+m.Object.GetName(), "/"))
		for _, w := range m.Warnings {
			b.WriteString(w + "\n")
		}
	}
	if err != nil {
		b.WriteString(err.Error() + "\n")
	}
	return b.String()
}

// keepsItsForm stores an object and reads it, fills its defaults in twice, and
// applies its manifest to what came of it.
func keepsItsForm(t *testing.T, m *Manifest) {
	k := KindOf(m.Object)
	if err := m.Place("shop"); err != nil && m.Object.GetNamespace() == "" {
		t.Error(err)
	}
	if m.Object.GetName() == "" {
		m.Object.SetName(m.Object.GetGenerateName() + "1")
		m.JSON = encoded(t, m.Object)
	}
	warned := fmt.Sprint(Warnings(m.Object))
	Default(m.Object)
	if now := fmt.Sprint(Warnings(m.Object)); now != warned {
		t.Errorf("warnings without defaults:\n%s\nwith them:\n%s", warned, now)
	}
	once := encoded(t, m.Object)
	Default(m.Object)
	if twice := encoded(t, m.Object); string(once) != string(twice) {
		t.Errorf("defaults once:\n%s\ntwice:\n%s", once, twice)
	}
	if errs := Validate(m.Object); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	if errs := ValidateUpdate(m.Object, m.Object); len(errs) > 0 {
		for _, e := range errs {
			if e.Field != "metadata.resourceVersion" { // Nobody stored it yet.
				t.Error(e)
			}
		}
	}
	stored, err := Encode(m.Object)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Decode(k, stored, 0)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := ApplyPatch(k, encoded(t, o), m.JSON)
	if err != nil || patch == nil {
		t.Fatalf("patch %s, %v", patch, err)
	}
	if o, err = Patch(k, encoded(t, o), patch, kubepb.PatchRequest_STRATEGIC); err != nil {
		t.Fatal(err)
	}
	Default(o)
	o.SetAnnotations(without(o.GetAnnotations(), LastApplied))
	if got := encoded(t, o); string(got) != string(once) {
		t.Errorf("applying the manifest changed\n%s\nto\n%s\nby %s", once, got, patch)
	}
}

func without(m map[string]string, key string) map[string]string {
	delete(m, key)
	if len(m) == 0 {
		return nil
	}
	return m
}

// TestWhatIsWrongInManifests reads small texts.
func TestWhatIsWrongInManifests(t *testing.T) {
	golden.Script(t, "testdata/wrong.txt", func(c golden.Command) string {
		manifests, err := ReadManifests(strings.NewReader(unescapeText(c)), "f")
		if err != nil && (!errors.Is(err, ErrManifest) || manifests != nil) {
			t.Errorf("line %d: %d manifests and %v", c.Line, len(manifests), err)
		}
		return readText(manifests, err)
	})
}

// unescapeText puts in what a script cannot hold: lines of dashes and of nothing,
// which a script writes with a leading backslash.
func unescapeText(c golden.Command) string {
	lines := strings.Split(c.Input, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, `\`)
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestSizesOfManifestsAreBounded(t *testing.T) {
	bombs := map[string]string{
		"aliases":       "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + aliases(),
		"depth":         strings.Repeat("[", 5000),
		"depth of JSON": `{"a":` + strings.Repeat("[", 5000),
		"itself":        "a: &a [*a]",
		"document":      "a: " + strings.Repeat("x", documentBytesMax),
		"file":          strings.Repeat("#\n", ManifestBytesMax/2+1),
	}
	for name, text := range bombs {
		_, err := ReadManifests(strings.NewReader(text), name)
		if !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Log(err)
	}
}

func aliases() string {
	var b strings.Builder
	for c := 'b'; c <= 'j'; c++ {
		fmt.Fprintf(&b, "%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), c-1)
	}
	return b.String()
}

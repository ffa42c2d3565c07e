package api

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
)

// typeWalk visits every field that objects can have, as fieldWalk does those that
// they have.
type typeWalk struct {
	missing []string
	used    map[string]bool      // "Section: path" of rows that decide on a field.
	shared  map[*compiled]string // Where the first object has a section.
	order   []*compiled
}

func (w *typeWalk) object(t reflect.Type, c *compiled, below, path string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, inline := jsonName(f)
		switch {
		case inline:
			w.object(f.Type, c, below, path)
		case name != "":
			w.field(f.Type, c, join(below, name), join(path, name))
		}
	}
}

func (w *typeWalk) field(t reflect.Type, c *compiled, name, path string) {
	r, whole := c.rowOf(name)
	if whole {
		w.used[c.title+": "+name+".**"] = true
		return
	}
	for value := range c.values[name] {
		w.used[c.title+": "+name+"="+value] = true
	}
	if r != nil {
		w.used[c.title+": "+name] = true
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isLeaf(t):
		if r == nil {
			w.missing = append(w.missing, fmt.Sprintf("%s (section %s: %s)", path, c.title, name))
		}
	case r != nil && r.is != Done:
	case t.Kind() == reflect.Slice:
		w.inside(t.Elem(), c, name+"[]", path+"[]")
	default:
		w.inside(t, c, name, path)
	}
}

func (w *typeWalk) inside(t reflect.Type, c *compiled, name, path string) {
	own := fieldRows[t]
	if own == nil {
		w.object(t, c, name, path)
		return
	}
	if _, seen := w.shared[own]; !seen {
		w.shared[own] = path
		w.order = append(w.order, own)
		w.object(t, own, "", path)
	}
}

func walkTypes(t *testing.T) *typeWalk {
	w := &typeWalk{used: map[string]bool{}, shared: map[*compiled]string{}}
	for _, k := range Kinds {
		typ := reflect.TypeOf(k.make()).Elem()
		c := fieldRows[typ]
		if c == nil {
			t.Fatalf("%s has no section", k.Name)
		}
		w.shared[c] = k.Name
		w.object(typ, c, "", k.Name)
	}
	return w
}

func TestEveryFieldOfEveryKindHasARow(t *testing.T) {
	for _, m := range walkTypes(t).missing {
		t.Errorf("%s: no row says whether it is done, ignored or refused", m)
	}
}

func TestEveryRowDecidesOnAField(t *testing.T) {
	w := walkTypes(t)
	for _, s := range fieldSections {
		seen := map[string]bool{}
		for _, r := range s.rows {
			if r.is != Done && r.note == "" {
				t.Errorf("%s: %s: a field that is not done has a reason", s.title, r.paths)
			}
			for _, path := range strings.Fields(r.paths) {
				if !w.used[s.title+": "+path] {
					t.Errorf("%s: %s: there is no such field", s.title, path)
				}
				if seen[path] {
					t.Errorf("%s: %s: two rows", s.title, path)
				}
				seen[path] = true
			}
		}
	}
}

func TestThePageOfFieldsIsTheTable(t *testing.T) {
	golden.File(t, "../../docs/kube-fields.md", fieldsPage(walkTypes(t)))
}

const pageHead = `# Which fields of Kubernetes' objects do something here

This page is made of the table in kube/api (go test ./kube/api -rewrite): each field of each kind has one row, and a test fails for one without.

- **done**: as Kubernetes' documentation says.
- **ignored**: accepted and kept, without effect; who sets it gets a warning.
- **refused**: an object that sets it is not accepted. Ignoring it would weaken security, endanger data, or do something else than was asked for.

` + "`x.**` is x with everything below it; `x=value` is x when it has this value, which goes before x itself; `[]` are the elements of a list.\n"

func fieldsPage(w *typeWalk) string {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, s := range fieldSections {
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		if at := w.shared[fieldRows[s.t]]; at != s.title {
			fmt.Fprintf(&b, "For example at `%s`.\n\n", at)
		}
		b.WriteString("| field | | |\n|---|---|---|\n")
		for _, r := range s.rows {
			paths := strings.Fields(r.paths)
			for i, p := range paths {
				paths[i] = "`" + p + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(paths, " "), r.is, r.note)
		}
		if others := sharedBy(s); len(others) > 0 {
			fmt.Fprintf(&b, "\nAnd those of: %s.\n", strings.Join(others, ", "))
		}
	}
	return b.String()
}

// sharedBy names the sections that decide on fields of this one.
func sharedBy(s section) []string {
	var names []string
	c := fieldRows[s.t]
	var walk func(t reflect.Type, name string)
	walk = func(t reflect.Type, name string) {
		r, whole := c.rowOf(name)
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && !isLeaf(t) {
			if t.Kind() == reflect.Slice {
				name += "[]"
			}
			t = t.Elem()
		}
		if whole || r != nil && r.is != Done || isLeaf(t) {
			return
		}
		if own := fieldRows[t]; own != nil && own != c {
			if !slices.Contains(names, own.title) {
				names = append(names, own.title)
			}
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if field, inline := jsonName(f); inline {
				walk(f.Type, name)
			} else if field != "" {
				walk(f.Type, join(name, field))
			}
		}
	}
	walk(s.t, "")
	return names
}

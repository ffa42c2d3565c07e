package api

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// FieldDoc tells what becomes of a field, for people.
type FieldDoc struct {
	Name    string // Last word of its path.
	Type    string // "string", "[]Container", "map[string]string".
	Known   bool   // The field itself is decided on, not only those below it.
	Support Support
	Note    string
	Values  []ValueDoc // Values that are treated otherwise.
	Below   []FieldDoc
}

// ValueDoc is a value of a field that is treated otherwise than others.
type ValueDoc struct {
	Value   string
	Support Support
	Note    string
}

// Field describes a field of a kind, and those directly below it, or all. The path
// is as in a manifest, without the numbers of elements: spec.containers.image.
func Field(k *Kind, path string, all bool) (*FieldDoc, error) {
	t := reflect.TypeOf(k.make()).Elem()
	w := docWalk{c: fieldRows[t], all: all}
	doc := &FieldDoc{Name: k.Name, Type: k.Name}
	at := k.Name
	if path != "" {
		for _, name := range strings.Split(path, ".") {
			f, ok := fieldNamed(t, name)
			if !ok {
				return nil, noField(t, at, name)
			}
			*doc = w.enter(f, name)
			t, at = elementOf(f), at+"."+name
		}
	}
	doc.Below = w.below(t, map[reflect.Type]bool{})
	return doc, nil
}

func noField(t reflect.Type, at, name string) error {
	if t.Kind() != reflect.Struct || isLeaf(t) {
		return fmt.Errorf("%s.%s: %w: %s is one value", at, name, ErrField, at)
	}
	if like := nearest(name, fieldNames(t)); like != "" {
		return fmt.Errorf("%s.%s: %w; %s is meant?", at, name, ErrField, like)
	}
	return fmt.Errorf("%s.%s: %w", at, name, ErrField)
}

// docWalk knows the section of rows and the path in it where a walk is.
type docWalk struct {
	c     *compiled
	name  string
	whole *row // That decides on everything below.
	all   bool
}

// enter goes into a field and describes it.
func (w *docWalk) enter(t reflect.Type, name string) FieldDoc {
	w.name = join(w.name, name)
	doc := FieldDoc{Name: name, Type: docType(t)}
	r, whole := w.whole, true
	if r == nil {
		r, whole = w.c.rowOf(w.name)
	}
	if r != nil {
		doc.Known, doc.Support, doc.Note = true, r.is, r.note
		if whole {
			w.whole = r
		}
	}
	values := w.c.values[w.name]
	for _, v := range slices.Sorted(maps.Keys(values)) {
		doc.Values = append(doc.Values, ValueDoc{v, values[v].is, values[v].note})
	}
	list := indirect(t).Kind() == reflect.Slice
	if own := fieldRows[elementOf(t)]; own != nil && w.whole == nil {
		w.c, w.name = own, ""
	} else if list {
		w.name += "[]"
	}
	return doc
}

// below describes the fields of a type. One within itself is told once.
func (w *docWalk) below(t reflect.Type, above map[reflect.Type]bool) []FieldDoc {
	if t.Kind() != reflect.Struct || isLeaf(t) || above[t] {
		return nil
	}
	above[t] = true
	defer delete(above, t)
	var docs []FieldDoc
	for i := range t.NumField() {
		f := t.Field(i)
		name, inline := jsonName(f)
		if inline {
			docs = append(docs, w.below(indirect(f.Type), above)...)
			continue
		}
		if name == "" {
			continue
		}
		inner := *w
		doc := inner.enter(f.Type, name)
		if w.all {
			doc.Below = inner.below(elementOf(f.Type), above)
		}
		docs = append(docs, doc)
	}
	return docs
}

// fieldNamed finds a field by its name in manifests.
func fieldNamed(t reflect.Type, name string) (reflect.Type, bool) {
	if t.Kind() != reflect.Struct || isLeaf(t) {
		return nil, false
	}
	for i := range t.NumField() {
		f := t.Field(i)
		is, inline := jsonName(f)
		if inline {
			if found, ok := fieldNamed(indirect(f.Type), name); ok {
				return found, true
			}
		}
		if is != "" && is == name {
			return f.Type, true
		}
	}
	return nil, false
}

func indirect(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// elementOf is the type that a field holds, one or several of.
func elementOf(t reflect.Type) reflect.Type {
	t = indirect(t)
	if t.Kind() == reflect.Slice {
		t = indirect(t.Elem())
	}
	return t
}

func docType(t reflect.Type) string {
	t = indirect(t)
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "bytes"
	case t.Kind() == reflect.Slice:
		return "[]" + docType(t.Elem())
	case t.Kind() == reflect.Map:
		return "map[" + docType(t.Key()) + "]" + docType(t.Elem())
	case t.Kind() == reflect.Struct:
		return t.Name()
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Int32 || t.Kind() == reflect.Int64 || t.Kind() == reflect.Int:
		return "integer"
	}
	return t.Kind().String()
}

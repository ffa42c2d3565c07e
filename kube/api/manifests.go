package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	kjson "sigs.k8s.io/json"
)

// Manifest is an object as a file has it, without defaults.
type Manifest struct {
	Object   Object
	JSON     []byte // As written: what Applied and ApplyPatch take.
	File     string
	Line     int
	Warnings []string // "file:line: path: ignored: why".
}

// Place puts an object that names no namespace into one. An object that names
// another one is an error, unless namespace is empty.
func (m *Manifest) Place(namespace string) error {
	k, has := KindOf(m.Object), m.Object.GetNamespace()
	if !k.Namespaced || namespace == "" || has == namespace {
		return nil
	}
	if has != "" {
		return fmt.Errorf("%s:%d: %s %s is of namespace %s, not %s: %w", m.File, m.Line, k.Name, m.Object.GetName(), has, namespace, ErrManifest)
	}
	tree, err := objectOf(m.JSON)
	if err != nil {
		return err
	}
	child(tree, "metadata")["namespace"] = namespace
	if m.JSON, err = json.Marshal(tree); err != nil {
		return err
	}
	m.Object.SetNamespace(namespace)
	return nil
}

// ReadManifests reads the objects of a file: documents of YAML or JSON, lists of
// objects among them. All is checked as it would be when it is stored; where
// anything is wrong there are no manifests, and the error has a line for each
// problem: file:line: path: what is wrong.
func ReadManifests(r io.Reader, file string) ([]Manifest, error) {
	text, err := io.ReadAll(io.LimitReader(r, ManifestBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(text) > ManifestBytesMax {
		return nil, fmt.Errorf("%s: %w: it has over %d bytes", file, ErrManifest, ManifestBytesMax)
	}
	f := manifestFile{name: file}
	for _, c := range split(text) {
		documents, err := c.documents()
		f.problem(err)
		for _, d := range documents {
			f.document(d)
		}
	}
	if len(f.problems) > 0 {
		return nil, f.err()
	}
	return f.manifests, nil
}

type manifestFile struct {
	name      string
	manifests []Manifest
	problems  []*lineError
}

func (f *manifestFile) problem(err error) {
	var p *lineError
	if errors.As(err, &p) {
		f.problems = append(f.problems, p)
	}
}

func (f *manifestFile) err() error {
	slices.SortStableFunc(f.problems, func(a, b *lineError) int { return cmp.Compare(a.line, b.line) })
	var b strings.Builder
	for i, p := range f.problems {
		if i == problemsShownMax {
			fmt.Fprintf(&b, "\nand %d more", len(f.problems)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d: %s", f.name, p.line, p.text)
	}
	return &manifestError{b.String()}
}

// manifestError is an ErrManifest whose text begins with the file.
type manifestError struct{ text string }

func (e *manifestError) Error() string { return e.text }
func (e *manifestError) Unwrap() error { return ErrManifest }

// document takes an object, or those of a list.
func (f *manifestFile) document(v *value) {
	if v.form != formObject {
		f.problem(atLine(v.line, "an object begins with apiVersion and kind"))
		return
	}
	name := v.text("kind")
	if name != "List" && !isListOf(name) {
		f.object(v, name, v.text("apiVersion"))
		return
	}
	for _, m := range v.object {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "items"}, m.name) {
			f.problem(atLine(m.line, "%s: a list has no such field", m.name))
		}
	}
	items := v.member("items")
	if items == nil || items.form != formList {
		f.problem(atLine(v.line, "items: a list has them"))
		return
	}
	for _, item := range items.list {
		switch {
		case item.form != formObject:
			f.problem(atLine(item.line, "items: an object begins with apiVersion and kind"))
		case item.text("kind") == "" && name != "List":
			f.object(item, strings.TrimSuffix(name, "List"), v.text("apiVersion"))
		default:
			f.object(item, item.text("kind"), item.text("apiVersion"))
		}
	}
}

func isListOf(name string) bool {
	single, ok := strings.CutSuffix(name, "List")
	_, err := ByName(single)
	return ok && err == nil
}

func (f *manifestFile) object(v *value, name, version string) {
	k, err := kindAt(v, name, version)
	if err != nil {
		f.problem(err)
		return
	}
	c := typeCheck{lines: map[string]int{}, quiet: k == Secret}
	c.object(v, reflect.TypeOf(k.make()).Elem(), "")
	if len(c.problems) > 0 {
		f.problems = append(f.problems, c.problems...)
		return
	}
	tree, _ := v.plain().(map[string]any)                   // It is an object: document looked.
	tree["apiVersion"], tree["kind"] = k.APIVersion, k.Name // An item may leave them to its list.
	text, err := json.Marshal(tree)
	if err != nil {
		f.problem(atLine(v.line, "%v", err))
		return
	}
	o, err := DecodeJSON(k, text)
	if err != nil {
		f.problem(atLine(v.line, "%v", err))
		return
	}
	f.checked(k, o, text, v.line, c.lines)
}

func kindAt(v *value, name, version string) (*Kind, error) {
	if name == "" {
		return nil, atLine(v.line, "kind: an object says what it is")
	}
	k, err := ByName(name)
	if err != nil {
		return nil, atLine(v.line, "kind: %v", err)
	}
	if version != k.APIVersion {
		return nil, atLine(v.line, "apiVersion: %q: a %s is of %s", version, k.Name, k.APIVersion)
	}
	return k, nil
}

// checked adds an object that passes Validate with its defaults.
func (f *manifestFile) checked(k *Kind, o Object, text []byte, line int, lines map[string]int) {
	full := o.DeepCopyObject().(Object)
	if k.Namespaced && full.GetNamespace() == "" {
		full.SetNamespace("default") // Where it will be is not known here.
	}
	if full.GetName() == "" && full.GetGenerateName() != "" {
		full.SetName(full.GetGenerateName() + "x") // It gets one when it is created.
	}
	Default(full)
	for _, e := range Validate(full) {
		f.problem(atLine(lineOf(lines, e.Field, line), "%s", e.Error()))
	}
	m := Manifest{Object: o, JSON: text, File: f.name, Line: line}
	ignored := slices.DeleteFunc(unsupported(o), func(w finding) bool { return w.is != Ignored })
	slices.SortStableFunc(ignored, func(a, b finding) int {
		return cmp.Compare(lineOf(lines, a.path.String(), line), lineOf(lines, b.path.String(), line))
	})
	for _, w := range ignored {
		m.Warnings = append(m.Warnings, fmt.Sprintf("%s:%d: %s", f.name, lineOf(lines, w.path.String(), line), w))
	}
	f.manifests = append(f.manifests, m)
}

// lineOf is the line of a path, or of what holds it.
func lineOf(lines map[string]int, path string, otherwise int) int {
	for path != "" {
		if line, ok := lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return otherwise
}

// typeCheck compares values with the type that they are of: it names every field
// that there is not, and every value of another form.
type typeCheck struct {
	problems []*lineError
	lines    map[string]int // By path, as errors of Validate name it.
	quiet    bool           // Values are secret.
}

func (c *typeCheck) problem(line int, path, format string, args ...any) {
	c.problems = append(c.problems, &lineError{line, path + ": " + fmt.Sprintf(format, args...)})
}

func (c *typeCheck) object(v *value, t reflect.Type, path string) {
	for _, m := range v.object {
		at := join(path, printable(m.name))
		s := strategyOf(t, m.name)
		if s.t == nil {
			c.unknown(m, t, at)
			continue
		}
		c.lines[at] = m.line
		c.value(m.value, s.t, at)
	}
}

// printable keeps what a file calls a field from acting on a terminal.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func (c *typeCheck) unknown(m member, t reflect.Type, path string) {
	if like := nearest(m.name, fieldNames(t)); like != "" {
		c.problem(m.line, path, "there is no such field; %s is meant?", like)
		return
	}
	c.problem(m.line, path, "there is no such field")
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "" && f.Anonymous:
			names = append(names, fieldNames(bare(f.Type))...)
		case name != "-":
			names = append(names, name)
		}
	}
	return names
}

func (c *typeCheck) value(v *value, t reflect.Type, path string) {
	t = bare(t)
	if v.form == formScalar && v.scalar == nil {
		return // null is as if it were not there.
	}
	switch {
	case t.Kind() == reflect.Struct && !isLeaf(t):
		if c.is(v, formObject, path) {
			c.object(v, t, path)
		}
	case t.Kind() == reflect.Map:
		if c.is(v, formObject, path) {
			for _, m := range v.object {
				at := path + "[" + printable(m.name) + "]"
				c.lines[at] = m.line
				c.value(m.value, t.Elem(), at)
			}
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		if c.is(v, formList, path) {
			for i, e := range v.list {
				at := fmt.Sprintf("%s[%d]", path, i)
				c.lines[at] = e.line
				c.value(e, t.Elem(), at)
			}
		}
	default:
		c.scalar(v, t, path)
	}
}

func (c *typeCheck) is(v *value, want form, path string) bool {
	if v.form != want {
		c.problem(v.line, path, "must be %s, and is %s", [...]string{"a value", "a list", "an object"}[want], c.describe(v))
	}
	return v.form == want
}

func (c *typeCheck) describe(v *value) string {
	if c.quiet && v.form == formScalar {
		return "something else; what is secret is not shown"
	}
	switch s := v.scalar.(type) {
	case bool:
		return fmt.Sprintf("%v (yes, no, on, off are true and false too; text is written in quotes)", s)
	case json.Number:
		return fmt.Sprintf("the number %s", s)
	case string:
		return fmt.Sprintf("the text %.40q", s)
	}
	return [...]string{"nothing", "a list", "an object"}[v.form]
}

func (c *typeCheck) scalar(v *value, t reflect.Type, path string) {
	if v.form != formScalar && t.Kind() != reflect.Struct {
		c.problem(v.line, path, "must be %s, and is %s", typeName(t), c.describe(v))
		return
	}
	text, err := json.Marshal(v.plain())
	_, _, exponent := parts(strings.Trim(string(text), `" `))
	if err == nil && t == reflect.TypeFor[resource.Quantity]() && exponent >= exponentDigitsMin {
		c.problem(v.line, path, "%s: a quantity has no such exponent", c.describe(v))
		return
	}
	if err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(text, reflect.New(t).Interface())
	}
	switch {
	case err == nil:
	case t.Kind() == reflect.Struct: // A quantity, a time: their errors say how they are written.
		c.problem(v.line, path, "%s: %v", c.describe(v), err)
	default:
		c.problem(v.line, path, "must be %s, and is %s", typeName(t), c.describe(v))
	}
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "text in base64"
	}
	return "a whole number (" + t.Kind().String() + ")"
}

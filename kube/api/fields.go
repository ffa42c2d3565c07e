package api

import (
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Support is what becomes of a field.
type Support int

const (
	// Done: the field does what Kubernetes' documentation says.
	Done Support = iota
	// Ignored: it is kept and has no effect; who sets it is warned.
	Ignored
	// Refused: an object that sets it is not accepted, as ignoring it would weaken
	// security, endanger data, or do something else than what was asked for.
	Refused
)

func (s Support) String() string { return [...]string{"done", "ignored", "refused"}[s] }

// row says what becomes of fields of one type. A path is written as in a manifest,
// below its section's type; [] stands for the elements of a list. "x.**" is x with
// all below it; "x=value" is x when it has this value, which goes before x itself.
type row struct {
	paths string // Several are separated by spaces.
	is    Support
	note  string // Why, or what happens instead. For those that are not done: always.
}

// section holds the rows of one type, wherever objects have it: in a field whose
// type has a section of its own, that section decides.
type section struct {
	title string
	t     reflect.Type
	rows  []row
}

// compiled is a section as it is looked up.
type compiled struct {
	*section
	exact, below map[string]*row
	values       map[string]map[string]*row
}

func compile(sections []section) map[reflect.Type]*compiled {
	all := make(map[reflect.Type]*compiled, len(sections))
	for i := range sections {
		c := &compiled{section: &sections[i], exact: map[string]*row{}, below: map[string]*row{}, values: map[string]map[string]*row{}}
		for j := range c.rows {
			for _, path := range strings.Fields(c.rows[j].paths) {
				c.add(path, &c.rows[j])
			}
		}
		all[c.t] = c
	}
	return all
}

func (c *compiled) add(path string, r *row) {
	if name, value, ok := strings.Cut(path, "="); ok {
		if c.values[name] == nil {
			c.values[name] = map[string]*row{}
		}
		c.values[name][value] = r
		return
	}
	if name, ok := strings.CutSuffix(path, ".**"); ok {
		c.below[name] = r
		return
	}
	c.exact[path] = r
}

// rowOf is the row of a field, and whether it is that of all below it too.
func (c *compiled) rowOf(path string) (*row, bool) {
	if r := c.exact[path]; r != nil {
		return r, false
	}
	r := c.below[path]
	return r, r != nil
}

// finding is a field of an object that is not done.
type finding struct {
	path *field.Path
	*row
}

func (f finding) String() string { return f.path.String() + ": " + f.is.String() + ": " + f.note }

// unsupported lists the fields of an object that are ignored or refused.
func unsupported(o Object) []finding {
	w := fieldWalk{}
	v := reflect.ValueOf(o).Elem()
	w.object(v, fieldRows[v.Type()], "", nil)
	return w.found
}

// Warnings are what an object asks for without effect, one line a field.
func Warnings(o Object) []string {
	var lines []string
	for _, f := range unsupported(o) {
		if f.is == Ignored {
			lines = append(lines, f.String())
		}
	}
	return lines
}

type fieldWalk struct{ found []finding }

// object walks the fields of a struct that are set. below is its path in the section.
func (w *fieldWalk) object(v reflect.Value, c *compiled, below string, path *field.Path) {
	for f, v := range v.Fields() {
		name, inline := jsonName(f)
		if name == "" && !inline || !isSet(v) {
			continue
		}
		if inline {
			w.object(v, c, below, path)
			continue
		}
		w.value(v, c, join(below, name), path.Child(name))
	}
}

func (w *fieldWalk) value(v reflect.Value, c *compiled, name string, path *field.Path) {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	r, whole := c.rowOf(name)
	if values := c.values[name]; values != nil {
		if v.Kind() == reflect.Slice {
			w.elements(v, r, values, path)
			return
		}
		if exception := values[fmt.Sprint(v.Interface())]; exception != nil {
			r = exception
		}
	}
	switch {
	case r != nil && r.is != Done:
		w.found = append(w.found, finding{path, r})
	case whole || isLeaf(v.Type()):
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			w.inside(v.Index(i), c, name+"[]", path.Index(i))
		}
	default:
		w.inside(v, c, name, path)
	}
}

// elements looks each element of a list of words up among the values.
func (w *fieldWalk) elements(v reflect.Value, r *row, values map[string]*row, path *field.Path) {
	for i := range v.Len() {
		is := r
		if exception := values[fmt.Sprint(v.Index(i).Interface())]; exception != nil {
			is = exception
		}
		if is != nil && is.is != Done {
			w.found = append(w.found, finding{path.Index(i), is})
		}
	}
}

func (w *fieldWalk) inside(v reflect.Value, c *compiled, name string, path *field.Path) {
	if own := fieldRows[v.Type()]; own != nil {
		c, name = own, ""
	}
	w.object(v, c, name, path)
}

// jsonName is the name of a field in a manifest; inline: its fields stand where it
// does. Kind and version of an object are no fields to decide on.
func jsonName(f reflect.StructField) (name string, inline bool) {
	if !f.IsExported() || f.Type == reflect.TypeFor[metav1.TypeMeta]() {
		return "", false
	}
	name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return "", false
	}
	return name, name == "" && f.Anonymous
}

func isSet(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() > 0
	}
	return !v.IsZero()
}

// isLeaf reports whether a type is one value: a manifest writes it as a word, a
// list of words, or a table of names.
func isLeaf(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[resource.Quantity](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](),
		reflect.TypeFor[metav1.Duration](), reflect.TypeFor[intstr.IntOrString](), reflect.TypeFor[metav1.FieldsV1]():
		return true
	}
	switch t.Kind() {
	case reflect.Struct:
		return false
	case reflect.Slice, reflect.Pointer:
		return isLeaf(t.Elem())
	}
	return true
}

func join(below, name string) string {
	if below == "" {
		return name
	}
	return below + "." + name
}

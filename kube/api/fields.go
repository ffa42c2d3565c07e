package api

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

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
	var found []finding
	v := reflect.ValueOf(o).Elem()
	shapes()[v.Type()].walk(v, nil, &found)
	return found
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

// shape is a struct type as objects are walked: the fields in which something can be
// found. Each write is walked, so names and rows are looked up once.
type shape struct{ fields []shapeField }

type shapeField struct {
	index  int
	name   string          // In a manifest. Empty: its own fields stand where it does.
	row    *row            // Nil: it is done.
	values map[string]*row // Rows of certain values of it.
	below  *shape          // Of it, or of its elements. Nil: there is nothing to find.
}

// shapes are those of all kinds.
var shapes = sync.OnceValue(func() map[reflect.Type]*shape {
	all := map[reflect.Type]*shape{}
	for _, k := range Kinds {
		shapeOf(reflect.TypeOf(k.make()).Elem(), nil, "", all)
	}
	return all
})

// shapeOf is the shape of a struct in a section, below a path; or of a section's own
// type, which is the same wherever it is.
func shapeOf(t reflect.Type, c *compiled, below string, own map[reflect.Type]*shape) *shape {
	s := &shape{}
	if section := fieldRows[t]; section != nil {
		if known := own[t]; known != nil {
			return known
		}
		own[t] = s
		c, below = section, ""
	}
	for i := range t.NumField() {
		name, inline := jsonName(t.Field(i))
		if name == "" && !inline {
			continue
		}
		f := shapeField{index: i, name: name}
		if inline {
			f.below = shapeOf(t.Field(i).Type, c, below, own)
		} else {
			f.learn(t.Field(i).Type, c, join(below, name), own)
		}
		if f.row != nil || f.values != nil || f.below != nil && len(f.below.fields) > 0 {
			s.fields = append(s.fields, f)
		}
	}
	return s
}

func (f *shapeField) learn(t reflect.Type, c *compiled, path string, own map[reflect.Type]*shape) {
	r, whole := c.rowOf(path)
	f.values = c.values[path]
	if r != nil && r.is != Done {
		f.row = r
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if whole || isLeaf(t) {
		return
	}
	if t.Kind() == reflect.Slice {
		t, path = t.Elem(), path+"[]"
	}
	f.below = shapeOf(t, c, path, own)
}

// step is where a walk is. Few need their path in words.
type step struct {
	above *step
	name  string
	index int // Of an element, if there is no name.
}

func (s *step) path() *field.Path {
	switch {
	case s.above == nil:
		return field.NewPath(s.name)
	case s.name == "":
		return s.above.path().Index(s.index)
	}
	return s.above.path().Child(s.name)
}

// walk looks at the fields of a struct that are set.
func (s *shape) walk(v reflect.Value, at *step, found *[]finding) {
	for i := range s.fields {
		f := &s.fields[i]
		v := v.Field(f.index)
		if !isSet(v) {
			continue
		}
		if f.name == "" {
			f.below.walk(v, at, found)
			continue
		}
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		f.value(v, &step{above: at, name: f.name}, found)
	}
}

func (f *shapeField) value(v reflect.Value, at *step, found *[]finding) {
	list := v.Kind() == reflect.Slice
	switch {
	case f.values != nil && list: // Of words.
		for i := range v.Len() {
			if r := f.rowOf(v.Index(i)); r != nil {
				*found = append(*found, finding{(&step{above: at, index: i}).path(), r})
			}
		}
	case f.rowOf(v) != nil:
		*found = append(*found, finding{at.path(), f.rowOf(v)})
	case f.below == nil:
	case list:
		for i := range v.Len() {
			f.below.walk(v.Index(i), &step{above: at, index: i}, found)
		}
	default:
		f.below.walk(v, at, found)
	}
}

// rowOf is the row of a value. Nil: it is done.
func (f *shapeField) rowOf(v reflect.Value) *row {
	if f.values == nil {
		return f.row
	}
	r := f.values[fmt.Sprint(v.Interface())]
	switch {
	case r == nil:
		return f.row
	case r.is == Done:
		return nil
	}
	return r
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

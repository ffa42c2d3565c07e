package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// LastApplied is the annotation that holds what was applied last, as kubectl has
// it: what is gone from the manifest since is taken out of the object.
const LastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Applied is a manifest (JSON) with itself in its annotation: what is created
// when there is no object yet.
func Applied(manifest []byte) ([]byte, error) {
	object, err := objectOf(manifest)
	if err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	text, err := configuration(object)
	if err != nil {
		return nil, err
	}
	annotate(object, text)
	return json.Marshal(object)
}

// configuration takes out of a manifest what is not its own, and is its text then.
func configuration(object map[string]any) (string, error) {
	meta := withoutOurs(object)
	notes := child(meta, "annotations")
	delete(notes, LastApplied)
	if len(notes) == 0 {
		delete(meta, "annotations")
	}
	text, err := json.Marshal(object)
	return string(text) + "\n", err
}

func annotate(object map[string]any, text string) {
	child(child(object, "metadata"), "annotations")[LastApplied] = text
}

// withoutOurs takes out what is not for a manifest to say, and stands in those that
// were read from a cluster. It returns the metadata.
func withoutOurs(object map[string]any) map[string]any {
	delete(object, "status")
	meta := child(object, "metadata")
	for _, name := range []string{"creationTimestamp", "generation", "managedFields", "selfLink"} {
		delete(meta, name)
	}
	return meta
}

// child is the object below a name, made if it is not there.
func child(object map[string]any, name string) map[string]any {
	c, ok := object[name].(map[string]any)
	if !ok {
		c = map[string]any{}
		object[name] = c
	}
	return c
}

func objectOf(text []byte) (map[string]any, error) {
	v, err := parseJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: it is no JSON object", ErrEncoding)
	}
	return object, nil
}

// ApplyPatch is the strategic patch that makes the current object what a manifest
// says (both JSON). What the manifest says wins; what it said when it was applied
// last and says no more is taken out; what others set stays. The patch is nil when
// there is nothing to change.
func ApplyPatch(k *Kind, current, manifest []byte) ([]byte, error) {
	now, err := objectOf(current)
	if err != nil {
		return nil, fmt.Errorf("the object: %w", err)
	}
	wanted, err := objectOf(manifest)
	if err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	text, err := configuration(wanted)
	if err != nil {
		return nil, err
	}
	if err := canonical(k, wanted, []byte(text)); err != nil {
		return nil, err
	}
	annotate(wanted, text)
	patch, err := diffMaps(lastApplied(now), wanted, now, reflect.TypeOf(k.make()).Elem())
	if err != nil || len(patch) == 0 {
		return nil, err
	}
	return json.Marshal(patch)
}

// lastApplied is what the annotation of an object holds. One that cannot be read
// is as good as none: then nothing is taken out.
func lastApplied(now map[string]any) map[string]any {
	meta, _ := now["metadata"].(map[string]any)
	notes, _ := meta["annotations"].(map[string]any)
	text, _ := notes[LastApplied].(string)
	before, err := objectOf([]byte(text))
	if err != nil {
		return map[string]any{}
	}
	meta = withoutOurs(before)
	delete(meta, "namespace") // The manifest that lacks it is of the namespace that it is applied to.
	return before
}

// unset marks a value of a manifest that the object has when it has none: false,
// an empty string, an empty list.
type unset struct{ value any }

// canonical writes the values of a manifest as the type writes them, so that 1 core
// is no other than 1000m.
func canonical(k *Kind, wanted map[string]any, manifest []byte) error {
	o, err := DecodeJSON(k, manifest)
	if err != nil {
		return err
	}
	text, err := EncodeJSON(o)
	if err != nil {
		return err
	}
	written, err := objectOf(text)
	if err != nil {
		return err
	}
	likeMap(wanted, written)
	return nil
}

func likeMap(wanted, written map[string]any) {
	for name, v := range wanted {
		w, ok := written[name]
		if !ok {
			if v != nil {
				wanted[name] = unset{v}
			}
			continue
		}
		wanted[name] = like(v, w)
	}
}

func like(v, written any) any {
	switch v := v.(type) {
	case nil:
		return nil
	case map[string]any:
		if w, ok := written.(map[string]any); ok {
			likeMap(v, w)
			return v
		}
	case []any:
		if w, ok := written.([]any); ok && len(w) == len(v) {
			for i := range v {
				v[i] = like(v[i], w[i])
			}
			return v
		}
	}
	return written
}

// diffMaps is what must be merged into now so that it has what is wanted, and no
// more what was there before and is not wanted any longer.
func diffMaps(before, wanted, now map[string]any, t reflect.Type) (map[string]any, error) {
	patch := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if err := diffField(patch, name, before, wanted, now, strategyOf(t, name)); err != nil {
			return nil, err
		}
	}
	for name := range before {
		_, still := wanted[name]
		if _, there := now[name]; there && !still {
			patch[name] = nil
		}
	}
	return patch, nil
}

func diffField(patch map[string]any, name string, before, wanted, now map[string]any, s strategy) error {
	want, have := wanted[name], now[name]
	if u, ok := want.(unset); ok {
		if have == nil {
			return nil
		}
		want = u.value
	}
	if want == nil {
		if have != nil {
			patch[name] = nil
		}
		return nil
	}
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			break
		}
		b, _ := before[name].(map[string]any)
		d, err := diffMaps(b, w, h, s.t)
		if err != nil || len(d) == 0 {
			return err
		}
		if s.retain {
			d[directiveRetain] = namesOf(w)
		}
		patch[name] = d
		return nil
	case []any:
		h, ok := have.([]any)
		if !ok || !s.merge {
			break
		}
		b, _ := before[name].([]any)
		return diffList(patch, name, b, w, h, s)
	}
	if value := plain(want); !sameJSON(value, have) {
		patch[name] = value
	}
	return nil
}

// plain is a value without the marks of canonical.
func plain(v any) any {
	switch v := v.(type) {
	case unset:
		return plain(v.value)
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, c := range v {
			if c != nil {
				m[name] = plain(c)
			}
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, c := range v {
			l[i] = plain(c)
		}
		return l
	}
	return v
}

func namesOf(m map[string]any) []any {
	names := make([]any, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		names = append(names, name)
	}
	return names
}

func diffList(patch map[string]any, name string, before, want, now []any, s strategy) error {
	if err := shortEnough(name, before, want, now); err != nil {
		return err
	}
	if s.key == "" {
		diffSet(patch, name, before, want, now)
		return nil
	}
	if !distinct(want, s.key) || !distinct(now, s.key) {
		return diffWhole(patch, name, before, want, now, s)
	}
	changes, err := diffElements(before, want, now, s)
	if err != nil {
		return err
	}
	order := make([]any, 0, len(want))
	for _, v := range want {
		order = append(order, map[string]any{s.key: keyOf(v, s.key)})
	}
	if changes != nil {
		patch[name] = changes
	}
	if changes != nil || !sameOrder(order, now, s.key) {
		patch[directiveOrder+name] = order
	}
	return nil
}

// diffElements compares the elements of lists that their key tells apart.
func diffElements(before, want, now []any, s strategy) ([]any, error) {
	var changes []any
	for _, v := range want {
		w := v.(map[string]any)
		change, err := diffElement(w, element(before, s.key, w[s.key]), element(now, s.key, w[s.key]), s)
		if err != nil {
			return nil, err
		}
		if change != nil {
			changes = append(changes, change)
		}
	}
	for _, v := range before {
		key := keyOf(v, s.key)
		if key != nil && indexOf(want, s.key, key) < 0 && indexOf(now, s.key, key) >= 0 {
			changes = append(changes, map[string]any{directivePatch: "delete", s.key: key})
		}
	}
	return changes, nil
}

// diffWhole replaces a list whose key does not tell its elements apart, as two ports
// of one number and two protocols. What others set in an element stays.
func diffWhole(patch map[string]any, name string, before, want, now []any, s strategy) error {
	merged := make([]any, 0, len(want)+1)
	for _, v := range want {
		w, ok := v.(map[string]any)
		h := alike(now, w, s.key)
		if !ok || h == nil {
			merged = append(merged, plain(v))
			continue
		}
		d, err := diffMaps(alike(before, w, s.key), w, h, s.elementOf())
		if err != nil {
			return err
		}
		e, err := strategicMap(maps.Clone(h), d, s.elementOf(), name)
		if err != nil {
			return err
		}
		merged = append(merged, e)
	}
	if !sameJSON(merged, now) {
		patch[name] = append(merged, map[string]any{directivePatch: "replace"})
	}
	return nil
}

// alike finds the element that has the key of another, and its protocol and name
// as far as it has them.
func alike(list []any, like map[string]any, key string) map[string]any {
	for _, v := range list {
		e, ok := v.(map[string]any)
		same := func(name string) bool { return e[name] == nil || like[name] == nil || sameJSON(e[name], like[name]) }
		if ok && like[key] != nil && sameJSON(e[key], like[key]) && same("protocol") && same("name") {
			return e
		}
	}
	return nil
}

func element(list []any, key string, value any) map[string]any {
	if i := indexOf(list, key, value); i >= 0 {
		return list[i].(map[string]any)
	}
	return nil
}

func diffElement(want, before, now map[string]any, s strategy) (any, error) {
	if now == nil {
		return plain(want), nil
	}
	d, err := diffMaps(before, want, now, s.elementOf())
	if err != nil || len(d) == 0 {
		return nil, err
	}
	d[s.key] = want[s.key]
	if s.retain {
		d[directiveRetain] = namesOf(want)
	}
	return d, nil
}

// distinct reports whether every element has the key, and each another.
func distinct(list []any, key string) bool {
	seen := make(map[any]bool, len(list))
	for _, v := range list {
		k := keyOf(v, key)
		if k == nil || !scalar(k) || seen[k] {
			return false
		}
		seen[k] = true
	}
	return true
}

// sameOrder reports whether the elements that are wanted stand in their order.
func sameOrder(order, now []any, key string) bool {
	last := -1
	for _, w := range order {
		i := slices.IndexFunc(now, func(v any) bool { return sameJSON(nameIn(v, key), nameIn(w, key)) })
		if i < last {
			return false
		}
		last = i
	}
	return true
}

func diffSet(patch map[string]any, name string, before, want, now []any) {
	var add, drop []any
	for _, v := range want {
		if !contains(now, v) {
			add = append(add, v)
		}
	}
	for _, v := range before {
		if !contains(want, v) && contains(now, v) {
			drop = append(drop, v)
		}
	}
	if add != nil {
		patch[name] = add
	}
	if drop != nil {
		patch[directiveDelete+name] = drop
	}
	if add != nil || drop != nil || !sameOrder(want, now, "") {
		patch[directiveOrder+name] = want
	}
}

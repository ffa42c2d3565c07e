package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A strategic merge patch is Kubernetes' own form: an object that holds what
// changes, lists merged by the key that their type names. Directives say what an
// object cannot: delete this element, replace that list.
const (
	directivePatch  = "$patch"
	directiveRetain = "$retainKeys"
	directiveOrder  = "$setElementOrder/"
	directiveDelete = "$deleteFromPrimitiveList/"
)

// strategy is how the value of a field is merged.
type strategy struct {
	t      reflect.Type // nil: unknown, decoding refuses the field later.
	merge  bool         // A list whose elements are merged,
	key    string       // by this field of theirs; "": scalars, a set.
	retain bool         // An object of which one alternative is set.
}

// strategyOf looks a field up in the type of what holds it.
func strategyOf(t reflect.Type, name string) strategy {
	switch {
	case t == nil:
		return strategy{}
	case t.Kind() == reflect.Map:
		return strategy{t: bare(t.Elem())}
	case t.Kind() != reflect.Struct:
		return strategy{}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			if s := strategyOf(bare(f.Type), name); s.t != nil {
				return s
			}
			continue
		}
		if tag == name {
			words := strings.Split(f.Tag.Get("patchStrategy"), ",")
			return strategy{
				t:      bare(f.Type),
				merge:  slices.Contains(words, "merge"),
				retain: slices.Contains(words, "retainKeys"),
				key:    f.Tag.Get("patchMergeKey"),
			}
		}
	}
	return strategy{}
}

// bare is a type without pointers; elementOf that of a list's elements.
func bare(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func (s strategy) elementOf() reflect.Type {
	if s.t == nil || s.t.Kind() != reflect.Slice {
		return nil
	}
	return bare(s.t.Elem())
}

func strategicMap(now, change map[string]any, t reflect.Type, path string) (map[string]any, error) {
	switch d := change[directivePatch]; d {
	case nil, "merge":
	case "replace":
		now = map[string]any{}
	case "delete":
		return map[string]any{}, nil
	default:
		return nil, fmt.Errorf("%s%s is none of merge, replace, delete", path, directivePatch)
	}
	if err := retainKeys(now, change, path); err != nil {
		return nil, err
	}
	before := map[string][]any{} // Lists that are put in order, as they were.
	for directive := range change {
		if field, ok := strings.CutPrefix(directive, directiveOrder); ok {
			list, _ := now[field].([]any)
			before[field] = slices.Clone(list)
		}
	}
	for name, v := range change {
		if strings.HasPrefix(name, "$") {
			if err := knownDirective(name, path); err != nil {
				return nil, err
			}
			continue
		}
		if v == nil {
			delete(now, name)
			continue
		}
		have, there := now[name]
		if !there {
			now[name] = withoutDirectives(v)
			continue
		}
		merged, err := strategicValue(have, v, strategyOf(t, name), path+name)
		if err != nil {
			return nil, err
		}
		now[name] = merged
	}
	return now, strategicLists(now, change, before, t, path)
}

// withoutDirectives is what a patch writes where there is nothing to merge with.
// Elements of a list stay apart there, whatever their keys.
func withoutDirectives(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, c := range v {
			if c != nil && !strings.HasPrefix(name, "$") {
				m[name] = withoutDirectives(c)
			}
		}
		return m
	case []any:
		l := make([]any, 0, len(v))
		for _, c := range v {
			if e, ok := c.(map[string]any); ok && e[directivePatch] != nil {
				continue
			}
			l = append(l, withoutDirectives(c))
		}
		return l
	}
	return v
}

func knownDirective(name, path string) error {
	if name == directivePatch || name == directiveRetain || strings.HasPrefix(name, directiveOrder) || strings.HasPrefix(name, directiveDelete) {
		return nil
	}
	return fmt.Errorf("%s%s is no directive of a strategic merge patch", path, name)
}

func retainKeys(now, change map[string]any, path string) error {
	keep, ok := change[directiveRetain]
	if !ok {
		return nil
	}
	names, ok := keep.([]any)
	if !ok {
		return fmt.Errorf("%s%s is no list", path, directiveRetain)
	}
	kept := make(map[any]bool, len(names))
	for _, name := range names {
		if scalar(name) {
			kept[name] = true
		}
	}
	for name := range now {
		if !kept[name] {
			delete(now, name)
		}
	}
	return nil
}

func strategicValue(now, change any, s strategy, path string) (any, error) {
	switch change := change.(type) {
	case map[string]any:
		object, ok := now.(map[string]any)
		if !ok {
			object = map[string]any{}
		}
		return strategicMap(object, change, s.t, path+".")
	case []any:
		if !s.merge {
			return change, nil
		}
		list, _ := now.([]any)
		if err := shortEnough(path, list, change); err != nil {
			return nil, err
		}
		if s.key == "" {
			return unite(list, change), nil
		}
		return strategicList(list, change, s, path)
	}
	return change, nil
}

// shortEnough refuses lists whose elements cannot all be compared with each other.
func shortEnough(path string, lists ...[]any) error {
	for _, l := range lists {
		if len(l) > mergedElementsMax {
			return fmt.Errorf("%s: lists of over %d elements are not merged, only replaced", path, mergedElementsMax)
		}
	}
	return nil
}

func unite(list, more []any) []any {
	for _, v := range more {
		if !slices.ContainsFunc(list, func(have any) bool { return sameJSON(have, v) }) {
			list = append(list, v)
		}
	}
	return list
}

// strategicList merges elements into those that have the same key.
func strategicList(list, change []any, s strategy, path string) ([]any, error) {
	elements := make([]map[string]any, 0, len(change))
	replace := false
	for i, v := range change {
		e, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s[%d] is no object", path, i)
		}
		if e[directivePatch] == "replace" && e[s.key] == nil {
			replace = true
			continue
		}
		if e[s.key] == nil {
			return nil, fmt.Errorf("%s[%d] has no %s, by which the list is merged", path, i, s.key)
		}
		elements = append(elements, e)
	}
	if replace {
		list = make([]any, 0, len(elements))
		for _, e := range elements {
			list = append(list, e)
		}
		return list, nil
	}
	for _, e := range elements {
		at := indexOf(list, s.key, e[s.key])
		if e[directivePatch] == "delete" {
			list = slices.DeleteFunc(list, func(v any) bool { return sameJSON(keyOf(v, s.key), e[s.key]) })
			continue
		}
		where := fmt.Sprintf("%s[%s=%v].", path, s.key, e[s.key])
		now := map[string]any{}
		if at >= 0 {
			now = list[at].(map[string]any)
		}
		merged, err := strategicMap(now, e, s.elementOf(), where)
		if err != nil {
			return nil, err
		}
		if at >= 0 {
			list[at] = merged
		} else {
			list = append(list, merged)
		}
	}
	return list, nil
}

func keyOf(v any, key string) any {
	e, _ := v.(map[string]any)
	return e[key]
}

func indexOf(list []any, key string, value any) int {
	return slices.IndexFunc(list, func(v any) bool {
		e, ok := v.(map[string]any)
		return ok && sameJSON(e[key], value)
	})
}

// strategicLists obeys the directives about lists, which stand beside them.
func strategicLists(now, change map[string]any, before map[string][]any, t reflect.Type, path string) error {
	for directive, v := range change {
		field, drop := strings.CutPrefix(directive, directiveDelete)
		if !drop {
			var order bool
			if field, order = strings.CutPrefix(directive, directiveOrder); !order {
				continue
			}
		}
		words, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s%s is no list", path, directive)
		}
		list, ok := now[field].([]any)
		if !ok {
			continue
		}
		if err := shortEnough(path+directive, list, words); err != nil {
			return err
		}
		if drop {
			now[field] = slices.DeleteFunc(list, func(have any) bool { return contains(words, have) })
		} else {
			now[field] = ordered(list, words, before[field], strategyOf(t, field).key)
		}
	}
	return nil
}

func contains(list []any, v any) bool {
	return slices.ContainsFunc(list, func(have any) bool { return sameJSON(have, v) })
}

// ordered puts the elements that words name into their order. Another one stays
// before those that it stood before; new ones come first.
func ordered(list, words, before []any, key string) []any {
	find := func(in []any, v any) int {
		return slices.IndexFunc(in, func(w any) bool { return sameJSON(nameIn(w, key), nameIn(v, key)) })
	}
	var named, others []any
	rank := map[any]int{}
	for _, v := range list {
		if at := find(words, v); at >= 0 && scalar(nameIn(v, key)) {
			named, rank[nameIn(v, key)] = append(named, v), at
		} else {
			others = append(others, v)
		}
	}
	slices.SortStableFunc(named, func(a, b any) int { return rank[nameIn(a, key)] - rank[nameIn(b, key)] })
	result := make([]any, 0, len(list))
	for len(named) > 0 && len(others) > 0 {
		if at := find(before, named[0]); at >= 0 && find(before, others[0]) < at {
			result, others = append(result, others[0]), others[1:]
		} else {
			result, named = append(result, named[0]), named[1:]
		}
	}
	return append(append(result, named...), others...)
}

// nameIn is what tells an element of a merged list apart.
func nameIn(v any, key string) any {
	if e, ok := v.(map[string]any); ok && key != "" {
		return e[key]
	}
	return v
}

// scalar reports whether a value of JSON holds no others.
func scalar(v any) bool {
	switch v.(type) {
	case string, bool, json.Number, nil:
		return true
	}
	return false
}

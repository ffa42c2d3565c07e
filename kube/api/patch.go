package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/holdfast-db/holdfast/proto/kubepb"
	kjson "sigs.k8s.io/json"
)

// Patch is the object that a patch makes of the current one, both in JSON. What
// the type does not know is refused by name.
func Patch(k *Kind, current, patch []byte, form kubepb.PatchRequest_Type) (Object, error) {
	if len(patch) > PatchBytesMax {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d", ErrPatch, len(patch), PatchBytesMax)
	}
	now, err := parseJSON(current)
	if err != nil {
		return nil, fmt.Errorf("the object: %w: %w", ErrEncoding, err)
	}
	change, err := parseJSON(patch)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not JSON: %w", ErrPatch, err)
	}
	patched, err := patchTree(k, now, change, form)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPatch, err)
	}
	text, err := json.Marshal(patched)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPatch, err)
	}
	o, err := DecodeJSON(k, text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPatch, err)
	}
	return o, nil
}

func patchTree(k *Kind, now, change any, form kubepb.PatchRequest_Type) (any, error) {
	if form == kubepb.PatchRequest_JSON_PATCH {
		return jsonPatch(now, change)
	}
	fields, ok := change.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("it is no JSON object; what it changes is written as the object has it")
	}
	switch form {
	case kubepb.PatchRequest_MERGE:
		return jsonMerge(now, fields), nil
	case kubepb.PatchRequest_STRATEGIC:
		object, ok := now.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("what it patches is no JSON object")
		}
		return strategicMap(object, fields, reflect.TypeOf(k.make()).Elem(), "")
	}
	return nil, fmt.Errorf("type %v is none of strategic, merge and JSON", form)
}

// DecodeJSON reads one object of a kind. Fields that there are not, and fields
// that stand twice, are errors.
func DecodeJSON(k *Kind, text []byte) (Object, error) {
	suspect, err := checkJSON(k, text)
	if err != nil {
		return nil, err
	}
	o := k.make()
	strict, err := kjson.UnmarshalStrict(text, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", k.Name, ErrEncoding, err)
	}
	if len(strict) > 0 {
		lines := make([]string, 0, len(strict))
		for _, e := range strict {
			lines = append(lines, e.Error())
		}
		return nil, fmt.Errorf("%s: %w: %s", k.Name, ErrEncoding, strings.Join(lines, "; "))
	}
	want := schemaOf(k)
	if got := o.GetObjectKind().GroupVersionKind(); got != want && !got.Empty() {
		return nil, fmt.Errorf("%s: %w: it is a %s of %s", k.Name, ErrEncoding, got.Kind, got.GroupVersion())
	}
	o.GetObjectKind().SetGroupVersionKind(want)
	if suspect {
		return o, checkMade(k, o)
	}
	return o, nil
}

// parseJSON keeps numbers as they are written.
func parseJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("something follows it at byte %d", d.InputOffset())
	}
	return v, nil
}

// jsonMerge is RFC 7396.
func jsonMerge(now any, change map[string]any) any {
	object, ok := now.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, v := range change {
		if v == nil {
			delete(object, name)
			continue
		}
		if fields, ok := v.(map[string]any); ok {
			v = jsonMerge(object[name], fields)
		}
		object[name] = v
	}
	return object
}

// sameJSON compares values; numbers are equal when they mean the same.
func sameJSON(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, v := range a {
			if w, ok := b[name]; !ok || !sameJSON(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameJSON(a[i], b[i]) {
				return false
			}
		}
		return true
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a, b)
	}
	return a == b // Strings, booleans, nil: a list or an object on the other side is never equal.
}

func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	x, errX := a.Int64()
	y, errY := b.Int64()
	if errX == nil && errY == nil {
		return x == y
	}
	f, errF := a.Float64()
	g, errG := b.Float64()
	return errF == nil && errG == nil && f == g
}

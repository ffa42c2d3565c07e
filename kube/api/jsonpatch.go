package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// jsonPatch is RFC 6902.
func jsonPatch(doc, patch any) (any, error) {
	steps, ok := patch.([]any)
	if !ok {
		return nil, fmt.Errorf("a JSON patch is a list of steps, each with op and path")
	}
	if len(steps) > patchOpsMax {
		return nil, fmt.Errorf("it has %d steps, at most %d", len(steps), patchOpsMax)
	}
	budget := copiedValuesMax
	for i, s := range steps {
		step, ok := s.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("step %d is no JSON object", i)
		}
		var err error
		if doc, err = patchStep(doc, step, &budget); err != nil {
			return nil, fmt.Errorf("step %d, %v %v: %w", i, step["op"], step["path"], err)
		}
	}
	return doc, nil
}

func patchStep(doc any, step map[string]any, budget *int) (any, error) {
	path, err := pointer(step, "path")
	if err != nil {
		return nil, err
	}
	switch op := step["op"]; op {
	case "add", "replace":
		value, ok := step["value"]
		if !ok {
			return nil, fmt.Errorf("it has no value")
		}
		return edit(doc, path, op.(string), value)
	case "remove":
		return edit(doc, path, "remove", nil)
	case "test":
		value, err := lookup(doc, path)
		if err != nil {
			return nil, err
		}
		if !sameJSON(value, step["value"]) {
			return nil, fmt.Errorf("there is another value")
		}
		return doc, nil
	case "copy", "move":
		return patchFrom(doc, step, path, op == "move", budget)
	}
	return nil, fmt.Errorf("op is none of add, remove, replace, move, copy, test")
}

func patchFrom(doc any, step map[string]any, path []string, move bool, budget *int) (any, error) {
	from, err := pointer(step, "from")
	if err != nil {
		return nil, err
	}
	value, err := lookup(doc, from)
	if err != nil {
		return nil, err
	}
	if !move {
		if value, err = duplicate(value, budget); err != nil {
			return nil, err
		}
		return edit(doc, path, "add", value)
	}
	if len(path) > len(from) && slices.Equal(from, path[:len(from)]) {
		return nil, fmt.Errorf("a value cannot move into itself")
	}
	if slices.Equal(from, path) {
		return doc, nil
	}
	if doc, err = edit(doc, from, "remove", nil); err != nil {
		return nil, err
	}
	return edit(doc, path, "add", value)
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// pointer reads RFC 6901.
func pointer(step map[string]any, name string) ([]string, error) {
	text, ok := step[name].(string)
	if !ok {
		return nil, fmt.Errorf("it has no %s", name)
	}
	if text == "" {
		return nil, nil
	}
	if text[0] != '/' {
		return nil, fmt.Errorf("%s %q does not begin with a slash", name, text)
	}
	words := strings.Split(text[1:], "/")
	for i, w := range words {
		words[i] = unescape.Replace(w)
	}
	return words, nil
}

func lookup(v any, path []string) (any, error) {
	for _, word := range path {
		switch n := v.(type) {
		case map[string]any:
			child, ok := n[word]
			if !ok {
				return nil, fmt.Errorf("there is no %q", word)
			}
			v = child
		case []any:
			i, err := position(word, len(n)-1)
			if err != nil {
				return nil, err
			}
			v = n[i]
		default:
			return nil, fmt.Errorf("there is no %q in what is no object and no list", word)
		}
	}
	return v, nil
}

// position reads the index of an element, at most last.
func position(word string, last int) (int, error) {
	i, err := strconv.Atoi(word)
	if err != nil || i < 0 || word != strconv.Itoa(i) {
		return 0, fmt.Errorf("%q is no position in a list", word)
	}
	if i > last {
		return 0, fmt.Errorf("there is no element %d", i)
	}
	return i, nil
}

// edit returns v changed at path.
func edit(v any, path []string, op string, value any) (any, error) {
	if len(path) == 0 {
		if op == "remove" {
			return nil, fmt.Errorf("the whole object cannot be removed")
		}
		return value, nil
	}
	switch n := v.(type) {
	case map[string]any:
		return editMap(n, path, op, value)
	case []any:
		return editList(n, path, op, value)
	}
	return nil, fmt.Errorf("there is no %q in what is no object and no list", path[0])
}

func editMap(n map[string]any, path []string, op string, value any) (any, error) {
	child, ok := n[path[0]]
	last := len(path) == 1
	switch {
	case !ok && (!last || op != "add"):
		return nil, fmt.Errorf("there is no %q", path[0])
	case last && op == "remove":
		delete(n, path[0])
		return n, nil
	case last:
		n[path[0]] = value
		return n, nil
	}
	changed, err := edit(child, path[1:], op, value)
	if err != nil {
		return nil, err
	}
	n[path[0]] = changed
	return n, nil
}

func editList(n []any, path []string, op string, value any) (any, error) {
	last := len(path) == 1
	if last && op == "add" {
		if path[0] == "-" {
			return append(n, value), nil
		}
		i, err := position(path[0], len(n))
		if err != nil {
			return nil, err
		}
		return slices.Insert(n, i, value), nil
	}
	i, err := position(path[0], len(n)-1)
	if err != nil {
		return nil, err
	}
	if last && op == "remove" {
		return slices.Delete(n, i, i+1), nil
	}
	if n[i], err = edit(n[i], path[1:], op, value); err != nil {
		return nil, err
	}
	return n, nil
}

// duplicate copies a value, which shares nothing with it then.
func duplicate(v any, budget *int) (any, error) {
	if *budget--; *budget < 0 {
		return nil, fmt.Errorf("it copies over %d values", copiedValuesMax)
	}
	switch n := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(n))
		for name, child := range n {
			c, err := duplicate(child, budget)
			if err != nil {
				return nil, err
			}
			m[name] = c
		}
		return m, nil
	case []any:
		l := make([]any, len(n))
		for i, child := range n {
			c, err := duplicate(child, budget)
			if err != nil {
				return nil, err
			}
			l[i] = c
		}
		return l, nil
	case string, bool, nil, json.Number:
		return n, nil
	}
	return nil, fmt.Errorf("%T cannot be copied", v)
}

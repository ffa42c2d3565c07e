package pki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// jsonFile reads a file strictly: a field that is not known, given twice or of
// another kind is a problem with its path. All problems are found at once, since
// who mends a file wants to mend it once.
type jsonFile struct {
	name     string
	problems []error
	ignored  []string // Fields that are known and do nothing here.
}

func (f *jsonFile) problem(path, format string, args ...any) {
	f.problems = append(f.problems, fmt.Errorf("%s: %s: %s", f.name, path, fmt.Sprintf(format, args...)))
}

func (f *jsonFile) err() error {
	if len(f.problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrRequest, errors.Join(f.problems...))
}

// parse reads one value of the whole file.
func (f *jsonFile) parse(data []byte) any {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := f.value(d, "", 0)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return v
		}
		if err == nil {
			err = errors.New("something follows the end of the object")
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it ends too early: is a brace missing?")
	}
	at := min(int(d.InputOffset()), len(data))
	line := 1 + bytes.Count(data[:at], []byte("\n"))
	f.problems = append(f.problems, fmt.Errorf("%s:%d: not JSON: %w", f.name, line, err))
	return nil
}

func (f *jsonFile) value(d *json.Decoder, path string, depth int) (any, error) {
	if depth > jsonDepthMax {
		return nil, fmt.Errorf("nested deeper than %d", jsonDepthMax)
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		fields := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name := key.(string)
			if _, twice := fields[name]; twice {
				f.problem(join(path, name), "given twice")
			}
			if fields[name], err = f.value(d, join(path, name), depth+1); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return fields, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := f.value(d, fmt.Sprintf("%s[%d]", path, len(list)), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return token, nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// object is v as an object of the known fields. Those ignored are noted, those
// refused have their reason, and others do not exist.
func (f *jsonFile) object(v any, path string, known []string, ignored []string, refused map[string]string) map[string]any {
	fields, ok := v.(map[string]any)
	if !ok {
		if v != nil {
			f.problem(path, "must be an object, in braces")
		}
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch why := refused[name]; {
		case slices.Contains(known, name):
		case slices.Contains(ignored, name):
			f.ignored = append(f.ignored, join(path, name))
		case why != "":
			f.problem(join(path, name), "not supported: %s", why)
		default:
			f.problem(join(path, name), "there is no such field; known are %s", strings.Join(known, ", "))
		}
	}
	return fields
}

func (f *jsonFile) text(v any, path string) string {
	s, ok := v.(string)
	if !ok && v != nil {
		f.problem(path, "must be a text, in quotes")
	}
	return s
}

func (f *jsonFile) texts(v any, path string) []string {
	list, ok := v.([]any)
	if !ok && v != nil {
		f.problem(path, "must be a list of texts, in brackets")
	}
	var texts []string
	for i, e := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		s := f.text(e, at)
		if e == nil || strings.TrimSpace(s) == "" && s != "" {
			f.problem(at, "must be a text, in quotes")
		} else if s != "" { // Examples of cfssl have hosts of one empty text, for none.
			texts = append(texts, s)
		}
	}
	return texts
}

func (f *jsonFile) whole(v any, path string) int {
	if v == nil {
		return 0
	}
	n, _ := v.(json.Number)
	i, err := n.Int64()
	if err != nil || i < 0 || i > 1<<20 {
		f.problem(path, "must be a whole number, without quotes")
	}
	return int(i)
}

func (f *jsonFile) yes(v any, path string) bool {
	b, ok := v.(bool)
	if !ok && v != nil {
		f.problem(path, "must be true or false")
	}
	return b
}

// duration reads a text such as 8760h.
func (f *jsonFile) duration(v any, path string) time.Duration {
	s := f.text(v, path)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		f.problem(path, "%q is no duration: hours count, say 8760h for a year", s)
	}
	return d
}

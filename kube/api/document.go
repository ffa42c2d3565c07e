package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is a value of a manifest that knows its line.
type value struct {
	line   int
	scalar any // string, bool, json.Number or nil, where it is neither a list nor an object.
	list   []*value
	object []member
	form   form
}

type member struct {
	name  string
	line  int
	value *value
}

type form int

const (
	formScalar form = iota
	formList
	formObject
)

func (v *value) member(name string) *value {
	for _, m := range v.object {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// text is the string that a member is, "" if it is none.
func (v *value) text(name string) string {
	if m := v.member(name); m != nil {
		s, _ := m.scalar.(string)
		return s
	}
	return ""
}

// plain is the value as encoding/json has it.
func (v *value) plain() any {
	switch v.form {
	case formObject:
		m := make(map[string]any, len(v.object))
		for _, f := range v.object {
			m[f.name] = f.value.plain()
		}
		return m
	case formList:
		l := make([]any, len(v.list))
		for i, e := range v.list {
			l[i] = e.plain()
		}
		return l
	}
	return v.scalar
}

// lineError is a problem at a line.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return fmt.Sprintf("%d: %s", e.line, e.text) }

func atLine(line int, format string, args ...any) error {
	return &lineError{line, fmt.Sprintf(format, args...)}
}

// chunk is the text between two lines of ---.
type chunk struct {
	line int // Of its first.
	text []byte
}

// split cuts a file at the lines that separate its documents.
func split(text []byte) []chunk {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var chunks []chunk
	start, startLine, line := 0, 1, 1
	for at := 0; at < len(text); line++ {
		end := bytes.IndexByte(text[at:], '\n')
		if end < 0 {
			end = len(text)
		} else {
			end += at + 1
		}
		if separates(text[at:end]) {
			chunks = append(chunks, chunk{startLine, text[start:at]})
			start, startLine = at+3, line
		}
		at = end
	}
	return append(chunks, chunk{startLine, text[start:]})
}

func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

// documents reads the values of a chunk: JSON where it begins as JSON does,
// otherwise YAML.
func (c chunk) documents() ([]*value, error) {
	if len(c.text) > documentBytesMax {
		return nil, atLine(c.line, "the document has %d bytes, at most %d", len(c.text), documentBytesMax)
	}
	if json, ok := bytes.CutPrefix(bytes.TrimSpace(c.text), []byte("{")); ok {
		if json = bytes.TrimSpace(json); len(json) > 0 && (json[0] == '"' || json[0] == '}') {
			return c.json()
		}
	}
	return c.yaml()
}

func (c chunk) yaml() ([]*value, error) {
	var all []*value
	d := yaml.NewDecoder(bytes.NewReader(c.text))
	for {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, c.yamlError(err)
		}
		r := yamlReader{first: c.line, left: documentValuesMax}
		v, err := r.value(&n, 0)
		if err != nil {
			return all, err
		}
		if v.form != formScalar || v.scalar != nil {
			all = append(all, v)
		}
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func (c chunk) yamlError(err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return atLine(c.line, "it is no YAML: %v", err)
	}
	line, _ := strconv.Atoi(m[1]) // 0 where the message names none.
	return atLine(c.line+max(line-1, 0), "it is no YAML: %s", m[2])
}

// yamlReader makes values of what the library parsed.
type yamlReader struct {
	first int // Line of the chunk in its file.
	left  int // Values that may still be made.
}

func (r *yamlReader) line(n *yaml.Node) int { return r.first + max(n.Line-1, 0) }

func (r *yamlReader) value(n *yaml.Node, depth int) (*value, error) {
	if depth > documentDepthMax {
		return nil, atLine(r.line(n), "it is over %d levels deep", documentDepthMax)
	}
	if r.left--; r.left < 0 {
		return nil, atLine(r.line(n), "it has over %d values, aliases counted as what they stand for", documentValuesMax)
	}
	v := &value{line: r.line(n)}
	switch n.Kind {
	case 0:
		return v, nil
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return v, nil
		}
		return r.value(n.Content[0], depth+1)
	case yaml.AliasNode:
		return r.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		v.form = formList
		for _, c := range n.Content {
			e, err := r.value(c, depth+1)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, e)
		}
		return v, nil
	case yaml.MappingNode:
		v.form = formObject
		return v, r.mapping(v, n, depth)
	}
	var err error
	v.scalar, err = r.scalar(n)
	return v, err
}

func (r *yamlReader) mapping(v *value, n *yaml.Node, depth int) error {
	var merges []*yaml.Node
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merges = append(merges, content)
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" {
			return atLine(r.line(key), "the name of a field must be a word")
		}
		if before, twice := lines[key.Value]; twice {
			return atLine(r.line(key), "%q stands here for the second time, first at line %d", key.Value, before)
		}
		lines[key.Value] = r.line(key)
		c, err := r.value(content, depth+1)
		if err != nil {
			return err
		}
		v.object = append(v.object, member{key.Value, r.line(key), c})
	}
	for _, m := range merges {
		if err := r.merge(v, m, lines, depth); err != nil {
			return err
		}
	}
	return nil
}

// merge adds what << brings along and is not there yet.
func (r *yamlReader) merge(v *value, n *yaml.Node, have map[string]int, depth int) error {
	from, err := r.value(n, depth+1)
	if err != nil {
		return err
	}
	sources := from.list
	if from.form != formList {
		sources = []*value{from}
	}
	for _, s := range sources {
		if s.form != formObject {
			return atLine(r.line(n), "<< merges objects, and this is none")
		}
		for _, m := range s.object {
			if _, there := have[m.name]; !there {
				have[m.name] = m.line
				v.object = append(v.object, m)
			}
		}
	}
	return nil
}

// switches are the booleans of YAML 1.1, by which manifests are read everywhere.
var switches = map[string]bool{
	"yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

func (r *yamlReader) scalar(n *yaml.Node) (any, error) {
	switch tag := n.ShortTag(); tag {
	case "!!str":
		if on, ok := switches[n.Value]; ok && n.Style == 0 {
			return on, nil
		}
		return n.Value, nil
	case "!!timestamp", "!!binary":
		return n.Value, nil
	case "!!null":
		return nil, nil
	case "!!bool", "!!int", "!!float":
		if tag != "!!bool" && decimal.MatchString(n.Value) {
			return json.Number(n.Value), nil
		}
		return r.number(n)
	default:
		return nil, atLine(r.line(n), "tag %s: values have no tags of their own in a manifest", n.Tag)
	}
}

var decimal = regexp.MustCompile(`^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$`)

// number reads a boolean, or a number as YAML may write it: 0644, 0x1f, 1_000.
func (r *yamlReader) number(n *yaml.Node) (any, error) {
	var x any
	if err := n.Decode(&x); err != nil {
		return nil, atLine(r.line(n), "%q cannot be read", n.Value)
	}
	if on, ok := x.(bool); ok {
		return on, nil
	}
	text, err := json.Marshal(x)
	if err != nil {
		return nil, atLine(r.line(n), "%s is no number that JSON has", n.Value)
	}
	return json.Number(text), nil
}

// json reads one JSON object after the other.
func (c chunk) json() ([]*value, error) {
	r := jsonReader{chunk: c, d: json.NewDecoder(bytes.NewReader(c.text)), line: c.line}
	r.d.UseNumber()
	var all []*value
	for {
		v, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			var known *lineError
			if !errors.As(err, &known) {
				err = atLine(r.lineNow(), "it is no JSON: %v", err)
			}
			return all, err
		}
		all = append(all, v)
	}
}

type jsonReader struct {
	chunk
	d     *json.Decoder
	line  int // At the offset up to which lines were counted.
	count int
}

func (r *jsonReader) lineNow() int {
	at := min(int(r.d.InputOffset()), len(r.text))
	if at > r.count {
		r.line += bytes.Count(r.text[r.count:at], []byte("\n"))
		r.count = at
	}
	return r.line
}

func (r *jsonReader) value(depth int) (*value, error) {
	t, err := r.d.Token()
	if err != nil {
		if depth > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	v := &value{line: r.lineNow()}
	if depth > documentDepthMax {
		return nil, atLine(v.line, "it is over %d levels deep", documentDepthMax)
	}
	switch t {
	case json.Delim('['):
		v.form = formList
		for r.d.More() {
			e, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, e)
		}
		_, err = r.d.Token()
	case json.Delim('{'):
		v.form = formObject
		err = r.members(v, depth)
	default:
		v.scalar = t
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return v, err
}

func (r *jsonReader) members(v *value, depth int) error {
	seen := map[string]bool{}
	for r.d.More() {
		t, err := r.d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string) // A decoder gives nothing else here.
		line := r.lineNow()
		if seen[name] {
			return atLine(line, "%q stands here for the second time", name)
		}
		seen[name] = true
		c, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		v.object = append(v.object, member{name, line, c})
	}
	_, err := r.d.Token()
	return err
}

// nearest is the word most like another one, "" if none is alike.
func nearest(word string, words []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(word), strings.ToLower(w), least); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to change, put in or leave out; limit if it is more.
func distance(a, b string, limit int) int {
	if max(len(a), len(b))-min(len(a), len(b)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := before
			if a[i] != b[j] {
				d = min(before, row[j], row[j+1]) + 1
			}
			before, row[j+1] = row[j+1], d
		}
	}
	return min(row[len(b)], limit)
}

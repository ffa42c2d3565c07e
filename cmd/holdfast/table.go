package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// state says what becomes of a flag.
type state string

// The states. A flag that is refused may still be given with its default: then
// it asks for what happens anyway.
const (
	done     state = "done"
	accepted state = "accepted without effect" // Why stands in the row.
	refused  state = "refused"                 // What to do instead stands in the row.
)

// kind is how the value of a flag is written.
type kind string

// The kinds.
const (
	isText     kind = "TEXT"
	isSwitch   kind = ""
	isNumber   kind = "N"
	isDuration kind = "DURATION"
	isMillis   kind = "MILLISECONDS"
	isSeconds  kind = "SECONDS"
	isList     kind = "LIST" // Separated by commas. The last one given wins.
)

// row is a flag: the one place where its name, default and meaning stand. The
// command line, the environment, the configuration file, --help and
// docs/flags.md all come from it.
type row struct {
	name    string
	kind    kind
	initial string // The default, as one would write it. "" is also false and 0.
	says    string
	state   state
	why     string // Why it has no effect, or what to do instead.

	// at is where the value goes; nil for a flag without effect.
	at      func(o *options) any
	example string // Another value than the default, for the test that sets each.
	ours    bool   // Not a flag of etcd.
}

// section is rows that belong together.
type section struct {
	title string
	rows  []row
}

// sections is every flag that is known.
func sections() []section {
	return []section{
		{"Member", memberRows()},
		{"Cluster", clusterRows()},
		{"Discovery of the first members", discoveryRows()},
		{"Requests and history", requestRows()},
		{"Encryption", securityRows()},
		{"Users", authRows()},
		{"HTTP", httpRows()},
		{"Monitoring and traces", monitoringRows()},
		{"Logs", loggingRows()},
		{"Corruption", corruptionRows()},
		{"Archive", archiveRows()},
		{"Others", otherRows()},
		{"Known from older versions", oldRows()},
	}
}

// allRows in the order of their sections.
func allRows() []row {
	var all []row
	for _, s := range sections() {
		all = append(all, s.rows...)
	}
	return all
}

// setting is the value of a flag on its way into the options.
type setting struct {
	row *row
	at  any // Pointer into the options, or to nowhere.
}

func newSetting(r *row, o *options) *setting {
	s := &setting{row: r}
	if r.at != nil {
		s.at = r.at(o)
		return s
	}
	switch r.kind {
	case isSwitch:
		s.at = new(bool)
	case isNumber:
		s.at = new(int64)
	case isDuration, isMillis, isSeconds:
		s.at = new(time.Duration)
	case isList:
		s.at = new([]string)
	default:
		s.at = new(string)
	}
	return s
}

// IsBoolFlag lets a switch stand without a value.
func (s *setting) IsBoolFlag() bool { return s.row != nil && s.row.kind == isSwitch }

// String implements flag.Value.
func (s *setting) String() string {
	switch p := s.at.(type) {
	case nil:
		return ""
	case *bool:
		return strconv.FormatBool(*p)
	case *[]string:
		return strings.Join(*p, ",")
	case *time.Duration:
		switch s.row.kind {
		case isMillis:
			return strconv.FormatInt(p.Milliseconds(), 10)
		case isSeconds:
			return strconv.FormatInt(int64(*p/time.Second), 10)
		}
		return p.String()
	case *string:
		return *p
	case *int:
		return strconv.Itoa(*p)
	case *int64:
		return strconv.FormatInt(*p, 10)
	case *uint64:
		return strconv.FormatUint(*p, 10)
	case *uint32:
		return strconv.FormatUint(uint64(*p), 10)
	}
	return "?"
}

// Set implements flag.Value.
func (s *setting) Set(text string) error {
	var err error
	switch p := s.at.(type) {
	case *string:
		*p = text
	case *bool:
		if *p, err = strconv.ParseBool(text); err != nil {
			err = errors.New("use true or false")
		}
	case *[]string:
		*p = splitList(text)
	case *time.Duration:
		*p, err = s.duration(text)
	case *int:
		var n int64
		n, err = integer(text, strconv.IntSize)
		*p = int(n)
	case *int64:
		*p, err = integer(text, 64)
	case *uint64:
		*p, err = natural(text, 64)
	case *uint32:
		var n uint64
		n, err = natural(text, 32)
		*p = uint32(n)
	}
	return err
}

func (s *setting) duration(text string) (time.Duration, error) {
	if s.row.kind == isMillis {
		n, err := natural(text, 31) // More is no time that anybody waits.
		if err != nil || n == 0 {
			return 0, errors.New("use a positive number of milliseconds")
		}
		return time.Duration(n) * time.Millisecond, nil
	}
	if s.row.kind == isSeconds {
		n, err := natural(text, 31)
		if err != nil {
			return 0, errors.New("use a number of seconds")
		}
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, errors.New("use a duration such as 300ms, 10m or 1h30m")
	}
	return d, nil
}

func integer(text string, bits int) (int64, error) {
	n, err := strconv.ParseInt(text, 0, bits)
	if err != nil {
		return 0, errors.New("use a whole number")
	}
	return n, nil
}

func natural(text string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(text, 0, bits)
	if err != nil {
		return 0, fmt.Errorf("use a whole number from 0 to %d", uint64(1)<<(bits-1)*2-1)
	}
	return n, nil
}

func splitList(text string) []string {
	var list []string
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// refusal is why a flag may not be given as it was, or nil. It looks at what
// was asked for: the default is never refused.
func (r *row) refusal(s *setting) error {
	if r.state != refused {
		return nil
	}
	plain := newSetting(r, &options{})
	if plain.Set(r.startValue()) == nil && plain.String() == s.String() {
		return nil
	}
	return fmt.Errorf("--%s is refused: %s", r.name, r.why)
}

// startValue is the default as Set takes it.
func (r *row) startValue() string {
	if r.initial != "" {
		return r.initial
	}
	switch r.kind {
	case isSwitch:
		return "false"
	case isNumber:
		return "0"
	case isDuration:
		return "0s"
	}
	return ""
}

// nearest is the known name that looks most like a wrong one; "" when none
// does.
func nearest(wrong string, known []string) string {
	best, distance := "", max(2, len(wrong)/3)+1
	for _, name := range known {
		if d := editDistance(wrong, name); d < distance {
			best, distance = name, d
		}
	}
	if best != "" || len(wrong) < 4 {
		return best
	}
	words := strings.Split(wrong, "-") // Perhaps some are missing.
	i := slices.IndexFunc(known, func(name string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(name, w) })
	})
	if i < 0 {
		return ""
	}
	return known[i]
}

// editDistance counts the letters to add, drop or change.
func editDistance(a, b string) int {
	above := make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		left := make([]int, len(b)+1)
		left[0] = i + 1
		for j := range len(b) {
			change := above[j]
			if a[i] != b[j] {
				change++
			}
			left[j+1] = min(change, above[j+1]+1, left[j]+1)
		}
		above = left
	}
	return above[len(b)]
}

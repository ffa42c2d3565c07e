package archive

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Target is a point in time: a position of the past, named in one of five ways.
type Target struct {
	kind     targetKind
	position ident.Position
	revision ident.Revision
	time     time.Time
	text     string
}

type targetKind int

const (
	toLatest targetKind = iota
	toIndex
	toRevision
	beforeRevision
	toTime
)

// ParseTarget reads latest, index=N, index=N.GROUP, revision=N,
// before-revision=N or time=RFC3339.
func ParseTarget(text string) (Target, error) {
	t := Target{text: text}
	word, value, _ := strings.Cut(text, "=")
	var err error
	switch word {
	case "latest":
		if value != "" || strings.Contains(text, "=") {
			err = fmt.Errorf("latest has no value")
		}
	case "index":
		t.kind = toIndex
		t.position, err = parsePosition(value)
	case "revision", "before-revision":
		t.kind = toRevision
		if word != "revision" {
			t.kind = beforeRevision
		}
		var n uint64
		n, err = strconv.ParseUint(value, 10, 63)
		t.revision = ident.Revision(n)
	case "time":
		t.kind = toTime
		t.time, err = time.Parse(time.RFC3339Nano, value)
	default:
		err = fmt.Errorf("it is none of these")
	}
	if err != nil {
		return t, fmt.Errorf("target %q, want latest, index=N[.GROUP], revision=N, before-revision=N or time=RFC3339: %w: %w", text, err, ErrInvalid)
	}
	return t, nil
}

// parsePosition reads an index, with all of its groups, or up to one of them.
func parsePosition(text string) (ident.Position, error) {
	index, group, cut := strings.Cut(text, ".")
	p := ident.Position{Group: math.MaxUint32}
	n, err := strconv.ParseUint(index, 10, 64)
	p.Index = ident.Index(n)
	if err == nil && cut {
		n, err = strconv.ParseUint(group, 10, 32)
		p.Group = uint32(n)
	}
	return p, err
}

func (t Target) String() string { return t.text }

// beyond reports whether a group lies after the target, given the state before
// it and the record that it is in.
func (t Target) beyond(before Point, rec *history.Record, g *history.Group) bool {
	switch t.kind {
	case toIndex:
		return t.position.Less(ident.Position{Index: rec.Index, Group: g.Ordinal})
	case toRevision:
		return before.Revision >= t.revision
	case beforeRevision:
		return g.Revision >= t.revision
	case toTime:
		return rec.Time > t.time.UnixNano()
	}
	return false
}

// after reports whether the target lies after a state, so that what follows the
// state may be needed to get there.
func (t Target) after(p Point) bool {
	switch t.kind {
	case toIndex:
		return p.Position().Less(t.position)
	case toRevision:
		return p.Revision < t.revision
	case beforeRevision:
		return p.Revision+1 < t.revision
	case toTime:
		return p.Time < t.time.UnixNano()
	}
	return true
}

// ends reports whether the target may lie at, or before, the end of what leads to a state.
func (t Target) ends(p Point) bool {
	switch t.kind {
	case toIndex:
		return p.Index >= t.position.Index
	case toRevision, beforeRevision:
		return p.Revision >= t.revision
	case toTime:
		return p.Time >= t.time.UnixNano()
	}
	return false
}

// at reports whether a state is exactly what the target names, or as near as
// its kind can tell.
func (t Target) at(p Point) bool {
	switch t.kind {
	case toIndex:
		return !t.position.Less(p.Position())
	case toRevision:
		return p.Revision == t.revision
	case beforeRevision:
		return p.Revision == t.revision-1
	case toTime:
		return p.Time <= t.time.UnixNano()
	}
	return true
}

package mvcc

import (
	"bytes"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// source is what a read looks at: one layout, and base under it. Views and
// transactions read through it. It belongs to one goroutine.
//
// The rule of reading: at revision R, a key is what its newest version in
// (M, R] of the young index says, else its row in base. Versions at or below M
// are in base too, and their segments may be gone.
type source struct {
	layout  *layout
	history *history.Log
	db      *backend.DB
	base    *backend.View // Taken when first needed: after the layout, so never older (rule 4).
	pending [][]byte      // Rows of the running entry, not in history yet.
}

// done lets go of base.
func (s *source) done() {
	if s.base != nil {
		s.base.Release()
		s.base = nil
	}
}

func (s *source) baseView() *backend.View {
	if s.base == nil {
		s.base = s.db.View()
	}
	return s.base
}

// found is a key as of some revision: out of the young index, or a row of base.
type found struct {
	history.Version
	row []byte // In wire form, out of base. Nil when the version is young.
}

// find returns key as of revision at. ok is false when it did not exist.
func (s *source) find(key []byte, at ident.Revision, f *found) (ok bool, err error) {
	if s.findYoung(key, at, &f.Version) {
		f.row = nil
		return !f.Tombstone, nil
	}
	f.row, err = s.baseView().Get(key)
	if err != nil || f.row == nil {
		return false, err
	}
	return true, f.parse(at)
}

// findYoung looks for the newest version in (M, at].
func (s *source) findYoung(key []byte, at ident.Revision, v *history.Version) bool {
	l := s.layout
	if l.active.first <= at && l.active.find(key, at, v) {
		return v.Mod > l.merged.Revision
	}
	for _, g := range l.older {
		if g.last <= l.merged.Revision {
			return false
		}
		if g.first <= at && g.find(key, at, v) {
			return v.Mod > l.merged.Revision
		}
	}
	return false
}

// parse fills in the version of a row out of base.
func (f *found) parse(at ident.Revision) error {
	r, err := parseKV(f.row)
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	if r.mod > at { // What rule 4 is there to prevent: an error, for a file can say anything.
		return fmt.Errorf("row of revision %d in base under a read at %d: %w", r.mod, at, errMixture)
	}
	f.Version = history.Version{Mod: r.mod, Create: r.create, Version: r.version, Lease: r.lease}
	return nil
}

// value returns the row in wire form, read-only. What points into the running
// entry or into base is copied, so that it outlives both.
func (s *source) value(f *found) ([]byte, error) {
	switch {
	case f.row != nil:
		return f.row, nil
	case f.Loc.Segment == pendingSegment:
		return bytes.Clone(s.pending[f.Loc.Offset]), nil
	}
	b, err := s.history.Value(f.Loc)
	if err != nil {
		return nil, fmt.Errorf("value of revision %d: %w", f.Mod, err)
	}
	return b, nil
}

// interval is the meaning of key and end in every request.
type interval struct {
	from   []byte
	to     []byte // Exclusive. Nil: no bound.
	single bool   // from alone.
}

func newInterval(key, end []byte) interval {
	switch {
	case len(end) == 0:
		return interval{from: key, single: true}
	case len(end) == 1 && end[0] == 0:
		return interval{from: key}
	}
	return interval{from: key, to: end}
}

func (r *interval) past(key []byte) bool {
	return r.to != nil && bytes.Compare(key, r.to) >= 0
}

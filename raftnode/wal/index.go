package wal

import (
	"sort"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// segment is a file of the log and where the entries in it lie. Offsets take
// four bytes an entry; superseded entries have none.
type segment struct {
	sequence uint64
	seed     uint32 // Checksum of the header, the start of all in this segment.
	size     int64
	file     vfs.File

	first   ident.Index // Guarded by Log.mu, as all below. Of offsets[0].
	offsets []uint32
	readers int // A segment with readers is not recycled.
}

// termRun says that entries from first on have this term, up to the next run.
type termRun struct {
	first ident.Index
	term  ident.Term
}

// index finds entries. Invariant: offsets of its segments, in order, are those
// of the entries after start up to last without a gap; only a recovery in
// progress knows fewer.
type index struct {
	segments []*segment // Oldest first; the last is being written.
	terms    []termRun
	start    Mark
	last     Mark
}

// add puts an entry at the end, after taking away what it supersedes.
func (x *index) add(seg *segment, offset uint32, m Mark) {
	if m.Index <= x.last.Index {
		x.truncate(m.Index)
	}
	if len(seg.offsets) == 0 {
		seg.first = m.Index
	}
	seg.offsets = append(seg.offsets, offset)
	if n := len(x.terms); n == 0 || x.terms[n-1].term != m.Term {
		x.terms = append(x.terms, termRun{first: m.Index, term: m.Term})
	}
	x.last = m
}

// truncate forgets entries from here on.
func (x *index) truncate(from ident.Index) {
	for i := len(x.segments) - 1; i >= 0; i-- {
		seg := x.segments[i]
		if seg.first < from {
			keep := int(min(uint64(from-seg.first), uint64(len(seg.offsets)))) // Bounded first: a crafted log has any index.
			seg.offsets = seg.offsets[:keep]
			if keep > 0 {
				break
			}
		}
		seg.offsets = seg.offsets[:0]
	}
	for n := len(x.terms); n > 0 && x.terms[n-1].first >= from; n-- {
		x.terms = x.terms[:n-1]
	}
}

// compact moves start and returns the segments that are no longer needed.
func (x *index) compact(start Mark) []*segment {
	x.start = start
	for _, seg := range x.segments {
		if len(seg.offsets) > 0 && seg.first <= start.Index {
			drop := int(min(uint64(start.Index-seg.first), uint64(len(seg.offsets)-1))) + 1
			seg.offsets = seg.offsets[drop:]
			seg.first += ident.Index(drop)
		}
	}
	gone := 0
	for gone < len(x.segments)-1 && len(x.segments[gone].offsets) == 0 {
		gone++
	}
	n := 0
	for n < len(x.terms)-1 && x.terms[n+1].first <= start.Index+1 {
		n++
	}
	x.terms = x.terms[n:]
	out := append([]*segment(nil), x.segments[:gone]...)
	x.segments = append([]*segment(nil), x.segments[gone:]...)
	return out
}

// term is that of an entry which must be there: after start, up to last.
func (x *index) term(i ident.Index) ident.Term {
	n := sort.Search(len(x.terms), func(n int) bool { return x.terms[n].first > i })
	if n == 0 {
		return 0
	}
	return x.terms[n-1].term
}

// find returns the segment of an entry and its place in offsets.
func (x *index) find(i ident.Index) (*segment, int) {
	// Segments without entries have no place in the order; there are few.
	for n := len(x.segments) - 1; n >= 0; n-- {
		if seg := x.segments[n]; len(seg.offsets) > 0 && seg.first <= i {
			return seg, int(i - seg.first)
		}
	}
	return nil, 0
}

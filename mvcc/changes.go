package mvcc

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// ChangesArgs says which changes are looked for, and how much work that may be.
type ChangesArgs struct {
	Key, End []byte // As in RangeArgs.
	From     ident.Revision

	Enough    int // So many are found: the rest can be asked for later.
	Max       int // More are too many, in one piece of history that cannot be split.
	VisitsMax int // Keys and versions to look at.
}

// Changes is what happened to some keys.
type Changes struct {
	List []Change
	// Through is up to where List has everything.
	Through ident.Revision
}

// Change is one version that a key took.
type Change struct {
	Key []byte // Shared by all versions of the key, read-only.
	history.Version
}

// Changes finds what happened to keys without reading history, through the key
// indexes: every version since a revision, in order of revision, and puts of
// one revision in the order in which they were made. Where a deletion stands
// among other changes of its revision, only history tells.
//
// ok is false when the indexes are not the way: it would be more work than
// allowed, or they do not reach back so far, as they begin after M.
func (v *View) Changes(a *ChangesArgs) (c Changes, ok bool) {
	l := v.state.layout
	if a.From <= l.merged.Revision {
		return c, false
	}
	w := changeWalk{args: a, in: newInterval(a.Key, a.End), to: v.state.Revision}
	for i := len(l.older) - 1; i >= 0 && len(w.list) < a.Enough; i-- {
		g := l.older[i]
		if g.last < a.From {
			continue
		}
		if !w.generation(g) {
			return w.done(), ok
		}
		w.through, ok = g.last, true
	}
	if len(w.list) < a.Enough && w.generation(l.active) {
		w.through, ok = w.to, true
	}
	return w.done(), ok
}

// Value reads what a change put.
func (v *View) Value(c *Change) ([]byte, error) {
	kv, err := v.src.history.Value(c.Loc)
	if err != nil {
		return nil, fmt.Errorf("value of revision %d: %w", c.Mod, err)
	}
	return kv, nil
}

// changeWalk gathers changes from one generation after the other, oldest
// first: they cover rising ranges of revisions.
type changeWalk struct {
	args    *ChangesArgs
	in      interval
	to      ident.Revision
	list    []Change
	through ident.Revision
	visits  int

	versions []history.Version
}

// generation adds the changes in one, or nothing when that is too much.
func (w *changeWalk) generation(g *generation) bool {
	before := len(w.list)
	for c := g.seek(w.in.from); c.key != nil && !w.in.past(c.key); c.next() {
		if w.in.single && !bytes.Equal(c.key, w.in.from) {
			break
		}
		ok := w.visits+c.table.Count() < w.args.VisitsMax
		if ok {
			var seen int
			w.versions, seen = c.since(w.args.From, w.to, w.versions[:0])
			w.visits += 1 + seen
			ok = w.visits <= w.args.VisitsMax && len(w.list)-before+len(w.versions) <= w.args.Max
		}
		if !ok {
			w.list = w.list[:before]
			return false
		}
		if len(w.versions) > 0 {
			key := bytes.Clone(c.key)
			for i := range w.versions {
				w.list = append(w.list, Change{key, w.versions[i]})
			}
		}
	}
	slices.SortFunc(w.list[before:], func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Mod, b.Mod), cmp.Compare(a.Loc.Offset, b.Loc.Offset))
	})
	return true
}

func (w *changeWalk) done() Changes { return Changes{List: w.list, Through: w.through} }

// since appends the versions of the current key within two revisions, in any
// order, and tells how many were looked at.
func (c *cursor) since(from, to ident.Revision, dst []history.Version) (_ []history.Version, seen int) {
	if c.list != nil {
		return c.list.since(c.node, from, to, dst)
	}
	dst = c.versions(dst)
	seen = len(dst)
	return slices.DeleteFunc(dst, func(v history.Version) bool { return v.Mod < from || v.Mod > to }), seen
}

// since appends the versions of a node within two revisions, newest first.
// Those beyond are not looked into: they may be half written.
func (s *skiplist) since(node uint32, from, to ident.Revision, dst []history.Version) (_ []history.Version, seen int) {
	for at := atomic.LoadUint32(s.word(node + nodeNewest)); at != 0; at = *s.word(at) {
		seen++
		mod := s.mod(at)
		if mod > to {
			continue
		}
		if mod < from {
			break
		}
		dst = append(dst, history.Version{})
		s.load(at, &dst[len(dst)-1])
	}
	return dst, seen
}

package watch

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// index finds who wants a key. Watchers of the same keys are one group, so that
// a thousand watchers of one prefix are found, and served, at once. Guarded by
// Hub.mu, but for what says otherwise.
type index struct {
	single map[string]*group
	spans  map[spanKey]*group

	// The spans as a balanced tree laid out in order of their keys: the middle
	// of a part is its root. Rebuilt when asked after a change.
	tree   []*group
	reach  [][]byte // Of each root: the highest end in its part; nil means no bound.
	stale  bool
	groups []*group // Found by match. Owned by who matches.
}

// spanKey is a span as the key of a map.
type spanKey struct {
	key, end string
	open     bool
}

// group is all watchers of the same keys in one index.
type group struct {
	span
	watchers []*watcher // Extended or replaced, never changed, so that who matched may keep it.

	// Owned by the pump or the catch-up, whichever feeds the index.
	round    uint64         // Of the catch-up, when it last met the group.
	wide     ident.Revision // Up to here the catch-up scans for it, and does not ask again.
	hits     []int32        // Events of the window that it wants.
	matched  []*watcher     // Those of the moment of the match.
	frames   [choices]*frame
	hasFrame [choices]bool
}

func newIndex() *index {
	return &index{single: make(map[string]*group), spans: make(map[spanKey]*group)}
}

func (sp *span) mapKey() spanKey {
	return spanKey{key: string(sp.key), end: string(sp.end), open: sp.end == nil}
}

// add puts a watcher into its group.
func (x *index) add(w *watcher, sp span) {
	var g *group
	if sp.single {
		if g = x.single[string(sp.key)]; g == nil {
			g = &group{span: sp}
			x.single[string(sp.key)] = g
		}
	} else {
		if g = x.spans[sp.mapKey()]; g == nil {
			g = &group{span: sp}
			x.spans[sp.mapKey()] = g
			x.stale = true
		}
	}
	g.watchers = append(g.watchers, w)
	w.group = g
}

// remove takes a watcher out of its group.
func (x *index) remove(w *watcher) {
	g := w.group
	i := slices.Index(g.watchers, w)
	if i < 0 {
		assert.Failf("watcher %d is not in its group of %d", w.id, len(g.watchers))
	}
	rest := make([]*watcher, 0, len(g.watchers)-1)
	g.watchers = append(append(rest, g.watchers[:i]...), g.watchers[i+1:]...)
	w.group = nil
	x.forgetEmpty(g)
}

// removeStream takes all watchers of a stream out of a group, at once: there may be
// thousands.
func (x *index) removeStream(g *group, s *Stream) {
	rest := make([]*watcher, 0, len(g.watchers))
	for _, w := range g.watchers {
		if w.stream == s {
			w.group = nil
		} else {
			rest = append(rest, w)
		}
	}
	g.watchers = rest
	x.forgetEmpty(g)
}

func (x *index) forgetEmpty(g *group) {
	if len(g.watchers) > 0 {
		return
	}
	if g.single {
		delete(x.single, string(g.key))
		return
	}
	delete(x.spans, g.mapKey())
	x.stale = true
}

// match notes in each group which events of a window it wants.
func (x *index) match(w *window) {
	x.groups = x.groups[:0]
	if x.stale {
		x.rebuild()
	}
	for i := range w.events {
		key := w.events[i].key
		if g := x.single[string(key)]; g != nil {
			x.hit(g, i)
		}
		x.stab(key, i, 0, len(x.tree))
	}
	for _, g := range x.groups {
		g.matched = g.watchers
	}
}

// take has one group want all of a window, which was read for it.
func (x *index) take(g *group, w *window) {
	x.groups = x.groups[:0]
	for i := range w.events {
		x.hit(g, i)
	}
}

func (x *index) hit(g *group, event int) {
	if len(g.hits) == 0 {
		x.groups = append(x.groups, g)
	}
	g.hits = append(g.hits, int32(event))
}

// stab finds the spans in a part of the tree that hold a key.
func (x *index) stab(key []byte, event, lo, hi int) {
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if reach := x.reach[mid]; reach != nil && bytes.Compare(reach, key) <= 0 {
			return
		}
		x.stab(key, event, lo, mid)
		g := x.tree[mid]
		if bytes.Compare(g.key, key) > 0 {
			return
		}
		if g.end == nil || bytes.Compare(key, g.end) < 0 {
			x.hit(g, event)
		}
		lo = mid + 1
	}
}

func (x *index) rebuild() {
	x.stale = false
	clear(x.tree)
	x.tree = x.tree[:0]
	for _, g := range x.spans { //tidy:ordered sorted below
		x.tree = append(x.tree, g)
	}
	slices.SortFunc(x.tree, func(a, b *group) int {
		return cmp.Or(bytes.Compare(a.key, b.key), bytes.Compare(a.end, b.end))
	})
	x.reach = make([][]byte, len(x.tree))
	x.measure(0, len(x.tree))
}

// measure fills in how far a part reaches, and returns it; ok is false for an
// empty part.
func (x *index) measure(lo, hi int) (reach []byte, ok bool) {
	if lo >= hi {
		return nil, false
	}
	mid := int(uint(lo+hi) >> 1)
	reach = x.tree[mid].end
	for _, part := range [2][2]int{{lo, mid}, {mid + 1, hi}} {
		other, ok := x.measure(part[0], part[1])
		if ok && reach != nil && (other == nil || bytes.Compare(other, reach) > 0) {
			reach = other
		}
	}
	x.reach[mid] = reach
	return reach, true
}

// forget ends a match.
func (x *index) forget() {
	for _, g := range x.groups {
		g.hits, g.matched = g.hits[:0], nil
		clear(g.frames[:])
		clear(g.hasFrame[:])
	}
	clear(x.groups)
}

package kubernetes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A change is what happened to an object, told by the store or by a watch.
type change struct {
	key      string // resource/namespace/name
	revision int64
	deleted  bool
	stamp    string // Of the write that did it. A deletion carries none.
	count    int    // Raised by guarded updates alone.
	version  int64  // Of the key, said by the store alone.
}

func (c change) String() string {
	return fmt.Sprintf("%s at %d (deleted %v, by %q)", c.key, c.revision, c.deleted, c.stamp)
}

// A write is what a client asked for, and what it was told.
type write struct {
	verb, key, stamp string
	base             int64 // The revision that an update is guarded by.
	revision         int64 // Of the answer. 0: it has none.
	refused          bool  // Answered, and not done.
}

// A view is what a read showed of the objects whose keys begin with its scope.
type view struct {
	what, scope string
	revision    int64 // Of a list. 0: of a single object, which does not tell.
	least       int64 // What was acknowledged before it was asked for. 0: it may be of any age.
	objects     map[string]int64
}

// A told is what one watch told without a break.
type told struct {
	what, scope string
	from, until int64 // It is silent about what is not in between.
	changes     []change
}

// observed is all that was seen during a load.
type observed struct {
	history []change // By the store itself: what all else is held against.
	writes  []write
	views   []view
	told    []told
}

// violations are the sentences that say what is not as it must be.
func (o *observed) violations() []string {
	all := o.gaps()
	all = append(all, o.wrongWrites()...)
	all = append(all, o.wrongViews()...)
	all = append(all, o.wrongWatches()...)
	return all
}

// gaps are where the history does not follow from itself.
func (o *observed) gaps() (all []string) {
	before := map[string]change{}
	last := int64(0)
	for _, c := range o.history {
		if c.revision <= last {
			all = append(all, fmt.Sprintf("the history has %v after revision %d", c, last))
		}
		last = c.revision
		was := before[c.key]
		if c.deleted && was.version == 0 {
			all = append(all, fmt.Sprintf("the history has %v of what was not there", c))
		}
		if !c.deleted && c.version != was.version+1 {
			all = append(all, fmt.Sprintf("the history has %v as version %d after version %d", c, c.version, was.version))
		}
		before[c.key] = c // Version 0 when it is deleted.
	}
	return all
}

// wrongWrites are those that were lost, done twice, done though refused, or done
// in spite of their guard; and what nobody asked for.
func (o *observed) wrongWrites() (all []string) {
	byStamp := map[string]write{}
	deletions := map[string]map[int64]bool{} // Acknowledged, by key and revision.
	doubtful := map[string]int{}             // Deletions without an answer.
	for _, w := range o.writes {
		switch {
		case w.verb != "delete":
			byStamp[w.stamp] = w
		case w.revision != 0:
			if deletions[w.key] == nil {
				deletions[w.key] = map[int64]bool{}
			}
			deletions[w.key][w.revision] = true
		case !w.refused:
			doubtful[w.key]++
		}
	}
	before := map[string]change{}
	for _, c := range o.history {
		was := before[c.key]
		before[c.key] = c
		if c.deleted {
			if deletions[c.key][c.revision] {
				delete(deletions[c.key], c.revision)
			} else if doubtful[c.key]--; doubtful[c.key] < 0 {
				all = append(all, fmt.Sprintf("nobody asked for %v", c))
			}
			continue
		}
		w, ok := byStamp[c.stamp]
		delete(byStamp, c.stamp)
		if why := w.wrong(was, c); !ok {
			all = append(all, fmt.Sprintf("nobody asked for %v, or it was done before", c))
		} else if why != "" {
			all = append(all, fmt.Sprintf("%s %+v did %v after %v: %s", w.verb, w, c, was, why))
		}
	}
	for _, stamp := range slices.Sorted(maps.Keys(byStamp)) {
		if w := byStamp[stamp]; w.revision != 0 {
			all = append(all, fmt.Sprintf("%s %s at %d was acknowledged and is lost", w.verb, w.key, w.revision))
		}
	}
	for key, at := range deletions {
		for revision := range at {
			all = append(all, fmt.Sprintf("delete %s at %d was acknowledged and is lost", key, revision))
		}
	}
	return all
}

// wrong says what is wrong with what a write did.
func (w write) wrong(was, now change) string {
	exists := was.version != 0
	switch {
	case w.key != now.key:
		return "another object"
	case w.refused:
		return "it was refused"
	case w.revision != 0 && w.revision != now.revision:
		return "acknowledged at another revision"
	case exists == (w.verb == "create"):
		return "against its condition"
	case w.verb == "update" && (was.revision != w.base || now.count != was.count+1):
		return "an update was lost in between"
	case w.verb == "patch" && now.count != was.count:
		return "it changed more than it said"
	}
	return ""
}

// wrongViews are reads that show what never was, or what was no longer.
func (o *observed) wrongViews() (all []string) {
	views := slices.SortedFunc(slices.Values(o.views), func(a, b view) int { return cmp.Compare(a.revision, b.revision) })
	state := map[string]int64{}
	next := 0
	for _, v := range views {
		if v.revision == 0 {
			if !o.everShown(v) {
				all = append(all, fmt.Sprintf("%s of %s, asked for at %d, shows %v", v.what, v.scope, v.least, v.objects))
			}
			continue
		}
		for ; next < len(o.history) && o.history[next].revision <= v.revision; next++ {
			if c := o.history[next]; c.deleted {
				delete(state, c.key)
			} else {
				state[c.key] = c.revision
			}
		}
		if v.revision < v.least {
			all = append(all, fmt.Sprintf("%s of %s at %d is older than %d, which was acknowledged before", v.what, v.scope, v.revision, v.least))
		}
		want := maps.Clone(state)
		maps.DeleteFunc(want, func(key string, _ int64) bool { return !strings.HasPrefix(key, v.scope) })
		if !maps.Equal(want, v.objects) {
			all = append(all, fmt.Sprintf("%s of %s at %d shows %v, there is %v", v.what, v.scope, v.revision, v.objects, want))
		}
	}
	return all
}

// everShown tells whether a read of one object could have shown this at any time
// after what was acknowledged before it.
func (o *observed) everShown(v view) bool {
	current := int64(0) // Of the object; 0 when it is not there.
	for _, c := range o.history {
		if c.key != v.scope {
			continue
		}
		if c.revision > v.least && current == v.objects[v.scope] {
			return true
		}
		if current = c.revision; c.deleted {
			current = 0
		}
	}
	return current == v.objects[v.scope]
}

// wrongWatches are those that left out, repeated, invented or shuffled.
func (o *observed) wrongWatches() (all []string) {
	for _, w := range o.told {
		var want []change
		for _, c := range o.history {
			if c.revision > w.from && c.revision <= w.until && strings.HasPrefix(c.key, w.scope) {
				want = append(want, c)
			}
		}
		for i := range max(len(want), len(w.changes)) {
			if i >= len(want) || i >= len(w.changes) || !same(want[i], w.changes[i]) {
				all = append(all, fmt.Sprintf("%s of %s from %d to %d differs at change %d: told %v, there is %v",
					w.what, w.scope, w.from, w.until, i, beginning(w.changes, i), beginning(want, i)))
				break
			}
		}
	}
	return all
}

func same(a, b change) bool {
	return a.key == b.key && a.revision == b.revision && a.deleted == b.deleted && (a.deleted || a.stamp == b.stamp)
}

// beginning is the beginning of what is left, which is enough to see.
func beginning(all []change, from int) []change {
	return all[min(from, len(all)):min(from+3, len(all))]
}

// Each sentence of the check is true of a load in which just that is wrong.
func TestTheCheckOfALoadSeesWhatIsWrong(t *testing.T) {
	load := func() *observed {
		return &observed{
			history: []change{
				{key: "pods/a/x", revision: 2, stamp: "1", count: 1, version: 1},
				{key: "pods/a/x", revision: 3, stamp: "2", count: 2, version: 2},
				{key: "pods/a/y", revision: 4, stamp: "3", count: 1, version: 1},
				{key: "pods/a/x", revision: 6, deleted: true},
			},
			writes: []write{
				{verb: "create", key: "pods/a/x", stamp: "1", revision: 2}, {verb: "update", key: "pods/a/x", stamp: "2", base: 2, revision: 3},
				{verb: "create", key: "pods/a/y", stamp: "3"}, {verb: "delete", key: "pods/a/x", revision: 6},
				{verb: "create", key: "pods/a/y", stamp: "4", refused: true}, {verb: "delete", key: "pods/a/y"},
			},
			views: []view{
				{what: "list", scope: "pods/", revision: 5, least: 4, objects: map[string]int64{"pods/a/x": 3, "pods/a/y": 4}},
				{what: "get", scope: "pods/a/x", least: 5, objects: map[string]int64{"pods/a/x": 3}},
				{what: "get", scope: "pods/a/x", least: 6, objects: map[string]int64{}},
			},
			told: []told{{what: "watch", scope: "pods/a/x", from: 2, until: 6, changes: []change{
				{key: "pods/a/x", revision: 3, stamp: "2"}, {key: "pods/a/x", revision: 6, deleted: true},
			}}},
		}
	}
	for name, c := range map[string]struct {
		break_ func(*observed)
		want   string // Empty: nothing is wrong.
	}{
		"all is well":                 {func(*observed) {}, ""},
		"an acknowledged write":       {func(o *observed) { o.writes[2].revision = 4; o.history = slices.Delete(o.history, 2, 3) }, "create pods/a/y at 4 was acknowledged and is lost"},
		"an acknowledged deletion":    {func(o *observed) { o.history = o.history[:3] }, "delete pods/a/x at 6 was acknowledged and is lost"},
		"another revision":            {func(o *observed) { o.writes[1].revision = 4 }, "acknowledged at another revision"},
		"a refused write":             {func(o *observed) { o.writes[1].refused = true }, "it was refused"},
		"a guard":                     {func(o *observed) { o.writes[1].base = 1 }, "an update was lost in between"},
		"a write that is done twice":  {func(o *observed) { o.history[2].stamp = "2" }, "or it was done before"},
		"a deletion of its own":       {func(o *observed) { o.writes[3].refused, o.writes[3].revision = true, 0 }, "nobody asked for pods/a/x at 6"},
		"a history with a gap":        {func(o *observed) { o.history[1].version = 3 }, "as version 3 after version 1"},
		"a history that turns":        {func(o *observed) { o.history[2].revision = 3 }, "after revision 3"},
		"a stale list":                {func(o *observed) { o.views[0].least = 6 }, "is older than 6"},
		"a list of two moments":       {func(o *observed) { o.views[0].objects["pods/a/x"] = 2 }, "list of pods/ at 5 shows"},
		"a stale object":              {func(o *observed) { o.views[1].least = 6 }, "get of pods/a/x, asked for at 6"},
		"an object that is not found": {func(o *observed) { o.views[1].objects = map[string]int64{}; o.history = o.history[:3] }, "get of pods/a/x, asked for at 5"},
		"a watch that leaves out":     {func(o *observed) { o.told[0].changes = o.told[0].changes[1:] }, "differs at change 0"},
		"a watch that repeats":        {func(o *observed) { o.told[0].changes = append(o.told[0].changes, o.told[0].changes[1]) }, "differs at change 2"},
		"a watch that lies":           {func(o *observed) { o.told[0].changes[0].stamp = "1" }, "differs at change 0"},
	} {
		o := load()
		c.break_(o)
		got := strings.Join(o.violations(), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q is not in %q", name, c.want, got)
		}
	}
}

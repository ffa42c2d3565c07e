package archive

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

func drill(t *testing.T, a *Archive) (*Drill, error) {
	t.Helper()
	return a.Drill(t.Context(), DrillConfig{FS: vfs.OS(), Scratch: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), By: "test"})
}

func TestADrillRestoresTheNewestPointAndWritesDownWhatCameOfIt(t *testing.T) {
	c, store := newCluster(t, 12), newMemStore()
	c.run(50)
	a := c.archived(store, c.config(store, &alarms{}), 2, 20)
	d, err := drill(t, a)
	if err != nil || !d.OK || d.Keys == 0 || int64(d.Sampled) != d.Keys {
		t.Fatalf("%+v: %v", d, err)
	}
	segment := a.path(d.Base) // Some object that it needs.
	for _, name := range store.names() {
		if strings.HasPrefix(name, segment) && strings.Contains(name, partPrefix) {
			store.objects[name][200] ^= 1
		}
	}
	bad, err := drill(t, a)
	if !errors.Is(err, ErrDamaged) || bad.OK || bad.Error == "" {
		t.Errorf("%+v: %v", bad, err)
	}
	cat, err := a.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := a.Drills(t.Context(), cat)
	if err != nil || len(list) != 2 || !list[0].OK || list[1].OK || list[0].To.Digest == (Digest{}) {
		t.Errorf("%+v: %v", list, err)
	}
}

// pruned is an archive of three bases with a log, the first pieces of a base
// that was given up, and a drill.
func pruned(t *testing.T, verified int) (*memStore, *Archive, PruneFacts) {
	t.Helper()
	store := newMemStore()
	a := &Archive{store: store, cluster: testUUID}
	put := func(words string) { store.objects[a.path(nameOf(t, strings.Fields(words)))] = []byte("x") }
	for _, words := range []string{"part 10", "base 10", "log 11 15", "log 16 25", "part 15", "part 20", "base 20", "log 26 30", "part 30", "base 30", "log 31 40", "part 40"} {
		put(words)
	}
	c, err := a.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := PruneFacts{Catalogue: c, Now: time.Unix(1000, 0), BaseTimes: map[string]time.Time{}}
	for _, b := range c.Latest().Bases {
		f.BaseTimes[b.Name] = time.Unix(int64(b.Index), 0)
		if b.Index == ident.Index(verified) {
			f.Verified = b.Name
		}
	}
	return store, a, f
}

func TestOnlyWhatNoPromiseNeedsIsPruned(t *testing.T) {
	for _, c := range []struct {
		verified int
		r        Retention
		keep     ident.Index
		objects  int
	}{
		{30, Retention{Window: 975 * time.Second}, 20, 4}, // 25 s is between the second base and the third.
		{30, Retention{Window: 970 * time.Second}, 30, 8},
		{30, Retention{Window: 971 * time.Second}, 20, 4},
		{30, Retention{Window: time.Second}, 30, 8},
		{30, Retention{Window: time.Second, Bases: 2}, 20, 4},
		{30, Retention{Window: time.Second, Bases: 9}, 10, 1},
		{20, Retention{Window: time.Second}, 20, 4}, // The last good drill stands on it.
		{0, Retention{Window: time.Second}, 10, 1},  // Nothing was ever verified.
		{30, Retention{Window: time.Hour}, 10, 1},
	} {
		_, _, f := pruned(t, c.verified)
		p := PlanPrune(f, c.r)
		if p.Keep.Index != c.keep || len(p.Objects) != c.objects {
			t.Errorf("%+v keeps base %d (%s), %d objects go: %q", c, p.Keep.Index, p.Why, len(p.Objects), p.Objects)
		}
		for _, name := range p.Objects {
			l := locate(name)
			if l.kind == ofSegment && l.segment.Last > c.keep || l.kind == ofManifest && l.base.Index >= c.keep || l.kind == ofPart && l.base.Index >= c.keep && l.base.Index != 15 || l.kind == ofPart && l.base.Index == 40 {
				t.Errorf("%+v: %s goes", c, name)
			}
		}
	}
	if p := PlanPrune(PruneFacts{Catalogue: &Catalogue{}}, Retention{}); p.Keep != nil || len(p.Objects) != 0 || p.Why == "" {
		t.Errorf("an empty archive: %+v", p)
	}
}

func TestPruningHasTwoPhasesAndRunsTwice(t *testing.T) {
	store, a, f := pruned(t, 30)
	r := Retention{Window: time.Second, Grace: time.Hour}
	plan := PlanPrune(f, r)
	before := store.names()
	prune := func(at time.Time, want int) {
		t.Helper()
		var err error
		if f.Catalogue, err = a.Catalogue(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Now = at
		if n, err := a.Prune(t.Context(), f, r); err != nil || n != want {
			t.Fatalf("%d objects removed, want %d: %v", n, want, err)
		}
	}
	prune(f.Now, 0)
	prune(f.Now.Add(time.Minute), 0)
	if after := store.names(); len(after) != len(before)+1 {
		t.Errorf("the first phase left %q", after)
	}
	failing := errors.New("cut")
	store.before = func(verb, name string) error {
		if verb == "delete" && strings.Contains(name, partPrefix) {
			return failing
		}
		return nil
	}
	f.Now = f.Now.Add(2 * time.Hour)
	if _, err := a.Prune(t.Context(), f, r); err == nil {
		f.Catalogue, _ = a.Catalogue(t.Context())
		_, err = a.Prune(t.Context(), f, r)
		if !errors.Is(err, failing) {
			t.Fatal(err)
		}
	}
	store.before = nil
	f.Catalogue, _ = a.Catalogue(t.Context())
	left := len(PlanPrune(f, r).Objects)
	prune(f.Now, left)
	prune(f.Now, 0)
	for _, name := range store.names() {
		if slices.Contains(plan.Objects, strings.TrimPrefix(name, a.path(""))) || strings.Contains(name, trashFolder) {
			t.Errorf("%s is left", name)
		}
	}
	if len(store.names()) != len(before)-len(plan.Objects) {
		t.Errorf("%d objects are left of %d, %d were to go", len(store.names()), len(before), len(plan.Objects))
	}
}

func TestCostAddsUp(t *testing.T) {
	_, _, f := pruned(t, 0) // What is kept is told as if the newest base were verified.
	latest := f.Catalogue.Latest()
	for i, b := range latest.Bases {
		b.Modified = time.Unix(0, 0).Add(time.Duration(i) * 24 * time.Hour)
	}
	for i := range latest.Log {
		latest.Log[i].Modified = time.Unix(3600, 0)
	}
	c := CostOf(f, []Retention{{Window: time.Second}, {Window: 975 * time.Second}, {Window: time.Hour}})
	sum := Sizes{}
	for _, k := range c.Kinds {
		sum.plus(k.Sizes)
	}
	if sum != c.Total || c.Total.Objects != 12 {
		t.Errorf("%+v of %+v", sum, c.Total)
	}
	if c.Kinds[0].Objects != 6 || c.Kinds[1].Objects != 4 || c.Kinds[2].Objects != 2 || c.Kinds[3].Objects != 0 {
		t.Errorf("%+v", c.Kinds)
	}
	if len(c.Days) != len(latest.Bases) || c.Days[0].Day != "1970-01-01" || c.Days[0].Log.Objects != 4 || c.Days[1].Log.Objects != 0 || c.Days[1].Bases.Objects != 1 {
		t.Errorf("%+v", c.Days)
	}
	for i, want := range []KeptCost{{Base: 30, Goes: Sizes{8, 8}}, {Base: 20, Goes: Sizes{4, 4}}, {Base: 10, Goes: Sizes{1, 1}}} {
		if k := c.Kept[i]; k.Base != want.Base || k.Goes != want.Goes || k.Stays.Objects != 12-want.Goes.Objects || k.Stays.Bytes != 12-want.Goes.Bytes {
			t.Errorf("%+v, want %+v", k, want)
		}
	}
	stray := &Catalogue{objects: map[string]int64{timelinePath(4) + "notes": 3}}
	if c := CostOf(PruneFacts{Catalogue: stray}, nil); c.Kinds[4].Bytes != 3 {
		t.Errorf("what is of no archive: %+v", c)
	}
	if c := CostOf(PruneFacts{Catalogue: &Catalogue{}}, []Retention{{}}); c.Total.Objects != 0 || len(c.Kept) != 0 {
		t.Errorf("an empty archive: %+v", c)
	}
}

package archive

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Cost is what an archive takes up.
type Cost struct {
	Cluster UUID       `json:"cluster"`
	Kinds   []KindCost `json:"kinds"`
	Days    []DayCost  `json:"days"` // Of the newest timeline, by when objects were written, as the store says.
	Kept    []KeptCost `json:"kept"`
	Total   Sizes      `json:"total"`
}

// KindCost is what objects of a kind take up.
type KindCost struct {
	Kind string `json:"kind"`
	Sizes
}

// DayCost is what was written on a day (UTC).
type DayCost struct {
	Day   string `json:"day"`
	Bases Sizes  `json:"bases"`
	Log   Sizes  `json:"log"`
}

// KeptCost is what a retention would leave of what is there.
type KeptCost struct {
	Window time.Duration `json:"-"`
	Keep   string        `json:"keep"` // The window.
	Base   ident.Index   `json:"base"` // The oldest that stays.
	Why    string        `json:"why"`
	Stays  Sizes         `json:"stays"`
	Goes   Sizes         `json:"goes"`
}

// Kinds of cost, in the order in which they are shown.
var costKinds = []string{"bases", "log", "unfinished bases", "earlier timelines", "the rest"}

// CostOf adds up what a catalogue says, and what each retention would keep once
// the newest base was verified: before that nothing is removed at all.
func CostOf(f PruneFacts, kept []Retention) Cost {
	c := Cost{Cluster: f.Catalogue.Cluster}
	c.Total.Objects, c.Total.Bytes = f.Catalogue.Total()
	sizes := make(map[string]*Sizes)
	for _, kind := range costKinds {
		sizes[kind] = &Sizes{}
	}
	latest := f.Catalogue.Latest()
	for name, bytes := range f.Catalogue.objects { //tidy:ordered sums
		sizes[costKind(f.Catalogue, latest, name)].plus(Sizes{1, bytes})
	}
	for _, kind := range costKinds {
		c.Kinds = append(c.Kinds, KindCost{kind, *sizes[kind]})
	}
	if latest == nil {
		return c
	}
	c.Days = latest.days()
	for _, b := range latest.Bases {
		if b.Complete {
			f.Verified = b.Name
		}
	}
	for _, r := range kept {
		p := PlanPrune(f, r)
		k := KeptCost{Window: r.Window, Keep: r.Window.String(), Why: p.Why, Goes: Sizes{len(p.Objects), p.Bytes}}
		if k.Stays = (Sizes{c.Total.Objects - k.Goes.Objects, c.Total.Bytes - k.Goes.Bytes}); p.Keep != nil {
			k.Base = p.Keep.Index
		}
		c.Kept = append(c.Kept, k)
	}
	return c
}

func (s *Sizes) plus(o Sizes) { s.Objects, s.Bytes = s.Objects+o.Objects, s.Bytes+o.Bytes }

func costKind(c *Catalogue, latest *Timeline, name string) string {
	l := locate(name)
	switch {
	case l.kind == foreign || l.timeline == 0:
		return "the rest"
	case l.timeline != latest.Number:
		return "earlier timelines"
	case l.kind == ofSegment:
		return "log"
	case l.kind == ofManifest:
		return "bases"
	case l.kind == ofPart:
		if _, complete := c.objects[strings.TrimSuffix(name, l.rest)+manifestName]; complete {
			return "bases"
		}
		return "unfinished bases"
	}
	return "the rest"
}

// days adds up what was written on each day, oldest first.
func (t *Timeline) days() []DayCost {
	days := make(map[string]*DayCost)
	on := func(at time.Time) *DayCost {
		day := at.UTC().Format(time.DateOnly)
		if days[day] == nil {
			days[day] = &DayCost{Day: day}
		}
		return days[day]
	}
	for _, b := range t.Bases {
		on(b.Modified).Bases.plus(b.Sizes)
	}
	for _, s := range t.Log {
		on(s.Modified).Log.plus(Sizes{1, s.Bytes})
	}
	list := make([]DayCost, 0, len(days))
	for _, d := range days { //tidy:ordered sorted below
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b DayCost) int { return cmp.Compare(a.Day, b.Day) })
	return list
}

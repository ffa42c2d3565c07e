package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Retention is what an archive promises to keep.
type Retention struct {
	Window time.Duration // Every position of so long can be restored.
	Bases  int           // At least so many, the newest; never less than one.
	Grace  time.Duration // Between the two phases: an object listed for removal goes that much later.
}

// PruneFacts are what a plan of removal follows from.
type PruneFacts struct {
	Catalogue *Catalogue
	Now       time.Time
	BaseTimes map[string]time.Time // Of the state in each complete base, by its name.
	Verified  string               // The base of the last good drill; empty: there was none.
}

// Prune is a plan of removal.
type Prune struct {
	Keep    *Base // The oldest that is kept. Nil: nothing goes.
	Why     string
	Objects []string // What goes, manifests before what they name.
	Bytes   int64
}

// PlanPrune decides what is not needed for what is promised, on the newest
// timeline; others are left as they are. It never touches the base of the last
// good drill, or anything after the oldest base that is kept.
func PlanPrune(f PruneFacts, r Retention) Prune {
	t := f.Catalogue.Latest()
	if t == nil {
		return Prune{Why: "the archive is empty"}
	}
	var complete []*Base
	for _, b := range t.Bases {
		if b.Complete {
			complete = append(complete, b)
		}
	}
	if len(complete) == 0 {
		return Prune{Why: "there is no complete base"}
	}
	keep, why := oldestKept(complete, f, r)
	p := Prune{Keep: complete[keep], Why: why}
	for _, b := range t.Bases {
		older := b.Index < complete[keep].Index
		if b.Complete && older {
			p.add(f.Catalogue, b.Name+manifestName)
		}
		if older || !b.Complete && b.Index < complete[len(complete)-1].Index { // Pieces of a try that was given up.
			p.addFolder(f.Catalogue, b.Name)
		}
	}
	for _, s := range t.Log {
		if s.Last <= complete[keep].Index {
			p.add(f.Catalogue, s.Name)
		}
	}
	return p
}

// oldestKept decides which of the complete bases is the oldest that is needed.
func oldestKept(complete []*Base, f PruneFacts, r Retention) (keep int, why string) {
	keep = max(len(complete)-max(r.Bases, 1), 0)
	why = fmt.Sprintf("the newest %d bases are kept", max(r.Bases, 1))
	begin := f.Now.Add(-r.Window)
	window := 0
	for i, b := range complete {
		if at, known := f.BaseTimes[b.Name]; known && !at.After(begin) {
			window = i
		}
	}
	if window < keep {
		keep, why = window, fmt.Sprintf("the window begins at %s", begin.UTC().Format(time.RFC3339))
	}
	verified := slices.IndexFunc(complete, func(b *Base) bool { return b.Name == f.Verified })
	switch {
	case verified < 0:
		keep, why = 0, "no base that is there was verified by a drill: archive verify comes first"
	case verified < keep:
		keep, why = verified, "the last good drill used it"
	}
	return keep, why
}

func (p *Prune) add(c *Catalogue, name string) {
	p.Objects = append(p.Objects, name)
	p.Bytes += c.objects[name]
}

func (p *Prune) addFolder(c *Catalogue, folder string) {
	var names []string
	for name := range c.objects { //tidy:ordered sorted below
		if strings.HasPrefix(name, folder) && !strings.HasSuffix(name, "/"+manifestName) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		p.add(c, name)
	}
}

// PruneFacts reads what PlanPrune wants to know.
func (a *Archive) PruneFacts(ctx context.Context, now time.Time) (PruneFacts, error) {
	c, err := a.Catalogue(ctx)
	if err != nil {
		return PruneFacts{}, err
	}
	f := PruneFacts{Catalogue: c, Now: now, BaseTimes: make(map[string]time.Time)}
	t := c.Latest()
	if t == nil {
		return f, nil
	}
	for _, b := range t.Bases {
		if !b.Complete {
			continue
		}
		m, err := a.Manifest(ctx, t.Number, b)
		if err != nil {
			return f, err
		}
		f.BaseTimes[b.Name] = m.At.Wall()
	}
	drills, err := a.Drills(ctx, c)
	for _, d := range drills {
		if d.OK && d.Timeline == t.Number {
			f.Verified = d.Base
		}
	}
	return f, err
}

// trashList is trash/<time>/LIST.json: what is to go once the grace is over.
type trashList struct {
	Format  int      `json:"format"`
	Listed  string   `json:"listed"`
	Objects []string `json:"objects"`
}

const trashListName = "LIST.json"

// Prune is the second half of a plan: what it names is listed under trash/, and
// goes with a later Prune, if its own plan still names it. To keep what is listed,
// remove the list. It tells how many objects are gone. Safe to run again.
func (a *Archive) Prune(ctx context.Context, f PruneFacts, r Retention) (removed int, err error) {
	plan := PlanPrune(f, r)
	t, err := a.trash(ctx, f.Catalogue, f.Now.Add(-r.Grace))
	if err != nil {
		return 0, err
	}
	var gone, fresh []string
	for _, name := range plan.Objects { // In the order of the plan: manifests first.
		if due, listed := t.objects[name]; due {
			gone = append(gone, name)
		} else if !listed {
			fresh = append(fresh, name)
		}
	}
	for i, name := range append(gone, t.spent...) { // What the spent lists name is gone then, or needed again.
		if err := a.store.Delete(ctx, a.path(name)); err != nil {
			return min(i, len(gone)), fmt.Errorf("remove object %s: %w", name, err)
		}
	}
	if len(fresh) == 0 {
		return len(gone), nil
	}
	now := f.Now.UTC()
	text, err := encodeText(trashList{FormatVersion, now.Format(time.RFC3339), fresh})
	if err == nil {
		_, err = a.store.Put(ctx, a.path(trashFolder+now.Format(drillTime)+"/"+trashListName), text, blobstore.Condition{Absent: true})
	}
	return len(gone), err
}

// listedTrash is what the lists under trash/ say together.
type listedTrash struct {
	objects map[string]bool // True: the grace is over.
	spent   []string        // Lists whose grace is over.
}

// trash reads the lists. Those from before a time are ripe.
func (a *Archive) trash(ctx context.Context, c *Catalogue, before time.Time) (listedTrash, error) {
	t := listedTrash{objects: make(map[string]bool)}
	for name := range c.objects { //tidy:ordered sets
		if locate(name).kind != ofTrash || !strings.HasSuffix(name, "/"+trashListName) {
			continue
		}
		objects, ripe, err := a.trashList(ctx, name, before)
		if err != nil {
			return t, err
		}
		for _, o := range objects {
			t.objects[o] = t.objects[o] || ripe
		}
		if ripe {
			t.spent = append(t.spent, name)
		}
	}
	return t, nil
}

// trashList reads one, and tells whether it was made before a time.
func (a *Archive) trashList(ctx context.Context, name string, before time.Time) ([]string, bool, error) {
	data, _, err := a.store.Get(ctx, a.path(name))
	if errors.Is(err, blobstore.ErrNotFound) {
		return nil, false, nil // Another prune has finished it.
	}
	if err != nil {
		return nil, false, fmt.Errorf("object %s: %w", name, err)
	}
	list := trashList{}
	if err := decodeText(name, data, &list); err != nil {
		return nil, false, err
	}
	at, err := time.Parse(time.RFC3339, list.Listed)
	if err != nil {
		return nil, false, damagef(name, 0, "it was listed at %q", list.Listed)
	}
	return list.Objects, !at.After(before), nil
}

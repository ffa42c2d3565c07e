package watch

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// narrow is a catch-up by way of the key indexes: what happened to the keys of
// one group, and where the values lie. It is kept from turn to turn until all
// of it was read, and found again when another group had its turn meanwhile.
type narrow struct {
	group *group
	mvcc.Changes
	next ident.Revision // List has what comes from here on.
}

func (n *narrow) forget() { *n = narrow{} }

// turnNarrow has one group catch up through the key indexes, if that is the
// cheaper way. done tells that the turn was used, for this or because what was
// wanted is compacted.
func (c *catchUp) turnNarrow(ctx context.Context, store *mvcc.Store, first *watcher, from ident.Revision) (done bool, err error) {
	v := store.View()
	defer v.Release()
	if from < v.Compacted() {
		return true, nil // The next turn tells them.
	}
	c.hub.mu.Lock()
	g := first.group
	c.hub.mu.Unlock()
	if g == nil {
		return true, nil // Ended meanwhile.
	}
	if (c.narrow.group != g || c.narrow.next != from) && !c.look(store, v, g, from) {
		return false, nil
	}
	if err := c.readNarrow(store, v); err != nil {
		return true, fmt.Errorf("watch from revision %d: %w", from, err)
	}
	through := c.narrow.next - 1
	err = c.feed(ctx, store, g, from, through)
	if len(c.narrow.List) == 0 {
		c.narrow.forget()
	}
	return true, err
}

// look asks the indexes, and reports whether what they know is the cheaper way.
func (c *catchUp) look(store *mvcc.Store, v *mvcc.View, g *group, from ident.Revision) bool {
	c.narrow.forget()
	scan := scanBytes(store, from) * c.hub.cfg.scanCost
	if from <= g.wide || scan <= windowBytesMax {
		return false
	}
	budget := scan / int64(c.spans) // One scan would serve all.
	end := g.end
	if end == nil && !g.single {
		end = []byte{0}
	}
	changes, ok := v.Changes(&mvcc.ChangesArgs{
		Key: g.key, End: end, From: from, Enough: windowRevisionsMax,
		Max: int(min(budget/changeCostBytes, changesMax)), VisitsMax: int(budget / visitCostBytes),
	})
	if !ok || costOf(changes.List) > budget {
		if from > v.Merged() {
			g.wide = from + (v.Revision()-from)/2
		}
		return false
	}
	c.narrow = narrow{group: g, Changes: changes, next: from}
	return true
}

// scanBytes is about how much history there is from a revision on.
func scanBytes(store *mvcc.Store, from ident.Revision) (n int64) {
	for _, s := range store.History().Segments() {
		switch {
		case s.LastRevision < from:
		case s.FirstRevision >= from:
			n += s.Bytes
		default:
			n += int64(float64(s.Bytes) * float64(s.LastRevision+1-from) / float64(s.LastRevision+1-s.FirstRevision))
		}
	}
	return n
}

// costOf is what it takes to read changes, in bytes of history scanned.
func costOf(list []mvcc.Change) (cost int64) {
	for len(list) > 0 {
		n := sameRevision(list)
		cost += int64(n) * changeCostBytes
		if unordered(list[:n]) {
			cost += orderCostBytes
		}
		list = list[n:]
	}
	return cost
}

// sameRevision is how many changes at the beginning of a list are one revision.
func sameRevision(list []mvcc.Change) int {
	n := 1
	for n < len(list) && list[n].Mod == list[0].Mod {
		n++
	}
	return n
}

// unordered tells whether only history knows how the changes of a revision
// follow each other: a deletion has no place in the indexes.
func unordered(revision []mvcc.Change) bool {
	for i := range revision {
		if revision[i].Tombstone && len(revision) > 1 {
			return true
		}
	}
	return false
}

// readNarrow fills the window with the next revisions that the indexes told of.
func (c *catchUp) readNarrow(store *mvcc.Store, v *mvcc.View) error {
	w, n := &c.window, &c.narrow
	w.reset()
	for revisions := 0; len(n.List) > 0 && revisions < windowRevisionsMax && w.bytes < windowBytesMax; revisions++ {
		size := sameRevision(n.List)
		if err := c.readRevision(store, v, n.List[:size]); err != nil {
			return err
		}
		n.List = n.List[size:]
	}
	n.next = n.Through + 1
	if len(n.List) > 0 {
		n.next = n.List[0].Mod
	}
	return nil
}

// readRevision adds one revision to the window, whole (I-8).
func (c *catchUp) readRevision(store *mvcc.Store, v *mvcc.View, changes []mvcc.Change) error {
	w := &c.window
	if w.first == 0 {
		w.first = changes[0].Mod
	}
	w.last = changes[0].Mod
	if unordered(changes) {
		return c.readOrdered(store, changes)
	}
	for i := range changes {
		change := &changes[i]
		e := event{revision: change.Mod, key: change.Key, created: change.Create == change.Mod}
		if change.Tombstone {
			e.kind, e.kv = mvccpb.Event_DELETE, tombstone(change.Key, change.Mod)
		} else {
			kv, err := v.Value(change)
			if err != nil {
				return err
			}
			e.kv = kv
			c.hub.looked.Add(int64(len(kv)))
		}
		w.bytes += len(e.kv)
		w.events = append(w.events, e)
	}
	return nil
}

// readOrdered takes the changes of a revision from its record.
func (c *catchUp) readOrdered(store *mvcc.Store, changes []mvcc.Change) error {
	revision := changes[0].Mod
	r, err := store.Events(revision)
	if err != nil {
		return err
	}
	defer r.Close()
	rec, err := r.Next()
	c.hub.scanned.Add(r.Scanned())
	if err != nil {
		return err
	}
	for i := range rec.Groups {
		if g := &rec.Groups[i]; g.Revision == revision {
			return c.window.addOnly(g, changes)
		}
	}
	return fmt.Errorf("revision %d is not in entry %d, where the key index has it: %w", revision, rec.Index, errGap)
}

// addOnly adds those changes of a group that a list names.
func (w *window) addOnly(g *history.Group, changes []mvcc.Change) error {
	wanted := make(map[string]bool, len(changes))
	for i := range changes {
		wanted[string(changes[i].Key)] = true
	}
	only := *g
	only.Mutations = make([]history.Mutation, 0, len(changes))
	for i := range g.Mutations {
		if m := &g.Mutations[i]; (m.Kind == history.KeyPut || m.Kind == history.KeyDelete) && wanted[string(m.Key)] {
			only.Mutations = append(only.Mutations, *m)
		}
	}
	return w.add(&only)
}

// pace has the catch-up rest as long as it worked, once it worked for a while.
type pace struct {
	spent time.Duration // Work that no rest has made up for.
	ended time.Duration // When it worked last.
}

// rest tells how long to rest after a turn.
func (p *pace) rest(began, now time.Duration) time.Duration {
	p.spent = max(0, p.spent-(began-p.ended)) + now - began
	p.ended = now
	return max(0, p.spent-catchUpBurst)
}

package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// The keys of the layer lie between these. What else lies there is passed over.
const (
	keysFirst  = "/holdfast/"
	keysEnd    = "/registry0" // After all that begins with /registry/.
	plainKeys  = "/holdfast/"
	objectKeys = "/registry/"
)

// follow fills the cache and keeps it so until ctx ends.
func (s *Service) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		revision, err := s.fill(ctx)
		if err == nil {
			err = s.watchStore(ctx, revision)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn("the store's keys are read anew", "error", err)
		select {
		case <-s.clock.After(relistDelay):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// fill reads all keys as of one revision. Watches of before do not know what
// happened meanwhile: they expire.
func (s *Service) fill(ctx context.Context) (int64, error) {
	var all []*mvccpb.KeyValue
	get := client.Get{Range: client.Between(keysFirst, keysEnd), Limit: listPageKeys}
	for {
		r, err := s.store.Get(ctx, get)
		if err != nil {
			return 0, fmt.Errorf("list: %w", err)
		}
		if get.Revision == 0 {
			get.Revision = r.Header.Revision
		}
		all = append(all, r.Kvs...)
		if !r.More || len(r.Kvs) == 0 {
			break
		}
		get.Key = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	s.makings.forget() // Of what is listed, no event tells.
	entries := make([]*entry, len(all))
	for i, kv := range all {
		entries[i] = s.entryOf(kv)
	}
	s.cache.replace(all, entries, get.Revision)
	return get.Revision, nil
}

// entryOf is nil for a key that is no object. One that cannot be read is left out,
// so that one bad value does not stop a cluster; whoever asks for it is told.
func (s *Service) entryOf(kv *mvccpb.KeyValue) *entry {
	k := kindOfKey(string(kv.Key))
	if k == nil {
		return nil
	}
	o := s.makings.take(string(kv.Key), kv.Value)
	if o != nil {
		o.SetResourceVersion(api.FormatVersion(kv.ModRevision))
	}
	e, err := newEntry(k, kv, o)
	if err != nil {
		s.log.Error("an object in the store cannot be read; delete its key or restore it", "kind", k.Name, "revision", kv.ModRevision, "error", err)
		return nil
	}
	return e
}

// watchStore applies what happens after a revision.
func (s *Service) watchStore(ctx context.Context, revision int64) error {
	w := s.store.Watch(ctx, client.Watch{Range: client.Between(keysFirst, keysEnd), Revision: revision + 1, Progress: true})
	s.setWatcher(w)
	defer func() {
		s.setWatcher(nil)
		w.Cancel()
		for range w.Reports() { // Ends at once.
		}
	}()
	for r := range w.Reports() {
		upTo := r.Header.GetRevision()
		changes := make([]change, 0, len(r.Events))
		for _, e := range r.Events {
			kv := e.Kv
			upTo = kv.ModRevision // More of what the header tells may follow.
			c := change{kv: kv, deleted: e.Type == mvccpb.Event_DELETE}
			if !c.deleted {
				// They lie in the buffer of all events.
				kv.Key, kv.Value = slices.Clone(kv.Key), append([]byte(nil), kv.Value...)
				c.entry = s.entryOf(kv)
			}
			changes = append(changes, c)
		}
		s.cache.apply(changes, upTo)
	}
	if err := w.Err(); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return errors.New("watch: it ended")
}

// change is what happened to one key.
type change struct {
	kv      *mvccpb.KeyValue
	entry   *entry // Nil: deleted, or no object.
	deleted bool
}

// replace makes the cache what a list says.
func (c *cache) replace(all []*mvccpb.KeyValue, entries []*entry, revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range api.Kinds {
		c.mu.shelves[k].crowd.expire()
		c.mu.shelves[k] = newShelf(k)
		c.mu.shelves[k].ring.floor = revision
	}
	clear(c.mu.claims)
	c.mu.inventories = newInventories()
	next := &keys{}
	for i, kv := range all {
		switch {
		case entries[i] != nil:
			next.entries.set(entries[i].key, entries[i])
			c.mu.shelves[entries[i].kind].put(entries[i])
		case strings.HasPrefix(string(kv.Key), plainKeys):
			c.setPlainLocked(next, string(kv.Key), kv)
		}
	}
	c.keys.Store(next)
	c.advanceLocked(revision)
}

// apply takes changes in, in order, and tells who watches.
func (c *cache) apply(changes []change, revision int64) {
	is := c.keys.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range changes {
		c.changeLocked(is, &changes[i])
	}
	c.advanceLocked(revision)
	for i := range changes { // After that: a write that comes late looks how far the cache is.
		is.heard(string(changes[i].kv.Key), changes[i].kv.ModRevision)
	}
}

func (c *cache) changeLocked(is *keys, ch *change) {
	key := string(ch.kv.Key)
	if strings.HasPrefix(key, plainKeys) {
		if !ch.deleted {
			c.setPlainLocked(is, key, ch.kv)
			return
		}
		is.plain.delete(key)
		delete(c.mu.claims, key)
		if strings.HasPrefix(key, InventoryPrefix) {
			c.mu.inventories.set(key, nil)
		}
		return
	}
	k := kindOfKey(key)
	if k == nil {
		return
	}
	if ch.entry != nil { // Before its watchers are told: they may ask for it.
		is.entries.set(key, ch.entry)
	} else {
		is.entries.delete(key)
	}
	c.mu.shelves[k].change(key, ch)
}

func (c *cache) setPlainLocked(is *keys, key string, kv *mvccpb.KeyValue) {
	is.plain.set(key, kv)
	if strings.HasPrefix(key, leader.Prefix) {
		c.mu.claims[key] = kv
	}
	if strings.HasPrefix(key, InventoryPrefix) {
		c.mu.inventories.set(key, kv)
	}
}

func (c *cache) advanceLocked(revision int64) {
	if was := c.at.Load(); revision > was.revision {
		c.at.Store(&progress{revision: revision, advanced: make(chan struct{}), closed: was.closed})
		close(was.advanced)
	}
}

// change takes one change in. An object that cannot be read is as one that is gone.
func (s *shelf) change(key string, ch *change) {
	e := &event{revision: ch.kv.ModRevision, new: ch.entry}
	if ch.entry != nil {
		e.old = s.put(ch.entry)
	} else {
		e.old = s.remove(key)
	}
	if e.old == nil && e.new == nil {
		return
	}
	if e.new == nil {
		e.last = e.old.at(e.revision)
	}
	s.ring.add(e)
	s.crowd.tell(e)
}

// at is the same object as it is told when it is deleted.
func (e *entry) at(revision int64) *entry {
	return &entry{
		kind: e.kind, key: e.key, namespace: e.namespace, name: e.name, revision: revision,
		stored: e.stored, labels: e.labels, fields: e.fields, names: e.names, object: e.object, pod: e.pod,
	}
}

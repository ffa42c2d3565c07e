package state

import (
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// cache is what the store holds, as of one revision.
type cache struct {
	mu struct {
		sync.RWMutex
		revision int64 // All up to there is in. 0: it is not filled.
		shelves  map[*api.Kind]*shelf
		plain    map[string]*mvccpb.KeyValue // Keys under /holdfast/.
		claims   map[string]*mvccpb.KeyValue // Those of them that say who leads.

		inventories inventories   // Those of them that nodes have told.
		advanced    chan struct{} // Closed when revision grows.
		closed      bool

		// written are writes of this service that are newer than revision. They are
		// facts as the rest: a write that follows does not lose for having read less.
		written map[string]write
	}
}

// write is what this service wrote. Nil: the key is gone.
type write struct {
	revision int64
	kv       *mvccpb.KeyValue
}

// shelf holds the objects of one kind.
type shelf struct {
	kind   *api.Kind
	byKey  map[string]*entry
	sorted []*entry                     // By key.
	byNode map[string]map[string]*entry // Pods, by the node they are bound to.
	ring   ring
	crowd  crowd
}

func newShelf(k *api.Kind) *shelf {
	return &shelf{kind: k, byKey: map[string]*entry{}, byNode: map[string]map[string]*entry{}, crowd: newCrowd()}
}

func newCache() *cache {
	c := &cache{}
	c.mu.shelves = map[*api.Kind]*shelf{}
	for _, k := range api.Kinds {
		c.mu.shelves[k] = newShelf(k)
	}
	c.mu.plain, c.mu.written = map[string]*mvccpb.KeyValue{}, map[string]write{}
	c.mu.claims = map[string]*mvccpb.KeyValue{}
	c.mu.inventories = newInventories()
	c.mu.advanced = make(chan struct{})
	return c
}

func byKey(e *entry, key string) int { return strings.Compare(e.key, key) }

// put takes an entry in, and returns the one before it.
func (s *shelf) put(e *entry) *entry {
	i, found := slices.BinarySearchFunc(s.sorted, e.key, byKey)
	var old *entry
	if found {
		old, s.sorted[i] = s.sorted[i], e
		s.unindex(old)
	} else {
		s.sorted = slices.Insert(s.sorted, i, e)
	}
	s.byKey[e.key] = e
	if node := e.fields.node; node != "" {
		if s.byNode[node] == nil {
			s.byNode[node] = map[string]*entry{}
		}
		s.byNode[node][e.key] = e
	}
	return old
}

func (s *shelf) remove(key string) *entry {
	old := s.byKey[key]
	if old == nil {
		return nil
	}
	i, _ := slices.BinarySearchFunc(s.sorted, key, byKey)
	s.sorted = slices.Delete(s.sorted, i, i+1)
	delete(s.byKey, key)
	s.unindex(old)
	return old
}

func (s *shelf) unindex(e *entry) {
	if node := e.fields.node; node != "" {
		delete(s.byNode[node], e.key)
		if len(s.byNode[node]) == 0 {
			delete(s.byNode, node)
		}
	}
}

// find returns the entries that a selection picks after a key, sorted.
func (s *shelf) find(p *pick, after string) []*entry {
	var found []*entry
	switch {
	case p.namespace != "" && p.name != "":
		if e := s.byKey[s.kind.Key(p.namespace, p.name)]; e != nil && e.key > after && p.matches(e) {
			found = append(found, e)
		}
	case p.hasNode && p.node != "":
		for _, e := range s.byNode[p.node] { //tidy:ordered sorted below
			if e.key > after && p.matches(e) {
				found = append(found, e)
			}
		}
		slices.SortFunc(found, func(a, b *entry) int { return strings.Compare(a.key, b.key) })
	default:
		prefix := s.kind.Prefix(p.namespace)
		i, _ := slices.BinarySearchFunc(s.sorted, max(prefix, after), byKey)
		for _, e := range s.sorted[i:] {
			if !strings.HasPrefix(e.key, prefix) {
				break
			}
			if e.key > after && p.matches(e) {
				found = append(found, e)
			}
		}
	}
	return found
}

// lookup is what is known of a key: what this service wrote last, or the cache.
// Nil: there is none, as far as is known.
func (c *cache) lookup(key string) *mvccpb.KeyValue {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if w, ok := c.mu.written[key]; ok {
		return w.kv
	}
	return c.storedLocked(key)
}

func (c *cache) storedLocked(key string) *mvccpb.KeyValue {
	if kv, ok := c.mu.plain[key]; ok {
		return kv
	}
	if e := c.entryLocked(key); e != nil {
		return e.stored
	}
	return nil
}

func (c *cache) entryLocked(key string) *entry {
	k := kindOfKey(key)
	if k == nil {
		return nil
	}
	return c.mu.shelves[k].byKey[key]
}

// entry is an object as the cache has it.
func (c *cache) entry(key string) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.entryLocked(key)
}

// wrote tells of a write of this service, which the watch will tell of too. A nil
// value: the key is gone.
func (c *cache) wrote(key string, revision int64, kv *mvccpb.KeyValue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision > c.mu.revision && revision > c.mu.written[key].revision { // Else the watch or a later write was faster.
		c.mu.written[key] = write{revision, kv}
	}
}

// kindOfKey is the kind of object that a key is of. Nil: none.
func kindOfKey(key string) *api.Kind {
	for i := range prefixes {
		if strings.HasPrefix(key, prefixes[i]) {
			return api.Kinds[i]
		}
	}
	return nil
}

var prefixes = func() []string {
	all := make([]string, len(api.Kinds))
	for i, k := range api.Kinds {
		all[i] = k.Prefix("")
	}
	return all
}()

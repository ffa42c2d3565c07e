package state

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// cache is what the store holds, as of one revision. Single keys, of which each write
// asks for many, are looked up without mu: they may be newer than the revision.
type cache struct {
	at   atomic.Pointer[progress]
	keys atomic.Pointer[keys] // Replaced as a whole, so that nobody looks into one that is being filled.

	mu struct {
		sync.RWMutex
		shelves     map[*api.Kind]*shelf
		claims      map[string]*mvccpb.KeyValue // Plain keys that say who leads.
		inventories inventories                 // Those that nodes have told.
	}
}

// progress is how far the cache is. It is replaced with mu held.
type progress struct {
	revision int64         // All up to there is in. 0: it is not filled.
	advanced chan struct{} // Closed when there is another.
	closed   bool
}

// keys are what is known of each. They change with mu held, but for written.
type keys struct {
	entries table[*entry]
	plain   table[*mvccpb.KeyValue] // Keys under /holdfast/.

	// written are writes of this service that are newer than revision. They are
	// facts as the rest: a write that follows does not lose for having read less.
	written table[write]
}

// write is what this service wrote. Nil: the key is gone.
type write struct {
	revision int64
	kv       *mvccpb.KeyValue
}

// shelf holds the objects of one kind.
type shelf struct {
	kind   *api.Kind
	sorted []*entry                     // By key.
	byNode map[string]map[string]*entry // Pods, by the node they are bound to.
	ring   ring
	crowd  crowd
}

func newShelf(k *api.Kind) *shelf {
	return &shelf{kind: k, byNode: map[string]map[string]*entry{}, crowd: newCrowd()}
}

func newCache() *cache {
	c := &cache{}
	c.mu.shelves = map[*api.Kind]*shelf{}
	for _, k := range api.Kinds {
		c.mu.shelves[k] = newShelf(k)
	}
	c.keys.Store(&keys{})
	c.at.Store(&progress{advanced: make(chan struct{})})
	c.mu.claims = map[string]*mvccpb.KeyValue{}
	c.mu.inventories = newInventories()
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
	if node := e.fields.node; node != "" {
		if s.byNode[node] == nil {
			s.byNode[node] = map[string]*entry{}
		}
		s.byNode[node][e.key] = e
	}
	return old
}

func (s *shelf) remove(key string) *entry {
	i, found := slices.BinarySearchFunc(s.sorted, key, byKey)
	if !found {
		return nil
	}
	old := s.sorted[i]
	s.sorted = slices.Delete(s.sorted, i, i+1)
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
		i, there := slices.BinarySearchFunc(s.sorted, s.kind.Key(p.namespace, p.name), byKey)
		if there && s.sorted[i].key > after && p.matches(s.sorted[i]) {
			found = append(found, s.sorted[i])
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
	k := c.keys.Load()
	if w, ok := k.written.get(key); ok {
		return w.kv
	}
	if kv, ok := k.plain.get(key); ok {
		return kv
	}
	if e, ok := k.entries.get(key); ok {
		return e.stored
	}
	return nil
}

// entry is an object as the cache has it.
func (c *cache) entry(key string) *entry {
	e, _ := c.keys.Load().entries.get(key)
	return e
}

// wrote tells of a write of this service, which the watch will tell of too. A nil
// value: the key is gone.
func (c *cache) wrote(key string, revision int64, kv *mvccpb.KeyValue) {
	if revision <= c.revision() {
		return // The watch was faster.
	}
	k := c.keys.Load()
	k.written.setIf(key, write{revision, kv}, func(old write, ok bool) bool { return !ok || revision > old.revision })
	if revision <= c.revision() {
		k.heard(key, revision) // It was, after all, and does not look at this key again.
	}
}

// heard drops what was written up to a revision: the watch has told it.
func (k *keys) heard(key string, revision int64) {
	k.written.deleteIf(key, func(w write) bool { return w.revision <= revision })
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

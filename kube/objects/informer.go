package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Pauses between attempts to watch. The server is back within a second mostly.
const (
	retryDelayMin = 50 * time.Millisecond
	retryDelayMax = 2 * time.Second
)

// Informer keeps the objects of one kind in memory, and says what changes.
type Informer[T api.Object] struct {
	client  *Client
	options ListOptions
	log     hclog.Logger
	clock   clock.Clock
	synced  chan struct{}

	reduce  func(T)                // Set before Run. Nil: objects are kept whole.
	changed []func(old, new T)     // Set before Run.
	heard   []func(history uint64) // Set before Run.

	// resume is where the next watch begins: all up to there has come. The newest
	// revision need not have come whole, as one transaction may change many objects and
	// a stream ends anywhere; 0: the next lists. Owned by Run.
	resume int64

	history uint64 // Of the last watch. Owned by Run. 0: the server tells none.

	mu struct { // Guards what is read from outside; written by Run alone.
		sync.RWMutex
		objects  map[objectKey]T
		revision int64
		history  uint64 // That all of the objects are of.
		indexes  map[string]*index[T]
	}
}

type objectKey struct{ namespace, name string }

// NewInformer returns an informer, which does nothing before Run.
func NewInformer[T api.Object](c *Client, o ListOptions, log hclog.Logger) *Informer[T] {
	i := &Informer[T]{client: c, options: o, log: log, clock: clock.Real(), synced: make(chan struct{})}
	i.mu.objects, i.mu.indexes = map[objectKey]T{}, map[string]*index[T]{}
	return i
}

// OnChange has f called for each change, in order, from one goroutine, once what
// Get and List say includes it. A nil old: the object is new; a nil new: it is gone.
// Only before Run.
func (i *Informer[T]) OnChange(f func(old, new T)) { i.changed = append(i.changed, f) }

// OnHistory has f called, from the same goroutine, when a watch begins that is of
// another history than the one before: the store was restored. It is called before any
// change of that history is told, and all there is is listed anew. Only before Run.
func (i *Informer[T]) OnHistory(f func(history uint64)) { i.heard = append(i.heard, f) }

// AddIndex makes objects findable by the values that f takes from them.
// Only before Run.
func (i *Informer[T]) AddIndex(name string, f func(T) []string) {
	i.mu.indexes[name] = newIndex(f)
}

// Reduce has f take from each object what nobody here reads, before it is kept and told.
// It is not called for objects that another keeps too: see Sharer. Only before Run.
func (i *Informer[T]) Reduce(f func(T)) { i.reduce = f }

// Run lists and watches until ctx ends, or the server refuses for good.
func (i *Informer[T]) Run(ctx context.Context) error {
	k, err := kindOf[T]()
	if err != nil {
		return err
	}
	delay := retryDelayMin
	for {
		before := i.Revision()
		err := i.follow(ctx, k)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrDenied), errors.Is(err, ErrInvalid), errors.Is(err, api.ErrEncoding):
			return err
		case errors.Is(err, ErrExpired):
			i.log.Info("watch expired, listing anew", "kind", k.Name)
			i.mu.Lock()
			i.mu.revision = 0
			i.mu.Unlock()
			i.resume = 0
		default:
			i.log.Debug("watch ended, resuming", "kind", k.Name, "revision", i.resume, "error", err)
		}
		if i.Revision() != before {
			delay = retryDelayMin
		}
		select {
		case <-i.clock.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = min(2*delay, retryDelayMax)
	}
}

// follow lives as long as one stream does. A watch that begins with all objects
// tells which were deleted meanwhile by what it does not tell before SYNCED.
func (i *Informer[T]) follow(ctx context.Context, k *api.Kind) error {
	var listed map[objectKey]struct{} // Nil: nothing is being listed.
	if i.resume == 0 {
		listed = map[objectKey]struct{}{}
	}
	o := i.options
	o.ResourceVersion = i.resume
	return i.client.watch(ctx, k, o, i.begins, func(e *kubepb.WatchEvent) error {
		if e.Type == kubepb.WatchEvent_SYNCED {
			i.forget(listed)
			listed = nil
		}
		return i.take(k, e, listed)
	})
}

// begins hears of which history a watch is. Resource versions of different histories
// do not compare: one that resumed goes on with a list.
func (i *Informer[T]) begins(history uint64) error {
	if history == i.history {
		return nil
	}
	first := i.history == 0
	i.history = history
	i.mu.Lock()
	i.mu.revision = 0
	i.mu.Unlock()
	for _, f := range i.heard {
		f(history)
	}
	if i.resume != 0 && !first {
		i.resume = 0
		return fmt.Errorf("the store was restored: %w", ErrExpired)
	}
	return nil
}

// History is the one that all that Get and List tell is of. 0: it is not known.
func (i *Informer[T]) History() uint64 {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.mu.history
}

// take handles one event.
func (i *Informer[T]) take(k *api.Kind, e *kubepb.WatchEvent, listed map[objectKey]struct{}) error {
	var none T
	m := e.Object
	switch {
	case e.Type == kubepb.WatchEvent_SYNCED || e.Type == kubepb.WatchEvent_BOOKMARK:
		i.resume = m.GetResourceVersion()
	case listed == nil:
		i.resume = max(i.resume, m.GetResourceVersion()-1)
	}
	switch e.Type {
	case kubepb.WatchEvent_SYNCED:
		i.advance(m.GetResourceVersion())
		i.mu.Lock()
		i.mu.history = i.history
		i.mu.Unlock()
		select {
		case <-i.synced:
		default:
			close(i.synced)
		}
	case kubepb.WatchEvent_BOOKMARK:
		i.advance(m.GetResourceVersion())
	case kubepb.WatchEvent_DELETED:
		i.set(objectKey{m.GetNamespace(), m.GetName()}, none, true, m.GetResourceVersion())
	case kubepb.WatchEvent_ADDED, kubepb.WatchEvent_MODIFIED:
		o, err := i.decode(k, m)
		if err != nil {
			return err
		}
		key := objectKey{m.Namespace, m.Name}
		revision := m.ResourceVersion
		if listed != nil {
			listed[key] = struct{}{}
			revision = 0 // The list is not complete yet.
		}
		if old, ok := i.Get(key.namespace, key.name); ok && old.GetResourceVersion() == o.GetResourceVersion() && i.history == i.History() {
			i.advance(revision)
			return nil // It is told already.
		}
		i.set(key, o, false, revision)
	}
	return nil
}

// decode takes the object that the other end has, where it can.
func (i *Informer[T]) decode(k *api.Kind, m *kubepb.Object) (T, error) {
	if i.client.sharer != nil {
		if o, ok := i.client.sharer.Decoded(m).(T); ok {
			return o, nil
		}
	}
	o, err := decode[T](k, m)
	if err == nil && i.reduce != nil {
		i.reduce(o)
	}
	return o, err
}

func (i *Informer[T]) advance(revision int64) {
	i.mu.Lock()
	i.mu.revision = max(i.mu.revision, revision)
	i.mu.Unlock()
}

// forget drops what was not listed.
func (i *Informer[T]) forget(listed map[objectKey]struct{}) {
	if listed == nil {
		return
	}
	var none T
	var gone []objectKey
	i.mu.RLock()
	for key := range i.mu.objects {
		if _, ok := listed[key]; !ok {
			gone = append(gone, key)
		}
	}
	i.mu.RUnlock()
	slices.SortFunc(gone, objectKey.compare)
	for _, key := range gone {
		i.set(key, none, true, 0)
	}
}

// set changes what is there, then says so.
func (i *Informer[T]) set(key objectKey, o T, deleted bool, revision int64) {
	i.mu.Lock()
	old, existed := i.mu.objects[key]
	for _, x := range i.mu.indexes {
		var was, is []string
		if existed {
			was = x.values(old)
		}
		if !deleted {
			is = x.values(o)
		}
		x.move(key, was, is)
	}
	if deleted {
		delete(i.mu.objects, key)
	} else {
		i.mu.objects[key] = o
	}
	i.mu.revision = max(i.mu.revision, revision)
	i.mu.Unlock()
	if deleted && !existed {
		return
	}
	for _, f := range i.changed {
		f(old, o)
	}
}

// Synced returns once all that was there has been told. If it has been, that counts,
// whatever has become of ctx.
func (i *Informer[T]) Synced(ctx context.Context) error {
	select {
	case <-i.synced:
		return nil
	default:
	}
	select {
	case <-i.synced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// IsSynced reports whether all that was there has been told.
func (i *Informer[T]) IsSynced() bool {
	select {
	case <-i.synced:
		return true
	default:
		return false
	}
}

// Get returns an object.
func (i *Informer[T]) Get(namespace, name string) (T, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	o, ok := i.mu.objects[objectKey{namespace, name}]
	return o, ok
}

// List returns objects of one namespace, or of all if it is empty, sorted by
// namespace and name.
func (i *Informer[T]) List(namespace string) []T {
	i.mu.RLock()
	var found []T
	for key, o := range i.mu.objects {
		if namespace == "" || key.namespace == namespace {
			found = append(found, o)
		}
	}
	i.mu.RUnlock()
	return sorted(found)
}

// ByIndex returns the objects from which the index took a value, sorted too.
func (i *Informer[T]) ByIndex(name, value string) []T {
	i.mu.RLock()
	var found []T
	if x := i.mu.indexes[name]; x != nil {
		for key := range x.keys(value) {
			found = append(found, i.mu.objects[key])
		}
	}
	i.mu.RUnlock()
	return sorted(found)
}

// Revision is how far it has come: all that happened up to there is told.
func (i *Informer[T]) Revision() int64 {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.mu.revision
}

func sorted[T api.Object](objects []T) []T {
	slices.SortFunc(objects, func(a, b T) int {
		return objectKey{a.GetNamespace(), a.GetName()}.compare(objectKey{b.GetNamespace(), b.GetName()})
	})
	return objects
}

func (k objectKey) compare(other objectKey) int {
	if k.namespace != other.namespace {
		if k.namespace < other.namespace {
			return -1
		}
		return 1
	}
	switch {
	case k.name < other.name:
		return -1
	case k.name > other.name:
		return 1
	}
	return 0
}

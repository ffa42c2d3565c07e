package state

import (
	"hash/maphash"
	"iter"
	"sync"
)

// table is a map that many look into at a time: each write asks for a dozen keys, and
// tells of three. One lock for all has them wait in line, and a line of hundreds moves
// by one each time that the scheduler comes round.
type table[V any] struct {
	shards [64]struct {
		sync.RWMutex
		values map[string]V
	}
}

var tableSeed = maphash.MakeSeed()

func (t *table[V]) of(key string) int {
	return int(maphash.String(tableSeed, key) % uint64(len(t.shards)))
}

func (t *table[V]) get(key string) (V, bool) {
	s := &t.shards[t.of(key)]
	s.RLock()
	defer s.RUnlock()
	v, ok := s.values[key]
	return v, ok
}

func (t *table[V]) set(key string, v V) {
	t.setIf(key, v, func(V, bool) bool { return true })
}

// setIf sets a value if f says so of the present one.
func (t *table[V]) setIf(key string, v V, f func(old V, ok bool) bool) {
	s := &t.shards[t.of(key)]
	s.Lock()
	defer s.Unlock()
	if old, ok := s.values[key]; f(old, ok) {
		if s.values == nil {
			s.values = map[string]V{}
		}
		s.values[key] = v
	}
}

func (t *table[V]) delete(key string) {
	t.deleteIf(key, func(V) bool { return true })
}

// deleteIf deletes a value if f says so of it.
func (t *table[V]) deleteIf(key string, f func(V) bool) {
	s := &t.shards[t.of(key)]
	s.Lock()
	defer s.Unlock()
	if v, ok := s.values[key]; ok && f(v) {
		delete(s.values, key)
	}
}

// all walks through a table that nobody writes to meanwhile.
func (t *table[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for i := range t.shards {
			s := &t.shards[i]
			s.RLock()
			for key, v := range s.values { //tidy:ordered whoever asks sorts
				if !yield(key, v) {
					s.RUnlock()
					return
				}
			}
			s.RUnlock()
		}
	}
}

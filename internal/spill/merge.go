package spill

import (
	"bytes"
	"cmp"
	"container/heap"
	"errors"
)

// Iterator gives records by rising key.
type Iterator struct {
	sources []*source
	ready   sources // A heap: the least key first, among equal ones the newest run.
	begun   bool
	last    *source // Whose record was given out: it moves on with the next call.
}

// source is a run, or what is left in memory.
type source struct {
	run    *runReader // nil: memory.
	sorter *Sorter
	at     int // In memory.
	age    int // Runs in the order in which they were written.

	key, value []byte
}

// advance reports whether there is another record.
func (s *source) advance() (bool, error) {
	if s.run != nil {
		var err error
		s.key, s.value, err = s.run.next()
		return s.key != nil, err
	}
	if s.at == len(s.sorter.kept) {
		return false, nil
	}
	r := s.sorter.kept[s.at]
	s.at++
	s.key, s.value = s.sorter.keyOf(r), s.sorter.valueOf(r)
	return true, nil
}

// Next returns the next record, false after the last. The bytes are good until
// the next call.
func (it *Iterator) Next() (key, value []byte, ok bool, err error) {
	if err := it.move(); err != nil {
		return nil, nil, false, err
	}
	if len(it.ready) == 0 {
		return nil, nil, false, nil
	}
	it.last = heap.Pop(&it.ready).(*source)
	// The same key in older runs was replaced by this one.
	for len(it.ready) > 0 && bytes.Equal(it.ready[0].key, it.last.key) {
		if err := it.put(heap.Pop(&it.ready).(*source)); err != nil {
			return nil, nil, false, err
		}
	}
	return it.last.key, it.last.value, true, nil
}

// move brings the source of the record before to its next one.
func (it *Iterator) move() error {
	if !it.begun {
		it.begun = true
		for _, s := range it.sources {
			if err := it.put(s); err != nil {
				return err
			}
		}
	}
	if it.last == nil {
		return nil
	}
	s := it.last
	it.last = nil
	return it.put(s)
}

// put adds a source with its next record to the heap, if it has one.
func (it *Iterator) put(s *source) error {
	more, err := s.advance()
	if more && err == nil {
		heap.Push(&it.ready, s)
	}
	return err
}

// Close closes the files.
func (it *Iterator) Close() error {
	var all error
	for _, s := range it.sources {
		if s.run != nil {
			all = errors.Join(all, s.run.file.Close())
		}
	}
	it.sources, it.ready, it.last = nil, nil, nil
	return all
}

type sources []*source

func (h sources) Len() int { return len(h) }
func (h sources) Less(i, j int) bool {
	return cmp.Or(bytes.Compare(h[i].key, h[j].key), cmp.Compare(h[j].age, h[i].age)) < 0
}
func (h sources) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(x any)   { *h = append(*h, x.(*source)) }
func (h *sources) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

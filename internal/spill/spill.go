// Package spill sorts more records than fit into memory.
//
// Tools that turn one order of keys into another use it: an import has keys by
// revision and needs them by key. Records are collected up to a number of
// bytes, sorted, and written as a run to a scratch file; reading merges the
// runs. Memory is bounded by that number and a buffer for each run.
//
// Invariant: of records with equal keys only the one added last is given back.
// After a crash scratch files stay in the folder of the owner, whose scratch it
// is. Each record has a checksum: a disk that errs is noticed.
package spill

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// memoryBytesDefault is enough for runs of some hundred gigabytes to be merged
// at once.
const memoryBytesDefault = 32 << 20

// recordBytes is what a record in memory takes beside its own bytes.
const recordBytes = 32

// ErrDamaged means that a scratch file does not hold what was written.
var ErrDamaged = errors.New("scratch file is damaged")

// Config says where a sorter may write.
type Config struct {
	FS          vfs.FS // Required.
	Dir         string // A folder of the caller's; files in it are named run-…. Required.
	MemoryBytes int    // Records kept before a run is written. Default 32 MiB.
}

// Sorter collects records. It is not for several goroutines.
type Sorter struct {
	cfg   Config
	bytes []byte   // Keys and values of records, one after the other.
	kept  []record // Not yet in a run.
	runs  []string
}

// record is a part of Sorter.bytes.
type record struct{ at, key, value int }

// New returns an empty sorter.
func New(cfg Config) *Sorter {
	if cfg.MemoryBytes <= 0 {
		cfg.MemoryBytes = memoryBytesDefault
	}
	return &Sorter{cfg: cfg}
}

// Add takes in a record, of which it keeps a copy.
func (s *Sorter) Add(key, value []byte) error {
	if len(s.kept) > 0 && len(s.bytes)+len(key)+len(value)+(len(s.kept)+1)*recordBytes > s.cfg.MemoryBytes {
		if err := s.spill(); err != nil {
			return fmt.Errorf("sort in %s: %w", s.cfg.Dir, err)
		}
	}
	s.kept = append(s.kept, record{at: len(s.bytes), key: len(key), value: len(value)})
	s.bytes = append(append(s.bytes, key...), value...)
	return nil
}

func (s *Sorter) keyOf(r record) []byte   { return s.bytes[r.at : r.at+r.key] }
func (s *Sorter) valueOf(r record) []byte { return s.bytes[r.at+r.key : r.at+r.key+r.value] }

// sort orders what is in memory and drops all but the last of equal keys.
func (s *Sorter) sort() {
	slices.SortFunc(s.kept, func(a, b record) int {
		return cmp.Or(bytes.Compare(s.keyOf(a), s.keyOf(b)), cmp.Compare(b.at, a.at)) // The newest first.
	})
	s.kept = slices.CompactFunc(s.kept, func(a, b record) bool { return bytes.Equal(s.keyOf(a), s.keyOf(b)) })
}

// spill writes what is in memory as a run.
func (s *Sorter) spill() error {
	s.sort()
	name := filepath.Join(s.cfg.Dir, fmt.Sprintf("run-%06d", len(s.runs)))
	f, err := s.cfg.FS.Create(name)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, name)
	w := &runWriter{file: f}
	for _, r := range s.kept {
		if err = w.add(s.keyOf(r), s.valueOf(r)); err != nil {
			break
		}
	}
	if err == nil {
		err = w.flush()
	}
	s.bytes, s.kept = s.bytes[:0], s.kept[:0]
	return errors.Join(err, f.Close())
}

// Sorted gives the records by rising key. The sorter takes no more of them.
func (s *Sorter) Sorted() (*Iterator, error) {
	it := &Iterator{}
	for i, name := range s.runs {
		f, err := s.cfg.FS.Open(name)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		it.sources = append(it.sources, &source{run: newRunReader(f), age: i})
	}
	s.sort()
	it.sources = append(it.sources, &source{sorter: s, age: len(s.runs)})
	return it, nil
}

// Close removes what was written. Iterators end with it.
func (s *Sorter) Close() error {
	var all error
	for _, name := range s.runs {
		all = errors.Join(all, s.cfg.FS.Remove(name))
	}
	s.runs, s.bytes, s.kept = nil, nil, nil
	return all
}

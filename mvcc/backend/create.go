package backend

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/holdfast-db/holdfast/internal/spill"
)

// Rows are what a new base begins with.
type Rows struct {
	// Next returns the rows of keys by rising key, a nil key at the end. What it
	// returns is used until it is called again. Nil: there are none.
	Next func() (key, kv []byte, err error)
	// Small are the small rows. Of several of one key the last counts.
	Small []RowChange
}

// Create makes a new base that holds m and the rows. What m says about rows is
// ignored. The file is written from one end to the other and synced, by us:
// bbolt is fast where few rows change, and here all of them are new
// (docs/decisions/0017). A crash, or an error, leaves a file that does not open.
func Create(cfg Config, m Meta, rows Rows) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if _, err := cfg.FS.Stat(cfg.Path); err == nil {
		return nil, fmt.Errorf("create %s: %w", cfg.Path, ErrExists)
	}
	size, err := writeFile(&cfg, metaRow{Meta: m, txID: 1}, rows)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", cfg.Path, err)
	}
	mapBytes := max(cfg.InitialMmapBytes, 4*size)
	s, err := openStore(&cfg, cfg.Path, mapBytes)
	if err != nil {
		return nil, err
	}
	if err := cfg.FS.SyncDir(filepath.Dir(cfg.Path)); err != nil {
		s.leave()
		return nil, fmt.Errorf("create %s: %w", cfg.Path, err)
	}
	return start(cfg, s, mapBytes)
}

// writeFile makes the file of a base, and returns its size.
func writeFile(cfg *Config, m metaRow, rows Rows) (size int64, err error) {
	out, err := newPageFile(cfg)
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = out.stop() // An error of it was returned by the one who met it.
		err = errors.Join(err, out.file.Close())
	}()
	c := &creator{
		cfg: cfg, out: out, meta: m, keys: newTreeWriter(out), longKeys: newTreeWriter(out), directory: newTreeWriter(out),
		leases: spill.New(spill.Config{FS: cfg.FS, Dir: cfg.Path + suffixSort, MemoryBytes: cfg.sortBytes}),
	}
	c.meta.Format, c.meta.Rows, c.meta.LongOrdinal = formatVersion, 0, 0
	c.meta.leaseRows, c.meta.smallRows, c.meta.smallHash = 0, 0, Sum{}
	c.meta.firstKey, c.meta.lastKey = nil, nil
	defer func() { err = errors.Join(err, c.close()) }()
	for _, step := range []func() error{
		func() error { return c.addAll(rows.Next) }, c.finishKeys, c.finishLeases, func() error { return c.finishSmall(rows.Small) }, c.finish,
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	return int64(out.next) * int64(out.pageSize), nil
}

// suffixSort marks the folder in which the keys of leases are sorted.
const suffixSort = ".sort"

// creator makes a base of rows that come once, in order.
type creator struct {
	cfg       *Config
	out       *pageFile
	meta      metaRow
	keys      *treeWriter
	longKeys  *treeWriter
	directory *treeWriter
	hash      rowHasher     // Of the rows of keys.
	leases    *spill.Sorter // Rows of bucket leasekeys: they come in the order of keys.
	leased    bool          // There are some, and a folder for them.
	last      []byte        // The key before.
	scratch   []byte
}

// close gives back what a base is made with.
func (c *creator) close() error {
	c.hash.finish()
	err := c.leases.Close()
	if c.leased {
		err = errors.Join(err, c.cfg.FS.RemoveAll(c.cfg.Path+suffixSort))
	}
	return err
}

func (c *creator) addAll(next func() (key, kv []byte, err error)) error {
	for next != nil {
		key, kv, err := next()
		if err != nil {
			return fmt.Errorf("after %d rows: %w", c.meta.Rows, err)
		}
		if key == nil {
			return nil
		}
		if err := c.add(key, kv); err != nil {
			return fmt.Errorf("row %d: %w", c.meta.Rows, err)
		}
	}
	return nil
}

func (c *creator) add(key, kv []byte) error {
	switch {
	case len(key) == 0 || kv == nil:
		return fmt.Errorf("without a key or a value: %w", ErrBadRow)
	case bytes.Compare(key, c.last) <= 0:
		return fmt.Errorf("key of %d bytes after one of %d: %w", len(key), len(c.last), ErrUnsorted)
	}
	c.last = append(c.last[:0], key...)
	lease, err := leaseOf(kv)
	if err != nil {
		return err
	}
	c.hash.add(key, kv)
	c.meta.Rows++
	if len(key) > shortKeyBytesMax {
		c.meta.LongOrdinal++
		c.scratch = appendLong(c.scratch[:0], key, kv)
		return c.longKeys.add(sectionLongKeys, ordinalKey(c.meta.LongOrdinal), c.scratch)
	}
	if c.meta.firstKey == nil {
		c.meta.firstKey = bytes.Clone(key)
	}
	c.meta.lastKey = append(c.meta.lastKey[:0], key...)
	if lease != 0 {
		if err := c.addLease(leaseKey(lease, key)); err != nil {
			return err
		}
	}
	return c.keys.add(sectionKeys, key, kv)
}

func (c *creator) addLease(row []byte) error {
	if !c.leased {
		if err := c.cfg.FS.MkdirAll(c.cfg.Path + suffixSort); err != nil {
			return err
		}
		c.leased = true
	}
	return c.leases.Add(row, nil)
}

func (c *creator) finishKeys() error {
	c.meta.StateHash = c.hash.finish()
	return c.keys.bucket(sectionKeys, c.directory)
}

// finishLeases writes the keys of leases in their own order, and the long keys,
// whose bucket follows by name.
func (c *creator) finishLeases() (err error) {
	t := newTreeWriter(c.out)
	sorted, err := c.leases.Sorted()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sorted.Close()) }()
	var hash rowHasher
	defer func() { c.meta.leaseHash = hash.finish() }()
	for {
		key, _, ok, err := sorted.Next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		hash.add(key, nil)
		c.meta.leaseRows++
		if err := t.add(sectionLeaseKeys, key, nil); err != nil {
			return err
		}
	}
	if err := t.bucket(sectionLeaseKeys, c.directory); err != nil {
		return err
	}
	return c.longKeys.bucket(sectionLongKeys, c.directory)
}

// smallRow is a row of bucket rows.
type smallRow struct{ key, value []byte }

// sortRows brings small rows into key order, each once: of several changes of
// one the last counts.
func sortRows(changes []RowChange) []smallRow {
	sorted := make([]smallRow, 0, len(changes))
	for _, c := range changes {
		sorted = append(sorted, smallRow{append([]byte{byte(c.Table)}, c.Key...), c.Value})
	}
	slices.SortStableFunc(sorted, func(a, b smallRow) int { return bytes.Compare(a.key, b.key) })
	kept := sorted[:0]
	for i, r := range sorted {
		if i+1 == len(sorted) || !bytes.Equal(r.key, sorted[i+1].key) {
			kept = append(kept, r)
		}
	}
	return kept
}

// finishSmall writes the small rows and, once all is known that it tells, meta,
// whose bucket comes before by name.
func (c *creator) finishSmall(rows []RowChange) error {
	t := newTreeWriter(c.out)
	for _, r := range sortRows(rows) {
		if r.value == nil {
			continue
		}
		var hash Sum
		hash, c.scratch = hashRow(c.scratch, r.key, r.value)
		c.meta.smallHash.add(hash)
		c.meta.smallRows++
		if err := t.add(sectionRows, r.key, r.value); err != nil {
			return err
		}
	}
	meta := newTreeWriter(c.out)
	if err := meta.add(sectionMeta, metaKey, appendMeta(nil, &c.meta)); err != nil {
		return err
	}
	if err := meta.bucket(sectionMeta, c.directory); err != nil {
		return err
	}
	return t.bucket(sectionRows, c.directory)
}

func (c *creator) finish() error {
	root, _, err := c.directory.finish(false)
	if err != nil {
		return err
	}
	return c.out.finish(root)
}

package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// treeWriter makes the tree of one bucket out of rows that come by rising key.
// Of each level one page is open; it goes to the file when something comes that
// has no room in it, and becomes a child of the page above.
//
// A leaf is filled up to fillPercent of a page. Where rows are so large that this
// would leave more than a quarter of it empty it goes on over several pages, as
// bbolt's do. A branch has two children at least: bbolt takes one with a single
// child for what a deletion left.
type treeWriter struct {
	out    *pageFile
	fill   int
	levels []openPage // The leaf first.
}

type openPage struct {
	elements []element
	data     []byte
}

func newTreeWriter(out *pageFile) *treeWriter {
	return &treeWriter{out: out, fill: int(float64(out.pageSize) * fillPercent), levels: make([]openPage, 1)}
}

// add adds a row of a section. The rows of a section are keyed and checked as
// appendRow has them.
func (t *treeWriter) add(s section, key, payload []byte) error {
	leaf, err := t.room(len(key) + len(payload) + checksumBytes)
	if err != nil {
		return err
	}
	leaf.elements = append(leaf.elements, element{key: uint32(len(key)), value: uint32(len(payload) + checksumBytes)})
	leaf.data = append(append(leaf.data, key...), payload...)
	leaf.data = binary.LittleEndian.AppendUint32(leaf.data, checksum(s, len(key), leaf.data[len(leaf.data)-len(key)-len(payload):]))
	return nil
}

// addBucket adds a bucket to the directory.
func (t *treeWriter) addBucket(name []byte, root uint64, inline []byte) error {
	leaf, err := t.room(len(name) + bucketHeaderBytes + len(inline))
	if err != nil {
		return err
	}
	leaf.elements = append(leaf.elements, element{flags: elementBucket, key: uint32(len(name)), value: uint32(bucketHeaderBytes + len(inline))})
	leaf.data = append(leaf.data, name...)
	leaf.data = order.AppendUint64(leaf.data, root)
	leaf.data = order.AppendUint64(leaf.data, 0) // Sequence.
	leaf.data = append(leaf.data, inline...)
	return nil
}

// room returns the leaf that has room for so many bytes of a row.
func (t *treeWriter) room(size int) (*openPage, error) {
	leaf := &t.levels[0]
	n := len(leaf.elements)
	if n == 0 || pageBytes(n+1, len(leaf.data)+size) <= t.fill || t.sparse(pageBytes(n, len(leaf.data))) {
		return leaf, nil
	}
	err := t.emit(0)
	return &t.levels[0], err
}

// sparse reports whether too much of a leaf with so many bytes would be empty.
func (t *treeWriter) sparse(size int) bool {
	pages := (size + t.out.pageSize - 1) / t.out.pageSize
	return pages < leafPagesMax && (pages*t.out.pageSize-size)*leafEmptyFraction > pages*t.out.pageSize
}

// emit writes the open page of a level, and makes it a child of the level above.
func (t *treeWriter) emit(level int) error {
	id, err := t.page(level)
	if err != nil {
		return err
	}
	if len(t.levels) == level+1 {
		t.levels = append(t.levels, openPage{})
	}
	p := &t.levels[level]
	if err := t.addChild(level+1, p.data[:p.elements[0].key], id); err != nil {
		return err
	}
	p = &t.levels[level] // The levels may lie elsewhere now.
	p.elements, p.data = p.elements[:0], p.data[:0]
	return nil
}

func (t *treeWriter) page(level int) (uint64, error) {
	p, flags := &t.levels[level], uint16(flagBranch)
	if level == 0 {
		flags = flagLeaf
	}
	return t.out.page(flags, p.elements, p.data)
}

func (t *treeWriter) addChild(level int, key []byte, id uint64) error {
	p := &t.levels[level]
	if n := len(p.elements); n > 2 && pageBytes(n+1, len(p.data)+len(key)) > t.fill {
		// The last one moves on, so that the next page has two.
		last := p.elements[n-1]
		at := len(p.data) - int(last.key)
		lastKey := bytes.Clone(p.data[at:])
		p.elements, p.data = p.elements[:n-1], p.data[:at]
		if err := t.emit(level); err != nil {
			return err
		}
		p = &t.levels[level]
		p.elements, p.data = append(p.elements, last), append(p.data, lastKey...)
	}
	p.elements = append(p.elements, element{key: uint32(len(key)), child: id})
	p.data = append(p.data, key...)
	return nil
}

// finish writes what is open and returns the root: a page, or, where inline is
// allowed and the tree small, the page itself, to lie within the directory.
func (t *treeWriter) finish(mayInline bool) (root uint64, inline []byte, err error) {
	leaf := &t.levels[0]
	if size := pageBytes(len(leaf.elements), len(leaf.data)); mayInline && len(t.levels) == 1 && size <= t.out.pageSize/inlineFraction {
		return 0, appendPage(nil, 0, flagLeaf, 0, leaf.elements, leaf.data), nil
	}
	for level := 0; level < len(t.levels)-1; level++ {
		if err := t.emit(level); err != nil {
			return 0, nil, err
		}
	}
	root, err = t.page(len(t.levels) - 1)
	return root, nil, err
}

// bucket ends the tree of a section, and adds it to the directory.
func (t *treeWriter) bucket(s section, directory *treeWriter) error {
	root, inline, err := t.finish(true)
	if err == nil {
		err = directory.addBucket(s.name, root, inline)
	}
	if err != nil {
		return fmt.Errorf("bucket %s: %w", s.name, err)
	}
	return nil
}

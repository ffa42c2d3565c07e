package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of a bbolt file, version 2:
//
//	page      id 8 | flags 2 | count 2 | overflow 4 | elements | rows
//	leaf      flags 4 | offset of row from element 4 | key bytes 4 | value bytes 4
//	branch    offset of key from element 4 | key bytes 4 | child 8
//	bucket    root 8 | sequence 8 | the page itself when root is 0
//	meta      magic, version, page size, flags 4 each | root bucket 16 |
//	          list of free pages 8 | pages 8 | transaction 8 | checksum 8
const (
	pageHeaderBytes   = 16
	elementBytes      = 16
	bucketHeaderBytes = 16
	metaBytes         = 64 // Without the header of its page.

	flagBranch    = 0x01
	flagLeaf      = 0x02
	elementBucket = 0x01

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageBytesMin = 1 << 10
	pageBytesMax = 64 << 10
)

// order of the numbers: that of the machines which etcd runs on. A file of a
// big-endian one has another magic and is refused.
var order = binary.LittleEndian

// book is a bbolt file that is read page by page, in the state of its newest
// transaction. Nothing in it is believed before it was checked.
type book struct {
	file     io.ReaderAt
	name     string
	pageSize int64
	root     uint64
	pages    uint64
	older    bool     // The newest of its two meta pages is not valid: this is the state before, perhaps.
	seen     []uint64 // A bit for each page: none is part of two trees.
}

// openBook reads the meta pages of a file with size bytes of pages.
func openBook(file io.ReaderAt, name string, size int64) (*book, error) {
	b := &book{file: file, name: name}
	var txid uint64
	valid := 0
	take := func(at int64) error {
		m := make([]byte, pageHeaderBytes+metaBytes)
		if _, err := file.ReadAt(m, at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if h, ok := parseMeta(m[pageHeaderBytes:]); ok && at%h.pageSize == 0 {
			valid++
			if valid == 1 || h.txid > txid {
				b.pageSize, b.root, b.pages, txid = h.pageSize, h.root, h.pages, h.txid
			}
		}
		return nil
	}
	if err := take(0); err != nil {
		return nil, err
	}
	second := []int64{b.pageSize}
	if b.pageSize == 0 { // The second page tells how large the first is.
		second = second[:0]
		for s := int64(pageBytesMin); s <= pageBytesMax; s *= 2 {
			second = append(second, s)
		}
	}
	for _, at := range second {
		if err := take(at); err != nil {
			return nil, err
		}
	}
	switch {
	case valid == 0:
		return nil, fmt.Errorf("%s does not begin with a meta page of bbolt: %w", name, ErrNotEtcd)
	case b.pages < 3 || b.pages > uint64(size/b.pageSize):
		return nil, b.damaged(size, "the file ends here, and should have %d pages of %d bytes", b.pages, b.pageSize)
	}
	b.older = valid == 1
	b.seen = make([]uint64, b.pages/64+1)
	return b, nil
}

type meta struct {
	pageSize    int64
	root, pages uint64
	txid        uint64
}

func parseMeta(m []byte) (h meta, ok bool) {
	sum := fnv.New64a()
	sum.Write(m[:metaBytes-8]) // A hash takes any bytes.
	if order.Uint32(m) != boltMagic || order.Uint32(m[4:]) != boltVersion || order.Uint64(m[metaBytes-8:]) != sum.Sum64() {
		return h, false
	}
	h = meta{pageSize: int64(order.Uint32(m[8:])), root: order.Uint64(m[16:]), pages: order.Uint64(m[40:]), txid: order.Uint64(m[48:])}
	return h, h.pageSize >= pageBytesMin && h.pageSize <= pageBytesMax && h.pageSize&(h.pageSize-1) == 0
}

func (b *book) damaged(at int64, format string, args ...any) error {
	return &DamageError{File: b.name, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

func (b *book) offset(id uint64) int64 { return int64(id) * b.pageSize }

// node is a page, with its overflow.
type node struct {
	buf   []byte
	at    int64 // In the file.
	count int
	leaf  bool
}

// node reads a page of a tree, each once.
func (b *book) node(id uint64) (*node, error) {
	if id < 2 || id >= b.pages {
		return nil, b.damaged(0, "a page numbered %d is named, there are %d", id, b.pages)
	}
	at := b.offset(id)
	if b.seen[id/64]&(1<<(id%64)) != 0 {
		return nil, b.damaged(at, "page %d is part of two trees", id)
	}
	b.seen[id/64] |= 1 << (id % 64)
	buf := make([]byte, b.pageSize)
	if _, err := b.file.ReadAt(buf, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if self := order.Uint64(buf); self != id {
		return nil, b.damaged(at, "page %d calls itself %d", id, self)
	}
	overflow := uint64(order.Uint32(buf[12:]))
	if overflow >= b.pages-id || int64(overflow) > nodeBytesMax/b.pageSize {
		return nil, b.damaged(at, "page %d has %d more, there are %d in all", id, overflow, b.pages)
	}
	if overflow > 0 {
		buf = append(buf, make([]byte, int64(overflow)*b.pageSize)...)
		if _, err := b.file.ReadAt(buf[b.pageSize:], at+b.pageSize); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	return b.parse(buf, at)
}

// parse checks the header of a page, and that its rows lie one after the other.
func (b *book) parse(buf []byte, at int64) (*node, error) {
	if len(buf) < pageHeaderBytes {
		return nil, b.damaged(at, "page is too short")
	}
	n := &node{buf: buf, at: at, count: int(order.Uint16(buf[10:]))}
	switch order.Uint16(buf[8:]) {
	case flagLeaf:
		n.leaf = true
	case flagBranch:
		if n.count == 0 {
			return nil, b.damaged(at, "branch page without children")
		}
	default:
		return nil, b.damaged(at, "page is neither leaf nor branch")
	}
	next := pageHeaderBytes + n.count*elementBytes
	if next > len(buf) {
		return nil, b.damaged(at, "page has %d elements, more than room", n.count)
	}
	for i := range n.count {
		start, size, _ := n.extent(i)
		if start != uint64(next) || size > uint64(len(buf)-next) {
			return nil, b.damaged(at, "row %d of the page is not where the one before ends", i)
		}
		next += int(size)
	}
	return n, nil
}

// extent tells where the row of an element begins, how long it is, and its key.
func (n *node) extent(i int) (start, size, key uint64) {
	at := pageHeaderBytes + i*elementBytes
	e := n.buf[at : at+elementBytes]
	if !n.leaf {
		key = uint64(order.Uint32(e[4:]))
		return uint64(at) + uint64(order.Uint32(e)), key, key
	}
	key = uint64(order.Uint32(e[8:]))
	return uint64(at) + uint64(order.Uint32(e[4:])), key + uint64(order.Uint32(e[12:])), key
}

func (n *node) key(i int) []byte {
	start, _, key := n.extent(i)
	return n.buf[start : start+key : start+key]
}

func (n *node) value(i int) []byte {
	start, size, key := n.extent(i)
	return n.buf[start+key : start+size : start+size]
}

func (n *node) element(i int) []byte { return n.buf[pageHeaderBytes+i*elementBytes:] }

// walker goes through one tree in order of keys.
type walker struct {
	book *book
	last []byte
	any  bool
	row  func(n *node, i int) error
}

// tree walks what lies below a page. first is the key that the parent has for
// it, nil for a root.
func (w *walker) tree(n *node, first []byte, depth int) error {
	if depth > treeDepthMax {
		return w.book.damaged(n.at, "tree is over %d pages deep", treeDepthMax)
	}
	for i := range n.count {
		key := n.key(i)
		if i == 0 && first != nil && !bytes.Equal(key, first) {
			return w.book.damaged(n.at, "page does not begin with the key that its parent has for it")
		}
		if !n.leaf {
			child, err := w.book.node(order.Uint64(n.element(i)[8:]))
			if err == nil {
				err = w.tree(child, key, depth+1)
			}
			if err != nil {
				return err
			}
			continue
		}
		if w.any && bytes.Compare(w.last, key) >= 0 {
			return w.book.damaged(n.at, "row %d of the page is out of order", i)
		}
		w.last, w.any = append(w.last[:0], key...), true
		if err := w.row(n, i); err != nil {
			return err
		}
	}
	return nil
}

// bucket is where a bucket begins.
type bucket struct {
	root   uint64
	inline []byte // The page itself where root is 0.
	at     int64
}

// buckets returns those at the top, by name.
func (b *book) buckets() (map[string]bucket, error) {
	found := map[string]bucket{}
	root, err := b.node(b.root)
	if err != nil {
		return nil, err
	}
	w := &walker{book: b, row: func(n *node, i int) error {
		value := n.value(i)
		if order.Uint32(n.element(i))&elementBucket == 0 || len(value) < bucketHeaderBytes {
			return b.damaged(n.at, "row %d at the top is not a bucket", i)
		}
		found[string(n.key(i))] = bucket{root: order.Uint64(value), inline: bytes.Clone(value[bucketHeaderBytes:]), at: n.at}
		return nil
	}}
	return found, w.tree(root, nil, 0)
}

// each calls fn for each row of a bucket by rising key, with the offset of its
// page. The bytes are good for the call.
func (b *book) each(of bucket, fn func(key, value []byte, at int64) error) error {
	var root *node
	var err error
	if of.root == 0 {
		root, err = b.parse(of.inline, of.at)
	} else {
		root, err = b.node(of.root)
	}
	if err != nil {
		return err
	}
	w := &walker{book: b, row: func(n *node, i int) error {
		if order.Uint32(n.element(i))&elementBucket != 0 {
			return b.damaged(n.at, "row %d is a bucket, where etcd has none", i)
		}
		return fn(n.key(i), n.value(i), n.at)
	}}
	return w.tree(root, nil, 0)
}

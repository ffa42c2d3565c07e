package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Reading does not go through bbolt. A page of a bbolt file never changes while
// a transaction that can see it is open, so a View holds one open read
// transaction, which pins pages and mapping, and walks the pages by itself:
// nothing is written, counted or allocated, and any number of goroutines may
// do it at once. Every offset is checked before it is followed, and every
// property of a page that a reader relies on is checked when it is used:
//
//   - a page names itself, and its elements are followed at once by the first
//     row, so a wrong number of elements shows;
//   - a child begins with the very key its parent has for it, so a wrong
//     branch shows;
//   - a row begins where the one before it ends, and has its checksum.
//
// A search that finds nothing looks at both neighbours: one damaged key that
// leads a binary search astray always ends beside itself.
//
// Layout, as bbolt version 2 writes it, in the byte order of the machine:
//
//	page      id 8 | flags 2 | count 2 | overflow 4 | elements | rows
//	leaf      flags 4 | offset of row from element 4 | key bytes 4 | value bytes 4
//	branch    offset of key from element 4 | key bytes 4 | child 8
//	bucket    root 8 | sequence 8 | the page itself when root is 0
//	meta      magic, version, page size, flags 4 each | root bucket 16 |
//	          list of free pages 8 | pages 8 | transaction 8 | checksum 8
//	free      numbers of free pages, 8 each; when there are 65535 or more, the
//	          first is how many
const (
	pageHeaderBytes   = 16
	elementBytes      = 16
	bucketHeaderBytes = 16

	flagBranch = 0x01
	flagLeaf   = 0x02

	flagFreelist = 0x10
	freelistLong = 0xffff // Number of elements that means "see the first one".

	metaFreelistOffset = pageHeaderBytes + 4*4 + 16
	metaTxidOffset     = metaFreelistOffset + 16

	elementBucket = 0x01 // Flag of a leaf element whose value is a bucket.
)

var order = binary.NativeEndian

// pages is a mapped file as one transaction sees it.
type pages struct {
	data     []byte
	pageSize uint64
	file     string
}

// node is one page, checked as far as its header goes. Its length covers the
// overflow pages.
type node struct {
	buf   []byte
	id    uint64
	count int
	leaf  bool
}

func (p *pages) damaged(id uint64, row int, reason string) error {
	return &DamageError{File: p.file, Page: id, Row: row, Reason: reason}
}

func (p *pages) node(id uint64) (node, error) {
	total := uint64(len(p.data)) / p.pageSize
	if id < 2 || id >= total {
		return node{}, p.damaged(id, -1, fmt.Sprintf("page is outside of the %d pages there are", total))
	}
	head := p.data[id*p.pageSize:]
	if self := order.Uint64(head); self != id {
		return node{}, p.damaged(id, -1, fmt.Sprintf("page calls itself %d", self))
	}
	overflow := uint64(order.Uint32(head[12:]))
	if overflow >= total-id {
		return node{}, p.damaged(id, -1, "page is longer than the file")
	}
	return p.parse(id, head[:(overflow+1)*p.pageSize])
}

// parse checks the header of a page, or of one that lies inside a bucket's
// value (id 0).
func (p *pages) parse(id uint64, buf []byte) (node, error) {
	if len(buf) < pageHeaderBytes {
		return node{}, p.damaged(id, -1, "page is too short")
	}
	n := node{buf: buf, id: id, count: int(order.Uint16(buf[10:]))}
	offset := 0
	switch order.Uint16(buf[8:]) {
	case flagLeaf:
		n.leaf, offset = true, 4
	case flagBranch:
	default:
		return node{}, p.damaged(id, -1, "page is neither leaf nor branch")
	}
	if n.count == 0 {
		return n, nil
	}
	if pageHeaderBytes+n.count*elementBytes > len(buf) {
		return node{}, p.damaged(id, -1, "page has more elements than room")
	}
	if first := order.Uint32(buf[pageHeaderBytes+offset:]); first != uint32(n.count*elementBytes) {
		return node{}, p.damaged(id, -1, "number of elements does not match the first row")
	}
	return n, nil
}

// extent returns where the row of a leaf or the key of a branch lies, and how
// long its key is. ok is false when that is outside of the page.
func (n *node) extent(i int) (start, end, keyLen int, ok bool) {
	at := pageHeaderBytes + i*elementBytes
	e := n.buf[at : at+elementBytes]
	var offset, key, value uint32
	if n.leaf {
		offset, key, value = order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
	} else {
		offset, key = order.Uint32(e), order.Uint32(e[4:])
	}
	from := uint64(at) + uint64(offset)
	to := from + uint64(key) + uint64(value)
	if key == 0 || to > uint64(len(n.buf)) {
		return 0, 0, 0, false
	}
	return int(from), int(to), int(key), true
}

// key returns the key of element i, nil when it is damaged.
func (n *node) key(i int) []byte {
	start, _, keyLen, ok := n.extent(i)
	if !ok {
		return nil
	}
	return n.buf[start : start+keyLen : start+keyLen]
}

func (n *node) child(i int) uint64 {
	return order.Uint64(n.buf[pageHeaderBytes+i*elementBytes+8:])
}

func (n *node) flags(i int) uint32 {
	return order.Uint32(n.buf[pageHeaderBytes+i*elementBytes:])
}

// raw returns key and value of row i as one piece, after checking that it
// begins where the row before it ends.
func (n *node) raw(p *pages, i int, flags uint32) (row []byte, keyLen int, err error) {
	start, end, keyLen, ok := n.extent(i)
	if !ok || n.flags(i) != flags {
		return nil, 0, p.damaged(n.id, i, "element is not valid")
	}
	if i > 0 {
		if _, before, _, ok := n.extent(i - 1); !ok || before != start {
			return nil, 0, p.damaged(n.id, i, "row does not follow the one before it")
		}
	}
	return n.buf[start:end:end], keyLen, nil
}

// search returns the first element whose key is not below key, and whether it
// is equal.
func (n *node) search(p *pages, key []byte) (index int, equal bool, err error) {
	lo, hi := 0, n.count
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		k := n.key(mid)
		if k == nil {
			return 0, false, p.damaged(n.id, mid, "element is not valid")
		}
		switch bytes.Compare(k, key) {
		case 0:
			return mid, true, nil
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false, nil
}

// tree is one bucket: the page its root is, or the root itself when the bucket
// is so small that it lies inside its parent.
type tree struct {
	*pages
	section section
	rootID  uint64
	inline  []byte
}

func (t *tree) root() (node, error) {
	if t.inline != nil {
		return t.parse(0, t.inline)
	}
	return t.node(t.rootID)
}

// bucket finds a bucket in the root of the file.
func (p *pages) bucket(rootID uint64, s section) (*tree, error) {
	directory := tree{pages: p, rootID: rootID}
	var c treeCursor
	c.tree = &directory
	if _, err := c.seek(s.name); err != nil {
		return nil, err
	}
	top := c.top()
	if top.index >= top.count || !bytes.Equal(top.key(top.index), s.name) {
		return nil, p.damaged(top.id, -1, fmt.Sprintf("bucket %s is missing", s.name))
	}
	row, keyLen, err := top.raw(p, top.index, elementBucket)
	if err != nil {
		return nil, err
	}
	value := row[keyLen:]
	if len(value) < bucketHeaderBytes {
		return nil, p.damaged(top.id, top.index, fmt.Sprintf("bucket %s has no header", s.name))
	}
	t := &tree{pages: p, section: s, rootID: order.Uint64(value)}
	if t.rootID == 0 {
		t.inline = value[bucketHeaderBytes:]
	}
	return t, nil
}

// get returns the payload of a key, nil when there is none.
func (t *tree) get(key []byte) ([]byte, error) {
	var c treeCursor
	c.tree = t
	equal, err := c.seek(key)
	if err != nil {
		return nil, err
	}
	if equal {
		_, payload, err := c.row()
		return payload, err
	}
	return nil, c.confirmAbsent(key)
}

// treeCursor walks one bucket. It lives on its user's stack.
type treeCursor struct {
	tree  *tree
	depth int
	path  [treeDepthMax]frame
}

type frame struct {
	node
	index int
}

func (c *treeCursor) top() *frame { return &c.path[c.depth-1] }

func (c *treeCursor) push(n node) (*frame, error) {
	if c.depth == treeDepthMax {
		return nil, c.tree.damaged(n.id, -1, "tree is deeper than any can be")
	}
	if n.count == 0 && (c.depth > 0 || !n.leaf) {
		return nil, c.tree.damaged(n.id, -1, "page is empty")
	}
	f := &c.path[c.depth]
	f.node, f.index = n, 0
	c.depth++
	return f, nil
}

// descend follows element index of the top page, and checks that the child is
// the one the branch means.
func (c *treeCursor) descend() (*frame, error) {
	parent := c.top()
	n, err := c.tree.node(parent.child(parent.index))
	if err != nil {
		return nil, err
	}
	f, err := c.push(n)
	if err != nil {
		return nil, err
	}
	if want := parent.key(parent.index); want == nil || !bytes.Equal(f.key(0), want) {
		return nil, c.tree.damaged(n.id, -1, fmt.Sprintf("page does not begin with the key that page %d has for it", parent.id))
	}
	return f, nil
}

// seek moves to the first row whose key is not below key, possibly behind the
// last row of a page, and reports whether it is equal.
func (c *treeCursor) seek(key []byte) (equal bool, err error) {
	c.depth = 0
	n, err := c.tree.root()
	if err != nil {
		return false, err
	}
	f, err := c.push(n)
	for err == nil {
		var i int
		if i, equal, err = f.search(c.tree.pages, key); err != nil {
			return false, err
		}
		f.index = i
		if f.leaf {
			return equal, nil
		}
		if !equal && i > 0 {
			f.index--
		}
		f, err = c.descend()
	}
	return false, err
}

// next moves to the following row, and reports false at the end.
func (c *treeCursor) next() (bool, error) {
	if f := c.top(); f.index+1 < f.count {
		f.index++
		return true, nil
	}
	d := c.depth - 1
	for d > 0 && c.path[d-1].index+1 >= c.path[d-1].count {
		d--
	}
	if d == 0 {
		c.top().index = c.top().count // Stays behind the last row.
		return false, nil
	}
	c.depth = d
	c.path[d-1].index++
	for {
		f, err := c.descend()
		if err != nil {
			return false, err
		}
		if f.leaf {
			return true, nil
		}
	}
}

// settle moves from behind the last row of a page to the row after it.
func (c *treeCursor) settle() (bool, error) {
	if f := c.top(); f.index < f.count {
		return true, nil
	}
	return c.next()
}

// last moves to the last row, and reports false when there is none.
func (c *treeCursor) last() (bool, error) {
	c.depth = 0
	n, err := c.tree.root()
	if err != nil {
		return false, err
	}
	f, err := c.push(n)
	for err == nil {
		f.index = f.count - 1
		if f.leaf {
			return f.count > 0, nil
		}
		f, err = c.descend()
	}
	return false, err
}

// row returns the row the cursor is at, checked.
func (c *treeCursor) row() (key, payload []byte, err error) {
	f := c.top()
	row, keyLen, err := f.raw(c.tree.pages, f.index, 0)
	if err != nil {
		return nil, nil, err
	}
	key, payload, ok := splitRow(c.tree.section, row, keyLen)
	if !ok {
		return nil, nil, c.tree.damaged(f.id, f.index, "checksum does not match")
	}
	return key, payload, nil
}

// key returns the key of the row the cursor is at. The row is not checked.
func (c *treeCursor) key() ([]byte, error) {
	f := c.top()
	row, keyLen, err := f.raw(c.tree.pages, f.index, 0)
	if err != nil {
		return nil, err
	}
	return row[:keyLen:keyLen], nil
}

// from moves to the first row whose key is not below key, and reports false
// when there is none.
func (c *treeCursor) from(key []byte) (bool, error) {
	equal, err := c.seek(key)
	if err != nil || equal {
		return equal, err
	}
	if err := c.confirmBefore(key); err != nil {
		return false, err
	}
	return c.settle()
}

// confirmBefore checks the row before the place where key would be, after seek
// did not find it.
func (c *treeCursor) confirmBefore(key []byte) error {
	f := c.top()
	if f.index == 0 {
		return nil
	}
	f.index--
	before, _, err := c.row()
	f.index++
	if err == nil && bytes.Compare(before, key) >= 0 {
		err = c.tree.damaged(f.id, f.index-1, "rows are out of order")
	}
	return err
}

// confirmAbsent checks the rows on both sides.
func (c *treeCursor) confirmAbsent(key []byte) error {
	if err := c.confirmBefore(key); err != nil {
		return err
	}
	ok, err := c.settle()
	if err != nil || !ok {
		return err
	}
	after, _, err := c.row()
	if err == nil && bytes.Compare(after, key) <= 0 {
		err = c.tree.damaged(c.top().id, c.top().index, "rows are out of order")
	}
	return err
}

// freelist returns the page of the list of free pages that a transaction sees.
// It is to be called while no commit can follow.
func (p *pages) freelist(txid uint64) (uint64, error) {
	meta := p.data[(txid%2)*p.pageSize:][:p.pageSize]
	if order.Uint64(meta[metaTxidOffset:]) != txid {
		return 0, p.damaged(txid%2, -1, "meta page is not of the transaction")
	}
	return order.Uint64(meta[metaFreelistOffset:]), nil
}

// freePages reads the list of free pages. Its own pages are returned last.
func (p *pages) freePages(id uint64) ([]uint64, error) {
	total := uint64(len(p.data)) / p.pageSize
	if id < 2 || id >= total {
		return nil, p.damaged(id, -1, "list of free pages is outside of the file")
	}
	list := p.data[id*p.pageSize:]
	overflow := uint64(order.Uint32(list[12:]))
	if overflow >= total-id {
		return nil, p.damaged(id, -1, "list of free pages is longer than the file")
	}
	free, err := p.parseFree(id, list[:(overflow+1)*p.pageSize])
	for i := range overflow + 1 {
		free = append(free, id+i)
	}
	return free, err
}

// parseFree reads the numbers on the pages of the list.
func (p *pages) parseFree(id uint64, list []byte) ([]uint64, error) {
	if order.Uint64(list) != id || order.Uint16(list[8:]) != flagFreelist {
		return nil, p.damaged(id, -1, "page is not a list of free pages")
	}
	count := uint64(order.Uint16(list[10:]))
	list = list[pageHeaderBytes:]
	if count == freelistLong {
		count, list = order.Uint64(list), list[8:]
	}
	if count > uint64(len(list))/8 {
		return nil, p.damaged(id, -1, "list of free pages is longer than its page")
	}
	free := make([]uint64, 0, count)
	for i := range count {
		free = append(free, order.Uint64(list[8*i:]))
	}
	return free, nil
}

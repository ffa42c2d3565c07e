package backend

import (
	"bytes"
	"runtime/debug"
)

// Cursor walks all keys in order, short and long ones as one sequence. It is
// for one goroutine; what it returns is valid until its view is released.
type Cursor struct {
	// KeysOnly has Seek and Next return keys alone, for whoever counts: a row is
	// then not touched, so its checksum is not checked either.
	KeysOnly bool

	view *View
	tree treeCursor

	// Where each of the two sequences stands. The smaller key is the current one.
	shortKey []byte // nil at the end.
	shortKV  []byte
	long     int
}

// Cursor returns a new cursor. Seek comes first.
func (v *View) Cursor() *Cursor {
	return &Cursor{view: v, tree: treeCursor{tree: v.keys}}
}

// Seek moves to the first key that is not below from and returns it with its
// KeyValue, nil at the end.
func (c *Cursor) Seek(from []byte) (key, kv []byte, err error) {
	defer catchFault(c.view.file, debug.SetPanicOnFault(true), &err)
	c.long, _ = c.view.long.search(from)
	if len(from) > shortKeyBytesMax {
		// A short key sorts the same against a long one and against its
		// beginning with one more byte.
		from = from[:shortKeyBytesMax+1]
	}
	ok, err := c.tree.from(from)
	if err != nil {
		return nil, nil, err
	}
	if err := c.load(ok); err != nil {
		return nil, nil, err
	}
	return c.current()
}

// Next moves to the following key and returns it with its KeyValue, nil at the
// end.
func (c *Cursor) Next() (key, kv []byte, err error) {
	defer catchFault(c.view.file, debug.SetPanicOnFault(true), &err)
	if c.onLong() {
		c.long++
		return c.current()
	}
	if c.shortKey == nil {
		return nil, nil, nil
	}
	ok, err := c.tree.next()
	if err != nil {
		return nil, nil, err
	}
	if err := c.load(ok); err != nil {
		return nil, nil, err
	}
	return c.current()
}

// load reads the row at the short cursor.
func (c *Cursor) load(ok bool) (err error) {
	if !ok {
		c.shortKey, c.shortKV = nil, nil
		return nil
	}
	if c.KeysOnly {
		c.shortKV = nil
		c.shortKey, err = c.tree.key()
		return err
	}
	c.shortKey, c.shortKV, err = c.tree.row()
	return err
}

// onLong reports whether the current key is a long one.
func (c *Cursor) onLong() bool {
	return c.long < len(c.view.long) &&
		(c.shortKey == nil || bytes.Compare(c.view.long[c.long].key, c.shortKey) < 0)
}

func (c *Cursor) current() (key, kv []byte, err error) {
	if !c.onLong() {
		return c.shortKey, c.shortKV, nil
	}
	k := c.view.long[c.long]
	if c.KeysOnly {
		return k.key, nil, nil
	}
	kv, err = c.view.longRow(k)
	if err != nil {
		return nil, nil, err
	}
	return k.key, kv, nil
}

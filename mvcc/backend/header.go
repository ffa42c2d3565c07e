package backend

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Before bbolt opens a file we look at what it would trust: its meta pages and
// its list of free pages. bbolt panics over what is wrong there, and then keeps
// the file locked.

const (
	bboltMagic   = 0xED0CDAED
	bboltVersion = 2

	metaBytes = 64 // Magic to checksum; see page.go for the layout.
)

// header is what a meta page of bbolt says.
type header struct {
	pageSize uint64
	root     uint64
	freelist uint64
	pages    uint64
	txid     uint64
}

// parseMetaPage reads a meta page, as bbolt checks it.
func parseMetaPage(page []byte) (h header, ok bool) {
	m := page[pageHeaderBytes:]
	sum := fnv.New64a()
	sum.Write(m[:metaBytes-8]) // A hash takes any bytes.
	if order.Uint32(m) != bboltMagic || order.Uint32(m[4:]) != bboltVersion || order.Uint64(m[metaBytes-8:]) != sum.Sum64() {
		return header{}, false
	}
	h.pageSize = uint64(order.Uint32(m[8:]))
	h.root = order.Uint64(m[16:])
	h.freelist = order.Uint64(page[metaFreelistOffset:])
	h.pages = order.Uint64(page[metaFreelistOffset+8:])
	h.txid = order.Uint64(page[metaTxidOffset:])
	return h, true
}

// checkHeader refuses a file that bbolt would choke on.
func checkHeader(fsys vfs.FS, path string, size int64) (err error) {
	f, err := fsys.Open(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	damaged := func(page uint64, format string, args ...any) error {
		return &DamageError{File: path, Page: page, Row: -1, Reason: fmt.Sprintf(format, args...)}
	}
	if size < fileBytesMin {
		return damaged(0, "file has %d bytes, the smallest has %d", size, fileBytesMin)
	}
	h, err := newestHeader(f)
	if err != nil {
		return err
	}
	switch {
	case h.pageSize == 0:
		return damaged(0, "both meta pages are invalid")
	case h.pageSize != pageBytesMin && h.pageSize != pageBytesMax:
		return damaged(0, "pages of %d bytes, there are %d and %d", h.pageSize, pageBytesMin, pageBytesMax)
	case h.pages < 4 || h.pages > uint64(size)/h.pageSize:
		return damaged(0, "file has %d bytes, its %d pages of %d do not fit", size, h.pages, h.pageSize)
	case h.root < 2 || h.root >= h.pages:
		return damaged(h.root, "root is outside of the %d pages there are", h.pages)
	}
	return checkFreelist(f, path, h)
}

// newestHeader returns the valid meta page with the highest transaction, as
// bbolt chooses; the zero header when there is none.
func newestHeader(f vfs.File) (newest header, err error) {
	page := make([]byte, pageHeaderBytes+metaBytes)
	for _, at := range []int64{0, pageBytesMin, pageBytesMax} {
		if _, err := f.ReadAt(page, at); err != nil && !errors.Is(err, io.EOF) {
			return header{}, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		if h, ok := parseMetaPage(page); ok && (newest.pageSize == 0 || h.txid > newest.txid) {
			newest = h
		}
	}
	return newest, nil
}

// checkFreelist refuses a list that is not one: bbolt would write new rows
// over pages in use.
func checkFreelist(f vfs.File, path string, h header) error {
	p := &pages{pageSize: h.pageSize, file: path}
	if h.freelist < 2 || h.freelist >= h.pages {
		return p.damaged(h.freelist, -1, "list of free pages is outside of the file")
	}
	head := make([]byte, pageHeaderBytes)
	if _, err := f.ReadAt(head, int64(h.freelist*h.pageSize)); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	overflow := uint64(order.Uint32(head[12:]))
	if overflow >= h.pages-h.freelist {
		return p.damaged(h.freelist, -1, "list of free pages is longer than the file")
	}
	list := make([]byte, (overflow+1)*h.pageSize)
	if _, err := f.ReadAt(list, int64(h.freelist*h.pageSize)); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	free, err := p.parseFree(h.freelist, list)
	if err != nil {
		return err
	}
	last := uint64(1)
	for _, id := range free {
		if id <= last || id >= h.pages {
			return p.damaged(h.freelist, -1, fmt.Sprintf("free page %d after %d, of %d pages", id, last, h.pages))
		}
		last = id
	}
	return nil
}

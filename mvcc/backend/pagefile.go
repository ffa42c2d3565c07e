package backend

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// pageFile writes a new file in one go, page after page, in large blocks: two
// meta pages, the list of free pages, of which there are none, and then what
// page is called with. The meta pages come last, when everything else is synced:
// until then nobody takes the file for a base.
type pageFile struct {
	file     vfs.File
	pageSize int
	noSync   bool

	next   uint64 // Number of the next page.
	block  []byte // Pages under way to the file.
	offset int64  // Of block in the file.

	// Blocks are written on a goroutine of their own, once there is more than one,
	// and synced now and then on another.
	tasks *task.Group
	full  chan pageBlock
	empty chan []byte
	dirty chan struct{}
}

type pageBlock struct {
	at    int64
	bytes []byte
}

const (
	flagMeta = 0x04

	metaPages    = 2
	freelistPage = 2
)

// newPageFile begins a file. The caller closes it after finish.
func newPageFile(cfg *Config) (*pageFile, error) {
	f, err := cfg.FS.Create(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", cfg.Path, err)
	}
	p := &pageFile{file: f, pageSize: cfg.PageSize, noSync: cfg.NoSync, next: freelistPage, offset: int64(metaPages * cfg.PageSize)}
	_, err = p.page(flagFreelist, nil, nil)
	return p, err
}

// element is one row of a leaf or one child of a branch.
type element struct {
	flags uint32 // Of a leaf.
	key   uint32 // Bytes.
	value uint32 // Bytes, of a leaf.
	child uint64 // Of a branch.
}

// pageBytes is how long a page with so much in it is, without the rest of its
// last page.
func pageBytes(elements, data int) int { return pageHeaderBytes + elements*elementBytes + data }

// appendPage appends a page; data are the rows or keys one after the other.
func appendPage(b []byte, id uint64, flags uint16, overflow uint32, elements []element, data []byte) []byte {
	b = order.AppendUint64(b, id)
	b = order.AppendUint16(b, flags)
	b = order.AppendUint16(b, uint16(len(elements)))
	b = order.AppendUint32(b, overflow)
	at := uint32(len(elements) * elementBytes) // From the element to its row.
	for _, e := range elements {
		if flags == flagLeaf {
			b = order.AppendUint32(b, e.flags)
			b = order.AppendUint32(b, at)
			b = order.AppendUint32(b, e.key)
			b = order.AppendUint32(b, e.value)
		} else {
			b = order.AppendUint32(b, at)
			b = order.AppendUint32(b, e.key)
			b = order.AppendUint64(b, e.child)
		}
		at += e.key + e.value - elementBytes
	}
	return append(b, data...)
}

// page adds a page, or as many as one with so much in it takes, and returns its
// number.
func (p *pageFile) page(flags uint16, elements []element, data []byte) (uint64, error) {
	size := pageBytes(len(elements), len(data))
	count := (size + p.pageSize - 1) / p.pageSize
	if len(p.block) > 0 && len(p.block)+count*p.pageSize > writeBlockBytes {
		if err := p.flush(); err != nil {
			return 0, err
		}
	}
	id, end := p.next, len(p.block)+count*p.pageSize
	p.block = appendPage(p.block, id, flags, uint32(count-1), elements, data)
	p.block = append(p.block, make([]byte, end-len(p.block))...)
	p.next += uint64(count)
	return id, nil
}

// flush hands a block over to the goroutine that writes, and takes an empty one.
func (p *pageFile) flush() error {
	if p.tasks == nil {
		p.tasks = task.New(context.Background())
		p.full, p.empty = make(chan pageBlock), make(chan []byte, writeBlocks)
		for range writeBlocks - 1 {
			p.empty <- nil
		}
		p.dirty = make(chan struct{}, 1)
		p.tasks.Go("write base", p.write)
		p.tasks.Go("sync base", p.syncAhead)
	}
	done := p.tasks.Context().Done()
	select {
	case p.full <- pageBlock{p.offset, p.block}:
	case <-done:
		return p.stop()
	}
	p.offset += int64(len(p.block))
	select {
	case p.block = <-p.empty:
	case <-done:
		return p.stop()
	}
	if p.block == nil {
		p.block = make([]byte, 0, writeBlockBytes)
	}
	return nil
}

func (p *pageFile) write(context.Context) error {
	defer close(p.dirty)
	ahead := 0
	for b := range p.full {
		if _, err := p.file.WriteAt(b.bytes, b.at); err != nil {
			return err
		}
		if ahead += len(b.bytes); ahead >= syncAheadBytes {
			ahead = 0
			select {
			case p.dirty <- struct{}{}:
			default: // The disk is behind.
			}
		}
		p.empty <- b.bytes[:0]
	}
	return nil
}

func (p *pageFile) syncAhead(context.Context) error {
	for range p.dirty {
		if err := p.sync(); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the goroutine that writes. What was handed over is written.
func (p *pageFile) stop() error {
	if p.tasks == nil {
		return nil
	}
	close(p.full)
	err := p.tasks.Wait()
	p.tasks = nil
	return err
}

// finish makes the file a base whose directory of buckets is the page root. Both
// meta pages tell of it: bbolt falls back to the other one when the newest is
// damaged.
func (p *pageFile) finish(root uint64) error {
	if err := p.stop(); err != nil {
		return err
	}
	if _, err := p.file.WriteAt(p.block, p.offset); err != nil {
		return err
	}
	if err := p.sync(); err != nil {
		return err
	}
	var both []byte
	for txid := range uint64(metaPages) {
		both = p.appendMetaPage(both, txid, root)
	}
	if _, err := p.file.WriteAt(both, 0); err != nil {
		return err
	}
	return p.sync()
}

func (p *pageFile) sync() error {
	if p.noSync {
		return nil
	}
	return p.file.SyncData()
}

// appendMetaPage appends the meta page of a transaction; see page.go.
func (p *pageFile) appendMetaPage(b []byte, txid, root uint64) []byte {
	end := len(b) + p.pageSize
	b = appendPage(b, txid, flagMeta, 0, nil, nil)
	meta := len(b)
	b = order.AppendUint32(b, bboltMagic)
	b = order.AppendUint32(b, bboltVersion)
	b = order.AppendUint32(b, uint32(p.pageSize))
	b = order.AppendUint32(b, 0) // Flags.
	b = order.AppendUint64(b, root)
	b = order.AppendUint64(b, 0) // Sequence of the bucket.
	b = order.AppendUint64(b, freelistPage)
	b = order.AppendUint64(b, p.next)
	b = order.AppendUint64(b, txid)
	sum := fnv.New64a()
	sum.Write(b[meta:]) // A hash takes any bytes.
	b = order.AppendUint64(b, sum.Sum64())
	return append(b, make([]byte, end-len(b))...)
}

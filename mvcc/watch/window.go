package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// window is a stretch of history on its way to watchers: whole revisions, in
// order. The pump and the catch-up have one each and use it again and again.
type window struct {
	events []event
	bytes  int
	first  ident.Revision // Of the revisions in it; 0 when there are none.
	last   ident.Revision
	ended  bool // There was no more to read.

	view *mvcc.View // For previous values. Taken when first needed.
}

// event is one change of a key.
type event struct {
	revision ident.Revision
	kind     mvccpb.Event_EventType
	created  bool // The key did not exist before.
	known    bool // prev was looked for.
	key      []byte
	kv       []byte // In wire form.
	prev     []byte // The same. Empty when there was none, or it was compacted.
}

func (w *window) reset() {
	clear(w.events)
	w.events, w.bytes, w.first, w.last, w.ended = w.events[:0], 0, 0, 0, false
}

// fill reads on from where a reader stands, to the end or the bounds of a
// window. Revisions below from are left out.
func (w *window) fill(r *history.Reader, from ident.Revision) error {
	w.reset()
	revisions := 0
	for revisions < windowRevisionsMax && w.bytes < windowBytesMax {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			w.ended = true
			return nil
		}
		if err != nil {
			return err
		}
		for i := range rec.Groups {
			if g := &rec.Groups[i]; g.Revision >= from && g.Revision > 0 {
				if err := w.add(g); err != nil {
					return err
				}
				revisions++
			}
		}
	}
	return nil
}

func (w *window) add(g *history.Group) error {
	if w.first == 0 {
		w.first = g.Revision
	}
	w.last = g.Revision
	for i := range g.Mutations {
		m := &g.Mutations[i]
		e := event{revision: g.Revision, key: m.Key}
		switch m.Kind {
		case history.KeyPut:
			e.kv = m.Value
			created, err := isCreation(m.Value)
			if err != nil {
				return fmt.Errorf("put of revision %d: %w", g.Revision, err)
			}
			e.created = created
		case history.KeyDelete:
			e.kind = mvccpb.Event_DELETE
			e.kv = tombstone(m.Key, g.Revision)
		default:
			continue
		}
		w.bytes += len(e.kv)
		w.events = append(w.events, e)
	}
	return nil
}

// Fields of mvccpb.KeyValue.
const (
	kvKey    = 1
	kvCreate = 2
	kvMod    = 3
)

// tombstone is the KeyValue of a deletion.
func tombstone(key []byte, revision ident.Revision) []byte {
	b := make([]byte, 0, len(key)+2*protowire.SizeVarint(uint64(len(key)))+12)
	b = protowire.AppendTag(b, kvKey, protowire.BytesType)
	b = protowire.AppendBytes(b, key)
	b = protowire.AppendTag(b, kvMod, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(revision))
}

// isCreation reports whether a KeyValue is the first of its key. It begins with
// key, create and mod revision.
func isCreation(kv []byte) (bool, error) {
	var create, mod uint64
	for rest := kv; len(rest) > 0 && mod == 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return false, protowire.ParseError(n)
		}
		rest = rest[n:]
		if kind != protowire.VarintType {
			n = protowire.ConsumeFieldValue(number, kind, rest)
		} else {
			var v uint64
			v, n = protowire.ConsumeVarint(rest)
			switch number {
			case kvCreate:
				create = v
			case kvMod:
				mod = v
			}
		}
		if n < 0 {
			return false, protowire.ParseError(n)
		}
		rest = rest[n:]
	}
	return create == mod, nil
}

// previous finds the value of the key before an event: exact, or absent because
// there was none or it was compacted.
func (w *window) previous(ctx context.Context, store *mvcc.Store, e *event) error {
	if e.known || e.created {
		return nil
	}
	if w.view == nil {
		w.view = store.View()
	}
	if e.revision-1 < max(w.view.Compacted(), 1) {
		e.known = true
		return nil
	}
	res, err := w.view.Range(ctx, mvcc.RangeArgs{Key: e.key, Revision: e.revision - 1})
	if err != nil {
		return fmt.Errorf("value before revision %d: %w", e.revision, err)
	}
	if len(res.KVs) > 0 {
		e.prev = res.KVs[0]
	}
	e.known = true
	return nil
}

// release lets go of the state that previous values were read in.
func (w *window) release() {
	if w.view != nil {
		w.view.Release()
		w.view = nil
	}
}

// choice is which events a watcher wants, and in which form.
type choice uint8

const (
	withPrev choice = 1 << iota
	withoutPut
	withoutDelete

	choices = 1 << iota
)

func (r *Request) choice() (c choice) {
	if r.PrevKV {
		c |= withPrev
	}
	if r.NoPut {
		c |= withoutPut
	}
	if r.NoDelete {
		c |= withoutDelete
	}
	return c
}

func (c choice) wants(kind mvccpb.Event_EventType) bool {
	if kind == mvccpb.Event_PUT {
		return c&withoutPut == 0
	}
	return c&withoutDelete == 0
}

// frame is the events of a window that a group wants in one form, encoded
// once, in memory of its own. It never changes, but for what is kept in shared and
// counted in queues.
type frame struct {
	events    [][]byte
	revisions []ident.Revision
	ends      []int // Bytes up to the end of each event.
	shared    Shared
	queues    atomic.Int64 // In which it waits.
}

// frame encodes what a group wants, at most once for each choice. It is nil
// when nothing is left.
func (w *window) frame(ctx context.Context, store *mvcc.Store, g *group, c choice) (*frame, error) {
	if g.hasFrame[c] {
		return g.frames[c], nil
	}
	n, size := 0, 0
	for _, i := range g.hits {
		e := &w.events[i]
		if !c.wants(e.kind) {
			continue
		}
		prev := 0
		if c&withPrev != 0 {
			if err := w.previous(ctx, store, e); err != nil {
				return nil, err
			}
			prev = len(e.prev)
		}
		n++
		size += codec.EventSize(e.kind, len(e.kv), prev)
	}
	g.hasFrame[c] = true
	if n == 0 {
		return nil, nil
	}
	f := &frame{events: make([][]byte, 0, n), revisions: make([]ident.Revision, 0, n), ends: make([]int, 0, n)}
	buf := make([]byte, 0, size)
	for _, i := range g.hits {
		e := &w.events[i]
		if !c.wants(e.kind) {
			continue
		}
		var prev []byte
		if c&withPrev != 0 {
			prev = e.prev
		}
		from := len(buf)
		buf = codec.AppendEvent(buf, e.kind, e.kv, prev)
		f.events = append(f.events, buf[from:len(buf):len(buf)])
		f.revisions = append(f.revisions, e.revision)
		f.ends = append(f.ends, len(buf))
	}
	g.frames[c] = f
	return f, nil
}

// from is the first event at or after a revision.
func (f *frame) from(revision ident.Revision) int {
	if f.revisions[0] >= revision {
		return 0
	}
	return sort.Search(len(f.revisions), func(i int) bool { return f.revisions[i] >= revision })
}

// size is the bytes of the events from one on.
func (f *frame) size(from int) int {
	if from == 0 {
		return f.ends[len(f.ends)-1]
	}
	return f.ends[len(f.ends)-1] - f.ends[from-1]
}

// count bounds the number of revisions from an event on.
func (f *frame) count(from int) int {
	if from == len(f.revisions) {
		return 0
	}
	return min(len(f.revisions)-from, int(f.revisions[len(f.revisions)-1]-f.revisions[from])+1)
}

// cut is where an answer ends that begins with an event: behind all of them, if they
// are within the bounds of a window. They need not be: an entry may have had many
// requests and is read whole, and how large previous values are is known only here.
func (f *frame) cut(from int) int {
	to := len(f.events)
	if f.size(from) > windowBytesMax {
		before := f.ends[len(f.ends)-1] - f.size(from)
		to = from + sort.SearchInts(f.ends[from:], before+windowBytesMax+1)
		to = f.from(f.revisions[to]) // A revision is whole (I-8).
		if to <= from {
			to = f.from(f.revisions[from] + 1)
		}
	}
	if f.count(from) > windowRevisionsMax {
		to = min(to, f.from(f.revisions[from]+windowRevisionsMax))
	}
	return to
}

package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// baseWriter cuts the stream of a snapshot into objects.
type baseWriter struct {
	ctx      context.Context
	store    blobstore.Store
	prefix   string // Of the base's folder.
	head     head
	sealer   *sealer
	manifest Manifest
	sha      hash.Hash
	part     []byte
	clock    clock.Clock
	pause    func() time.Duration
}

// baseOptions are what a base is written with.
type baseOptions struct {
	member         ident.MemberID
	clock          clock.Clock
	bytesPerSecond int64
	pause          func() time.Duration // Nil: none.
}

// writeBase ships a frozen state. It counts from when the manifest is there; a
// base of the same position that somebody finished first is as good.
func writeBase(ctx context.Context, store blobstore.Store, prefix string, at place, f *mvcc.Frozen, s *sealer, o baseOptions) (Manifest, error) {
	now := o.clock.Wall()
	id := baseName{Index: f.End().Index, Revision: max(f.State.Revision, 0)}
	folder := timelinePath(at.timeline) + baseFolder + id.String() + "/"
	w := &baseWriter{
		ctx: ctx, store: store, prefix: prefix + folder, sealer: s, sha: sha256.New(), clock: o.clock, pause: o.pause, part: make([]byte, 0, partBytes),
		head: head{Kind: kindPart, Cluster: at.cluster, Timeline: uint64(at.timeline), Part: &partHead{Base: id.String()}},
		manifest: Manifest{
			Format: FormatVersion, Cluster: at.cluster, Timeline: at.timeline, ClusterID: f.State.Cluster, At: pointOf(f.State), Last: id.Index,
			Made: now.UTC().Format(time.RFC3339), Member: o.member.String(),
		},
	}
	totals, err := snapshot.Write(ctx, w, f, snapshot.WriteOptions{
		Member: o.member, MadeUnixNano: now.UnixNano(), BytesPerSecond: o.bytesPerSecond, Clock: o.clock,
		GiveWay: func(context.Context) error { return f.Overdue() },
	})
	if err == nil {
		err = w.flush()
	}
	m := &w.manifest
	m.Rows, m.Records, m.Bytes, m.SHA256 = totals.Rows, totals.Records, totals.Bytes, fmt.Sprintf("%x", w.sha.Sum(nil))
	var text []byte
	if err == nil {
		text, err = encodeText(m)
	}
	if err == nil {
		_, err = store.Put(ctx, w.prefix+manifestName, text, blobstore.Condition{Absent: true})
	}
	if errors.Is(err, blobstore.ErrCondition) { // Ours that timed out, or another's of the same state.
		return w.adopt(at, id)
	}
	if err != nil {
		return *m, fmt.Errorf("base %s: %w", folder, err)
	}
	return *m, nil
}

// adopt takes the manifest that is there, if it is of the same state.
func (w *baseWriter) adopt(at place, id baseName) (Manifest, error) {
	name, there := w.prefix+manifestName, Manifest{}
	data, _, err := w.store.Get(w.ctx, name)
	if err == nil {
		err = decodeText(name, data, &there)
	}
	if err == nil {
		err = there.validate(name, at, id)
	}
	if err == nil && there.At.Digest != w.manifest.At.Digest {
		err = fmt.Errorf("object %s has digest %s, here it is %s: %w", name, there.At.Digest, w.manifest.At.Digest, ErrDisagree)
	}
	return there, err
}

func pointOf(st mvcc.State) Point {
	return Point{
		Index: st.Position.Index, Group: st.Position.Group, Term: st.Term, Time: st.Time,
		Revision: st.Revision, Compacted: st.Compacted, Digest: Digest(st.Digest),
	}
}

// tail is what the first segment after a base follows. Entries between the last
// record and the base's position have changed nothing.
func (m *Manifest) tail() Point {
	p := m.At
	p.Index = m.Last
	return p
}

func (w *baseWriter) Write(b []byte) (int, error) {
	w.sha.Write(b)
	total := len(b)
	for len(b) > 0 {
		n := min(len(b), partBytes-len(w.part))
		w.part = append(w.part, b[:n]...)
		b = b[n:]
		if len(w.part) == partBytes {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

func (w *baseWriter) flush() error {
	if len(w.part) == 0 {
		return nil
	}
	m, h := &w.manifest, w.head
	part := *h.Part
	part.Number = len(m.Parts)
	if n := len(m.Parts); n > 0 {
		part.Offset = m.Parts[n-1].Offset + m.Parts[n-1].Bytes
	}
	h.Part = &part
	data, err := w.sealer.seal(h, w.part)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	name := partName(part.Number, [16]byte(sum[:16]))
	if err := putAbsent(w.ctx, w.store, w.prefix+name, data); err != nil {
		return err
	}
	m.Parts = append(m.Parts, Part{Name: name, Offset: part.Offset, Bytes: int64(len(w.part)), Stored: int64(len(data))})
	w.part = w.part[:0]
	return w.giveWay()
}

// giveWay waits after a piece.
func (w *baseWriter) giveWay() error {
	if w.pause == nil {
		return nil
	}
	select {
	case <-w.clock.After(w.pause()):
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// Manifest of a base of a catalogue.
func (a *Archive) Manifest(ctx context.Context, t ident.Timeline, b *Base) (*Manifest, error) {
	name := b.Name + manifestName
	data, _, err := a.store.Get(ctx, a.path(name))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	m := &Manifest{}
	if err := decodeText(name, data, m); err != nil {
		return nil, err
	}
	return m, m.validate(name, place{a.cluster, t}, baseName{b.Index, b.Revision})
}

// baseReader is the stream of a base. Parts are fetched ahead, side by side.
type baseReader struct {
	tasks *task.Group
	used  *usage
	parts chan chan fetched // In order.
	rest  []byte
	err   error
}

type fetched struct {
	content []byte
	stored  int64 // Bytes of the object.
	err     error
}

// readBase opens the stream of a base. Close it.
func (a *Archive) readBase(ctx context.Context, folder string, m *Manifest, used *usage) *baseReader {
	r := &baseReader{tasks: task.New(ctx), used: used, parts: make(chan chan fetched, partsAhead-1)} // And one is being read.
	r.tasks.Go("fetch", func(ctx context.Context) error {
		defer close(r.parts)
		for i := range m.Parts {
			one := make(chan fetched, 1)
			select {
			case r.parts <- one:
			case <-ctx.Done():
				return ctx.Err()
			}
			r.tasks.Go("part", func(ctx context.Context) error {
				content, err := a.part(ctx, folder, m, i)
				one <- fetched{content, m.Parts[i].Stored, err}
				return nil
			})
		}
		return nil
	})
	return r
}

// part fetches and verifies a piece.
func (a *Archive) part(ctx context.Context, folder string, m *Manifest, i int) ([]byte, error) {
	p := &m.Parts[i]
	name := folder + p.Name
	// A range has no tag, which a folder would have to compute. One byte more: an
	// object that is too long shall show.
	data, err := a.store.GetRange(ctx, a.path(name), 0, p.Stored+1)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	h, content, err := openPart(a.opener, place{a.cluster, m.Timeline}, baseName{m.Last, m.At.Revision}, name, data)
	if err != nil {
		return nil, err
	}
	if h.Part.Number != i || h.Part.Offset != p.Offset || int64(len(content)) != p.Bytes {
		return nil, fmt.Errorf("object %s is not part %d of this base: %w", name, i, ErrForeign)
	}
	return content, nil
}

// openPart verifies a piece by itself: its bytes, and that it is what its name
// says and belongs where it lies. Without a key its content is not seen: then
// the error is ErrNoKey.
func openPart(o *opener, at place, base baseName, name string, data []byte) (head, []byte, error) {
	h, content, sum, err := o.open(name, data)
	if err != nil && !errors.Is(err, ErrNoKey) {
		return h, nil, err // It tells where.
	}
	if h.Part == nil || h.Cluster != at.cluster || h.Timeline != uint64(at.timeline) || h.Part.Base != base.String() {
		return h, nil, fmt.Errorf("object %s is a %s of cluster %s, timeline %d: %w", name, h.Kind, h.Cluster, h.Timeline, ErrForeign)
	}
	if partName(h.Part.Number, [16]byte(sum[:16])) != path.Base(name) {
		return h, nil, damagef(name, 0, "it is another object than its name says: it is piece %d and its SHA-256 begins with %x", h.Part.Number, sum[:16])
	}
	return h, content, err
}

func (r *baseReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		next, ok := <-r.parts
		if !ok {
			r.err = io.EOF
			if err := r.tasks.Context().Err(); err != nil {
				r.err = err
			}
			break
		}
		select {
		case f := <-next:
			r.rest, r.err = f.content, f.err
			r.used.add(f.stored)
		case <-r.tasks.Context().Done():
			r.err = r.tasks.Context().Err()
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	if n == 0 {
		return 0, r.err
	}
	return n, nil
}

// Close ends the fetching.
func (r *baseReader) Close() {
	r.tasks.Stop()
	_ = r.tasks.Wait() // Read has told what failed.
}

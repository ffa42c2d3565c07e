package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Found is an object of an archive, and what reading every byte of it has shown.
type Found struct {
	Name     string // Within the folder of the cluster.
	Kind     string
	Timeline ident.Timeline // 0: of none.
	First    ident.Index    // Of what is in it; 0 where that has no place in the log.
	Last     ident.Index
	Revision ident.Revision // At Last. 0: unknown without a key, or it has none.
	Bytes    int64
	Note     string // What is to be known of it, and is no damage.
	Sealed   bool   // It is encrypted and no identity opens it: its bytes as stored are right, its content was not seen.
	Err      error  // What is wrong with it. A *DamageError tells where.
}

// Kinds of what is found.
const (
	foundMeta     = "meta"
	foundOwner    = "owner"
	foundCeiling  = "ceiling"
	foundEpoch    = "epoch"
	foundTimeline = "timeline"
	foundSegment  = "log"
	foundBase     = "base"
	foundPart     = "base-part"
	foundDrill    = "drill"
	foundTrash    = "trash"
	foundForeign  = "foreign"
)

// Inspect reads every byte of every object and tells of each, also of those that
// should be there and are not. It goes on after what is damaged; an error means
// that the archive could not be read, or is tell's.
func (a *Archive) Inspect(ctx context.Context, tell func(Found) error) (*Catalogue, error) {
	c, err := a.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	i := &inspector{archive: a, ctx: ctx, catalogue: c, tell: tell, seen: make(map[string]bool), ends: make(map[joint]named)}
	for _, name := range slices.Sorted(maps.Keys(c.objects)) {
		if i.seen[name] {
			continue
		}
		if err := i.object(name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

type inspector struct {
	archive   *Archive
	ctx       context.Context
	catalogue *Catalogue
	tell      func(Found) error
	seen      map[string]bool // Manifests that can be read, and the pieces that they name.
	ends      map[joint]named // States that objects lead to.
}

// joint is where objects of a timeline meet.
type joint struct {
	timeline ident.Timeline
	index    ident.Index
}

// named is a digest and the object that says so.
type named struct {
	digest Digest
	object string
}

// object inspects one, and with the manifest of a base its pieces.
func (i *inspector) object(name string) error {
	l := locate(name)
	f := Found{Name: name, Timeline: l.timeline, Bytes: i.catalogue.objects[name]}
	switch l.kind {
	case ofSegment:
		return i.segment(f, l.segment)
	case ofManifest:
		return i.base(f, l.base)
	case ofPart:
		if f.Note = "its base has no manifest that can be read"; i.seen[strings.TrimSuffix(name, l.rest)+manifestName] {
			f.Note = "its base is complete without it"
		}
		_, err := i.part(f, l.base)
		return err
	case ofCluster:
		if f.Kind = foundMeta; name == ownerName {
			f.Kind = foundOwner
			return i.text(f, &ownerLease{}, func(*Found) {})
		}
		return i.text(f, &Meta{}, func(*Found) {}) // Open has compared it.
	case ofCeiling:
		f.Kind, f.Revision = foundCeiling, l.ceiling
		v := &Ceiling{}
		return i.text(f, v, func(f *Found) { i.belongs(f, v.Revision == l.ceiling) })
	case ofEpoch:
		f.Kind, f.Timeline = foundEpoch, l.epoch
		v := &Epoch{}
		return i.text(f, v, func(f *Found) {
			i.belongs(f, v.Cluster == i.archive.cluster && v.Number == l.epoch)
			f.Note = fmt.Sprintf("the cluster was given up at %s by %s, for cluster %s", v.Made, v.By, v.Successor)
		})
	case ofHistory:
		f.Kind = foundTimeline
		v := &History{}
		return i.text(f, v, func(f *Found) { i.belongs(f, v.Cluster == i.archive.cluster && v.Timeline == l.timeline) })
	case ofVerify:
		f.Kind = foundDrill
		v := &Drill{}
		return i.text(f, v, func(f *Found) {
			i.belongs(f, v.Cluster == i.archive.cluster)
			if f.Timeline, f.Last, f.Revision = v.Timeline, v.To.Index, v.To.Revision; !v.OK {
				f.Note = "it failed: " + v.Error
			}
		})
	case ofTrash:
		f.Kind = foundTrash
		v := &trashList{}
		return i.text(f, v, func(f *Found) { f.Note = fmt.Sprintf("%d objects are listed for removal", len(v.Objects)) })
	}
	f.Kind, f.Note = foundForeign, "not of an archive, not read"
	return i.tell(f)
}

// get reads an object. One that is gone is damage; any other error ends the
// inspection: nothing is known of the object then.
func (i *inspector) get(f *Found) (data []byte, err error) {
	data, _, err = i.archive.store.Get(i.ctx, i.archive.path(f.Name))
	switch {
	case errors.Is(err, blobstore.ErrNotFound):
		f.Err = fmt.Errorf("object %s: %w", f.Name, err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("object %s: %w", f.Name, err)
	}
	f.Bytes = int64(len(data))
	return data, nil
}

// text inspects a JSON object.
func (i *inspector) text(f Found, v any, look func(*Found)) error {
	data, err := i.get(&f)
	if err != nil {
		return err
	}
	if f.Err == nil {
		f.Err = decodeText(f.Name, data, v)
	}
	if f.Err == nil {
		look(&f)
	}
	return i.tell(f)
}

func (i *inspector) belongs(f *Found, right bool) {
	if !right {
		f.Err = fmt.Errorf("object %s holds another one than its name says: %w", f.Name, ErrForeign)
	}
}

func (i *inspector) segment(f Found, id segmentName) error {
	f.Kind, f.First, f.Last = foundSegment, id.First, id.Last
	data, err := i.get(&f)
	if err != nil {
		return err
	}
	var s *segment
	if f.Err == nil {
		s, f.Err = openSegment(i.archive.opener, place{i.archive.cluster, f.Timeline}, f.Name, id, data)
	}
	f.unseal()
	if f.Err == nil {
		f.Revision = s.end.Revision
		f.Err = i.join(f.Timeline, s.after, f.Name)
	}
	if f.Err == nil {
		f.Err = i.join(f.Timeline, s.end, f.Name)
	}
	return i.tell(f)
}

// join compares a state with what other objects say of the same position. Equal
// digests are equal pasts.
func (i *inspector) join(t ident.Timeline, at Point, object string) error {
	j := joint{t, at.Index}
	if known, ok := i.ends[j]; ok && known.digest != at.Digest {
		return fmt.Errorf("object %s has digest %s after entry %d, object %s has %s: %w", object, at.Digest, at.Index, known.object, known.digest, ErrDisagree)
	}
	i.ends[j] = named{at.Digest, object}
	return nil
}

// unseal takes an object as right that only lacks a key.
func (f *Found) unseal() {
	if errors.Is(f.Err, ErrNoKey) {
		f.Sealed, f.Note, f.Err = true, f.Err.Error(), nil
	}
}

// base inspects a manifest, and the pieces that it names.
func (i *inspector) base(f Found, id baseName) error {
	f.Kind, f.Last, f.Revision = foundBase, id.Index, id.Revision
	data, err := i.get(&f)
	if err != nil {
		return err
	}
	m := &Manifest{}
	if f.Err == nil {
		f.Err = decodeText(f.Name, data, m)
	}
	if f.Err == nil {
		f.Err = m.validate(f.Name, place{i.archive.cluster, f.Timeline}, id)
	}
	if f.Err == nil {
		f.Err = i.join(f.Timeline, m.tail(), f.Name)
	}
	if f.Err != nil { // Its pieces follow one by one.
		return i.tell(f)
	}
	i.seen[f.Name] = true
	f.Note = fmt.Sprintf("%d pieces", len(m.Parts))
	sum, whole := sha256.New(), true
	for n, p := range m.Parts {
		name := strings.TrimSuffix(f.Name, manifestName) + p.Name
		i.seen[name] = true
		content, err := i.part(Found{Name: name, Timeline: f.Timeline}, id)
		if err != nil {
			return err
		}
		if n == 0 && content != nil {
			f.Err = m.heads(f.Name, content)
		}
		whole = whole && content != nil
		sum.Write(content)
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); f.Err == nil && whole && got != m.SHA256 {
		f.Err = damagef(f.Name, 0, "its pieces have SHA-256 %s, it says %s", got, m.SHA256)
	}
	return i.tell(f)
}

// heads compares a manifest with the header in its first piece.
func (m *Manifest) heads(name string, first []byte) error {
	h, err := snapshot.HeaderOf(bytes.NewReader(first))
	if err != nil {
		return fmt.Errorf("pieces of %s: %w", name, err)
	}
	return m.describes(name, h)
}

// part inspects a piece and returns its content, nil when that was not seen.
func (i *inspector) part(f Found, base baseName) (content []byte, err error) {
	f.Kind, f.Last, f.Revision = foundPart, base.Index, base.Revision
	data, err := i.get(&f)
	if err != nil {
		return nil, err
	}
	if f.Err == nil {
		_, content, f.Err = openPart(i.archive.opener, place{i.archive.cluster, f.Timeline}, base, f.Name, data)
	}
	f.unseal()
	return content, i.tell(f)
}

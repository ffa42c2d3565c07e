package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Catalogue is what a list of the objects tells, and nothing else.
type Catalogue struct {
	Cluster   UUID
	Timelines []*Timeline // By number.
	Drills    []string    // Names of results, oldest first.
	Foreign   []string    // Objects that are not an archive's.
	Trash     Sizes
	Ceiling   ident.Revision // Revisions up to here may have been used; 0: none are reserved.
	Epoch     ident.Timeline // The newest; 0: the cluster was not given up.
	objects   map[string]int64
}

// Timeline is a life of the history.
type Timeline struct {
	Number  ident.Timeline
	History bool // HISTORY.json is there.
	Bases   []*Base
	Log     []Segment // By first entry, then by last.
}

// Sizes of objects.
type Sizes struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Base is a snapshot in pieces.
type Base struct {
	Name     string
	Index    ident.Index // Of its last record.
	Revision ident.Revision
	Complete bool // Its manifest is there.
	Sizes
	Modified time.Time
}

// Segment is a piece of the log.
type Segment struct {
	Name        string // Within the cluster's folder.
	First, Last ident.Index
	Digest      Digest // After Last.
	Bytes       int64
	Modified    time.Time // By the store's clock, for people.
}

// Total is how much is there.
func (c *Catalogue) Total() (objects int, bytes int64) {
	for _, size := range c.objects { //tidy:ordered a sum
		bytes += size
	}
	return len(c.objects), bytes
}

// Clusters lists the folders of clusters in a store.
func Clusters(ctx context.Context, store blobstore.Store) ([]UUID, error) {
	var list []UUID
	var last string
	err := store.List(ctx, "", "", func(o blobstore.Object) error {
		folder, file, ok := strings.Cut(o.Name, "/")
		var u UUID
		if ok && file == metaName && folder != last && u.UnmarshalText([]byte(folder)) == nil {
			list, last = append(list, u), folder
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", store, err)
	}
	return list, nil
}

// Archive is the folder of one cluster in a store.
type Archive struct {
	store   blobstore.Store
	cluster UUID
	opener  *opener
}

// OpenURL opens the store at a URL, and in it the archive of a cluster. Close the
// store when done.
func OpenURL(ctx context.Context, url string, cluster UUID, ids Identities) (*Archive, blobstore.Store, error) {
	store, err := blobstore.Open(ctx, url, blobstore.Config{})
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	a, err := Open(ctx, store, cluster, ids)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return a, store, nil
}

// Open finds the archive of a cluster. The zero UUID stands for the only one.
func Open(ctx context.Context, store blobstore.Store, cluster UUID, ids Identities) (*Archive, error) {
	if cluster == (UUID{}) {
		list, err := Clusters(ctx, store)
		if err != nil {
			return nil, err
		}
		switch len(list) {
		case 0:
			return nil, fmt.Errorf("%s: %w", store, ErrNoArchive)
		case 1:
			cluster = list[0]
		default:
			return nil, fmt.Errorf("%w: %s holds the archives of clusters %v, say which with --cluster-uuid", ErrInvalid, store, list)
		}
	}
	o, err := newOpener(ids)
	if err != nil {
		return nil, err
	}
	a := &Archive{store: store, cluster: cluster, opener: o}
	data, _, err := store.Get(ctx, a.path(metaName))
	if err != nil {
		return nil, fmt.Errorf("%s, cluster %s: %w: %w", store, cluster, ErrNoArchive, err)
	}
	meta := Meta{}
	if err := decodeText(a.path(metaName), data, &meta); err != nil {
		return nil, err
	}
	if meta.Cluster != cluster {
		return nil, fmt.Errorf("object %s is of cluster %s: %w", a.path(metaName), meta.Cluster, ErrForeign)
	}
	return a, nil
}

// Cluster whose archive it is.
func (a *Archive) Cluster() UUID { return a.cluster }

func (a *Archive) path(name string) string { return a.cluster.String() + "/" + name }

// Catalogue lists the archive.
func (a *Archive) Catalogue(ctx context.Context) (*Catalogue, error) {
	return a.list(ctx, "", func(*Catalogue) error { return nil })
}

// list is the catalogue of what is in a folder. during is called after each object,
// with the catalogue so far.
func (a *Archive) list(ctx context.Context, folder string, during func(*Catalogue) error) (*Catalogue, error) {
	c := &Catalogue{Cluster: a.cluster, objects: make(map[string]int64)}
	prefix := a.path("")
	err := a.store.List(ctx, prefix+folder, "", func(o blobstore.Object) error {
		c.add(strings.TrimPrefix(o.Name, prefix), o)
		return during(c)
	})
	if err != nil {
		return nil, fmt.Errorf("list %s%s%s: %w", a.store, prefix, folder, err)
	}
	for _, t := range c.Timelines {
		slices.SortFunc(t.Log, func(x, y Segment) int {
			return cmp.Or(cmp.Compare(x.First, y.First), cmp.Compare(x.Last, y.Last), cmp.Compare(x.Name, y.Name))
		})
	}
	return c, nil
}

func (c *Catalogue) add(name string, o blobstore.Object) {
	c.objects[name] = o.Size
	l := locate(name)
	switch l.kind {
	case foreign:
		c.Foreign = append(c.Foreign, name)
	case ofVerify:
		c.Drills = append(c.Drills, name)
	case ofCeiling:
		c.Ceiling = max(c.Ceiling, l.ceiling)
	case ofEpoch:
		c.Epoch = max(c.Epoch, l.epoch)
	case ofTrash:
		c.Trash.add(o)
	case ofHistory:
		c.timeline(l.timeline).History = true
	case ofSegment:
		t := c.timeline(l.timeline)
		t.Log = append(t.Log, Segment{Name: name, First: l.segment.First, Last: l.segment.Last, Digest: l.segment.Digest, Bytes: o.Size, Modified: o.Modified})
	case ofManifest, ofPart:
		b := c.timeline(l.timeline).base(l)
		b.Complete = b.Complete || l.kind == ofManifest
		b.Modified = o.Modified
		b.add(o)
	}
}

func (s *Sizes) add(o blobstore.Object) { s.Objects, s.Bytes = s.Objects+1, s.Bytes+o.Size }

func (c *Catalogue) timeline(n ident.Timeline) *Timeline {
	i, found := slices.BinarySearchFunc(c.Timelines, n, func(t *Timeline, n ident.Timeline) int { return cmp.Compare(t.Number, n) })
	if !found {
		c.Timelines = slices.Insert(c.Timelines, i, &Timeline{Number: n})
	}
	return c.Timelines[i]
}

// spare drops what was just listed if it says nothing of where a timeline ends, so that
// a list of years fits into memory: other timelines, and what lies before the newest
// base. Bases are listed before the log. Segments that overlap are kept, since two of
// them may tell two pasts.
func (c *Catalogue) spare(of ident.Timeline) {
	clear(c.objects)
	c.Drills, c.Foreign = nil, nil
	for _, t := range c.Timelines {
		if t.Number != of {
			t.Log = nil
		}
	}
	t := c.find(of)
	if t == nil || len(t.Log) < 2 {
		return
	}
	n := len(t.Log) - 2
	s, next := t.Log[n], t.Log[n+1]
	covered := slices.ContainsFunc(t.Bases, func(b *Base) bool { return b.Complete && s.Last <= b.Index })
	if covered && s.Last < next.First && !overlaps(t.Log[:n], s) {
		t.Log = append(t.Log[:n], next)
	}
}

// overlaps reports whether a segment begins within one of those listed before.
func overlaps(before []Segment, s Segment) bool {
	return slices.ContainsFunc(before, func(o Segment) bool { return o.Last >= s.First })
}

// find returns a timeline, nil when nothing of it is there.
func (c *Catalogue) find(n ident.Timeline) *Timeline {
	for _, t := range c.Timelines {
		if t.Number == n {
			return t
		}
	}
	return nil
}

func (t *Timeline) base(l located) *Base {
	name := timelinePath(t.Number) + baseFolder + l.base.String() + "/"
	if n := len(t.Bases); n > 0 && t.Bases[n-1].Name == name { // A list is in order.
		return t.Bases[n-1]
	}
	b := &Base{Name: name, Index: l.base.Index, Revision: l.base.Revision}
	t.Bases = append(t.Bases, b)
	return b
}

// Run is a piece of a timeline without a gap: a base and the log after it.
type Run struct {
	Base *Base
	Log  []Segment // Each begins where, or before, the one before ends; none lies within another.
	Last ident.Index
}

// Runs are the pieces from which positions can be restored: one for each base,
// with the log as far as it goes on from there without a gap.
func (t *Timeline) Runs() []Run {
	var runs []Run
	for _, b := range t.Bases {
		if b.Complete {
			log := t.chain(b.Index)
			run := Run{Base: b, Log: log, Last: b.Index}
			if n := len(log); n > 0 {
				run.Last = log[n-1].Last
			}
			runs = append(runs, run)
		}
	}
	return runs
}

// chain picks segments that go on from an entry, as few as there are: among
// those that overlap, as two owners in a hand-over write them, the longest.
func (t *Timeline) chain(from ident.Index) []Segment {
	var chain []Segment
	i := 0
	for {
		best := -1
		for ; i < len(t.Log) && t.Log[i].First <= from+1; i++ {
			if t.Log[i].Last > from && (best < 0 || t.Log[i].Last > t.Log[best].Last) {
				best = i
			}
		}
		if best < 0 {
			return chain
		}
		chain = append(chain, t.Log[best])
		from = t.Log[best].Last
	}
}

// Gap is a stretch of entries that no segment holds, though later ones exist.
type Gap struct {
	After  ident.Index `json:"after"`
	Before ident.Index `json:"before"`
}

// Gaps between the segments of a timeline, and between its bases and the log
// after them.
func (t *Timeline) Gaps() []Gap {
	var gaps []Gap
	if len(t.Bases) == 0 && len(t.Log) == 0 {
		return nil
	}
	reached := ident.Index(0)
	if len(t.Log) > 0 {
		reached = t.Log[0].First - 1
	}
	if len(t.Bases) > 0 {
		reached = min(reached, t.Bases[0].Index)
	}
	for _, s := range t.Log {
		if s.First > reached+1 {
			gaps = append(gaps, Gap{After: reached, Before: s.First})
		}
		reached = max(reached, s.Last)
	}
	return gaps
}

// Conflict is two segments that end at one entry with two pasts.
type Conflict struct{ A, B Segment }

// Conflicts shows segments that contradict each other by their names.
func (t *Timeline) Conflicts() []Conflict {
	var list []Conflict
	seen := make(map[ident.Index]Segment, len(t.Log))
	for _, s := range t.Log {
		if other, ok := seen[s.Last]; ok && other.Digest != s.Digest {
			list = append(list, Conflict{other, s})
		}
		seen[s.Last] = s
	}
	return list
}

// Window is what can be restored of a timeline, as entries of the log.
type Window struct {
	Timeline ident.Timeline `json:"timeline"`
	First    ident.Index    `json:"first"` // Every position from here to Last can be restored, but for those in Gaps.
	Last     ident.Index    `json:"last"`
	Gaps     []Gap          `json:"gaps,omitempty"`
}

func (w Window) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "timeline %d, entries %d to %d", w.Timeline, w.First, w.Last)
	for _, g := range w.Gaps {
		fmt.Fprintf(&b, ", without those between %d and %d", g.After, g.Before)
	}
	return b.String()
}

// Window of a timeline; false when nothing of it can be restored.
func (t *Timeline) Window() (Window, bool) {
	runs := t.Runs()
	if len(runs) == 0 {
		return Window{}, false
	}
	w := Window{Timeline: t.Number, First: runs[0].Base.Index, Last: runs[0].Last}
	for _, r := range runs[1:] {
		if r.Base.Index > w.Last {
			w.Gaps = append(w.Gaps, Gap{w.Last, r.Base.Index})
		}
		w.Last = max(w.Last, r.Last)
	}
	return w, true
}

// Latest is the timeline with the highest number, nil when there is none.
func (c *Catalogue) Latest() *Timeline {
	if len(c.Timelines) == 0 {
		return nil
	}
	return c.Timelines[len(c.Timelines)-1]
}

// segment fetches and verifies a piece of the log.
func (a *Archive) segment(ctx context.Context, t ident.Timeline, s Segment) (*segment, error) {
	data, _, err := a.store.Get(ctx, a.path(s.Name))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", s.Name, err)
	}
	return openSegment(a.opener, place{a.cluster, t}, s.Name, segmentName{s.First, s.Last, s.Digest}, data)
}

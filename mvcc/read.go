package mvcc

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// SortTarget is what the rows of a range are sorted by.
type SortTarget uint8

// Targets.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreate
	SortByMod
	SortByValue
)

// SortOrder is how the rows of a range are sorted. None means ascending.
type SortOrder uint8

// Orders.
const (
	SortNone SortOrder = iota
	SortAscend
	SortDescend
)

// RangeArgs says what to read. Without End it is the one key; an End of one
// zero byte means all keys from Key on; else keys in [Key, End).
type RangeArgs struct {
	Key, End   []byte
	Revision   ident.Revision // 0 or below: the head.
	Limit      int64          // Rows at most, after filters and, but for limitsFirst, sorting. 0 or below: all.
	CountOnly  bool
	KeysOnly   bool // Rows without value and, unless sorted by value, without lease.
	SortTarget SortTarget
	SortOrder  SortOrder

	// Inclusive; 0 means no bound, as does a lower bound below 0, while an upper
	// one below 0 leaves nothing. Count does not heed them.
	MinMod, MaxMod, MinCreate, MaxCreate ident.Revision

	// PartBytes ends the answer once its rows have as many, where more keys follow:
	// Next is the first of them, and Count knows of none of them. Not for sorted rows.
	// 0: the answer is whole.
	PartBytes int

	// bytesMax of rows, what holds them included, are read; more are ErrTooLarge. 0: any.
	bytesMax int64
}

// RangeResult is the answer of a range.
type RangeResult struct {
	KVs      [][]byte       // mvccpb.KeyValue in wire form, read-only.
	Count    int64          // Keys in the interval, before limit and filters.
	More     bool           // The limit left rows out.
	Revision ident.Revision // The head, also when the past was read.
	Next     []byte         // Where the next part begins. Nil: this was the last, or all.
}

// View is the store as of one entry. It belongs to one goroutine, is cheap, and
// should be short: a compaction is merged only when views older than it are
// released. What Range returned stays valid afterwards.
type View struct {
	store     *Store
	state     *state
	src       source
	compacted ident.Revision
	pin       *Pin // Nil for a view at the head.
}

// View returns the state after the last applied entry. Release it.
func (s *Store) View() *View {
	st := s.acquire()
	return &View{store: s, state: st, src: source{layout: st.layout, history: s.history, db: s.db}, compacted: st.Compacted}
}

// Release ends the view.
func (v *View) Release() {
	if v.state == nil {
		return
	}
	v.src.done()
	v.store.leave(v.state.layout)
	if v.pin != nil {
		v.pin.leave()
	}
	v.state = nil
}

// Revision is the head.
func (v *View) Revision() ident.Revision { return v.state.Revision }

// Compacted is the oldest revision that can be read.
func (v *View) Compacted() ident.Revision { return v.compacted }

// Merged is M: what happened since then is in the key indexes.
func (v *View) Merged() ident.Revision { return v.state.layout.merged.Revision }

// Range reads. It ends early when ctx does.
func (v *View) Range(ctx context.Context, a RangeArgs) (*RangeResult, error) {
	at, err := readRevision(a.Revision, v.state.Revision, v.compacted)
	if err != nil {
		return nil, err
	}
	res, err := v.src.rangeAt(ctx, &a, at)
	if err != nil {
		return nil, err
	}
	res.Revision = v.state.Revision
	return res, nil
}

// Get returns what is known of a key at the head without reading its value.
func (v *View) Get(key []byte) (KeyMeta, bool, error) { return v.src.meta(key, v.state.Revision) }

// LeaseKeys returns the keys attached to a lease, sorted.
func (v *View) LeaseKeys(id ident.LeaseID) ([][]byte, error) {
	return v.src.leaseKeys(id, v.state.Revision)
}

// readRevision is the revision that a request means.
func readRevision(asked, head, compacted ident.Revision) (ident.Revision, error) {
	switch {
	case asked <= 0:
		return head, nil
	case asked > head:
		return 0, fmt.Errorf("read at %d, head is %d: %w", asked, head, ErrFutureRevision)
	case asked < compacted:
		return 0, fmt.Errorf("read at %d, compacted at %d: %w", asked, compacted, ErrCompacted)
	}
	return asked, nil
}

// KeyMeta is what is known of a key besides its value.
type KeyMeta struct {
	Create, Mod ident.Revision
	Version     int64
	Lease       ident.LeaseID
}

func (s *source) meta(key []byte, at ident.Revision) (KeyMeta, bool, error) {
	var f found
	ok, err := s.find(key, at, &f)
	if err != nil || !ok {
		return KeyMeta{}, false, err
	}
	return KeyMeta{Create: f.Create, Mod: f.Mod, Version: f.Version.Version, Lease: f.Lease}, true, nil
}

func (s *source) rangeAt(ctx context.Context, a *RangeArgs, at ident.Revision) (*RangeResult, error) {
	in := newInterval(a.Key, a.End)
	if in.single {
		return s.one(a, at)
	}
	c := collector{src: s, args: a, result: &RangeResult{}}
	sc := s.scan(in, at)
	if a.CountOnly {
		sc.countOnly()
	}
	for n := 1; sc.next(); n++ {
		if n%rangeCheckKeys == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if a.PartBytes > 0 && c.bytes >= a.PartBytes && !c.full() {
			c.result.Next = bytes.Clone(sc.key)
			return c.result, nil
		}
		c.result.Count++
		if c.result.More && !a.sorted() {
			sc.countOnly() // From the next key on.
			continue
		}
		if err := c.take(sc.key, &sc.found, at); err != nil {
			return nil, err
		}
	}
	if sc.err != nil {
		return nil, sc.err
	}
	return c.result, c.finish()
}

// collector gathers the rows of a range that are wanted.
type collector struct {
	src    *source
	args   *RangeArgs
	result *RangeResult
	arena  arena
	kept   []item // When they are to be sorted.
	passed int64  // Rows that passed the filters.
	bytes  int    // Of the rows in result, when they are not sorted.
	held   int64  // By the rows that are kept or in result.
}

// full reports whether the limit lets no more rows through, so that only to count is
// left: that is done in this part, since what is left of the limit for another is
// nothing, which would mean no limit.
func (c *collector) full() bool { return c.args.Limit > 0 && c.passed >= c.args.Limit }

// item is a row that may be part of the answer.
type item struct {
	key []byte
	found
	kv []byte // Read, when it is sorted by.
}

// one answers a range of a single key, with few allocations.
func (s *source) one(a *RangeArgs, at ident.Revision) (*RangeResult, error) {
	res := &struct {
		RangeResult
		kvs [1][]byte
	}{}
	var f found
	ok, err := s.find(a.Key, at, &f)
	if err != nil || !ok {
		return &res.RangeResult, err
	}
	res.Count = 1
	if a.CountOnly || !a.matches(&f) {
		return &res.RangeResult, nil
	}
	if err := a.bounded(s.heldBy(a, a.Key, &f)); err != nil {
		return nil, err
	}
	if a.KeysOnly {
		r := a.bare(a.Key, &f)
		res.kvs[0] = appendKV(make([]byte, 0, kvSizeMax(a.Key, nil)), &r)
	} else if res.kvs[0], err = s.value(&f); err != nil {
		return nil, err
	}
	res.KVs = res.kvs[:]
	return &res.RangeResult, nil
}

func (c *collector) take(key []byte, f *found, at ident.Revision) error {
	a := c.args
	if a.CountOnly {
		return nil
	}
	if f.row != nil {
		if err := f.parse(at); err != nil {
			return err
		}
	}
	if !a.matches(f) {
		return nil
	}
	c.passed++
	it := item{key: key, found: *f}
	if a.sorted() {
		if a.limitsFirst() && c.passed > a.Limit+1 {
			return nil
		}
		return c.keep(&it)
	}
	if a.Limit > 0 && c.passed > a.Limit {
		c.result.More = true
		return nil
	}
	if err := c.hold(&it); err != nil {
		return err
	}
	if f.row != nil && !a.KeysOnly {
		it.row = c.arena.copy(f.row)
	}
	kv, err := c.row(&it)
	c.result.KVs = append(c.result.KVs, kv)
	c.bytes += len(kv)
	return err
}

// hold counts a row in that is kept or answered.
func (c *collector) hold(it *item) error {
	if c.args.bytesMax == 0 {
		return nil
	}
	c.held += c.src.heldBy(c.args, it.key, &it.found)
	return c.args.bounded(c.held)
}

// heldBy is about the memory that a row takes which is answered, or kept for that.
func (s *source) heldBy(a *RangeArgs, key []byte, f *found) int64 {
	n := int64(len(f.row))
	switch {
	case a.KeysOnly && a.SortTarget != SortByValue:
		n = int64(len(key))
	case f.row == nil && f.Loc.Segment == pendingSegment:
		n = int64(len(s.pending[f.Loc.Offset]))
	case f.row == nil:
		n = int64(f.Loc.Length)
	}
	return n + rowOverhead
}

func (a *RangeArgs) bounded(held int64) error {
	if a.bytesMax > 0 && held > a.bytesMax {
		return fmt.Errorf("rows of over %d bytes are asked for: %w", a.bytesMax, ErrTooLarge)
	}
	return nil
}

// sorted reports whether rows are wanted in another order than that of keys.
func (a *RangeArgs) sorted() bool {
	return a.SortTarget != SortByKey || a.SortOrder == SortDescend
}

// limitsFirst reports whether only the first keys are sorted, one more than
// the limit. It is what etcd does when a target is named without an order and
// nothing is filtered.
func (a *RangeArgs) limitsFirst() bool {
	filtered := a.MinMod != 0 || a.MaxMod != 0 || a.MinCreate != 0 || a.MaxCreate != 0
	return a.SortOrder == SortNone && a.Limit > 0 && a.Limit < math.MaxInt64 && !filtered
}

func (a *RangeArgs) matches(f *found) bool {
	return (a.MinMod <= 0 || f.Mod >= a.MinMod) && (a.MaxMod == 0 || f.Mod <= a.MaxMod) &&
		(a.MinCreate <= 0 || f.Create >= a.MinCreate) && (a.MaxCreate == 0 || f.Create <= a.MaxCreate)
}

// keep stores a row for sorting. With a limit, no more than twice as many are
// held at any time.
func (c *collector) keep(it *item) (err error) {
	if err := c.hold(it); err != nil {
		return err
	}
	it.key = bytes.Clone(it.key)
	if !c.args.KeysOnly || c.args.SortTarget == SortByValue {
		it.row = bytes.Clone(it.row)
	}
	if c.args.SortTarget == SortByValue {
		if it.kv, err = c.src.value(&it.found); err != nil {
			return err
		}
	}
	c.kept = append(c.kept, *it)
	if c.args.overfull(len(c.kept)) {
		return c.sort()
	}
	return nil
}

// overfull reports whether so many rows are worth sorting, to keep those within the
// limit alone. Some clients give the largest number there is as a limit: no sum with
// it.
func (a *RangeArgs) overfull(kept int) bool {
	return a.Limit > 0 && (int64(kept)-rangeCheckKeys)/2 > a.Limit
}

// sort orders what was kept and drops what the limit will not let through.
// Rows that are equal in the target stay in the order of keys.
func (c *collector) sort() error {
	less := c.args.compare()
	slices.SortStableFunc(c.kept, func(x, y item) int { return less(&x, &y) })
	if limit := c.args.Limit; limit > 0 && int64(len(c.kept)) > limit {
		clear(c.kept[limit:])
		c.kept = c.kept[:limit]
		c.held = 0
		for i := range c.kept {
			if err := c.hold(&c.kept[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *RangeArgs) compare() func(x, y *item) int {
	by := func(x, y *item) int { return bytes.Compare(x.key, y.key) }
	switch a.SortTarget {
	case SortByVersion:
		by = func(x, y *item) int { return cmp.Compare(x.Version.Version, y.Version.Version) }
	case SortByCreate:
		by = func(x, y *item) int { return cmp.Compare(x.Create, y.Create) }
	case SortByMod:
		by = func(x, y *item) int { return cmp.Compare(x.Mod, y.Mod) }
	case SortByValue:
		by = func(x, y *item) int { return bytes.Compare(valueOf(x.kv), valueOf(y.kv)) }
	}
	if a.SortOrder == SortDescend {
		return func(x, y *item) int { return by(y, x) }
	}
	return by
}

// valueOf is the value in a row that was read before, hence well formed.
func valueOf(kv []byte) []byte {
	r, _ := parseKV(kv)
	return r.value
}

// finish completes the answer of a sorted range.
func (c *collector) finish() error {
	if !c.args.sorted() || c.args.CountOnly {
		return nil
	}
	if err := c.sort(); err != nil {
		return err
	}
	c.result.More = c.passed > int64(len(c.kept))
	c.result.KVs = make([][]byte, 0, len(c.kept))
	for i := range c.kept {
		kv, err := c.row(&c.kept[i])
		if err != nil {
			return err
		}
		c.result.KVs = append(c.result.KVs, kv)
	}
	return nil
}

// row is the form in which a row is answered.
func (c *collector) row(it *item) ([]byte, error) {
	if !c.args.KeysOnly {
		if it.kv != nil {
			return it.kv, nil
		}
		return c.src.value(&it.found)
	}
	r := c.args.bare(it.key, &it.found)
	return appendKV(c.arena.take(kvSizeMax(r.key, nil)), &r), nil
}

// bare is a row as keys_only answers it.
func (a *RangeArgs) bare(key []byte, f *found) row {
	r := row{key: key, create: f.Create, mod: f.Mod, version: f.Version.Version}
	if a.SortTarget == SortByValue {
		r.lease = f.Lease
	}
	return r
}

// arena hands out bytes from chunks that double, so that an answer of many rows
// is a few allocations, and a small one is small.
type arena struct {
	chunk []byte
	size  int
}

const arenaChunkMax = 1 << 20

// take returns an empty slice with room for n bytes. What stays unused is lost.
func (a *arena) take(n int) []byte {
	if cap(a.chunk)-len(a.chunk) < n {
		a.size = min(max(2*a.size, 1<<10), arenaChunkMax)
		a.chunk = make([]byte, 0, max(a.size, n))
	}
	at := len(a.chunk)
	a.chunk = a.chunk[:at+n]
	return a.chunk[at : at : at+n]
}

// reuse takes back all that was handed out.
func (a *arena) reuse() { a.chunk = a.chunk[:0] }

func (a *arena) copy(b []byte) []byte { return append(a.take(len(b)), b...) }

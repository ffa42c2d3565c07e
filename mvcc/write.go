package mvcc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Entry is one entry of the log being applied. It belongs to the apply
// goroutine; there is one at a time.
//
// Its puts go into the young index at once, under revisions that no reader asks
// for yet, so that later requests of the entry find them. Commit appends the
// record to history, tells the index where the values came to lie, and
// publishes the new head: from then on everybody sees all of it.
//
// It has more fields than most since it is the whole of a write's scratch.
type Entry struct {
	store *Store
	state *state // As found, with this reader counted.
	src   source

	index     ident.Index
	term      ident.Term
	time      int64
	revision  ident.Revision // Head, with the groups of this entry so far.
	compacted backend.Point
	confState []byte
	ordinal   uint32 // Of the next group.
	size      int64  // Bytes that its keys and their rows take in history, at most.
	open      bool

	tx        Tx
	record    history.Record
	groups    []group
	mutations []history.Mutation
	puts      []put
	rows      []rowChange
	bytes     arena // Of keys and rows until history has them.
}

// group is a history.Group under way: its mutations end where the next one's
// begin.
type group struct {
	ordinal   uint32
	revision  ident.Revision
	mutations int // End.
}

// put is a version in the young index that waits for its place in history.
type put struct {
	ref      versionRef
	mutation int
}

// rowChange is a small row that changed. old is for Abort.
type rowChange struct {
	rowID
	old []byte
}

// Begin starts to apply an entry. Its time is the leader's stamp, raised if need
// be so that time rises from entry to entry (rule 5). Commit follows.
func (s *Store) Begin(index ident.Index, term ident.Term, stamp int64) *Entry {
	e := &s.entry
	if e.open {
		assert.Failf("entry %d begun within entry %d", index, e.index)
	}
	st := s.acquire()
	if index <= st.Position.Index {
		assert.Failf("entry %d begun after entry %d", index, st.Position.Index)
	}
	e.store, e.state, e.open = s, st, true
	e.src = source{layout: st.layout, history: s.history, db: s.db, pending: e.src.pending[:0]}
	e.index, e.term, e.time = index, term, max(stamp, st.Time+1)
	e.revision, e.compacted, e.confState, e.ordinal = st.Revision, st.layout.compacted, st.ConfState, 0
	e.size, e.groups, e.puts, e.rows = 0, e.groups[:0], e.puts[:0], e.rows[:0]
	clear(e.mutations)
	e.mutations = e.mutations[:0]
	e.bytes.reuse()
	return e
}

// Time is the time of the entry: all there is under the state machine.
func (e *Entry) Time() int64 { return e.time }

// Tx begins the next group: what one request changes. Commit or Abort it
// before the next.
func (e *Entry) Tx() *Tx {
	t := &e.tx
	if t.entry != nil {
		assert.Failf("entry %d: a group begun within another", e.index)
	}
	*t = Tx{
		entry:     e,
		ordinal:   e.ordinal,
		compacted: e.compacted,
		size:      e.size,
		mutations: len(e.mutations),
		puts:      len(e.puts),
		rows:      len(e.rows),
	}
	e.ordinal++
	return t
}

// SetConfState says which Raft configuration is in force after this entry.
func (e *Entry) SetConfState(b []byte) { e.confState = bytes.Clone(b) }

// Commit makes the entry history and shows it to readers. An error stops the
// member: the entry may not be in history whole.
func (e *Entry) Commit() error {
	s := e.store
	defer e.end()
	if e.tx.entry != nil {
		assert.Failf("entry %d committed with a group open", e.index)
	}
	if err := s.Err(); err != nil {
		return err
	}
	if err := e.commit(); err != nil {
		s.fail(fmt.Errorf("apply entry %d: %w", e.index, err))
		return s.Err()
	}
	return nil
}

// Fail gives an entry up that could not be applied as on other members: nothing
// of it is shown, and the store takes no more writes.
func (e *Entry) Fail(err error) error {
	defer e.end()
	e.store.fail(fmt.Errorf("apply entry %d: %w", e.index, err))
	return e.store.Err()
}

func (e *Entry) end() {
	e.src.done()
	e.store.leave(e.state.layout)
	e.state, e.src.layout, e.open = nil, nil, false
}

func (e *Entry) commit() error {
	s := e.store
	st := &state{State: e.state.State, mark: e.state.mark}
	st.Position = ident.Position{Index: e.index}
	st.Term, st.Time, st.Revision, st.ConfState = e.term, e.time, e.revision, e.confState
	st.Compacted = e.compacted.Revision
	if n := len(e.groups); n > 0 {
		st.Position.Group = e.groups[n-1].ordinal
		if err := e.appendRecord(); err != nil {
			return err
		}
		st.mark = s.history.End()
		st.Digest = st.mark.Digest
		if st.mark.Segment != e.state.layout.active.list.segment {
			return fmt.Errorf("record of %d groups: %w", len(e.groups), history.ErrTooLarge)
		}
	}
	return s.publish(st, e.compacted, e.rows)
}

// appendRecord hands the record to history and settles the puts.
func (e *Entry) appendRecord() error {
	r := &e.record
	*r = history.Record{Index: e.index, Term: e.term, Time: e.time, Groups: slices.Grow(r.Groups[:0], len(e.groups))}
	from := 0
	for _, g := range e.groups {
		r.Groups = append(r.Groups, history.Group{
			Ordinal: g.ordinal, Revision: g.revision, Mutations: e.mutations[from:g.mutations:g.mutations],
		})
		from = g.mutations
	}
	if err := e.store.history.Append(r); err != nil {
		return err
	}
	list := e.state.layout.active.list
	for _, p := range e.puts {
		if m := &e.mutations[p.mutation]; m.Kind == history.KeyPut {
			list.settle(p.ref, m.Loc)
		}
	}
	return nil
}

// publish shows a state, with its small rows, and seals the active segment when
// it is time. Apply goroutine only.
func (s *Store) publish(st *state, compacted backend.Point, rows []rowChange) error {
	seal := compacted != s.state.Load().layout.compacted || st.mark.Offset >= s.cfg.SegmentBytes || s.indexFull()
	if before := s.state.Load(); before.mark.Segment == st.mark.Segment {
		st.written = before.written + st.mark.Offset - before.mark.Offset
	}
	segment := st.mark.Segment
	if seal {
		sealed, err := s.history.Seal()
		if err != nil {
			return err
		}
		if seal = sealed == segment; seal {
			st.mark = s.history.End()
		}
	}
	s.mu.Lock()
	st.layout = s.state.Load().layout // It may have changed since Begin.
	if seal || compacted != st.layout.compacted {
		l := st.layout.next()
		if seal {
			l.older = append([]*generation{l.active.sealed(st.Revision)}, l.older...)
			l.active = newActive(st.mark.Segment, st.Revision)
		}
		l.compacted = compacted
		st.layout = l
	}
	st.State.Merged = st.layout.merged.Revision
	for _, r := range rows {
		s.mu.dirty[r.rowID] = s.rows.of(r.table).rows[r.key]
	}
	before := s.state.Load().State
	s.publishLocked(st)
	s.mu.Unlock()
	s.digests.note(before, st.State)
	if waiting := s.notify.Swap(nil); waiting != nil {
		close(*waiting)
	}
	if seal || s.due(st) {
		s.wake()
	}
	return nil
}

// indexFull reports whether the index of the active segment asks for another.
func (s *Store) indexFull() bool {
	active := s.state.Load().layout.active
	return active.list.full() || s.cfg.Filling && active.bytes() >= fillIndexBytes
}

// Tx is one request being applied. It sees what it wrote itself, under the
// revision that it will have.
type Tx struct {
	entry     *Entry
	ordinal   uint32
	wrote     bool          // A key, so it makes a revision.
	compacted backend.Point // Before.

	size     int64 // The same.
	answered int64 // Bytes of rows that were read to be answered.

	mutations, puts, rows int // Where those of the group begin.
}

// Revision is the newest that the transaction can read: the head, or after the
// first key it wrote, its own.
func (t *Tx) Revision() ident.Revision {
	if t.wrote {
		return t.entry.revision + 1
	}
	return t.entry.revision
}

// Compacted is the oldest revision that can be read.
func (t *Tx) Compacted() ident.Revision { return t.entry.compacted.Revision }

// PutArgs says what to put.
type PutArgs struct {
	Key, Value []byte
	Lease      ident.LeaseID // 0 detaches the key.

	// Keep what the key has; it must exist.
	IgnoreValue, IgnoreLease bool

	WantPrev bool
}

// Put writes a key. The row before is returned when wanted and there was one.
func (t *Tx) Put(a PutArgs) (prev *mvccpb.KeyValue, err error) {
	e := t.entry
	var f found
	ok, err := e.src.find(a.Key, t.Revision(), &f)
	if err != nil {
		return nil, err
	}
	if !ok && (a.IgnoreValue || a.IgnoreLease) {
		return nil, fmt.Errorf("put that keeps value or lease: %w", ErrKeyNotFound)
	}
	var old row
	if ok && (a.IgnoreValue || a.WantPrev) {
		if old, err = e.src.row(&f); err != nil {
			return nil, err
		}
	}
	r := a.row(e.revision+1, ok, &f, old.value)
	if err := t.count(r.key, r.value); err != nil {
		return nil, err
	}
	if ok && a.WantPrev {
		if err := t.answer(e.src.heldBy(&RangeArgs{}, a.Key, &f)); err != nil {
			return nil, err
		}
		prev = old.message()
	}
	t.put(&r)
	return prev, nil
}

// row is what a put makes of a key, that was there before or not.
func (a *PutArgs) row(at ident.Revision, there bool, f *found, old []byte) row {
	r := row{key: a.Key, create: at, mod: at, version: 1, value: a.Value, lease: a.Lease}
	if there {
		r.create, r.version = f.Create, f.Version.Version+1
	}
	if a.IgnoreValue {
		r.value = old
	}
	if a.IgnoreLease {
		r.lease = f.Lease
	}
	return r
}

// count adds a change to what the entry has, or fails when that is too much.
func (t *Tx) count(key, value []byte) error {
	e := t.entry
	e.size += int64(len(key)+len(value)) + mutationOverhead
	if len(key) > KeyBytesMax || e.size > e.store.cfg.entryBytes {
		return fmt.Errorf("key of %d bytes, %d changed by entry %d: %w", len(key), e.size, e.index, ErrTooLarge)
	}
	return nil
}

// answer adds to what the request is answered with, or fails when that is too much.
func (t *Tx) answer(held int64) error {
	a := RangeArgs{bytesMax: t.entry.store.cfg.answerBytes}
	t.answered += held
	return a.bounded(t.answered)
}

// row reads and takes apart the row of f.
func (s *source) row(f *found) (row, error) {
	kv, err := s.value(f)
	if err != nil {
		return row{}, err
	}
	return parseKV(kv)
}

func (t *Tx) put(r *row) {
	e := t.entry
	kv := appendKV(e.bytes.take(kvSizeMax(r.key, r.value)), r)
	v := history.Version{Mod: r.mod, Create: r.create, Version: r.version, Lease: r.lease}
	v.Loc.Offset = uint32(len(e.src.pending))
	e.src.pending = append(e.src.pending, kv)
	t.mutate(r.key, &v, history.Mutation{Kind: history.KeyPut, Value: kv})
}

func (t *Tx) tombstone(key []byte) {
	e := t.entry
	v := history.Version{Mod: e.revision + 1, Tombstone: true}
	t.mutate(key, &v, history.Mutation{Kind: history.KeyDelete, Key: e.bytes.copy(key)})
}

// mutate adds a version and its mutation. When the request wrote the key
// before, the mutation takes the place of the earlier one: history knows one
// change of a key per revision.
func (t *Tx) mutate(key []byte, v *history.Version, m history.Mutation) {
	e := t.entry
	p := put{ref: e.src.layout.active.put(key, v, !v.Tombstone), mutation: len(e.mutations)}
	if m.Kind == history.KeyPut {
		m.Key = keyOf(m.Value)
	}
	if replaced := t.earlier(p.ref); replaced != nil {
		p.mutation = replaced.mutation
		e.mutations[p.mutation] = m
		e.puts = append(e.puts, put{ref: p.ref, mutation: p.mutation})
	} else {
		e.mutations = append(e.mutations, m)
		e.puts = append(e.puts, p)
	}
	t.wrote = true
}

// earlier finds the put of the same request that a version took the place of.
func (t *Tx) earlier(ref versionRef) *put {
	if ref.older == 0 || t.entry.src.layout.active.list.mod(ref.older) != t.entry.revision+1 {
		return nil
	}
	for i := len(t.entry.puts) - 1; i >= t.puts; i-- {
		if t.entry.puts[i].ref.at == ref.older {
			return &t.entry.puts[i]
		}
	}
	return nil
}

// keyOf is the key in a row that was just encoded.
func keyOf(kv []byte) []byte {
	n, w := binary.Uvarint(kv[1:])
	return kv[1+w:][:n:n]
}

// DeleteRange deletes the keys of an interval and returns how many there were,
// and their rows when wanted.
func (t *Tx) DeleteRange(key, end []byte, wantPrev bool) (n int64, prev []*mvccpb.KeyValue, err error) {
	e := t.entry
	var doomed [][]byte
	take := func(key []byte, f *found) error {
		if err := t.count(key, nil); err != nil {
			return err
		}
		doomed = append(doomed, e.bytes.copy(key))
		if !wantPrev {
			return nil
		}
		if err := t.answer(e.src.heldBy(&RangeArgs{}, key, f)); err != nil {
			return err
		}
		r, err := e.src.row(f)
		if err == nil {
			prev = append(prev, r.message())
		}
		return err
	}
	at := t.Revision()
	if in := newInterval(key, end); in.single {
		var f found
		ok, err := e.src.find(key, at, &f)
		if err == nil && ok {
			err = take(key, &f)
		}
		if err != nil {
			return 0, nil, err
		}
	} else {
		sc := e.src.scan(in, at)
		for sc.next() {
			if err := take(sc.key, &sc.found); err != nil {
				return 0, nil, err
			}
		}
		if sc.err != nil {
			return 0, nil, sc.err
		}
	}
	for _, key := range doomed {
		t.tombstone(key)
	}
	return int64(len(doomed)), prev, nil
}

// Range reads as View.Range does, and sees what this transaction wrote. All that it
// is asked for whole is taken for a part of the request's answer.
func (t *Tx) Range(a RangeArgs) (*RangeResult, error) {
	at, err := readRevision(a.Revision, t.Revision(), t.Compacted())
	if err != nil {
		return nil, err
	}
	if a.PartBytes == 0 {
		a.bytesMax = max(t.entry.store.cfg.answerBytes-t.answered, 1)
	}
	res, err := t.entry.src.rangeAt(context.Background(), &a, at)
	if err != nil {
		return nil, err
	}
	if a.PartBytes == 0 {
		for _, kv := range res.KVs {
			t.answered += int64(len(kv)) + rowOverhead
		}
	}
	res.Revision = t.Revision()
	return res, nil
}

// Get returns what is known of a key without reading its value.
func (t *Tx) Get(key []byte) (KeyMeta, bool, error) { return t.entry.src.meta(key, t.Revision()) }

// LeaseKeys returns the keys attached to a lease, sorted.
func (t *Tx) LeaseKeys(id ident.LeaseID) ([][]byte, error) {
	return t.entry.src.leaseKeys(id, t.Revision())
}

// Row returns a small row, nil when there is none. It is read-only.
func (t *Tx) Row(table backend.Table, key []byte) []byte {
	return t.entry.store.rows.of(table).rows[string(key)]
}

// Rows calls fn for each row of a table by rising key.
func (t *Tx) Rows(table backend.Table, fn func(key, value []byte) error) error {
	return t.entry.store.rows.of(table).each(fn)
}

// SetRow writes a small row.
func (t *Tx) SetRow(table backend.Table, key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	t.setRow(table, key, bytes.Clone(value))
	m := history.Mutation{Kind: history.RowPut, Table: history.Table(table), Key: t.entry.bytes.copy(key), Value: t.entry.bytes.copy(value)}
	t.entry.mutations = append(t.entry.mutations, m)
}

// DeleteRow removes a small row. One that does not exist changes nothing.
func (t *Tx) DeleteRow(table backend.Table, key []byte) {
	if t.Row(table, key) == nil {
		return
	}
	t.setRow(table, key, nil)
	m := history.Mutation{Kind: history.RowDelete, Table: history.Table(table), Key: t.entry.bytes.copy(key)}
	t.entry.mutations = append(t.entry.mutations, m)
}

func (t *Tx) setRow(table backend.Table, key, value []byte) {
	rt, id := t.entry.store.rows.of(table), rowID{table, string(key)}
	t.entry.rows = append(t.entry.rows, rowChange{rowID: id, old: rt.rows[id.key]})
	rt.set(id.key, value)
}

// Compact moves the oldest readable revision up to rev.
func (t *Tx) Compact(rev ident.Revision) error {
	e := t.entry
	switch {
	case rev <= e.compacted.Revision:
		return fmt.Errorf("compact at %d, compacted at %d: %w", rev, e.compacted.Revision, ErrCompacted)
	case rev > t.Revision():
		return fmt.Errorf("compact at %d, head is %d: %w", rev, t.Revision(), ErrFutureRevision)
	}
	t.compact(rev)
	return nil
}

func (t *Tx) compact(rev ident.Revision) {
	e := t.entry
	e.compacted = backend.Point{Position: ident.Position{Index: e.index, Group: t.ordinal}, Revision: rev}
	m := history.Mutation{Kind: history.Compact, Value: binary.BigEndian.AppendUint64(e.bytes.take(8), uint64(rev))}
	e.mutations = append(e.mutations, m)
}

// Commit makes the group part of the entry.
func (t *Tx) Commit() {
	e := t.entry
	t.entry = nil
	if len(e.mutations) == t.mutations {
		return
	}
	g := group{ordinal: t.ordinal, mutations: len(e.mutations)}
	if t.wrote {
		e.revision++
		g.revision = e.revision
	}
	e.groups = append(e.groups, g)
}

// Abort takes back everything the transaction did. After Commit it does
// nothing.
func (t *Tx) Abort() {
	e := t.entry
	if e == nil {
		return
	}
	t.entry = nil
	for i := len(e.puts) - 1; i >= t.puts; i-- {
		e.src.layout.active.list.undo(e.puts[i].ref)
	}
	for i := len(e.rows) - 1; i >= t.rows; i-- {
		r := &e.rows[i]
		e.store.rows.of(r.table).set(r.key, r.old)
	}
	clear(e.mutations[t.mutations:])
	e.mutations, e.puts, e.rows = e.mutations[:t.mutations], e.puts[:t.puts], e.rows[:t.rows]
	e.compacted, e.size = t.compacted, t.size
}

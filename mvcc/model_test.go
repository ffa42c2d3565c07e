package mvcc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// model is what a store should be: the simplest thing that keeps every
// revision, without indexes, files or merging.
type model struct {
	index     ident.Index
	head      ident.Revision
	compacted ident.Revision
	keys      map[string][]modelVersion // Oldest first.
	rows      map[rowID]string
	conf      string
}

type modelVersion struct {
	row
	deleted bool
}

func newModel() *model {
	return &model{head: firstRevision, compacted: NeverCompacted, keys: map[string][]modelVersion{}, rows: map[rowID]string{}}
}

func (m *model) clone() *model {
	c := *m
	c.keys, c.rows = maps.Clone(m.keys), maps.Clone(m.rows)
	for k, v := range c.keys {
		c.keys[k] = slices.Clip(v)
	}
	return &c
}

func (m *model) at(key string, rev ident.Revision) (row, bool) {
	versions := m.keys[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if v := versions[i]; v.mod <= rev {
			return v.row, !v.deleted
		}
	}
	return row{}, false
}

func (m *model) put(key string, value []byte, lease ident.LeaseID) {
	r := row{key: []byte(key), create: m.head + 1, mod: m.head + 1, version: 1, value: value, lease: lease}
	if old, ok := m.at(key, m.head+1); ok {
		r.create, r.version = old.create, old.version+1
	}
	m.add(key, modelVersion{row: r})
}

func (m *model) add(key string, v modelVersion) {
	versions := m.keys[key]
	if n := len(versions); n > 0 && versions[n-1].mod == v.mod {
		versions = versions[:n-1] // Written twice by one request.
	}
	m.keys[key] = append(slices.Clip(versions), v)
}

func (m *model) in(key, end []byte) (keys []string) {
	for k := range m.keys {
		if inInterval(k, string(key), string(end)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func inInterval(k, key, end string) bool {
	switch {
	case end == "":
		return k == key
	case end == "\x00":
		return k >= key
	}
	return k >= key && k < end
}

func (m *model) delete(key, end []byte) (n int64) {
	for _, k := range m.in(key, end) {
		if _, ok := m.at(k, m.head+1); ok {
			m.add(k, modelVersion{row: row{mod: m.head + 1}, deleted: true})
			n++
		}
	}
	return n
}

// read is what Range should answer.
func (m *model) read(a RangeArgs, head ident.Revision) (*RangeResult, error) {
	at, err := readRevision(a.Revision, head, m.compacted)
	if err != nil {
		return nil, err
	}
	res := &RangeResult{Revision: head}
	var rows []row
	for _, k := range m.in(a.Key, a.End) {
		r, ok := m.at(k, at)
		if !ok {
			continue
		}
		res.Count++
		if (a.MinMod <= 0 || r.mod >= a.MinMod) && (a.MaxMod == 0 || r.mod <= a.MaxMod) &&
			(a.MinCreate <= 0 || r.create >= a.MinCreate) && (a.MaxCreate == 0 || r.create <= a.MaxCreate) {
			rows = append(rows, r)
		}
	}
	if a.CountOnly {
		return res, nil
	}
	total := len(rows)
	filtered := a.MinMod != 0 || a.MaxMod != 0 || a.MinCreate != 0 || a.MaxCreate != 0
	if a.SortTarget != SortByKey && a.SortOrder == SortNone && a.Limit > 0 && !filtered {
		rows = rows[:min(len(rows), int(a.Limit)+1)] // As etcd: a target without an order sorts what the limit lets through, and one more.
	}
	slices.SortStableFunc(rows, func(x, y row) int {
		if a.SortOrder == SortDescend {
			x, y = y, x
		}
		switch a.SortTarget {
		case SortByVersion:
			return cmp.Compare(x.version, y.version)
		case SortByCreate:
			return cmp.Compare(x.create, y.create)
		case SortByMod:
			return cmp.Compare(x.mod, y.mod)
		case SortByValue:
			return bytes.Compare(x.value, y.value)
		}
		return bytes.Compare(x.key, y.key)
	})
	if a.Limit > 0 && int64(total) > a.Limit {
		rows, res.More = rows[:a.Limit], true
	}
	for _, r := range rows {
		if a.KeysOnly {
			r.value = nil
			if a.SortTarget != SortByValue {
				r.lease = 0
			}
		}
		res.KVs = append(res.KVs, wireOf(r))
	}
	return res, nil
}

// wireOf encodes with the library, not with our encoder.
func wireOf(r row) []byte {
	kv := &mvccpb.KeyValue{
		Key: r.key, CreateRevision: int64(r.create), ModRevision: int64(r.mod), Version: r.version, Value: r.value, Lease: int64(r.lease),
	}
	b, err := kv.MarshalVT()
	if err != nil {
		panic(err)
	}
	return b
}

func (m *model) leased(id ident.LeaseID) (keys []string) {
	for _, k := range m.in([]byte{0}, []byte{0}) {
		if r, ok := m.at(k, m.head); ok && r.lease == id && id != 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

// hash is what HashKV promises, in its own words: rows at C, then changes.
func (m *model) hash(rev ident.Revision) uint32 {
	var sum uint32
	add := func(b []byte) {
		sum = crc32.Update(sum, castagnoli, binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		sum = crc32.Update(sum, castagnoli, b)
	}
	keys := m.in([]byte{0}, []byte{0})
	for _, k := range keys {
		if r, ok := m.at(k, m.compacted); ok {
			add(wireOf(r))
		}
	}
	for at := max(m.compacted+1, 0); at <= rev; at++ {
		for _, k := range m.changes(at) {
			v, _ := m.version(k, at)
			if v.deleted {
				add([]byte(k))
				add(binary.BigEndian.AppendUint64(nil, uint64(at)))
			} else {
				add(wireOf(v.row))
			}
		}
	}
	return sum
}

// changes lists the keys changed at a revision, sorted: tests change several
// keys of one revision in the order of keys only.
func (m *model) changes(rev ident.Revision) (keys []string) {
	for _, k := range m.in([]byte{0}, []byte{0}) {
		if _, ok := m.version(k, rev); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

func (m *model) version(key string, rev ident.Revision) (modelVersion, bool) {
	for _, v := range m.keys[key] {
		if v.mod == rev {
			return v, true
		}
	}
	return modelVersion{}, false
}

// step is one thing a request does; a script is what entries of the log say, so
// that they can be applied again after a crash, and elsewhere.
type step struct {
	kind  string // put, delete, row, unrow, compact
	key   string
	end   string
	value string
	lease ident.LeaseID
	keep  bool // ignore_value and ignore_lease.
	rev   ident.Revision
	table backend.Table
}

type request struct {
	steps []step
	abort bool
}

type logEntry struct {
	index    ident.Index
	term     ident.Term
	stamp    int64
	requests []request
	conf     string
}

// script draws entries.
type script struct {
	*rand.Rand
	keys  []string
	index ident.Index
	head  ident.Revision // About.
}

func newScript(r *rand.Rand) *script {
	s := &script{Rand: r, head: firstRevision}
	for i := range 24 {
		s.keys = append(s.keys, fmt.Sprintf("/k/%02d", i))
	}
	s.keys = append(s.keys, "/k", "/k/05/sub", "a", "zz", "\x00", "\xff\xff", "/k/1"+string(bytes.Repeat([]byte{'x'}, 1500)), "/k/1"+string(bytes.Repeat([]byte{'x'}, 1024)))
	return s
}

func (s *script) key() string { return s.keys[s.IntN(len(s.keys))] }

func (s *script) entry() logEntry {
	s.index += 1 + ident.Index(s.IntN(2)) // Some entries are empty, and not even shown.
	e := logEntry{index: s.index, term: 1 + ident.Term(s.index/50), stamp: int64(s.IntN(1000))}
	if s.IntN(20) == 0 {
		e.conf = fmt.Sprint("conf", s.index)
	}
	for range s.IntN(4) {
		e.requests = append(e.requests, s.request())
	}
	return e
}

func (s *script) request() request {
	r := request{abort: s.IntN(8) == 0}
	switch s.IntN(20) {
	case 0:
		r.steps = append(r.steps, step{kind: "compact", rev: s.head - ident.Revision(s.IntN(12))})
	case 1, 2:
		r.steps = append(r.steps, s.rowStep())
	default:
		used := map[string]bool{} // In order of keys, so that the model knows the order of events.
		for range 1 + s.IntN(3) {
			used[s.key()] = true
		}
		for _, k := range slices.Sorted(maps.Keys(used)) {
			r.steps = append(r.steps, s.keyStep(k))
		}
		if s.IntN(10) == 0 {
			r.steps = []step{{kind: "delete", key: s.key(), end: s.key()}}
		}
		if s.IntN(15) == 0 {
			r.steps = append(r.steps, s.rowStep())
		}
		if !r.abort {
			s.head++
		}
	}
	return r
}

func (s *script) keyStep(k string) step {
	switch s.IntN(6) {
	case 0:
		return step{kind: "delete", key: k}
	case 1:
		return step{kind: "put", key: k, keep: true}
	}
	st := step{kind: "put", key: k, value: string(bytes.Repeat([]byte{byte('a' + s.IntN(26))}, s.IntN(60)))}
	if s.IntN(200) == 0 {
		st.value = string(bytes.Repeat([]byte("long"), 3000))
	}
	if s.IntN(3) == 0 {
		st.lease = ident.LeaseID(s.IntN(5) - 1)
	}
	return st
}

func (s *script) rowStep() step {
	st := step{kind: "row", table: backend.Table(1 + s.IntN(tablesMax-1)), key: fmt.Sprint("row", s.IntN(6)), value: fmt.Sprint(s.IntN(100))}
	if s.IntN(3) == 0 {
		st.kind = "unrow"
	}
	return st
}

// apply applies an entry to the model.
func (m *model) apply(e *logEntry) {
	m.index = e.index
	for _, r := range e.requests {
		if r.abort {
			continue
		}
		before := m.clone()
		wrote := false
		for _, st := range r.steps {
			ok, w := m.step(&st, wrote)
			wrote = wrote || w
			if !ok {
				index := m.index
				*m = *before
				m.index = index
				wrote = false
				break
			}
		}
		if wrote {
			m.head++
		}
	}
	if e.conf != "" {
		m.conf = e.conf
	}
}

func (m *model) step(st *step, wrote bool) (ok, wroteKey bool) {
	head := m.head
	if wrote {
		head++
	}
	switch st.kind {
	case "put":
		old, exists := m.at(st.key, m.head+1)
		if st.keep && !exists {
			return false, false
		}
		if st.keep {
			st.value, st.lease = string(old.value), old.lease
		}
		m.put(st.key, []byte(st.value), st.lease)
		return true, true
	case "delete":
		return true, m.delete([]byte(st.key), []byte(st.end)) > 0
	case "row":
		m.rows[rowID{st.table, st.key}] = st.value
	case "unrow":
		delete(m.rows, rowID{st.table, st.key})
	case "compact":
		if st.rev <= m.compacted || st.rev > head {
			return false, false
		}
		m.compacted = st.rev
	}
	return true, false
}

// apply applies an entry to a store.
func (e *logEntry) apply(s *Store) error {
	ent := s.Begin(e.index, e.term, e.stamp)
	for _, r := range e.requests {
		tx := ent.Tx()
		failed := false
		for i := range r.steps {
			if err := r.steps[i].apply(tx); err != nil {
				if !errors.Is(err, ErrKeyNotFound) && !errors.Is(err, ErrCompacted) && !errors.Is(err, ErrFutureRevision) {
					return err
				}
				failed = true
				break
			}
		}
		if r.abort || failed {
			tx.Abort()
		} else {
			tx.Commit()
		}
	}
	if e.conf != "" {
		ent.SetConfState([]byte(e.conf))
	}
	return ent.Commit()
}

func (st *step) apply(tx *Tx) (err error) {
	switch st.kind {
	case "put":
		_, err = tx.Put(PutArgs{Key: []byte(st.key), Value: valueUnless(st.keep, st.value), Lease: st.lease, IgnoreValue: st.keep, IgnoreLease: st.keep, WantPrev: len(st.value)%2 == 0})
	case "delete":
		_, _, err = tx.DeleteRange([]byte(st.key), []byte(st.end), len(st.end)%2 == 0)
	case "row":
		tx.SetRow(st.table, []byte(st.key), []byte(st.value))
	case "unrow":
		tx.DeleteRow(st.table, []byte(st.key))
	case "compact":
		err = tx.Compact(st.rev)
	}
	return err
}

func valueUnless(keep bool, v string) []byte {
	if keep {
		return nil
	}
	return []byte(v)
}

// args draws a range request.
func (s *script) args(m *model) RangeArgs {
	a := RangeArgs{Key: []byte(s.key())}
	switch s.IntN(4) {
	case 0:
		a.End = []byte{0}
	case 1, 2:
		a.End = []byte(s.key())
	}
	if s.IntN(3) == 0 {
		a.Key, a.End = []byte{0}, []byte{0}
	}
	if s.IntN(2) == 0 {
		a.Revision = max(m.compacted, 1) - 1 + ident.Revision(s.IntN(int(m.head-max(m.compacted, 1))+3))
	}
	if s.IntN(2) == 0 {
		a.Limit = int64(s.IntN(8))
	}
	a.CountOnly, a.KeysOnly = s.IntN(8) == 0, s.IntN(4) == 0
	if s.IntN(2) == 0 {
		a.SortTarget, a.SortOrder = SortTarget(s.IntN(5)), SortOrder(s.IntN(3))
	}
	for _, bound := range []*ident.Revision{&a.MinMod, &a.MaxMod, &a.MinCreate, &a.MaxCreate} {
		if s.IntN(8) == 0 {
			*bound = ident.Revision(s.IntN(int(m.head)+2)) - 1
		}
	}
	return a
}

// checkRead compares one drawn read.
func checkRead(t *testing.T, s *script, store *Store, m *model) {
	t.Helper()
	v := store.View()
	defer v.Release()
	a := s.args(m)
	got, err := v.Range(context.Background(), a)
	want, wantErr := m.read(a, m.head)
	compareRange(t, fmt.Sprintf("range %+v", a), got, err, want, wantErr)
	id := ident.LeaseID(s.IntN(5) - 1)
	keys, err := v.LeaseKeys(id)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, k := range keys {
		have = append(have, string(k))
	}
	if want := m.leased(id); !slices.Equal(have, want) {
		t.Fatalf("keys of lease %d: %q, want %q", id, have, want)
	}
}

func compareRange(t *testing.T, what string, got *RangeResult, err error, want *RangeResult, wantErr error) {
	t.Helper()
	if (err == nil) != (wantErr == nil) || err != nil && !errors.Is(err, ErrCompacted) == errors.Is(wantErr, ErrCompacted) {
		t.Fatalf("%s: error %v, want %v", what, err, wantErr)
	}
	if err != nil {
		return
	}
	if got.Count != want.Count || got.More != want.More || got.Revision != want.Revision || len(got.KVs) != len(want.KVs) {
		t.Fatalf("%s: count %d, more %v, revision %d, %d rows; want %d, %v, %d, %d", what,
			got.Count, got.More, got.Revision, len(got.KVs), want.Count, want.More, want.Revision, len(want.KVs))
	}
	for i := range got.KVs {
		if !bytes.Equal(got.KVs[i], want.KVs[i]) {
			t.Fatalf("%s: row %d is %q, want %q", what, i, got.KVs[i], want.KVs[i])
		}
	}
}

// checkAll compares everything there is.
func checkAll(t *testing.T, store *Store, m *model) {
	t.Helper()
	st := store.Applied()
	if st.Position.Index != m.index || st.Revision != m.head || st.Compacted != m.compacted || string(st.ConfState) != m.conf {
		t.Fatalf("store stands at entry %d, head %d, compacted %d, conf %q; want %d, %d, %d, %q",
			st.Position.Index, st.Revision, st.Compacted, st.ConfState, m.index, m.head, m.compacted, m.conf)
	}
	for k := range m.keys {
		for _, rev := range []ident.Revision{max(m.compacted, 1), m.head} {
			one := RangeArgs{Key: []byte(k), Revision: rev}
			v := store.View()
			got, err := v.Range(context.Background(), one)
			v.Release()
			want, wantErr := m.read(one, m.head)
			compareRange(t, fmt.Sprintf("%q at revision %d", k, rev), got, err, want, wantErr)
		}
	}
	all := RangeArgs{Key: []byte{0}, End: []byte{0}}
	for rev := max(m.compacted, 0); rev <= m.head; rev++ {
		all.Revision = rev
		v := store.View()
		got, err := v.Range(context.Background(), all)
		v.Release()
		want, wantErr := m.read(all, m.head)
		compareRange(t, fmt.Sprintf("all at revision %d", rev), got, err, want, wantErr)
	}
	rows := map[rowID]string{}
	for table := backend.Table(1); int(table) < tablesMax; table++ {
		if err := store.Rows(table, func(key, value []byte) error {
			rows[rowID{table, string(key)}] = string(value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(rows, m.rows) {
		t.Fatalf("small rows %v, want %v", rows, m.rows)
	}
	h, err := store.HashKV(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := m.hash(m.head); h.Hash != want || h.Compacted != m.compacted || h.Revision != m.head {
		t.Fatalf("hash %+v, want %x", h, want)
	}
}

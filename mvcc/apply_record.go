package mvcc

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// ApplyRecord is the second door (rule 24): it takes what an entry changed on
// another member, or in another life, and leaves exactly the state that applying
// the entry would have left. Catch-up, install, restore and point-in-time
// recovery come through here. Apply goroutine only.
//
// A record that does not continue this history is refused with ErrGap and
// changes nothing. ErrDiverged and every other error mean that this store is
// not to be used any more.
func (s *Store) ApplyRecord(rec *history.Record) error {
	if err := s.Err(); err != nil {
		return err
	}
	st := s.state.Load()
	if err := st.follows(rec); err != nil {
		return err
	}
	if err := s.applyRecord(st, rec); err != nil {
		s.fail(fmt.Errorf("apply record of entry %d: %w", rec.Index, err))
		return s.Err()
	}
	return nil
}

// follows checks that rec continues the history that ends here.
func (st *state) follows(rec *history.Record) error {
	switch {
	case rec.Index <= st.Position.Index || rec.Term < st.Term || rec.Time <= st.Time:
		return fmt.Errorf("record of entry %d, term %d, time %d after entry %d, term %d, time %d: %w",
			rec.Index, rec.Term, rec.Time, st.Position.Index, st.Term, st.Time, ErrGap)
	case rec.PrevIndex != st.mark.Index || rec.PrevDigest != st.Digest:
		return fmt.Errorf("record of entry %d follows entry %d, digest %s; history ends with entry %d, digest %s: %w",
			rec.Index, rec.PrevIndex, rec.PrevDigest, st.mark.Index, st.Digest, ErrGap)
	case len(rec.Groups) == 0:
		return fmt.Errorf("record of entry %d has no groups: %w", rec.Index, ErrGap)
	}
	head := st.Revision
	for i := range rec.Groups {
		if r := rec.Groups[i].Revision; r != 0 {
			if r != head+1 {
				return fmt.Errorf("record of entry %d makes revision %d after %d: %w", rec.Index, r, head, ErrGap)
			}
			head = r
		}
	}
	return nil
}

func (s *Store) applyRecord(st *state, rec *history.Record) error {
	want := rec.Groups[len(rec.Groups)-1].Digest
	if err := s.history.Append(rec); err != nil {
		return err
	}
	next := &state{State: st.State, mark: s.history.End()}
	if next.mark.Digest != want {
		return fmt.Errorf("digest %s, where it came from %s: %w", next.mark.Digest, want, ErrDiverged)
	}
	active := st.layout.active
	if next.mark.Segment != active.list.segment {
		return fmt.Errorf("record of %d groups: %w", len(rec.Groups), history.ErrTooLarge)
	}
	in := installer{store: s, active: active, compacted: st.layout.compacted, head: st.Revision}
	if err := in.install(rec); err != nil {
		return err
	}
	last := &rec.Groups[len(rec.Groups)-1]
	next.Position = ident.Position{Index: rec.Index, Group: last.Ordinal}
	next.Term, next.Time, next.Digest = rec.Term, rec.Time, next.mark.Digest
	next.Revision, next.Compacted = in.head, in.compacted.Revision
	return s.publish(next, in.compacted, in.rows)
}

// installer brings records into what is derived from them: the young index, the
// small rows, C and the head. It serves ApplyRecord and the scan of a restart.
type installer struct {
	store     *Store
	active    *generation
	rows      []rowChange
	compacted backend.Point
	head      ident.Revision
}

func (in *installer) install(rec *history.Record) error {
	for i := range rec.Groups {
		g := &rec.Groups[i]
		if g.Revision != 0 {
			in.head = g.Revision
		}
		for j := range g.Mutations {
			if err := in.mutation(rec, g, &g.Mutations[j]); err != nil {
				return fmt.Errorf("entry %d, group %d: %w", rec.Index, g.Ordinal, err)
			}
		}
	}
	return nil
}

// keys installs only the keys of a record: after a restart the rest is known.
func (in *installer) keys(rec *history.Record) error {
	for i := range rec.Groups {
		g := &rec.Groups[i]
		for j := range g.Mutations {
			m := &g.Mutations[j]
			if m.Kind != history.KeyPut && m.Kind != history.KeyDelete {
				continue
			}
			if err := in.key(g, m); err != nil {
				return fmt.Errorf("entry %d, group %d: %w", rec.Index, g.Ordinal, err)
			}
		}
	}
	return nil
}

func (in *installer) mutation(rec *history.Record, g *history.Group, m *history.Mutation) error {
	switch m.Kind {
	case history.KeyPut, history.KeyDelete:
		return in.key(g, m)
	case history.RowPut, history.RowDelete:
		if m.Table == 0 || int(m.Table) >= tablesMax {
			return fmt.Errorf("row of table %d: %w", m.Table, errMalformedRow)
		}
		id := rowID{backend.Table(m.Table), string(m.Key)}
		var value []byte
		if m.Kind == history.RowPut {
			value = append([]byte{}, m.Value...)
		}
		in.store.rows.of(id.table).set(id.key, value)
		in.rows = append(in.rows, rowChange{rowID: id})
	case history.Compact:
		if len(m.Value) != 8 {
			return fmt.Errorf("compaction of %d bytes: %w", len(m.Value), errMalformedRow)
		}
		// Where a store is built from its base on, the first records may name
		// compactions that base has gone beyond.
		if rev := ident.Revision(binary.BigEndian.Uint64(m.Value)); rev > in.compacted.Revision {
			in.compacted = backend.Point{Position: ident.Position{Index: rec.Index, Group: g.Ordinal}, Revision: rev}
		}
	default:
		return fmt.Errorf("mutation of kind %d: %w", m.Kind, errMalformedRow)
	}
	return nil
}

// key brings a changed key into the young index.
func (in *installer) key(g *history.Group, m *history.Mutation) error {
	if g.Revision == 0 {
		return fmt.Errorf("a key changed without a revision: %w", errMalformedRow)
	}
	if m.Kind == history.KeyDelete {
		in.active.put(m.Key, &history.Version{Mod: g.Revision, Tombstone: true}, false)
		return nil
	}
	r, err := parseKV(m.Value)
	if err != nil {
		return err
	}
	if r.mod != g.Revision || r.create > r.mod || r.create < 1 || r.version < 1 || !bytes.Equal(r.key, m.Key) {
		return fmt.Errorf("put of revision %d in a group of revision %d: %w", r.mod, g.Revision, errMalformedRow)
	}
	in.active.put(r.key, &history.Version{
		Mod: r.mod, Create: r.create, Version: r.version, Lease: r.lease, Loc: m.Loc,
	}, false)
	return nil
}

package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Receive reads a snapshot of a peer and leaves a store of its state in
// cfg.Dir, closed and durable. current is the state that it is to replace, and
// what it may continue; Receive only reads it. After an error cfg.Dir is gone.
func Receive(r io.Reader, cfg mvcc.Config, current *mvcc.Store) (*Received, error) {
	s, err := newReader(r)
	return receive(s, err, cfg, func(s *reader) (*Received, error) { return s.receive(cfg, current) })
}

// ReceiveWhole is Receive where there is no state that can be relied on: only a
// snapshot of everything will do.
func ReceiveWhole(r io.Reader, cfg mvcc.Config, id mvcc.Identity) (*Received, error) {
	s, err := newReader(r)
	return receive(s, err, cfg, func(s *reader) (*Received, error) { return s.receiveWhole(cfg, id) })
}

// ReceiveExtended is ReceiveWhole for a snapshot and the records after it.
func ReceiveExtended(base io.Reader, x Extension, cfg mvcc.Config, id mvcc.Identity) (*Received, error) {
	s, err := newExtended(base, &x)
	return receive(s, err, cfg, func(s *reader) (*Received, error) { return s.receiveWhole(cfg, id) })
}

func (s *reader) receiveWhole(cfg mvcc.Config, id mvcc.Identity) (*Received, error) {
	if err := s.checkIdentity(id); err != nil {
		return nil, err
	}
	if s.header.HistoryOnly {
		return nil, fmt.Errorf("it continues a state that is not here: %w", ErrHistoryOnly)
	}
	b, err := beginStore(s, cfg, id)
	if err != nil {
		return nil, err
	}
	if err := b.finish(); err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	return b.received(), b.store.Close()
}

// receive takes from a reader, if it could be opened.
func receive(s *reader, err error, cfg mvcc.Config, take func(*reader) (*Received, error)) (*Received, error) {
	if err != nil {
		return nil, fmt.Errorf("receive snapshot: %w", err)
	}
	defer s.close()
	state, err := take(s)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive snapshot: %w", err), cfg.FS.RemoveAll(cfg.Dir))
	}
	return state, nil
}

// Received is where a received state stands, and what can be compared with
// another member's before it is put into force: all of it was computed from the
// bytes that came.
type Received struct {
	mvcc.State
	Base mvcc.BaseClaim
}

func (s *reader) receive(cfg mvcc.Config, current *mvcc.Store) (*Received, error) {
	id := current.Applied().Identity
	err := s.checkIdentity(id)
	if err != nil {
		return nil, err
	}
	var b *builder
	if s.header.HistoryOnly {
		b, err = continueStore(s, cfg, current)
	} else {
		b, err = beginStore(s, cfg, id)
	}
	if err != nil {
		return nil, err
	}
	if err := b.finish(); err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	if now := current.Applied().Position; position(s.header).Less(now) {
		return nil, errors.Join(fmt.Errorf("it stands at %s, this member at %s: %w", position(s.header), now, ErrOlder), b.store.Close())
	}
	return b.received(), b.store.Close()
}

func (s *reader) checkIdentity(here mvcc.Identity) error {
	id := mvcc.Identity{Cluster: ident.ClusterID(s.header.ClusterId), Timeline: ident.Timeline(s.header.Timeline.GetNumber())}
	if id != here {
		return fmt.Errorf("it is of cluster %s on timeline %d, this is cluster %s on timeline %d: %w",
			id.Cluster, id.Timeline, here.Cluster, here.Timeline, ErrInvalid)
	}
	return nil
}

// received is what came. Its base is a mixture if that of the sender was.
func (b *builder) received() *Received {
	r := &Received{State: b.store.Applied(), Base: b.store.BaseClaim()}
	r.Base.Settled = r.Compacted == r.Merged
	return r
}

// builder makes a store of a snapshot.
type builder struct {
	reader *reader
	store  *mvcc.Store
}

// beginStore makes a store of the rows in a snapshot.
func beginStore(s *reader, cfg mvcc.Config, id mvcc.Identity) (*builder, error) {
	b := &builder{reader: s}
	seed := b.seed(s.index, s.digest, ident.Revision(s.header.AfterRevision), backend.Point{
		Position: ident.Position{Index: ident.Index(s.header.Merged.Position.Index), Group: s.header.Merged.Position.Group},
		Revision: ident.Revision(s.header.Merged.Revision),
	}, id)
	for {
		row, err := s.small()
		if err != nil {
			return nil, err
		}
		if row == nil {
			break
		}
		seed.Rows = append(seed.Rows, *row)
	}
	seed.Next = s.base
	return b, b.create(cfg, seed)
}

// seed is where a store begins, given what is known before its first record.
func (b *builder) seed(index ident.Index, digest ident.Digest, rev ident.Revision, merged backend.Point, id mvcc.Identity) mvcc.Seed {
	h := b.reader.header
	seed := mvcc.Seed{Last: index, Meta: backend.Meta{
		Applied: ident.Position{Index: index}, Digest: digest, Revision: rev,
		Compacted: merged, Merged: merged, ConfState: h.ConfState, Cluster: id.Cluster, Timeline: id.Timeline,
	}}
	if at := position(h); at.Index == index { // Nothing follows.
		seed.Meta.Applied, seed.Meta.Term, seed.Meta.Time = at, ident.Term(h.Term), h.EntryTime
	}
	return seed
}

// create makes base and tells the reader the hash of the rows that base got.
func (b *builder) create(cfg mvcc.Config, seed mvcc.Seed) error {
	var err error
	if b.store, err = mvcc.CreateFrom(lean(cfg), seed); err != nil {
		return err
	}
	b.reader.hash = b.store.Base().Meta().StateHash
	return nil
}

// lean is the configuration of a store that is only filled: nobody reads its
// newest records in memory.
func lean(cfg mvcc.Config) mvcc.Config {
	cfg.Filling = true
	cfg.RingBytes = min(cmp.Or(cfg.RingBytes, fillRingBytes), fillRingBytes)
	return cfg
}

// continueStore makes a store of what is here, up to where the snapshot begins.
// It copies instead of going on in place, so that the change is one rename.
func continueStore(s *reader, cfg mvcc.Config, current *mvcc.Store) (*builder, error) {
	release := current.History().Hold(current.History().Segments()[0].ID) // Before base: no segment since its M may go.
	defer release()
	view := current.Base().View()
	defer view.Release()
	meta := view.Meta()
	local, start, err := recordsOf(current, meta, s.index)
	if err != nil {
		return nil, err
	}
	defer local.reader.Close()
	if local.first == nil && (start.Index != s.index || start.Digest != s.digest) {
		return nil, fmt.Errorf("it follows entry %d, history here ends with entry %d: %w", s.index, start.Index, ErrHistoryOnly)
	}
	b := &builder{reader: s}
	seed := b.seed(start.Index, start.Digest, start.Revision, meta.Merged, mvcc.Identity{Cluster: meta.Cluster, Timeline: meta.Timeline})
	if seed.Rows, err = smallRows(view); err != nil {
		return nil, err
	}
	seed.Next = rowsOf(view)
	if err := b.create(cfg, seed); err != nil {
		return nil, err
	}
	if built := b.store.Base().Meta(); built.Rows != meta.Rows || built.StateHash != meta.StateHash {
		err = fmt.Errorf("base here has %d rows with hash %x, says %d and %x: %w", built.Rows, built.StateHash, meta.Rows, meta.StateHash, backend.ErrDamaged)
	}
	for rec := local.first; err == nil && rec != nil; {
		if err = b.apply(rec); err == nil {
			rec, err = local.next()
		}
	}
	if err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	return b, nil
}

// localRecords are those up to an index.
type localRecords struct {
	reader *history.Reader
	last   ident.Index
	first  *history.Record // nil: there are none.
}

func (l *localRecords) next() (*history.Record, error) {
	rec, err := l.reader.Next()
	if errors.Is(err, io.EOF) || err == nil && rec.Index > l.last {
		return nil, nil
	}
	return rec, err
}

// recordsOf returns what is to be applied on base with its small rows, up to an
// index, and where that begins. Keys in base are as of M, small rows as of the
// checkpoint: the earlier of the two is where to begin. Before a store is
// compacted the checkpoint may be the earlier one.
func recordsOf(s *mvcc.Store, meta backend.Meta, last ident.Index) (l *localRecords, start history.Mark, err error) {
	l = &localRecords{last: last}
	start = s.History().End()
	if l.reader, err = s.Events(meta.Merged.Revision); err != nil {
		return nil, start, err
	}
	if l.first, err = l.next(); err == nil && (l.first == nil || l.first.Index > meta.Applied.Index) {
		l.reader.Close()
		if l.reader, err = s.History().Scan(ident.Position{Index: meta.Applied.Index + 1}); err != nil {
			return nil, start, err
		}
		l.first, err = l.next()
		start.Revision = meta.Revision
	} else if l.first != nil {
		start.Revision = firstRevision(l.first) - 1
	}
	if err != nil {
		l.reader.Close()
		return nil, start, err
	}
	if l.first != nil {
		start.Index, start.Digest = l.first.PrevIndex, l.first.PrevDigest
	}
	return l, start, nil
}

// firstRevision is the first that a record made.
func firstRevision(rec *history.Record) ident.Revision {
	for i := range rec.Groups {
		if rev := rec.Groups[i].Revision; rev != 0 {
			return rev
		}
	}
	return 0
}

func smallRows(view *backend.View) ([]backend.RowChange, error) {
	var rows []backend.RowChange
	for table := backend.TableLease; table <= backend.TableMeta; table++ {
		err := view.TableRows(table, func(key, value []byte) error {
			rows = append(rows, backend.RowChange{Table: table, Key: key, Value: value})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func rowsOf(view *backend.View) func() (key, kv []byte, err error) {
	c := view.Cursor()
	step := func() (key, kv []byte, err error) { return c.Seek(nil) }
	return func() (key, kv []byte, err error) {
		key, kv, err = step()
		step = c.Next
		return key, kv, err
	}
}

// apply takes a record in. It waits while too much of the index has still the
// form in which it is written: memory shall not depend on how fast records come.
func (b *builder) apply(rec *history.Record) error {
	if err := b.store.ApplyRecord(rec); err != nil {
		return err
	}
	return b.store.WaitIndexed(context.Background())
}

// finish applies the records, reads the end, and compares where the store
// stands with what the header says.
func (b *builder) finish() error {
	s, h := b.reader, b.reader.header
	for {
		rec, err := s.record()
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		if err := b.apply(rec); err != nil {
			return err
		}
	}
	if err := s.end(); err != nil {
		return err
	}
	if b.store.Applied().Position.Index < position(h).Index { // What changed nothing has no record.
		e := b.store.Begin(position(h).Index, ident.Term(h.Term), h.EntryTime)
		if err := e.Commit(); err != nil {
			return err
		}
	}
	st := b.store.Applied()
	if st.Position != position(h) || st.Term != ident.Term(h.Term) || st.Time != h.EntryTime || st.Digest != ident.Digest(h.Digest) ||
		st.Revision != ident.Revision(h.Revision) || st.Compacted != ident.Revision(h.Compacted.Revision) {
		return fmt.Errorf("state built: position %s, term %d, time %d, revision %d, compacted %d, digest %s; header: %s, %d, %d, %d, %d, %x: %w",
			st.Position, st.Term, st.Time, st.Revision, st.Compacted, st.Digest,
			position(h), h.Term, h.EntryTime, h.Revision, h.Compacted.Revision, h.Digest, ErrDamaged)
	}
	return nil
}

package mvcc

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// load builds what lives in memory: the small rows out of base, the young index
// out of the key tables of sealed segments and a scan of the last one. All of
// it is as of the mark in base, where history was cut.
func (s *Store) load() error {
	m := s.db.Meta()
	if err := s.loadRows(); err != nil {
		return err
	}
	segments := s.history.Segments()
	last := segments[len(segments)-1]
	l := &layout{compacted: m.Compacted, merged: m.Merged}
	for _, info := range segments[:len(segments)-1] {
		if info.LastRevision < info.FirstRevision || info.LastRevision <= m.Merged.Revision {
			continue // Base covers it.
		}
		g, err := s.loadTable(info)
		if err != nil {
			return err
		}
		l.older = append([]*generation{g}, l.older...)
	}
	var err error
	if l.active, err = s.loadActive(last, m.Revision); err != nil {
		return err
	}
	st := &state{layout: l, mark: s.history.End(), State: State{
		Position: m.Applied, Term: m.Term, Time: m.Time, Digest: m.Digest, Revision: m.Revision,
		Compacted: m.Compacted.Revision, Merged: m.Merged.Revision, ConfState: m.ConfState,
		Identity: Identity{Cluster: m.Cluster, Timeline: m.Timeline},
	}}
	if st.mark.Digest != m.Digest {
		return fmt.Errorf("base stands at digest %s, history ends at %s: %w", m.Digest, st.mark, ErrDiverged)
	}
	s.state.Store(st)
	s.background.last = m.Applied.Index
	s.background.unsettled = true // The commit before may know another M.
	return nil
}

func (s *Store) loadRows() error {
	v := s.db.View()
	defer v.Release()
	for t := 1; t < tablesMax; t++ {
		table := s.rows.of(backend.Table(t))
		err := v.TableRows(backend.Table(t), func(key, value []byte) error {
			table.set(string(key), append([]byte{}, value...))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// loadTable reads the key table of a sealed segment. It is derived: when it is
// missing or damaged, the segment is read instead.
func (s *Store) loadTable(info history.SegmentInfo) (*generation, error) {
	t, err := s.history.ReadIndex(info.ID)
	if err != nil {
		level := hclog.Warn
		if errors.Is(err, history.ErrNoIndex) {
			level = hclog.Debug // A crash came before it was written.
		}
		s.cfg.Logger.Log(level, "key index of a history segment is made anew", "segment", info.ID, "reason", err)
		if t, err = s.history.RebuildIndex(info.ID); err != nil {
			return nil, err
		}
		if err := s.history.WriteIndex(info.ID, t); err != nil {
			s.cfg.Logger.Warn("key index of a history segment is not written, the next start makes it again", "segment", info.ID, "error", err)
		}
	}
	g := newTable(info.FirstRevision, info.LastRevision, t, []span{{info.FirstRevision, info.ID}})
	g.leaseTable, err = leaseTable(g)
	return g, err
}

// loadActive builds the list of the segment that is written on.
func (s *Store) loadActive(info history.SegmentInfo, head ident.Revision) (*generation, error) {
	g := newActive(info.ID, info.FirstRevision-1)
	in := installer{store: s, active: g}
	r, err := s.history.ScanSegment(info.ID)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return g, nil
		}
		if err != nil {
			return nil, err
		}
		if err := in.keys(rec); err != nil {
			return nil, err
		}
	}
}

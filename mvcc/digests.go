package mvcc

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
)

// DigestEvery is the distance of the indexes at which digests are remembered,
// the same on all members: they compare what they have in common (rule 9).
const DigestEvery = 32

// DigestAt is the digest after an entry.
type DigestAt struct {
	Index  ident.Index
	Digest ident.Digest
}

// digests remembers the newest digests at multiples of DigestEvery. It is not
// kept on disk: what the log replays fills it again.
type digests struct {
	sync.Mutex
	ring [digestsMax]DigestAt
	next int // Written so far.
}

// note takes in that the state moved from one entry to another. Entries in
// between changed nothing.
func (d *digests) note(from, to State) {
	first := (from.Position.Index/DigestEvery + 1) * DigestEvery
	last := to.Position.Index / DigestEvery * DigestEvery
	if first > last {
		return
	}
	if last-first >= digestsMax*DigestEvery {
		first = last - (digestsMax-1)*DigestEvery
	}
	d.Lock()
	defer d.Unlock()
	for at := first; at <= last; at += DigestEvery {
		digest := from.Digest
		if at == to.Position.Index {
			digest = to.Digest
		}
		d.ring[d.next%digestsMax] = DigestAt{at, digest}
		d.next++
	}
}

// Digests returns where this store stands and the newest digests at multiples
// of DigestEvery that are not above an index, at most limit of them, newest first.
func (s *Store) Digests(upTo ident.Index, limit int) (now DigestAt, list []DigestAt) {
	st := s.Applied()
	now = DigestAt{st.Position.Index, st.Digest}
	d := &s.digests
	d.Lock()
	defer d.Unlock()
	for i := d.next - 1; i >= max(d.next-digestsMax, 0) && len(list) < limit; i-- {
		if at := d.ring[i%digestsMax]; at.Index <= upTo {
			list = append(list, at)
		}
	}
	return now, list
}

// DigestAt returns the digest after any entry that history reaches back to. It
// fails with history.ErrDropped before that, and ErrFutureRevision beyond the
// last entry applied.
func (s *Store) DigestAt(index ident.Index) (ident.Digest, error) {
	st := s.Applied()
	if index > st.Position.Index {
		return ident.Digest{}, fmt.Errorf("digest at entry %d, applied is %d: %w", index, st.Position.Index, ErrFutureRevision)
	}
	r, err := s.history.Scan(ident.Position{Index: index + 1})
	if err != nil {
		return ident.Digest{}, err
	}
	defer r.Close()
	rec, err := r.Next()
	switch {
	case errors.Is(err, io.EOF):
		return st.Digest, nil // Nothing has changed since, or will have by st.
	case err != nil:
		return ident.Digest{}, err
	}
	return rec.PrevDigest, nil
}

// BaseClaim is what a store says of the rows of its base, so that another can be
// compared with it: H of rule 9. Rows of equal M are equal on all members, but
// only when Settled: while a merge is under way, some are newer.
type BaseClaim struct {
	Merged  ident.Revision // M.
	Settled bool
	Rows    int64
	Hash    backend.Sum
}

// BaseClaim of the last commit of base.
func (s *Store) BaseClaim() BaseClaim {
	m := s.db.Meta()
	return BaseClaim{
		Merged: m.Merged.Revision, Settled: m.Merged.Revision == m.Compacted.Revision,
		Rows: m.Rows, Hash: m.StateHash,
	}
}

// Contradicts tells why two claims can not both be true, nil when they can.
func (c BaseClaim) Contradicts(other BaseClaim) error {
	if !c.Settled || !other.Settled || c.Merged != other.Merged || c.Rows == other.Rows && c.Hash == other.Hash {
		return nil
	}
	return fmt.Errorf("base through revision %d has %d rows with hash %s here, %d with hash %s there: %w",
		c.Merged, c.Rows, c.Hash, other.Rows, other.Hash, ErrDiverged)
}

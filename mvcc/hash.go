package mvcc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Hash is a checksum of everything that can be read up to a revision. It is
// equal on all members for equal Compacted and Revision, whatever was merged.
type Hash struct {
	Hash      uint32
	Compacted ident.Revision
	Revision  ident.Revision // Through which was hashed.
	Head      ident.Revision
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// HashKV hashes the keys as they are at C, then every change in (C, rev]. 0 or
// below means the head. It reads all of it, in pieces.
func (s *Store) HashKV(ctx context.Context, rev ident.Revision) (Hash, error) {
	v := s.View()
	h := Hash{Compacted: v.Compacted(), Head: v.Revision()}
	var err error
	h.Revision, err = readRevision(rev, h.Head, h.Compacted)
	if err != nil {
		v.Release()
		return h, err
	}
	pin := s.pinAt(max(h.Compacted, 0))
	v.Release()
	defer pin.Release()
	if h.Hash, err = pin.hashRows(ctx, 0); err != nil {
		return h, err
	}
	h.Hash, err = pin.hashHistory(ctx, h.Hash, h.Compacted, h.Revision)
	return h, err
}

// hashRows goes through the keys at the pinned revision, in one view after the
// other.
func (p *Pin) hashRows(ctx context.Context, sum uint32) (uint32, error) {
	from := []byte{0}
	for {
		v, err := p.View()
		if err != nil {
			return 0, err
		}
		sc := v.src.scan(interval{from: from}, p.revision)
		n := 0
		for ; n < hashPageKeys && sc.next(); n++ {
			kv, err := v.src.scanned(sc)
			if err != nil {
				v.Release()
				return 0, err
			}
			sum = hashBytes(sum, kv)
			from = append(from[:0], sc.key...)
		}
		err = sc.err
		v.Release()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || n < hashPageKeys {
			return sum, err
		}
		from = append(from, 0)
	}
}

// scanned is the row that a scan stands at, good until it moves.
func (s *source) scanned(sc *scanner) ([]byte, error) {
	if sc.found.row != nil {
		return sc.found.row, sc.found.parse(sc.at)
	}
	return s.value(&sc.found)
}

// hashHistory goes through the changes of keys in (from, to].
func (p *Pin) hashHistory(ctx context.Context, sum uint32, from, to ident.Revision) (uint32, error) {
	r, err := p.store.Events(from + 1)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for n := 1; ; n++ {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err == nil && n%rangeCheckKeys == 0 {
			err = ctx.Err()
		}
		if err != nil {
			return 0, fmt.Errorf("hash of history: %w", err)
		}
		for i := range rec.Groups {
			g := &rec.Groups[i]
			if g.Revision > to {
				return sum, nil
			}
			if g.Revision > from {
				sum = hashGroup(sum, g)
			}
		}
	}
}

func hashGroup(sum uint32, g *history.Group) uint32 {
	for i := range g.Mutations {
		switch m := &g.Mutations[i]; m.Kind {
		case history.KeyPut:
			sum = hashBytes(sum, m.Value)
		case history.KeyDelete:
			sum = hashBytes(hashBytes(sum, m.Key), binary.BigEndian.AppendUint64(nil, uint64(g.Revision)))
		}
	}
	return sum
}

// hashBytes adds bytes and their number, so that no two sequences run together.
func hashBytes(sum uint32, b []byte) uint32 {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(b)))
	return crc32.Update(crc32.Update(sum, castagnoli, n[:]), castagnoli, b)
}

package mvcc

import (
	"context"
)

// Sizes is what the store takes on disk, in bytes, but for history that is kept
// only because others have not read it yet, as an archive that is down: a
// compaction has given that back, and whoever keeps it has a limit of his own
// (rule 11). What is beyond any such limit counts again.
type Sizes struct {
	Total int64 // Base file and what is written of history. What the quota counts.
	InUse int64 // Pages of base that hold something, and history since C.
}

// Sizes returns what the store takes on disk.
func (s *Store) Sizes() Sizes {
	file, inUse := s.db.Sizes()
	sizes := Sizes{Total: file + s.historyBytes(), InUse: inUse}
	c := s.Compacted()
	for _, info := range s.history.Segments() {
		if info.LastRevision >= c {
			sizes.InUse += info.Bytes
		}
	}
	return sizes
}

// Bytes is Total of Sizes, cheap enough for every request.
func (s *Store) Bytes() int64 { return s.db.FileBytes() + s.historyBytes() }

func (s *Store) historyBytes() int64 {
	return s.history.Bytes() - min(s.history.BytesBelow(s.heldBelow.Load()), s.cfg.HeldBytesMax)
}

// Defragment gives unused pages of base back, if there are many. It first waits
// for a pending compaction, whose pages it would miss (rule 11). Reads and
// writes go on.
func (s *Store) Defragment(ctx context.Context) error {
	if err := s.WaitMerged(ctx); err != nil {
		return err
	}
	return s.db.Defragment(ctx)
}

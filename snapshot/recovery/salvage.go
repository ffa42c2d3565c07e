package recovery

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// Salvaged is what a member that was given up has beyond the log that was kept.
type Salvaged struct {
	Fork ident.Index // The last entry that both have.
	End  Mark        // Of its own log.
	// Committed is the highest entry that its disk proves to be committed. What lies
	// above may never have been acknowledged.
	Committed ident.Index
	Keys      []snapshot.KeyChange
}

const salvageName = "salvage" // In the folder of the journal, which is ours.

// Salvage looks into the directory of a member that a plan has given up, or of
// another survivor, and finds what its log did to keys beyond the fork. The
// directory is only read.
func Salvage(ctx context.Context, cfg Config, p *Plan, src Source) (*Salvaged, error) {
	m, err := Collect(ctx, cfg, src)
	if err != nil {
		return nil, err
	}
	if m.Cluster != p.OldCluster || m.Timeline != p.OldTimeline || m.UUID != p.UUID && m.UUID != "" && p.UUID != "" {
		return nil, fmt.Errorf("%s is of cluster %s on timeline %d, plan %s gave up %s on %d: %w", src.DataDir, m.Cluster, m.Timeline, p.ID, p.OldCluster, p.OldTimeline, ErrForeign)
	}
	end, usable := m.end()
	if !usable {
		return nil, fmt.Errorf("%s has no state to begin from: %v", src.DataDir, m.Damage)
	}
	s := &Salvaged{Fork: fork(m, p, end), End: end, Committed: m.proven()}
	if s.Fork >= end.Index {
		return s, nil
	}
	s.Keys, err = snapshot.ChangesAfter(ctx, snapshot.RestoreConfig{FS: cfg.FS, Clock: cfg.Clock, Logger: cfg.Logger},
		snapshot.DirSource{FS: cfg.FS, Clock: cfg.Clock, Logger: cfg.Logger, DataDir: src.DataDir, WALDir: src.WALDir},
		wal.Mark(end), filepath.Join(journalDir(src.DataDir), salvageName), s.Fork)
	return s, err
}

// fork is the last entry that a member's log has in common with the one that was
// kept. Two logs that have the same term at an index are the same up to there.
// Where one does not reach back to such an index it is the last that both are
// known to have as committed: the true fork may be later, never earlier.
func fork(m *Member, p *Plan, end Mark) ident.Index {
	kept := Log{Last: p.Keep, Terms: p.Terms}
	i := min(end.Index, p.Keep.Index)
	for ; i > 0; i-- {
		here, there := ident.Term(0), kept.termAt(i)
		if m.Log != nil {
			here = m.Log.termAt(i)
		}
		if i == end.Index {
			here = end.Term
		}
		if here == 0 || there == 0 {
			return min(i, m.proven(), p.Committed)
		}
		if here == there {
			break
		}
	}
	return i
}

package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine"
)

// Examined is what the state of a stopped member says, as of its last
// checkpoint.
type Examined struct {
	Position  ident.Position
	Term      ident.Term
	Time      int64
	Digest    ident.Digest
	Revision  ident.Revision
	Compacted ident.Revision
	Cluster   ident.ClusterID
	Timeline  ident.Timeline
	Conf      *raftpb.ConfState
	Facts     *holdfastpb.Cluster // Nil before the first command of a cluster.
	Members   []*holdfastpb.Member
	// Recorded is the last entry of which history knows. Only what was committed
	// is ever recorded, so it proves more than the checkpoint.
	Recorded     ident.Index
	RecordedTerm ident.Term
}

// Examine verifies the state in a generation's directory to the last byte, and
// tells what it is. It changes nothing.
func Examine(ctx context.Context, fsys vfs.FS, logger hclog.Logger, dir string) (x *Examined, err error) {
	base, records := mvcc.Files(dir)
	db, err := backend.Open(backend.Config{FS: fsys, Path: base, Logger: logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.Verify(ctx, nil); err != nil {
		return nil, err
	}
	view := db.View()
	defer view.Release()
	if x, err = examineBase(view); err != nil {
		return nil, err
	}
	mark, err := history.DecodeMark(view.Meta().HistoryMark)
	if err != nil {
		return nil, fmt.Errorf("mark of history in %s: %w", base, err)
	}
	end, err := recorded(ctx, fsys, records, mark)
	x.Recorded, x.RecordedTerm = end.Index, end.Term
	return x, err
}

// recorded verifies history up to the mark of the checkpoint. What lies beyond
// may be torn; as far as it is whole it counts.
func recorded(ctx context.Context, fsys vfs.FS, dir string, mark history.Mark) (history.Mark, error) {
	end, err := history.Verify(fsys, dir, func(history.Found) error { return ctx.Err() })
	switch beyond := end.Segment > mark.Segment || end.Segment == mark.Segment && end.Offset >= mark.Offset; {
	case ctx.Err() != nil:
		return mark, ctx.Err()
	case beyond:
		return end, nil
	case err != nil:
		return mark, err
	default:
		return mark, fmt.Errorf("history in %s ends with entry %d, its last checkpoint came after entry %d: %w", dir, end.Index, mark.Index, backend.ErrDamaged)
	}
}

func examineBase(view *backend.View) (*Examined, error) {
	m := view.Meta()
	x := &Examined{
		Position: m.Applied, Term: m.Term, Time: m.Time, Digest: m.Digest, Revision: m.Revision, Compacted: m.Compacted.Revision,
		Cluster: m.Cluster, Timeline: m.Timeline, Conf: &raftpb.ConfState{},
	}
	if err := proto.Unmarshal(m.ConfState, x.Conf); err != nil {
		return nil, fmt.Errorf("configuration in force: %w", err)
	}
	err := view.TableRows(backend.TableMember, func(_, value []byte) error {
		row := &holdfastpb.Member{}
		if err := row.UnmarshalVT(value); err != nil {
			return fmt.Errorf("row of a member: %w", err)
		}
		if !row.Removed {
			x.Members = append(x.Members, row)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return x, view.TableRows(backend.TableMeta, func(key, value []byte) error {
		if !bytes.Equal(key, statemachine.ClusterKey) {
			return nil
		}
		x.Facts = &holdfastpb.Cluster{}
		return x.Facts.UnmarshalVT(value)
	})
}

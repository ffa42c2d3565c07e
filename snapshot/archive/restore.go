package archive

import (
	"context"
	"fmt"
	"io"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/snapshot"
)

// RestoreFile makes a snapshot file of a plan's target, from which
// snapshot.Restore makes data directories. The file gets its name when it is
// complete, and was read back and verified.
func (a *Archive) RestoreFile(ctx context.Context, fsys vfs.FS, path string, p *Plan) (snapshot.Totals, error) {
	var totals snapshot.Totals
	_, err := snapshot.SaveFunc(ctx, fsys, path, func(w io.Writer) (err error) {
		totals, err = a.Restore(ctx, w, p)
		return err
	})
	return totals, err
}

// Restore writes the snapshot of a plan's target. What was written means nothing
// unless it returns without an error.
func (a *Archive) Restore(ctx context.Context, w io.Writer, p *Plan) (totals snapshot.Totals, err error) {
	err = a.read(ctx, p, nil, func(base io.Reader, x snapshot.Extension) error {
		totals, err = snapshot.Extend(ctx, w, base, x)
		return err
	})
	return totals, err
}

// RestoreTo makes data directories of a plan's target, straight from the objects.
// members was planned with the plan's Header.
func (a *Archive) RestoreTo(ctx context.Context, cfg snapshot.RestoreConfig, p *Plan, members *snapshot.Plan) error {
	return a.read(ctx, p, cfg.Progress, func(base io.Reader, x snapshot.Extension) error {
		return snapshot.RestoreExtended(ctx, cfg, base, x, members)
	})
}

// restoreInto makes a store of a plan's target.
func (a *Archive) restoreInto(ctx context.Context, store mvcc.Config, id mvcc.Identity, p *Plan) error {
	return a.read(ctx, p, nil, func(base io.Reader, x snapshot.Extension) error {
		_, err := snapshot.ReceiveExtended(base, x, store, id)
		return err
	})
}

// read gives what leads to a plan's target: a base and the records after it. tell
// may be nil; it is told how many bytes of objects were used, and of how many.
func (a *Archive) read(ctx context.Context, p *Plan, tell func(done, total int64), use func(io.Reader, snapshot.Extension) error) error {
	used := &usage{tell: tell, total: p.Bytes}
	base := a.readBase(ctx, p.folder, &p.Base, used)
	defer base.Close()
	log := a.readLog(ctx, p, used)
	defer log.tasks.Wait() //nolint:errcheck // next has told what failed.
	defer log.tasks.Stop()
	// Objects are verified by their own SHA-256, and named by it in the manifest.
	err := use(base, snapshot.Extension{To: p.state(), Next: log.next, Tell: p.check, Proven: true})
	if err != nil {
		return fmt.Errorf("restore %s of cluster %s, timeline %d: %w", p.Target, p.Cluster, p.Timeline, err)
	}
	return nil
}

// usage counts bytes of objects as they are used.
type usage struct {
	tell        func(done, total int64)
	done, total int64
}

func (u *usage) add(bytes int64) {
	if u.done += bytes; u.tell != nil {
		u.tell(u.done, u.total)
	}
}

// state is where the snapshot stands.
func (p *Plan) state() mvcc.State {
	return mvcc.State{
		Position: p.To.Position(), Term: p.To.Term, Time: p.To.Time, Digest: ident.Digest(p.To.Digest),
		Revision: p.To.Revision, Compacted: p.To.Compacted, ConfState: p.Conf,
	}
}

// Header is that of the snapshot to be, as far as snapshot.PlanRestore needs it.
func (p *Plan) Header() *holdfastpb.SnapshotHeader {
	return &holdfastpb.SnapshotHeader{
		Format: snapshot.FormatVersion, ClusterId: uint64(p.Base.ClusterID), Uuid: p.Cluster[:], Timeline: &holdfastpb.TimelineInfo{Number: uint64(p.Timeline)},
		Applied: &holdfastpb.Position{Index: uint64(p.To.Index), Group: p.To.Group}, Term: uint64(p.To.Term), EntryTime: p.To.Time,
		Revision: int64(p.To.Revision), Digest: p.To.Digest[:],
	}
}

// check compares a base's own header with its manifest.
func (p *Plan) check(h *holdfastpb.SnapshotHeader) error {
	return p.Base.describes(p.folder+manifestName, h)
}

// logReader gives the records between a base and a target. The next segment is
// fetched while one is used.
type logReader struct {
	tasks    *task.Group
	used     *usage
	segments chan fetchedSegment
	last     Point // State after the last record given.
	to       ident.Position
	name     string
	rest     []byte
	all      []byte
}

type fetchedSegment struct {
	Segment
	plain []byte
	err   error
}

func (a *Archive) readLog(ctx context.Context, p *Plan, used *usage) *logReader {
	r := &logReader{tasks: task.New(ctx), used: used, segments: make(chan fetchedSegment), last: p.Base.tail(), to: p.To.Position()}
	r.tasks.Go("log", func(ctx context.Context) error {
		defer close(r.segments)
		for _, s := range p.Log {
			seg, err := a.segment(ctx, p.Timeline, s)
			f := fetchedSegment{Segment: s, err: err}
			if err == nil {
				f.plain = seg.plain
			}
			select {
			case r.segments <- f:
			case <-ctx.Done():
				return nil
			}
			if err != nil {
				return nil
			}
		}
		return nil
	})
	return r
}

// next returns the next record, nil at the target.
func (r *logReader) next() (*history.Record, error) {
	for {
		if len(r.rest) == 0 {
			f, ok := <-r.segments
			if !ok {
				return nil, r.tasks.Context().Err()
			}
			if f.err != nil {
				return nil, f.err
			}
			r.name, r.rest, r.all = f.Name, f.plain, f.plain
			r.used.add(f.Bytes)
		}
		rec, n, err := history.DecodeRecord(r.rest)
		if err != nil {
			return nil, damagef(r.name, fixedHeadBytes, "record at byte %d of its content: %v", len(r.all)-len(r.rest), err)
		}
		r.rest = r.rest[n:]
		if rec.Index <= r.last.Index { // The base has it, or the segment before.
			if digest := Digest(rec.Groups[len(rec.Groups)-1].Digest); rec.Index == r.last.Index && digest != r.last.Digest {
				return nil, fmt.Errorf("object %s has digest %s after entry %d, before it came %s: %w", r.name, digest, rec.Index, r.last.Digest, ErrDisagree)
			}
			continue
		}
		if rec.Index > r.to.Index {
			return nil, nil
		}
		if rec.Index == r.to.Index {
			if rec = cut(rec, r.to.Group); rec == nil {
				return nil, nil
			}
		}
		if r.last, err = advance(r.last, rec); err != nil {
			return nil, fmt.Errorf("object %s: %w", r.name, err)
		}
		return rec, nil
	}
}

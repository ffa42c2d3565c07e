package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// ErrUntrusted means that the generation in force was marked: it may look
// intact and is not to be used.
var ErrUntrusted = errors.New("state is marked as not to be trusted")

// IsDamage tells whether an error means that the files of a state do not hold
// what was written, or may not: nothing but another state helps. A mistake of
// the program is not damage: it would be made again by every member.
func IsDamage(err error) bool {
	for _, damage := range []error{
		ErrUntrusted, datadir.ErrDamaged, datadir.ErrEmpty,
		backend.ErrTooOld, backend.ErrMissing, history.ErrMalformed, mvcc.ErrDiverged,
	} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return IsUnreadable(err) || IsFailedWrite(err)
}

// IsUnreadable tells whether bytes were read that are not what was written.
func IsUnreadable(err error) bool {
	var inHistory *history.DamageError
	return errors.Is(err, backend.ErrDamaged) || errors.As(err, &inHistory)
}

// IsFailedWrite tells whether a file of the state could not be written, synced
// or read: what it holds is not known any more (I-10).
func IsFailedWrite(err error) bool {
	return errors.Is(err, backend.ErrFailed) || errors.Is(err, history.ErrFailed) || errors.Is(err, syscall.EIO)
}

// Trusted returns nil when the generation in force has no mark.
func Trusted(dir *datadir.Dir) error {
	m, found, err := dir.Mark()
	if err != nil {
		return fmt.Errorf("the mark of a state: %w", err)
	}
	if !found {
		return nil
	}
	n, err := dir.Current()
	if err == nil && n == m.Generation {
		err = fmt.Errorf("generation %d: %w: %s", n, ErrUntrusted, m.Reason)
	}
	return err
}

// Distrust marks the generation in force.
func (r *Replica) Distrust(reason error, diverged bool) error {
	return r.cfg.Dir.Distrust(datadir.Mark{Generation: int(r.generation.Load()), Reason: reason.Error(), Diverged: diverged})
}

// Fetch reads a whole state of another member into a generation that is not in
// force yet. Nothing that is here is looked at. The notes of the log are about a
// generation of which nothing else may be left: its number is not used again.
func Fetch(cfg Config, id datadir.Identity, notes []wal.Note, rd io.Reader) (*Staged, error) {
	n, err := cfg.Dir.NextAfter(noted(notes))
	if err != nil {
		return nil, err
	}
	state, err := snapshot.ReceiveWhole(rd, cfg.store(n), mvcc.Identity{Cluster: id.Cluster, Timeline: id.Timeline})
	return stage(cfg.Dir, n, state, err)
}

// Copy makes a generation that is not in force yet out of the one that is, whose
// writes failed once: what can be read and verified to the last byte is written
// to new files (I-10). The old ones stay as they are.
func Copy(cfg Config, id datadir.Identity, notes []wal.Note) (*Staged, error) {
	from, err := cfg.Dir.Current()
	if err != nil {
		return nil, err
	}
	sc := cfg.store(from)
	sc.BaseMinTxID, sc.Manual, sc.OnCheckpoint = minTxID(notes, from), true, nil
	old, err := mvcc.Open(sc)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	staged, err := copyOf(cfg, id, notes, old)
	return staged, errors.Join(err, old.Close())
}

func copyOf(cfg Config, id datadir.Identity, notes []wal.Note, old *mvcc.Store) (*Staged, error) {
	if _, err := old.Base().Verify(context.Background(), nil); err != nil {
		return nil, err
	}
	f, err := old.Freeze()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return fetchFrom(context.Background(), cfg, id, notes, func(w io.Writer) error { return snapshot.WriteTo(w, f, nil) })
}

// fetchFrom is Fetch of what a function writes.
func fetchFrom(ctx context.Context, cfg Config, id datadir.Identity, notes []wal.Note, write func(io.Writer) error) (*Staged, error) {
	rd, w := io.Pipe()
	group := task.New(ctx)
	group.Go("write state", func(context.Context) error {
		w.CloseWithError(write(w)) // nil is the end.
		return nil
	})
	staged, err := Fetch(cfg, id, notes, rd)
	rd.CloseWithError(io.ErrClosedPipe)
	return staged, errors.Join(err, group.Wait())
}

// Replace puts a fetched state into force; what was there is renamed aside. The
// log must be able to go on from it: it reaches back to that state's entry, or
// ends before it and begins anew there, as after an installed snapshot (rule
// 19). A state that contradicts what the log knows to be committed is refused.
func (s *Staged) Replace(r *wal.Recovered, log raftnode.LogReader) error {
	boot, err := raftnode.PlanBoot(r, raftnode.Applied{Mark: wal.Mark{Index: s.meta.Index, Term: s.meta.Term}, Conf: s.meta.Conf}, log)
	if err != nil {
		return err
	}
	if boot.Reset && s.meta.Index <= r.HardState.Commit {
		return fmt.Errorf("state at entry %d of term %d, the log has another entry there and knows %d to be committed: %w",
			s.meta.Index, s.meta.Term, r.HardState.Commit, mvcc.ErrDiverged)
	}
	return s.dir.SetCurrent(s.generation, s.began())
}

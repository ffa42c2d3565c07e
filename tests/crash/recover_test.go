package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// recovery starts a member on what a crash left, and proves that it is what it
// must be.
type recovery struct {
	disk    *disk
	truth   *truth // Its own: the member goes on.
	rnd     *rand.Rand
	verdict func(string)
	model   *model // After the last entry.
	last    wal.Mark
}

func (r *recovery) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	m, err := r.boot()
	if err != nil {
		return err
	}
	if err := errors.Join(r.check(m), m.close()); err != nil {
		return err
	}
	if err := r.snapshots(); err != nil {
		return fmt.Errorf("snapshot file and restore: %w", err)
	}
	if !*longFlag && r.rnd.IntN(3) > 0 {
		return nil
	}
	// Once more, in order: what was written since has to be there.
	if m, err = r.boot(); err != nil {
		return fmt.Errorf("second start: %w", err)
	}
	if err := r.replayed(m); err != nil {
		return errors.Join(fmt.Errorf("second start: %w", err), m.close())
	}
	return m.close()
}

// boot starts the member. A directory that was never told to be there may be
// empty: then it is made again.
func (r *recovery) boot() (*member, error) {
	m, err := boot(r.disk, memberDir)
	if !errors.Is(err, datadir.ErrEmpty) || r.truth.created {
		return m, err
	}
	r.verdict("made anew")
	if err := create(r.disk, memberDir, firstMember); err != nil {
		return nil, fmt.Errorf("make the directory again: %w", err)
	}
	return boot(r.disk, memberDir)
}

func (r *recovery) check(m *member) error {
	r.truth.created = true
	if err := r.hardState(m); err != nil {
		return err
	}
	if err := r.entries(m); err != nil {
		return err
	}
	switch {
	case m.boot.Reset:
		r.verdict("log begun anew")
	case m.boot.Cut:
		r.verdict("tail cut")
	case m.boot.Applied.Index < m.boot.Last.Index:
		r.verdict("log replayed")
	default:
		r.verdict("nothing to replay")
	}
	applied := r.truth.expected[m.boot.Applied]
	if applied == nil {
		return fmt.Errorf("the state is at %s, where nobody ever was", m.boot.Applied)
	}
	if err := sameState(m.rep.Store().Applied(), applied.state); err != nil {
		return fmt.Errorf("as found: %w", err)
	}
	if err := r.replayed(m); err != nil {
		return err
	}
	return r.goOn(m)
}

// hardState must not go back, and not be invented.
func (r *recovery) hardState(m *member) error {
	if m.boot.Reset && !r.truth.began[m.boot.Applied] {
		return fmt.Errorf("the log begins anew at %s, where no state was received: it has lost entries that the state has", m.boot.Applied)
	}
	got, synced := m.recovered.HardState, r.truth.hard
	vote, given := r.truth.given[got.Term]
	switch {
	case got.Term < synced.Term:
		return fmt.Errorf("term %d, %d was durable", got.Term, synced.Term)
	case got.Term == synced.Term && got.Vote != synced.Vote:
		return fmt.Errorf("vote %d in term %d, %d was durable", got.Vote, got.Term, synced.Vote)
	case got.Term > synced.Term && (!given || got.Vote != vote):
		return fmt.Errorf("term %d and vote %d, which nobody stored", got.Term, got.Vote)
	case got.Commit > max(r.truth.acked, r.truth.incoming):
		return fmt.Errorf("commit %d, acknowledged was %d", got.Commit, r.truth.acked)
	}
	return nil
}

// entries of the log are those that were appended, and all that were
// acknowledged.
func (r *recovery) entries(m *member) error {
	start, last := m.log.Start(), m.log.Last()
	if r.truth.acked > max(last.Index, m.boot.Applied.Index) {
		return fmt.Errorf("entry %d was acknowledged, log ends at %s, state at %s, cut %v", r.truth.acked, last, m.boot.Applied, m.recovered.Cut)
	}
	if last.Index == start.Index {
		return nil
	}
	entries, err := m.log.Entries(start.Index+1, last.Index+1, 1<<30)
	if err != nil {
		return fmt.Errorf("read log %s to %s: %w", start, last, err)
	}
	for _, e := range entries {
		at := wal.Mark{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
		given := r.truth.appended[at]
		if given == nil || !bytes.Equal(e.GetData(), given.GetData()) || e.GetType() != given.GetType() {
			return fmt.Errorf("entry %s was never appended so", at)
		}
		if term, acked := r.truth.terms[at.Index]; acked && term != at.Term {
			return fmt.Errorf("entry %s, acknowledged was term %d", at, term)
		}
	}
	return nil
}

// replayed compares the state after all that the log holds.
func (r *recovery) replayed(m *member) error {
	from := m.rep.Store().Applied()
	r.last = wal.Mark{Index: from.Position.Index, Term: from.Term}
	if r.truth.expected[r.last] == nil {
		return fmt.Errorf("the state is at %s, where nobody ever was", r.last)
	}
	r.model = r.truth.expected[r.last].model.clone()
	if last := m.log.Last(); last.Index > r.last.Index {
		entries, err := m.log.Entries(r.last.Index+1, last.Index+1, 1<<30)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := r.model.apply(e); err != nil {
				return err
			}
			r.last = wal.Mark{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
			if r.truth.expected[r.last] == nil {
				r.truth.expected[r.last] = &expectation{model: r.model.clone()}
			}
		}
		if err := m.replay(); err != nil {
			return fmt.Errorf("replay from %s: %w", from.Position, err)
		}
	}
	if err := m.same(r.truth.expected[r.last]); err != nil {
		return fmt.Errorf("after replay to %s: %w", r.last, err)
	}
	report, err := m.rep.Store().Base().Verify(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("base: %w, %+v", err, report)
	}
	return nil
}

// goOn is the beginning of another life: a new term, some entries, a
// compaction, a checkpoint.
func (r *recovery) goOn(m *member) error {
	if m.boot.Cut {
		if err := m.log.ClearCut(); err != nil {
			return err
		}
	}
	r.last.Term = max(m.hard.Term, r.last.Term) + 1
	l := &life{member: m, rnd: r.rnd, truth: r.truth, model: r.model, stamp: 1 << 40, head: r.last}
	for _, commands := range [][]*holdfastpb.Command{
		nil,
		{put(l.key(), l.value(100), 0), remove(l.key(), nil)},
		{compaction(r.model.revision)},
		{put(l.key(), l.value(1500), 0)},
	} {
		l.head.Index++
		e := &raftpb.Entry{Term: proto.Uint64(uint64(l.head.Term)), Index: proto.Uint64(uint64(l.head.Index)), Type: raftpb.EntryNormal.Enum()}
		if commands != nil {
			var err error
			if e, err = l.newEntry(l.head, commands...); err != nil {
				return err
			}
		}
		if err := r.model.apply(e); err != nil {
			return err
		}
		r.truth.expected[l.head] = &expectation{model: r.model.clone()}
		if err := l.commit(e); err != nil {
			return fmt.Errorf("going on after the crash: %w", err)
		}
		if l.head.Index%2 == 0 {
			if err := m.checkpoint(); err != nil {
				return fmt.Errorf("checkpoint after the crash: %w", err)
			}
		}
	}
	r.last = l.head
	if err := m.same(r.truth.expected[r.last]); err != nil {
		return fmt.Errorf("after going on to %s: %w", r.last, err)
	}
	return nil
}

// snapshots looks at the file that was saved and the directory made of it.
func (r *recovery) snapshots() error {
	if r.truth.saved == nil {
		return nil
	}
	status, err := snapshot.StatusOf(context.Background(), r.disk.mem, snapshotPath, snapshot.StatusOptions{})
	if errors.Is(err, fs.ErrNotExist) && !r.truth.isSaved {
		return nil
	}
	if err != nil {
		return err
	}
	if !r.truth.isSaved && r.truth.earlier != nil && status.Header.Revision == r.truth.earlier.model.revision {
		r.truth.saved = r.truth.earlier // The new file did not get the name.
	}
	if got := status.Header.Revision; got != r.truth.saved.model.revision {
		return fmt.Errorf("snapshot of revision %d, saved was %d", got, r.truth.saved.model.revision)
	}
	whole, err := r.restored(r.disk)
	if err != nil || whole {
		return err
	}
	if r.truth.restored {
		return errors.New("the restored directory is gone")
	}
	r.verdict("restored again")
	if err := restoreFrom(r.disk); err != nil {
		return fmt.Errorf("restore again: %w", err)
	}
	d, err := r.disk.crash(filepath.Join(r.disk.root, "after"), vfstest.Crash{}, nil)
	if err != nil {
		return err
	}
	if whole, err = r.restored(d); err != nil || !whole {
		return fmt.Errorf("restored again, whole %v: %w", whole, err)
	}
	return nil
}

// restored tells whether the directory is there; then it has to be right.
func (r *recovery) restored(d *disk) (bool, error) {
	if there, err := vfs.Exists(d.mem, restoredDir); err != nil || !there {
		return false, err
	}
	m, err := boot(d, restoredDir)
	if errors.Is(err, datadir.ErrEmpty) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("start what was restored: %w", err)
	}
	want := &expectation{model: r.truth.saved.model}
	if err := errors.Join(m.same(want), m.close()); err != nil {
		return false, fmt.Errorf("what was restored: %w", err)
	}
	return true, nil
}

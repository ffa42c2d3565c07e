// Package replica is a member's state as the log drives it: the state machine on
// its store, and the snapshots by which one store takes the place of another.
//
// Package server builds a member around it, a simulation does the same without
// goroutines. It lives in a data directory (package datadir), which names the
// generation in force: a received snapshot is a new one, and the rename that
// makes it current is the commit point. A crash before that leaves the old
// generation, one after it the new; what is not in force is set aside at the
// next start. The files: docs/format/datadir.md.
package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/statemachine"
)

// Replica is what the log drives.
//
// Apply, Freeze and Install are the apply goroutine's; everything else may be
// called by anybody.
type Replica struct {
	Machine   *statemachine.Machine
	OnMembers func()            // After the members changed. Must not block. Set before the log runs.
	OnStore   func(*mvcc.Store) // After another store came into force. The same.
	OnDamage  func(error)       // What was read of the state for another member is damaged. The same.

	cfg        Config
	store      atomic.Pointer[Held]
	generation atomic.Int64
	applying   sync.Mutex // Held by whoever changes or freezes the state: a client's snapshot freezes it too.
	files      atomic.Int64
}

// Held is a store that is closed once nobody uses it any more: a snapshot
// may put another in its place while requests read it.
type Held struct {
	*mvcc.Store
	users  atomic.Int64 // And one more while it is in force.
	closed chan struct{}
	err    error // Of closing it.
}

func hold(store *mvcc.Store) *Held {
	h := &Held{Store: store, closed: make(chan struct{})}
	h.users.Store(1)
	return h
}

// Release ends a use. The last one closes the store.
func (h *Held) Release() {
	if h.users.Add(-1) == 0 {
		h.err = h.Store.Close()
		close(h.closed)
	}
}

// Store is the one in force, for what it tells without its files: where it
// stands and whether it failed. Whoever reads uses Use.
func (r *Replica) Store() *mvcc.Store { return r.store.Load().Store }

// Use returns the store in force and keeps it open until Release. It fails when
// the member is stopping.
func (r *Replica) Use() (*Held, error) {
	for {
		h := r.store.Load()
		for n := h.users.Load(); n > 0; n = h.users.Load() {
			if h.users.CompareAndSwap(n, n+1) {
				return h, nil
			}
		}
		if r.store.Load() == h {
			return nil, raftnode.ErrStopped
		}
	}
}

// Close waits until nobody uses the store in force, and closes it.
func (r *Replica) Close() error {
	h := r.store.Load()
	h.Release()
	<-h.closed
	return h.err
}

// Sizes of the store in force; nothing once the member is stopping.
func (r *Replica) Sizes() mvcc.Sizes {
	store, err := r.Use()
	if err != nil {
		return mvcc.Sizes{}
	}
	defer store.Release()
	return store.Sizes()
}

// Apply implements raftnode.StateMachine.
func (r *Replica) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	r.applying.Lock()
	defer r.applying.Unlock()
	before := r.Machine.Members.Version()
	answers, err := r.Machine.Apply(entries)
	if err != nil {
		return nil, err
	}
	if r.Machine.Members.Version() != before {
		r.OnMembers()
	}
	return answers, nil
}

// Have implements raftnode.StateMachine: where this member stands.
func (r *Replica) Have() []byte { return snapshot.EncodeHave(r.Store().Applied()) }

// Freeze implements raftnode.StateMachine.
func (r *Replica) Freeze() (raftnode.Frozen, error) {
	f, err := r.freeze()
	if err != nil {
		return nil, err
	}
	meta, err := snapMeta(f.State)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &frozen{frozenStore: f, meta: meta, onDamage: r.OnDamage}, nil
}

// FreezeState captures the state for the archive, until it is released.
func (r *Replica) FreezeState() (*mvcc.Frozen, func() error, error) {
	f, err := r.freeze()
	if err != nil {
		return nil, nil, err
	}
	return f.Frozen, f.Close, nil
}

func (r *Replica) freeze() (*frozenStore, error) {
	r.applying.Lock()
	defer r.applying.Unlock()
	store, err := r.Use()
	if err != nil {
		return nil, err
	}
	f, err := store.Freeze()
	if err != nil {
		store.Release()
		return nil, err
	}
	return &frozenStore{f, store}, nil
}

// frozenStore keeps its store open.
type frozenStore struct {
	*mvcc.Frozen
	store *Held
}

func (f *frozenStore) Close() error {
	err := f.Frozen.Close()
	f.store.Release()
	return err
}

// frozen is a state on its way to other members.
type frozen struct {
	*frozenStore
	meta     raftnode.SnapMeta
	onDamage func(error)

	mu      sync.Mutex
	writers int
	closed  bool
}

func (f *frozen) Meta() raftnode.SnapMeta { return f.meta }

func (f *frozen) WriteTo(w io.Writer, have []byte) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return raftnode.ErrStopped
	}
	f.writers++
	f.mu.Unlock()
	_, err := snapshot.Write(context.Background(), w, f.Frozen, snapshot.WriteOptions{
		Have: have, GiveWay: func(context.Context) error { return f.Overdue() },
	})
	if IsDamage(err) {
		f.onDamage(err)
	}
	f.mu.Lock()
	f.writers--
	last := f.closed && f.writers == 0
	f.mu.Unlock()
	if last {
		err = errors.Join(err, f.frozenStore.Close())
	}
	return err
}

// Close lets go of the state once those who write it are through.
func (f *frozen) Close() error {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	busy := f.writers > 0
	f.mu.Unlock()
	if again || busy {
		return nil
	}
	return f.frozenStore.Close()
}

// Receive implements raftnode.StateMachine: a new generation beside the
// present one, verified to the last byte and synced.
func (r *Replica) Receive(rd io.Reader) (raftnode.Staged, error) {
	n, err := r.cfg.Dir.Next()
	if err != nil {
		return nil, err
	}
	current, err := r.Use()
	if err != nil {
		return nil, err
	}
	defer current.Release()
	fail.Here("snapshot/receive/before")
	state, err := snapshot.Receive(rd, r.cfg.store(n), current.Store)
	if IsUnreadable(err) { // What is here and would have been continued.
		r.OnDamage(err)
	}
	return stage(r.cfg.Dir, n, state, err)
}

// stage keeps a received state until it is wanted, or gives it up.
func stage(dir *datadir.Dir, n int, state *snapshot.Received, err error) (*Staged, error) {
	if err != nil {
		return nil, errors.Join(err, dir.Abandon(n))
	}
	meta, err := snapMeta(state.State)
	if err != nil {
		return nil, errors.Join(err, dir.Abandon(n))
	}
	fail.Here("snapshot/receive/after")
	return &Staged{dir, n, meta, state}, nil
}

// Staged is a received state that is not in force.
type Staged struct {
	dir        *datadir.Dir
	generation int
	meta       raftnode.SnapMeta
	state      *snapshot.Received
}

// Meta implements raftnode.Staged.
func (s *Staged) Meta() raftnode.SnapMeta { return s.meta }

// State is what was received, to be compared with another member's.
func (s *Staged) State() *snapshot.Received { return s.state }

func (s *Staged) began() datadir.Began {
	return datadir.Began{Index: s.meta.Index, Term: s.meta.Term}
}

// Discard leaves the generation to be renamed aside.
func (s *Staged) Discard() error { return s.dir.Abandon(s.generation) }

// Install implements raftnode.StateMachine. The commit point is the rename in
// datadir.SetCurrent; a crash before it leaves the old generation.
func (r *Replica) Install(st raftnode.Staged) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	s := st.(*Staged)
	next, err := mvcc.Open(r.cfg.store(s.generation))
	if err != nil {
		return fmt.Errorf("open received generation %d: %w", s.generation, err)
	}
	fail.Here("snapshot/install/before")
	if err := r.cfg.Dir.SetCurrent(s.generation, s.began()); err != nil {
		return errors.Join(err, next.Close())
	}
	fail.Here("snapshot/install/after")
	r.generation.Store(int64(s.generation))
	// Users and roles before the keys, as with an entry: who reads looks at the keys
	// first, and must not see what came after a permission was taken back.
	if err := r.Machine.Reload(next); err != nil {
		return err
	}
	fail.Here("snapshot/install/reloaded")
	old := r.store.Swap(hold(next))
	r.OnStore(next)
	r.OnMembers()
	r.cfg.Logger.Info("installed snapshot", "generation", s.generation, "index", uint64(s.meta.Index), "revision", int64(next.Head()))
	old.Release()
	select {
	case <-old.closed:
		// Its files are renamed aside, so that its last checkpoint fails. Nobody needs that.
		r.cfg.Logger.Debug("closed the store that the snapshot replaced", "error", old.err)
	default: // Whoever still reads it closes it.
	}
	return nil
}

// Clean gives back the space of generations that were replaced, as datadir says.
// It may take long.
func (r *Replica) Clean() error {
	return r.cfg.Dir.Clean(func(name string) {
		r.cfg.Logger.Info("deleted a generation that is not in use", "folder", name)
	})
}

// Applied says where the state stands, for the log.
func (r *Replica) Applied() (raftnode.Applied, error) {
	m, err := snapMeta(r.Store().Applied())
	if err != nil {
		return raftnode.Applied{}, err
	}
	applied := raftnode.Applied{Mark: wal.Mark{Index: m.Index, Term: m.Term}, Conf: m.Conf}
	began, err := r.cfg.Dir.Began()
	if began != nil {
		applied.Began = &wal.Mark{Index: began.Index, Term: began.Term}
	}
	return applied, err
}

func snapMeta(s mvcc.State) (raftnode.SnapMeta, error) {
	m := raftnode.SnapMeta{Index: s.Position.Index, Term: s.Term, Conf: &raftpb.ConfState{}}
	if err := proto.Unmarshal(s.ConfState, m.Conf); err != nil {
		return m, fmt.Errorf("configuration at index %d: %w", m.Index, err)
	}
	return m, nil
}

// SnapshotFile makes a snapshot of the present state in a scratch file of the
// data directory and tells its size. Closing it gives the space back.
func (r *Replica) SnapshotFile(ctx context.Context, by ident.MemberID) (io.ReaderAt, int64, func() error, error) {
	f, err := r.freeze()
	if err != nil {
		return nil, 0, nil, err
	}
	defer f.Close()
	name := filepath.Join(r.cfg.Dir.Path(), fmt.Sprintf("%s%d", ScratchPrefix, r.files.Add(1)))
	if err := r.cfg.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil, err // Left by a process that was killed.
	}
	file, err := r.cfg.FS.Create(name)
	if err != nil {
		return nil, 0, nil, scratchError(err)
	}
	done := func() error { return errors.Join(file.Close(), r.cfg.FS.Remove(name)) }
	totals, err := snapshot.Write(ctx, &fileWriter{file: file}, f.Frozen, snapshot.WriteOptions{
		Member: by, MadeUnixNano: r.cfg.Clock.Wall().UnixNano(), GiveWay: r.mannersFrozen(f.store.Store).GiveWay,
	})
	if err != nil {
		return nil, 0, nil, errors.Join(err, done())
	}
	return file, totals.Bytes, done, nil
}

// ScratchPrefix begins the name of a file or folder in the data directory that
// means nothing after a crash: it is removed when the state is opened.
const ScratchPrefix = "scratch-"

// fileWriter writes a file from its beginning.
type fileWriter struct {
	file   vfs.File
	offset int64
}

func (w *fileWriter) Write(b []byte) (int, error) {
	n, err := w.file.WriteAt(b, w.offset)
	w.offset += int64(n)
	if err != nil {
		err = scratchError(err)
	}
	return n, err
}

// scratchError hides why a scratch file could not be written: that says nothing
// about the state, which IsDamage would take it for.
func scratchError(err error) error { return fmt.Errorf("scratch file: %v", err) }

// Package mvcc keeps keys through time.
//
// A key's state at revision R is its row in base (package backend: one row a
// key, as of M) overlaid with what changed in (M, R] (package history: every
// change in order, found through the young index in memory). Compaction moves
// C, the oldest readable revision; a merge in the background then brings base
// up to it and lets history go.
//
// The state machine calls Begin, Tx and Commit on the apply goroutine, which
// alone changes the young index and the small rows. Everybody else reads
// through views: immutable, taken without a lock, and merged over base at one
// revision. One goroutine in the background writes base: checkpoints and
// merges; it also turns finished lists of the young index into tables.
//
// Invariants: M ≤ C ≤ head (I-3). Base holds nothing newer than the last
// checkpoint (I-4). State and the index it reflects are published, and become
// durable, together (I-2). No clock decides a byte of state (I-7).
//
// A crash leaves the last checkpoint: base as of M, the small rows, and history
// up to its mark, which Open cuts to; the Raft log replays the rest. A merge cut
// short has left some rows of base newer than M, all of which history since M
// covers, and is begun again. The files: docs/format/datadir.md.
package mvcc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Config says where a store lives and how it works. Zero means the default.
type Config struct {
	FS     vfs.FS       // Required.
	Dir    string       // A generation directory: base.db and history/. Required.
	Clock  clock.Clock  // Times background work, never state. Required.
	Logger hclog.Logger // Required.

	// SegmentBytes is when a segment of history is sealed. A compaction gives
	// space back in whole segments, and the one that holds C stays: with a quota,
	// take no more than a sixteenth of it.
	SegmentBytes int64
	// RingBytes of the newest history are read from memory.
	RingBytes int64
	// CheckpointBytes and CheckpointInterval bound what a restart has to replay.
	CheckpointBytes    int64
	CheckpointInterval time.Duration
	// QuotaBytes that the store must not reach because a frozen state keeps a
	// compaction from being merged. Nothing else is refused by it here.
	QuotaBytes int64
	// HeldBytesMax of history that only others hold are not counted as the store's.
	HeldBytesMax int64
	// OnCheckpoint is told what is durable, in background. It must not block.
	OnCheckpoint func(Checkpoint)

	// Filling says that the store is filled and closed, and serves nobody: history
	// is then not made ready for many syncs, and a segment also ends when its index
	// takes much memory.
	Filling bool

	// Manual leaves background work to the owner, who calls Step: a simulation
	// decides when what happens.
	Manual bool

	// BaseFS and BaseDir are where base lies, if elsewhere: bbolt wants a real
	// file, also when history is kept in the memory of a test.
	BaseFS  vfs.FS
	BaseDir string
	// Of base; see backend.Config.
	BasePageBytes int
	BaseMapBytes  int64
	BaseMinTxID   uint64
	BaseNoSync    bool
	BaseInOrder   bool

	mergeKeys int // In one transaction of a merge, mergeKeysMax by default. Tests want merges of many.

	// entryBytesMax and answerBytesMax by default, the same on all members.
	entryBytes, answerBytes int64
}

// Checkpoint says what is durable without the Raft log.
type Checkpoint struct {
	Index ident.Index // Entries up to here are in base and history.
	// Previous is the index of the checkpoint before. The log is kept from there
	// on: bbolt falls back to its older meta page when the newest is damaged.
	Previous ident.Index
	TxID     uint64 // The base transaction that a later Open should find.
	Took     time.Duration
}

// Identity says whose state it is.
type Identity struct {
	Cluster  ident.ClusterID
	Timeline ident.Timeline
}

// Validate reports all that is wrong, after filling in defaults.
func (c *Config) Validate() error {
	setDefault(&c.SegmentBytes, DefaultSegmentBytes)
	setDefault(&c.RingBytes, DefaultRingBytes)
	setDefault(&c.CheckpointBytes, DefaultCheckpointBytes)
	setDefault(&c.CheckpointInterval, DefaultCheckpointInterval)
	setDefault(&c.HeldBytesMax, DefaultHeldBytesMax)
	setDefault(&c.entryBytes, entryBytesMax)
	setDefault(&c.answerBytes, answerBytesMax)
	if c.mergeKeys == 0 {
		c.mergeKeys = mergeKeysMax
	}
	if c.BaseFS == nil {
		c.BaseFS = c.FS
	}
	if c.BaseDir == "" {
		c.BaseDir = c.Dir
	}
	var wrong []error
	if c.FS == nil || c.Dir == "" || c.Clock == nil || c.Logger == nil {
		wrong = append(wrong, errors.New("FS, Dir, Clock and Logger are required"))
	}
	if c.SegmentBytes < history.SegmentBytesMin || c.SegmentBytes > segmentBytesMax {
		wrong = append(wrong, fmt.Errorf("SegmentBytes %d is not within %d and %d", c.SegmentBytes, history.SegmentBytesMin, segmentBytesMax))
	}
	if c.CheckpointBytes < 0 || c.CheckpointInterval < 0 {
		wrong = append(wrong, fmt.Errorf("CheckpointBytes %d or CheckpointInterval %s is negative", c.CheckpointBytes, c.CheckpointInterval))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("store configuration: %w", errors.Join(wrong...))
	}
	return nil
}

func setDefault[T int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (c *Config) base() backend.Config {
	return backend.Config{
		FS: c.BaseFS, Path: filepath.Join(c.BaseDir, baseName), PageSize: c.BasePageBytes, InitialMmapBytes: c.BaseMapBytes,
		MinTxID: c.BaseMinTxID, NoSync: c.BaseNoSync, InOrder: c.BaseInOrder, Logger: c.Logger,
	}
}

// history leaves it to the store when a segment ends, because the young index
// ends with it.
func (c *Config) history() history.Config {
	return history.Config{
		FS: c.FS, Dir: filepath.Join(c.Dir, historyName), SegmentBytes: history.SegmentBytesMax,
		RingBytes: c.RingBytes, Logger: c.Logger, Filling: c.Filling,
	}
}

// Files are the base and the folder of history in a generation's directory, for
// those who look at a state without opening it.
func Files(dir string) (base, history string) {
	return filepath.Join(dir, baseName), filepath.Join(dir, historyName)
}

// VerifyBase reads all of base of a store that is closed, as its next Open will
// find it.
func VerifyBase(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	db, err := backend.Open(cfg.base())
	if err != nil {
		return err
	}
	_, err = db.Verify(ctx, nil)
	return errors.Join(err, db.Close())
}

const (
	baseName    = "base.db"
	historyName = "history"
)

// Store is the state of one member.
//
// It has more fields than most because three parties meet in it: the apply
// goroutine, the background, and readers.
type Store struct {
	cfg     Config
	db      *backend.DB
	history *history.Log
	tasks   *task.Group
	created bool // Not opened: nothing was ever durable before its first checkpoint.

	state   atomic.Pointer[state]
	digests digests
	notify  atomic.Pointer[chan struct{}] // Closed after the next entry. Nil when nobody waits.
	wakeup  chan struct{}                 // Of the background.

	entry Entry     // Owned by the apply goroutine.
	rows  rowTables // The same.

	mu struct { // Never held while reading or writing files.
		sync.Mutex
		dirty    map[rowID][]byte // Small rows since the last checkpoint; nil: deleted.
		retired  []*layout        // That may have readers.
		pins     map[*Pin]struct{}
		frozen   int            // Snapshots being taken: no merge meanwhile.
		asked    uint64         // Checkpoints asked for; the n-th is done when
		answered uint64         // this has reached n.
		settled  ident.Revision // Merged through, and segments dropped.
		waiters  int            // Who wait for that.
		progress chan struct{}  // Closed when the background got somewhere.
		full     error          // No room for what the background has to do; nil: there is.
		failure  error
		closed   bool
	}
	failed       chan struct{}
	checkpointed atomic.Int64  // Bytes of history, as state.written, at the last checkpoint.
	heldBelow    atomic.Uint64 // Segments before this one base covers; who holds them keeps them.

	background background
}

// Create makes an empty store.
func Create(cfg Config, id Identity) (*Store, error) {
	return CreateFrom(cfg, Seed{
		Meta: backend.Meta{
			Revision: firstRevision, Compacted: backend.Point{Revision: NeverCompacted}, Merged: backend.Point{Revision: NeverCompacted},
			Cluster: id.Cluster, Timeline: id.Timeline,
		},
	})
}

const (
	// firstRevision is that of a fresh store: its first put makes 2.
	firstRevision = 1
	// NeverCompacted is C of a fresh store. Below 0, so that revision 0 may be
	// compacted once, as in etcd.
	NeverCompacted = -1
)

// Seed is where a store begins that did not grow here, but was installed or
// restored: base as of Meta.Merged, and records to come through ApplyRecord.
type Seed struct {
	// Meta as of before the first record to come, but for Merged, Compacted and
	// ConfState; HistoryMark, Rows and StateHash are filled in.
	Meta backend.Meta
	// Rows are the small rows, as of any point not before Meta.
	Rows []backend.RowChange
	// Next returns the rows of base by rising key, a nil key at the end. Nil: none.
	Next func() (key, kv []byte, err error)
	// Last is the index of the last record before the first to come: with
	// Meta.Digest, what that one must follow.
	Last ident.Index
}

// CreateFrom makes a store from a seed.
func CreateFrom(cfg Config, seed Seed) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	m := seed.Meta
	log, err := history.Create(cfg.history(), history.Mark{
		Index: seed.Last, Term: m.Term, Digest: m.Digest, Revision: m.Revision,
	})
	if err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	if m.HistoryMark, err = log.End().AppendBinary(nil); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	// Both of its meta pages tell of the rows: bbolt falls back to the other one
	// when the newest is damaged.
	db, err := backend.Create(cfg.base(), m, backend.Rows{Next: seed.Next, Small: seed.Rows})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create store: %w", err), log.Close())
	}
	s, err := start(cfg, db, log)
	if err == nil {
		s.created = true
	}
	return s, err
}

// Open opens a store as of its last checkpoint.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	db, err := backend.Open(cfg.base())
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	mark, err := history.DecodeMark(db.Meta().HistoryMark)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: mark of history in %s: %w", baseName, err), db.Close())
	}
	hc := cfg.history()
	if hc.Merged = db.Meta().Merged.Revision; hc.Merged == 0 {
		hc.Merged = NeverCompacted // There is nothing at revision 0, and history takes it for "nobody says".
	}
	log, err := history.Open(hc, mark)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), db.Close())
	}
	return start(cfg, db, log)
}

// start loads what lives in memory and begins background work.
func start(cfg Config, db *backend.DB, log *history.Log) (*Store, error) {
	s := &Store{cfg: cfg, db: db, history: log, wakeup: make(chan struct{}, 1), failed: make(chan struct{})}
	s.mu.dirty = make(map[rowID][]byte)
	s.mu.pins = make(map[*Pin]struct{})
	s.mu.progress = make(chan struct{})
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("load store: %w", err), db.Close(), log.Close())
	}
	s.tasks = task.New(context.Background())
	if !cfg.Manual {
		s.tasks.Go("mvcc", s.run)
	}
	return s, nil
}

// Applied returns where the store stands.
func (s *Store) Applied() State { return s.state.Load().State }

// Head is the newest revision.
func (s *Store) Head() ident.Revision { return s.state.Load().Revision }

// Compacted is C.
func (s *Store) Compacted() ident.Revision { return s.state.Load().Compacted }

// History is where events are read. Its end may be ahead of Head for a moment.
func (s *Store) History() *history.Log { return s.history }

// Events reads history from the record with revision from on, which must not be
// below C. A store that was restored has no record of C itself: then it begins
// with the first there is.
func (s *Store) Events(from ident.Revision) (*history.Reader, error) {
	first := s.history.Segments()[0].Start.Revision + 1
	return s.history.ScanRevision(max(from, first))
}

// Base is the file under the store, for those who check or copy it. Only the
// store writes it.
func (s *Store) Base() *backend.DB { return s.db }

// Notify returns a channel that is closed after the next entry was published.
// Take it before looking at Head, or an entry may be missed.
func (s *Store) Notify() <-chan struct{} {
	for {
		if waiting := s.notify.Load(); waiting != nil {
			return *waiting
		}
		ch := make(chan struct{})
		if s.notify.CompareAndSwap(nil, &ch) {
			return ch
		}
	}
}

// Rows calls fn for each small row of a table by rising key. Apply goroutine
// only.
func (s *Store) Rows(table backend.Table, fn func(key, value []byte) error) error {
	return s.rows.of(table).each(fn)
}

// Failed is closed when the store can no longer keep what it is given. The
// member has to stop; Err says why.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err is why the store takes no more writes, nil while it does.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failure == nil && s.mu.closed {
		return ErrClosed
	}
	return s.mu.failure
}

func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failure == nil {
		s.mu.failure = fmt.Errorf("store failed: %w", err)
		close(s.failed)
		s.progressLocked()
	}
}

// Close ends background work, makes durable what was applied, and closes the
// files. Views and frozen states must have been released.
func (s *Store) Close() error {
	s.mu.Lock()
	closed, failure := s.mu.closed, s.mu.failure
	s.mu.closed = true
	s.progressLocked()
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.tasks.Stop()
	err := s.tasks.Wait()
	if failure == nil && err == nil {
		err = s.checkpoint() // So that a restart has nothing to replay.
		if err == nil && s.created {
			// bbolt may fall back to the meta page before: what a new store was filled
			// with has to be in both, no log makes it good.
			err = s.checkpoint()
		}
	}
	return errors.Join(err, s.db.Close(), s.history.Close())
}

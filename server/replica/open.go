package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Config says where a member's state lies and who hears of it.
type Config struct {
	FS     vfs.FS
	Dir    *datadir.Dir
	Clock  clock.Clock
	Logger hclog.Logger

	WALDir     string // Of the Raft log, if not in Dir.
	WALBytes   int64  // Of a segment of it. 0: its default. Tests want small ones.
	QuotaBytes int64  // Space comes back in whole segments of history: a quota makes them smaller. 0: none.

	// HeldBytesMax of history that an archive holds are not counted against the quota.
	HeldBytesMax int64

	// OnCheckpoint hears what the store of a generation has made durable: also one
	// that is being received, or was replaced. Note tells them apart. May be nil.
	OnCheckpoint func(generation int, c mvcc.Checkpoint)
	// Tune changes the configuration of a store before it is opened: a simulation
	// steps its background work itself. May be nil.
	Tune func(generation int, c *mvcc.Config)
}

// start is the first log position of a new cluster: its members are state, not
// entries, as of here. Elections begin above.
var start = wal.Mark{Index: 1, Term: 1}

// firstRevision of an empty store.
const firstRevision ident.Revision = 1

// segmentsOfQuota is how many segments of history fit the quota at least.
const segmentsOfQuota = 16

// WAL says where the Raft log is.
func (c *Config) WAL() wal.Config {
	dir := c.WALDir
	if dir == "" {
		dir = c.Dir.WAL()
	}
	return wal.Config{FS: c.FS, Dir: dir, SegmentBytes: c.WALBytes, Logger: c.Logger}
}

func (c *Config) store(generation int) mvcc.Config {
	segment := int64(mvcc.DefaultSegmentBytes)
	if c.QuotaBytes > 0 {
		segment = min(segment, max(c.QuotaBytes/segmentsOfQuota, history.SegmentBytesMin))
	}
	cfg := mvcc.Config{
		FS: c.FS, Dir: c.Dir.Generation(generation), Clock: c.Clock, Logger: c.Logger,
		SegmentBytes: segment, QuotaBytes: c.QuotaBytes, HeldBytesMax: c.HeldBytesMax,
	}
	if c.OnCheckpoint != nil {
		cfg.OnCheckpoint = func(done mvcc.Checkpoint) { c.OnCheckpoint(generation, done) }
	}
	if c.Tune != nil {
		c.Tune(generation, &cfg)
	}
	return cfg
}

// Create makes the first generation and an empty log: the state that all
// initial members start from, or with no members nothing at all, for one that
// joins and will be sent everything. The identity is written last: until then
// the directory counts as empty.
func Create(cfg Config, id datadir.Identity, members []*holdfastpb.Member) error {
	if err := cfg.Dir.SetAside(); err != nil {
		return err
	}
	if err := cfg.claimLog(); err != nil {
		return err
	}
	n, err := cfg.Dir.Next()
	if err != nil {
		return err
	}
	seed, at, err := seedOf(id, members)
	if err != nil {
		return err
	}
	if err := createStore(cfg.store(n), seed); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	log, err := wal.Create(cfg.WAL(), at)
	if err != nil {
		return err // It says so itself.
	}
	if err := log.Close(); err != nil {
		return fmt.Errorf("create raft log: %w", err)
	}
	if err := cfg.Dir.SetCurrent(n, datadir.Began{Index: at.Index, Term: at.Term}); err != nil {
		return err
	}
	return cfg.Dir.SetIdentity(id)
}

// claimLog makes sure that the folder of the log is there and free. What an
// earlier start of this directory left in a folder elsewhere is set aside; what
// anybody else has there is left alone.
func (c *Config) claimLog() error {
	w := c.WAL()
	if err := vfs.MakeFolder(c.FS, w.Dir); err != nil {
		return fmt.Errorf("folder of the raft log: %w", err)
	}
	if c.WALDir == "" {
		return nil
	}
	folder, err := filepath.Abs(w.Dir)
	if err != nil {
		return err
	}
	claimed, err := c.Dir.ClaimedLog()
	if err != nil {
		return err
	}
	if claimed == folder {
		aside, err := wal.SetAside(w)
		if aside != "" {
			c.Logger.Warn("set aside the raft log of a first start that was cut short", "folder", aside)
		}
		return err
	}
	switch free, err := wal.Free(w); {
	case err != nil:
		return err
	case !free:
		return fmt.Errorf("--wal-dir %s: %w, and --data-dir %s no member: give the two that belong together, or another --wal-dir",
			folder, wal.ErrExists, c.Dir.Path())
	}
	return c.Dir.ClaimLog(folder)
}

// NoteOwner is the kind of the note by which a log names the directory that it
// belongs to; 1 is raftnode.NoteCheckpoint.
const NoteOwner uint8 = 2

// ErrLogOfAnother means that a log belongs to another directory. It may join all
// the same, since members hold the same entries: but its vote is another's.
var ErrLogOfAnother = errors.New("raft log of another member: give the --wal-dir and the --data-dir that belong together")

// OwnLog makes sure that a log belongs to the member of a directory. One that
// does not say, as each does before its first start, says so from now on.
func OwnLog(log *wal.Log, found *wal.Recovered, id datadir.Identity, folder string) error {
	var owner []byte
	for _, part := range []uint64{uint64(id.Cluster), uint64(id.Timeline), uint64(id.Member), id.Incarnation} {
		owner = binary.BigEndian.AppendUint64(owner, part)
	}
	if i := slices.IndexFunc(found.Notes, func(n wal.Note) bool { return n.Kind == NoteOwner }); i >= 0 {
		if there := found.Notes[i].Data; !bytes.Equal(there, owner) {
			return fmt.Errorf("%s belongs to cluster, timeline, member and incarnation %x, the data directory is that of %x: %w", folder, there, owner, ErrLogOfAnother)
		}
		return nil
	}
	if err := log.Note(wal.Note{Kind: NoteOwner, Data: owner}); err != nil {
		return fmt.Errorf("note the owner of the raft log: %w", err)
	}
	return log.Sync()
}

func createStore(cfg mvcc.Config, seed mvcc.Seed) error {
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return err
	}
	store, err := mvcc.CreateFrom(cfg, seed)
	if err != nil {
		return err
	}
	return store.Close()
}

// seedOf is the state that a member starts from.
func seedOf(id datadir.Identity, members []*holdfastpb.Member) (mvcc.Seed, wal.Mark, error) {
	conf := &raftpb.ConfState{}
	seed := mvcc.Seed{}
	h := sha256.New()
	fmt.Fprintf(h, "cluster %s\n", id.Cluster)
	for _, m := range members {
		row, err := m.MarshalVT()
		if err != nil {
			return seed, wal.Mark{}, fmt.Errorf("encode member row: %w", err)
		}
		key := member.Key(ident.MemberID(m.Id))
		seed.Rows = append(seed.Rows, backend.RowChange{Table: backend.TableMember, Key: key, Value: row})
		h.Write(row)
		conf.Voters = append(conf.Voters, m.Id)
	}
	state, err := proto.Marshal(conf)
	if err != nil {
		return seed, wal.Mark{}, fmt.Errorf("encode configuration: %w", err)
	}
	at := wal.Mark{}
	if len(members) > 0 {
		at = start
	}
	var digest ident.Digest
	copy(digest[:], h.Sum(nil))
	seed.Last = at.Index
	seed.Meta = backend.Meta{
		Applied:   ident.Position{Index: at.Index},
		Term:      at.Term,
		Digest:    digest,
		Revision:  firstRevision,
		Compacted: backend.Point{Revision: mvcc.NeverCompacted},
		Merged:    backend.Point{Revision: mvcc.NeverCompacted},
		ConfState: state,
		Cluster:   id.Cluster,
		Timeline:  id.Timeline,
	}
	return seed, at, nil
}

// Open opens the generation in force. The notes of the log say which
// transaction its base must have reached: bbolt falls back to an older one
// silently.
func Open(cfg Config, notes []wal.Note) (*Replica, error) {
	generation, err := cfg.Dir.Current()
	if err != nil {
		return nil, err
	}
	if err := cfg.Dir.Tidy(); err != nil {
		return nil, err
	}
	if err := cfg.removeScratch(); err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg, OnMembers: func() {}, OnStore: func(*mvcc.Store) {}, OnDamage: func(error) {}}
	r.generation.Store(int64(generation))
	sc := cfg.store(generation)
	sc.BaseMinTxID = minTxID(notes, generation)
	store, err := mvcc.Open(sc)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	r.store.Store(hold(store))
	if r.Machine, err = statemachine.New(store); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return r, nil
}

// removeScratch gives back what snapshots for clients, and drills, left in a crash.
func (c *Config) removeScratch() error {
	names, err := c.FS.List(c.Dir.Path())
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, ScratchPrefix) {
			if err := c.FS.RemoveAll(filepath.Join(c.Dir.Path(), name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Note is what a checkpoint leaves in the log: the generation, and the
// transaction that base had reached then. Only the store in force may say so.
func (r *Replica) Note(generation int, c mvcc.Checkpoint) (note []byte, inForce bool) {
	if r.generation.Load() != int64(generation) {
		return nil, false
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(generation)), c.TxID), true
}

// minTxID is the oldest transaction that the log can make good: the log is kept
// from the checkpoint before the last one, so base may be one commit behind.
func minTxID(notes []wal.Note, generation int) uint64 {
	for _, n := range notes {
		if n.Kind != raftnode.NoteCheckpoint || len(n.Data) != 16 || binary.BigEndian.Uint64(n.Data) != uint64(generation) {
			continue
		}
		if tx := binary.BigEndian.Uint64(n.Data[8:]); tx > 0 {
			return tx - 1
		}
	}
	return 0
}

// noted is the newest generation that a note is about, 0 when there is none.
func noted(notes []wal.Note) (generation int) {
	for _, n := range notes {
		if n.Kind == raftnode.NoteCheckpoint && len(n.Data) == 16 {
			generation = max(generation, int(binary.BigEndian.Uint64(n.Data)))
		}
	}
	return generation
}

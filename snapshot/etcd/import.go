package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/spill"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/statemachine"
)

// firstTimeline is that of an import: a restore begins the next.
const firstTimeline = 1

// Import makes the snapshot file `to` out of `from`: an etcd snapshot, a database
// file, or the data directory of an etcd that is not running.
func Import(ctx context.Context, cfg Config, from, to string) (*Report, error) {
	i := &importer{cfg: cfg, ctx: ctx, from: from, scratch: to + scratchSuffix, report: &Report{}}
	err := notThere(cfg.FS, to)
	if err == nil {
		err = i.run(to)
	}
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", from, err)
	}
	return i.report, nil
}

func notThere(fsys vfs.FS, path string) error {
	there, err := vfs.Exists(fsys, path)
	if err == nil && there {
		err = fmt.Errorf("%s: %w", path, ErrExists)
	}
	return err
}

type importer struct {
	cfg     Config
	ctx     context.Context
	from    string
	scratch string // A folder of its own, beside the target.
	report  *Report

	db     *database
	replay *replay // Nil: a file alone.
}

func (i *importer) run(to string) (err error) {
	if err := i.cfg.FS.RemoveAll(i.scratch); err != nil { // Of an import that was cut short.
		return err
	}
	database, member, err := i.locate()
	if err != nil {
		return err
	}
	lock, err := i.lock(database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := i.cfg.FS.MkdirAll(i.scratch); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.cfg.FS.RemoveAll(i.scratch)) }()
	if i.db, err = openDatabase(i.ctx, &i.cfg, database); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.db.close()) }()
	sorter := spill.New(spill.Config{FS: i.cfg.FS, Dir: i.scratch, MemoryBytes: i.cfg.SortBytes})
	if err := i.db.load(i.ctx, sorter.Add); err != nil {
		return err
	}
	if err := i.openLog(member); err != nil {
		return err
	}
	if i.replay != nil {
		defer func() { err = errors.Join(err, i.replay.log.close()) }()
	}
	store, err := i.build(sorter)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return i.write(store, to)
}

// lock keeps etcd away from its database. A file with a hash behind it is none
// that an etcd would open.
func (i *importer) lock(database string) (io.Closer, error) {
	info, err := i.cfg.FS.Stat(database)
	if err != nil || info.Size%padBytes != 0 {
		return io.NopCloser(nil), err
	}
	lock, err := i.cfg.FS.Lock(database)
	if errors.Is(err, vfs.ErrLocked) {
		err = ErrRunning
	}
	return lock, err
}

// locate finds the database, and the folder `member` of a data directory.
func (i *importer) locate() (database, member string, err error) {
	info, err := i.cfg.FS.Stat(i.from)
	if err != nil {
		return "", "", err
	}
	if !info.IsDir {
		if i.cfg.WALDir != "" {
			return "", "", fmt.Errorf("--wal-dir goes with a data directory, and this is a file: %w", ErrNotEtcd)
		}
		return i.from, "", nil
	}
	member = filepath.Join(i.from, "member")
	database = filepath.Join(member, "snap", "db")
	there, err := vfs.Exists(i.cfg.FS, database)
	if err == nil && !there {
		err = fmt.Errorf("there is no %s: %w", database, ErrNotEtcd)
	}
	return database, member, err
}

// openLog looks at what lies beside the database of a data directory.
func (i *importer) openLog(member string) (err error) {
	if member == "" {
		if i.db.older {
			return i.db.damagedRow(0, "one of the two meta pages is not valid: what the file holds may be older than it should be")
		}
		return nil
	}
	walDir := i.cfg.WALDir
	if walDir == "" {
		walDir = filepath.Join(member, "wal")
	}
	i.replay, err = openReplay(i.cfg.FS, filepath.Join(member, "snap"), walDir, i.db)
	return err
}

// build makes a store of the database, and applies the log's tail to it.
func (i *importer) build(sorter *spill.Sorter) (store *mvcc.Store, err error) {
	sorted, err := sorter.Sorted()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sorted.Close(), sorter.Close()) }()
	cluster := ident.ClusterID(0)
	if i.replay != nil {
		cluster = ident.ClusterID(i.replay.log.cluster)
	}
	seed, err := i.db.seed(i.cfg.ClusterLevel, cluster, sorted)
	if err != nil {
		return nil, err
	}
	if seed.Meta.ConfState, err = proto.Marshal(&raftpb.ConfState{}); err != nil { // Members are not carried.
		return nil, err
	}
	c := mvcc.Config{FS: i.cfg.FS, Dir: filepath.Join(i.scratch, "store"), Clock: i.cfg.Clock, Logger: i.cfg.Logger}
	if i.cfg.Tune != nil {
		i.cfg.Tune(&c)
	}
	if store, err = mvcc.CreateFrom(c, seed); err != nil {
		return nil, err
	}
	if i.replay != nil {
		if err := i.replay.run(store, i.report); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	return store, nil
}

func (i *importer) write(store *mvcc.Store, to string) (err error) {
	frozen, err := store.Freeze()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, frozen.Close()) }()
	if _, err := snapshot.WriteFile(i.ctx, i.cfg.FS, to, frozen, snapshot.WriteOptions{MadeUnixNano: i.cfg.Clock.Wall().UnixNano()}); err != nil {
		return err
	}
	status, err := snapshot.StatusOf(i.ctx, i.cfg.FS, to, snapshot.StatusOptions{})
	if err != nil {
		return err
	}
	r, db := i.report, i.db
	r.Revision, r.Applied, r.Bytes = frozen.State.Revision, frozen.State.Position.Index, status.Bytes
	r.Keys, r.Leases = status.Keys, status.Leases
	r.TornEnd = i.replay != nil && i.replay.log.torn
	r.Hashed, r.Users, r.Roles = db.hashed, status.Users, status.Roles
	r.AuthEnabled, err = authEnabledIn(store)
	return err
}

// clusterRow is what a restore finds of the cluster that there was.
func clusterRow(level string, cluster ident.ClusterID, digest ident.Digest) (backend.RowChange, error) {
	row, err := (&holdfastpb.Cluster{
		Uuid: digest[:], ClusterId: uint64(cluster), Version: level, Timeline: &holdfastpb.TimelineInfo{Number: firstTimeline},
	}).MarshalVT()
	return backend.RowChange{Table: backend.TableMeta, Key: statemachine.ClusterKey, Value: row}, err
}

func authEnabledIn(store *mvcc.Store) (bool, error) {
	machine, err := statemachine.New(store)
	if err != nil {
		return false, err
	}
	return machine.Auth.State().Enabled, nil
}

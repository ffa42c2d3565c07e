package crash

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server/replica"
)

const (
	memberDir       = "/member"
	walSegmentBytes = 4 << 10 // Small, so that a short life goes through several.
	mapBytes        = 32 << 20
	ringBytes       = 256 << 10 // More than a life writes; the default's blocks are most of what a start costs.
)

var identity = datadir.Identity{Cluster: 0xc1, Member: 1, Timeline: 1, Incarnation: 7}

var firstMember = &holdfastpb.Member{Id: 1, Name: "m1", PeerUrls: []string{"http://m1:2380"}}

// member is a member's storage without goroutines: what the loop, append and
// apply do is done here, one after the other.
type member struct {
	disk  *disk
	path  string
	clock *clocktest.Fake
	dir   *datadir.Dir
	log   *wal.Log
	rep   *replica.Replica
	exec  raftnode.Executor
	conf  *raftpb.ConfState

	recovered   *wal.Recovered
	boot        raftnode.BootState
	hard        wal.HardState // As handed to the log last.
	checkpoints []report      // Not yet told to the log.
	previous    ident.Index   // Of the checkpoint before.
	onFull      func()        // Called when there is no space, before the next try.
	onStep      func()        // Called after each step of background work.
	full        int
}

type report struct {
	generation int
	mvcc.Checkpoint
}

func openMember(d *disk, path string) (*member, error) {
	m := &member{disk: d, path: path, clock: clocktest.New(), onFull: func() {}, onStep: func() {}}
	var err error
	m.dir, err = datadir.Open(d.mem, path)
	return m, err
}

// config is the product's, with files that roll after a few records.
func (m *member) config() replica.Config {
	return replica.Config{
		FS: m.disk.mem, Dir: m.dir, Clock: m.clock, Logger: hclog.NewNullLogger(),
		WALBytes: walSegmentBytes, QuotaBytes: 1, // The smallest segments of history.
		OnCheckpoint: func(generation int, c mvcc.Checkpoint) { m.checkpoints = append(m.checkpoints, report{generation, c}) },
		Tune:         func(_ int, c *mvcc.Config) { tune(m.disk, c) },
	}
}

func tune(d *disk, c *mvcc.Config) {
	c.Manual = true
	c.RingBytes = ringBytes
	c.BaseFS, c.BaseDir = d.baseFS(), d.baseDir(c.Dir)
	c.BaseNoSync, c.BaseMapBytes = true, mapBytes // Its images are made from before and after a commit.
}

// create makes the directory, as at the first start.
func create(d *disk, path string, members ...*holdfastpb.Member) error {
	m, err := openMember(d, path)
	if err != nil {
		return err
	}
	return errors.Join(replica.Create(m.config(), identity, members), m.dir.Close())
}

// boot starts a member as server.New does, up to where Raft would begin.
func boot(d *disk, path string) (m *member, err error) {
	m, err = openMember(d, path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.abandon())
			m = nil
		}
	}()
	id, err := m.dir.Identity()
	if err != nil {
		return m, err
	}
	if id.Member == 0 || id.Cluster == 0 {
		return m, fmt.Errorf("identity %+v was invented", id)
	}
	cfg := m.config()
	if m.log, m.recovered, err = wal.Open(cfg.WAL()); err != nil {
		return m, fmt.Errorf("open raft log: %w", err)
	}
	if err := d.place(); err != nil {
		return m, err
	}
	if m.rep, err = replica.Open(cfg, m.recovered.Notes); err != nil {
		return m, err
	}
	applied, err := m.rep.Applied()
	if err != nil {
		return m, err
	}
	if m.boot, err = raftnode.PlanBoot(m.recovered, applied, m.log); err != nil {
		return m, err
	}
	if m.boot.Reset {
		if err := m.try(func() error { return m.log.Reset(m.boot.Start) }); err != nil {
			return m, err
		}
	}
	m.hard, m.conf = m.boot.Hard, m.boot.Conf
	m.exec = raftnode.Executor{
		Machine: m.rep, Resolve: m.resolve,
		Publish: func(ident.Index) {}, Answer: func(*entry.Answer) {}, Settled: func(ident.Term) {},
	}
	return m, nil
}

// resolve knows learners only: enough to change the configuration.
func (m *member) resolve(_ ident.Index, change *raftpb.ConfChangeV2, accept bool) *raftpb.ConfState {
	conf := proto.Clone(m.conf).(*raftpb.ConfState)
	for _, c := range change.Changes {
		switch {
		case !accept:
		case c.GetType() == raftpb.ConfChangeAddLearnerNode:
			conf.Learners = append(conf.Learners, c.GetNodeId())
		case c.GetType() == raftpb.ConfChangeRemoveNode:
			conf.Learners = slices.DeleteFunc(conf.Learners, func(id uint64) bool { return id == c.GetNodeId() })
		}
	}
	slices.Sort(conf.Learners)
	m.conf = conf
	return conf
}

// try waits out a full disk, as the goroutine that appends does.
func (m *member) try(f func() error) error {
	err := f()
	for range 3 {
		if !errors.Is(err, wal.ErrNoSegment) && (!errors.Is(err, syscall.ENOSPC) || errors.Is(err, wal.ErrFailed)) {
			return err
		}
		m.full++
		m.onFull()
		err = f()
	}
	return err
}

// append hands entries and hard state to the log; sync makes them count.
func (m *member) append(entries []*raftpb.Entry, hard wal.HardState) error {
	m.hard = hard
	return m.try(func() error { return m.log.Append(entries, &hard) })
}

func (m *member) sync() error { return m.try(m.log.Sync) }

func (m *member) apply(entries []*raftpb.Entry) error { return m.exec.Apply(entries) }

// step does one piece of background work, and tells the log of a checkpoint.
func (m *member) step() (more bool, err error) {
	more, err = m.rep.Store().Step()
	m.onStep()
	if err != nil && (errors.Is(err, backend.ErrNoSpace) || errors.Is(err, syscall.ENOSPC)) && m.rep.Store().Err() == nil {
		m.full++
		m.onFull()
		err = nil
	}
	if err != nil {
		return more, err
	}
	return more, m.tell()
}

func (m *member) stepAll() error {
	for range 200 {
		more, err := m.step()
		if err != nil || !more {
			return err
		}
	}
	return errors.New("background work does not end")
}

// checkpoint lets the time come for one, and makes it.
func (m *member) checkpoint() error {
	m.clock.Advance(mvcc.DefaultCheckpointInterval + time.Second)
	return m.stepAll()
}

// tell leaves the note of a checkpoint in the log, and lets the log go behind
// the one before.
func (m *member) tell() error {
	for _, r := range m.checkpoints {
		note, inForce := m.rep.Note(r.generation, r.Checkpoint)
		if !inForce {
			continue
		}
		if err := m.try(func() error { return m.log.Note(wal.Note{Kind: raftnode.NoteCheckpoint, Data: note}) }); err != nil {
			return err
		}
		if err := m.sync(); err != nil {
			return err
		}
		if m.previous > 0 {
			if err := m.try(func() error { return m.log.Compact(m.previous) }); err != nil {
				return err
			}
		}
		m.previous = r.Index
	}
	m.checkpoints = nil
	return nil
}

// replay applies what the log holds beyond the state.
func (m *member) replay() error {
	applied, last := m.rep.Store().Applied().Position.Index, m.log.Last().Index
	if last <= applied {
		return nil
	}
	entries, err := m.log.Entries(applied+1, last+1, 1<<30)
	if err != nil {
		return err
	}
	return m.apply(entries)
}

// close ends in order; abandon lets go of everything as a process does that is
// killed. What is written by the latter is not part of any image.
func (m *member) close() error {
	var errs []error
	if m.rep != nil {
		errs = append(errs, m.rep.Close())
	}
	if m.log != nil {
		errs = append(errs, m.log.Close())
	}
	return errors.Join(append(errs, m.dir.Close())...)
}

func (m *member) abandon() error {
	return m.disk.silently(func() error {
		_ = m.close() // It may have failed: then this does as well.
		return nil
	})
}

// same compares the state with what it should be.
func (m *member) same(want *expectation) error {
	store, state := m.rep.Store(), m.rep.Store().Applied()
	if int64(state.Revision) != want.model.revision || int64(state.Compacted) != want.model.compacted {
		return fmt.Errorf("revision %d compacted %d, want %d and %d", state.Revision, state.Compacted, want.model.revision, want.model.compacted)
	}
	if err := sameState(state, want.state); err != nil {
		return err
	}
	v := store.View()
	defer v.Release()
	lowest := max(want.model.compacted, 1)
	for _, revision := range []int64{want.model.revision, lowest, (lowest + want.model.revision) / 2} {
		r, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}, Revision: ident.Revision(revision)})
		if err != nil {
			return fmt.Errorf("read at revision %d: %w", revision, err)
		}
		if err := sameRows(r.KVs, want.model.all(revision)); err != nil {
			return fmt.Errorf("read at revision %d: %w", revision, err)
		}
	}
	if err := refusals(v, want.model); err != nil {
		return err
	}
	return m.sameLeases(v, want.model)
}

func sameState(got mvcc.State, want *mvcc.State) error {
	if want == nil {
		return nil
	}
	if got.Position != want.Position || got.Term != want.Term || got.Time != want.Time || got.Cluster != want.Cluster || got.Timeline != want.Timeline {
		return fmt.Errorf("state at %v term %d time %d, want %v, %d, %d", got.Position, got.Term, got.Time, want.Position, want.Term, want.Time)
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("digest %s at %v, want %s", hex.EncodeToString(got.Digest[:8]), got.Position, hex.EncodeToString(want.Digest[:8]))
	}
	if string(got.ConfState) != string(want.ConfState) {
		return fmt.Errorf("configuration %x, want %x", got.ConfState, want.ConfState)
	}
	return nil
}

// refusals are what must not be answered.
func refusals(v *mvcc.View, m *model) error {
	read := func(revision int64) error {
		_, err := v.Range(context.Background(), mvcc.RangeArgs{Key: []byte("a"), Revision: ident.Revision(revision)})
		return err
	}
	if err := read(m.revision + 1); !errors.Is(err, mvcc.ErrFutureRevision) {
		return fmt.Errorf("read above the head: %v", err)
	}
	if m.compacted > 1 {
		if err := read(m.compacted - 1); !errors.Is(err, mvcc.ErrCompacted) {
			return fmt.Errorf("read below the compaction: %v", err)
		}
	}
	return nil
}

func (m *member) sameLeases(v *mvcc.View, want *model) error {
	ids := m.rep.Machine.Leases.List()
	if len(ids) != len(want.leases) {
		return fmt.Errorf("%d leases, want %d", len(ids), len(want.leases))
	}
	for _, id := range ids {
		if ttl, _ := m.rep.Machine.Leases.TTL(id); ttl != want.leases[int64(id)] {
			return fmt.Errorf("lease %d of %d s, want %d", id, ttl, want.leases[int64(id)])
		}
		keys, err := v.LeaseKeys(id)
		if err != nil {
			return fmt.Errorf("keys of lease %d: %w", id, err)
		}
		var got []string
		for _, k := range keys {
			got = append(got, string(k))
		}
		if !slices.Equal(got, want.attached(int64(id))) {
			return fmt.Errorf("lease %d has %v, want %v", id, got, want.attached(int64(id)))
		}
	}
	return nil
}

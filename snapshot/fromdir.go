package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/statemachine"
)

// DirSource is the data directory of a stopped member.
type DirSource struct {
	FS      vfs.FS
	Clock   clock.Clock
	Logger  hclog.Logger
	DataDir string
	WALDir  string // Empty: within DataDir.
}

// DirReport says what was saved of a directory.
type DirReport struct {
	Totals
	Position ident.Position
	Revision ident.Revision
	// Uncertain entries lie in the log after the last one known as committed.
	// They are not in the snapshot; some of them may have been acknowledged.
	Uncertain uint64
}

// SaveFromDir saves the state of a stopped member as a snapshot file. It holds
// the directory's lock, and leaves there what a start of the member would: the
// log replayed into the state up to the last entry known as committed. That is
// the end of the log where the member was the only voter.
func SaveFromDir(ctx context.Context, src DirSource, path string, o WriteOptions) (*DirReport, error) {
	report, err := src.save(ctx, path, o)
	if err != nil {
		return nil, fmt.Errorf("snapshot of data directory %s: %w", src.DataDir, err)
	}
	return report, nil
}

func (src *DirSource) save(ctx context.Context, path string, o WriteOptions) (report *DirReport, err error) {
	if there, err := vfs.Exists(src.FS, src.DataDir); err != nil || !there {
		return nil, errors.Join(datadir.ErrEmpty, err)
	}
	dir, err := datadir.Open(src.FS, src.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	id, err := dir.Identity()
	if err != nil {
		return nil, err
	}
	generation, err := dir.Current()
	if err != nil {
		return nil, err
	}
	store, err := mvcc.Open(mvcc.Config{FS: src.FS, Dir: dir.Generation(generation), Clock: src.Clock, Logger: src.Logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	report = &DirReport{}
	logDir := src.WALDir
	if logDir == "" {
		logDir = dir.WAL()
	}
	if report.Uncertain, err = src.replay(logDir, store, id.Member); err != nil {
		return nil, err
	}
	frozen, err := store.Freeze()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, frozen.Close()) }()
	report.Position, report.Revision = frozen.State.Position, frozen.State.Revision
	o.Member = id.Member
	report.Totals, err = WriteFile(ctx, src.FS, path, frozen, o)
	return report, err
}

// replay applies what the log holds beyond the state, and tells how many
// entries of unknown fate follow. A log that has another entry where the state
// stands counts for nothing: the member would begin it anew behind the state.
func (src *DirSource) replay(logDir string, store *mvcc.Store, self ident.MemberID) (uncertain uint64, err error) {
	log, found, err := wal.Open(wal.Config{FS: src.FS, Dir: logDir, Logger: src.Logger})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	at := store.Applied()
	if term, err := log.Term(at.Position.Index); err == nil && term != at.Term {
		return 0, nil
	}
	err = replayLog(log, store, func(conf *raftpb.ConfState) ident.Index {
		if len(conf.Voters) == 1 && conf.Voters[0] == uint64(self) && len(conf.VotersOutgoing) == 0 {
			return found.Last.Index
		}
		return min(found.HardState.Commit, found.Last.Index)
	})
	return uint64(found.Last.Index - min(store.Applied().Position.Index, found.Last.Index)), err
}

// replayLog applies entries of a log on a store until one whose index is given
// by the configuration in force.
func replayLog(log *wal.Log, store *mvcc.Store, until func(*raftpb.ConfState) ident.Index) error {
	machine, err := statemachine.New(store)
	if err != nil {
		return err
	}
	p := &replayer{machine: machine, conf: &raftpb.ConfState{}}
	if err := proto.Unmarshal(store.Applied().ConfState, p.conf); err != nil {
		return fmt.Errorf("configuration in force: %w", err)
	}
	for next := store.Applied().Position.Index + 1; next <= until(p.conf); {
		entries, err := log.Entries(next, until(p.conf)+1, replayBytes)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if next > until(p.conf) { // It may have changed within what was read.
				return nil
			}
			if err := p.apply(e); err != nil {
				return fmt.Errorf("entry %d: %w", next, err)
			}
			next++
		}
	}
	return nil
}

// replayer applies entries of a log as a member does, where there is no Raft.
type replayer struct {
	machine *statemachine.Machine
	conf    *raftpb.ConfState
}

func (p *replayer) apply(e *raftpb.Entry) error {
	next := entry.Entry{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
	data := e.GetData()
	if e.GetType() != raftpb.EntryNormal {
		change := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(data, change); err != nil {
			return err
		}
		data, change.Context = change.Context, nil
		next.Conf = &entry.ConfChange{Change: change}
	}
	if len(data) > 0 {
		batch, err := entry.DecodeBatch(data, nil)
		if err != nil {
			return err
		}
		next.Time, next.Requests = batch.Time, batch.Requests
	}
	var confErr error
	if next.Conf != nil {
		if len(next.Requests) > 0 {
			next.Conf.Request, next.Requests = next.Requests[0], nil
		}
		next.Conf.Resolve = func(accept bool) *raftpb.ConfState {
			if accept {
				p.conf, confErr = ConfAfter(p.conf, next.Conf.Change)
			}
			return p.conf
		}
	}
	_, err := p.machine.Apply([]entry.Entry{next})
	return errors.Join(err, confErr)
}

// ConfAfter tells what a change makes of a configuration.
func ConfAfter(conf *raftpb.ConfState, change *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	c := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	config, progress, err := confchange.Restore(c, conf)
	if err != nil {
		return conf, err
	}
	c.Tracker.Config, c.Tracker.Progress = config, progress
	if change.LeaveJoint() {
		config, progress, err = c.LeaveJoint()
	} else if autoLeave, joint := change.EnterJoint(); joint {
		config, progress, err = c.EnterJoint(autoLeave, change.Changes...)
	} else {
		config, progress, err = c.Simple(change.Changes...)
	}
	if err != nil {
		return conf, err
	}
	c.Tracker.Config, c.Tracker.Progress = config, progress
	return c.Tracker.ConfState(), nil
}

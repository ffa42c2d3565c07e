package recovery

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"

	"go.etcd.io/raft/v3/raftpb"
)

// Collect reads a stopped member's data directory, all of it. What is damaged is
// named in the facts; an error means that there is no stopped member here.
// Nothing is changed.
func Collect(ctx context.Context, cfg Config, src Source) (m *Member, err error) {
	dir, err := openStopped(cfg, src)
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	c := &collector{ctx: ctx, cfg: cfg, dir: dir, m: &Member{Source: src, Collected: cfg.Clock.Wall().UTC()}}
	if err := c.identity(); err != nil {
		return nil, fmt.Errorf("collect %s: %w", src.DataDir, err)
	}
	c.state()
	c.log()
	c.self()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return c.m, nil
}

// openStopped locks a data directory that exists.
func openStopped(cfg Config, src Source) (*datadir.Dir, error) {
	there, err := vfs.Exists(cfg.FS, src.DataDir)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, fmt.Errorf("%s is missing: %w", src.DataDir, datadir.ErrEmpty)
	}
	holds, err := datadir.Holds(cfg.FS, src.DataDir)
	if err != nil {
		return nil, err
	}
	if !holds { // The lock, too, is a file that nobody wants in a folder of something else.
		return nil, fmt.Errorf("%s: %w: name the --data-dir of one", src.DataDir, datadir.ErrEmpty)
	}
	return datadir.Open(cfg.FS, src.DataDir)
}

// Freeze keeps the member of a directory from starting.
func Freeze(cfg Config, src Source, by string) error {
	return withStopped(cfg, src, func(d *datadir.Dir) error {
		if _, err := d.Identity(); err != nil {
			return err
		}
		return d.Freeze(by)
	})
}

func withStopped(cfg Config, src Source, fn func(*datadir.Dir) error) error {
	dir, err := openStopped(cfg, src)
	if err != nil {
		return err
	}
	return errors.Join(fn(dir), dir.Close())
}

// collector fills in what is known of one member.
type collector struct {
	ctx      context.Context
	cfg      Config
	dir      *datadir.Dir
	m        *Member
	examined *snapshot.Examined
}

func (c *collector) damage(part string, err error) {
	c.m.Damage = append(c.m.Damage, Damage{Part: part, What: err.Error()})
}

// identity is the one thing without which nothing else means anything.
func (c *collector) identity() error {
	id, err := c.dir.Identity()
	if err != nil {
		return err
	}
	c.m.ID, c.m.Incarnation = ID(id.Member), ID(id.Incarnation)
	c.m.Cluster, c.m.Timeline = ID(id.Cluster), id.Timeline
	if c.m.Frozen, err = c.dir.Frozen(); err != nil {
		c.m.Frozen = err.Error()
	}
	c.m.Staged, err = stagedIn(c.cfg.FS, c.m.DataDir)
	return err
}

func (c *collector) state() {
	generation, err := c.dir.Current()
	if err != nil {
		c.damage("state", err)
		return
	}
	if mark, found, err := c.dir.Mark(); err != nil || found && mark.Generation == generation {
		c.damage("state", errors.Join(fmt.Errorf("generation %d is marked as not to be trusted: %s", generation, mark.Reason), err))
		return
	}
	x, err := snapshot.Examine(c.ctx, c.cfg.FS, c.cfg.Logger, c.dir.Generation(generation))
	if err == nil && (ID(x.Cluster) != c.m.Cluster || x.Timeline != c.m.Timeline) {
		err = fmt.Errorf("it is of cluster %s on timeline %d, the directory of %s on %d", x.Cluster, x.Timeline, c.m.Cluster, c.m.Timeline)
	}
	if err != nil {
		c.damage("state", err)
		return
	}
	c.examined = x
	c.m.State = &State{
		Applied: Mark{x.Position.Index, x.Term}, Time: time.Unix(0, x.Time).UTC(), Digest: x.Digest.String(),
		Revision: x.Revision, Compacted: x.Compacted, Recorded: Mark{x.Recorded, x.RecordedTerm}, Conf: confOf(x.Conf),
	}
	c.m.UUID = hex.EncodeToString(x.Facts.GetUuid())
	for _, p := range x.Members {
		c.m.Peers = append(c.m.Peers, peerOf(p))
	}
}

// self compares the directory with what the cluster knows of this member.
func (c *collector) self() {
	i := slices.IndexFunc(c.m.Peers, func(p Peer) bool { return p.ID == c.m.ID })
	if i < 0 {
		return
	}
	p := c.m.Peers[i]
	c.m.Name = p.Name
	if p.Incarnation != 0 && p.Incarnation != c.m.Incarnation {
		c.damage("identity", fmt.Errorf("the directory has incarnation %s, the cluster knows this member with %s: it is not the one that voted", c.m.Incarnation, p.Incarnation))
	}
}

func (c *collector) log() {
	folder := c.m.WALDir
	if folder == "" {
		folder = c.dir.WAL()
	}
	log, found, err := wal.OpenRead(wal.Config{FS: c.cfg.FS, Dir: folder, Logger: c.cfg.Logger})
	if err != nil {
		c.damage("log", err)
		return
	}
	l := &Log{
		Start: Mark(found.Start), Last: Mark(found.Last), Failed: found.Failed,
		Term: found.HardState.Term, Vote: ID(found.HardState.Vote), Commit: found.HardState.Commit,
	}
	if found.Cut != nil {
		l.Cut = &Cut{Bytes: found.Cut.Bytes, Seen: found.Cut.Seen}
	}
	err = c.joins(log, l)
	if l.Apart {
		l.Newest = c.m.State.Time
	} else if err == nil {
		err = c.readLog(log, l)
	}
	if err = errors.Join(err, log.Close()); err != nil {
		c.damage("log", err)
		return
	}
	c.m.Log = l
}

// joins compares where the log and the state stand, as a start of the member
// would.
func (c *collector) joins(log *wal.Log, l *Log) error {
	if l.Commit > l.Last.Index {
		return fmt.Errorf("entry %d is known to be committed, the log ends at %d", l.Commit, l.Last.Index)
	}
	if c.m.State == nil {
		return nil
	}
	at := c.m.State.Applied
	if at.Index < l.Start.Index {
		return fmt.Errorf("it begins behind entry %d, the state ends with entry %d", l.Start.Index, at.Index)
	}
	if at.Index > l.Last.Index {
		l.Apart = true
		return nil
	}
	term, err := log.Term(at.Index)
	l.Apart = term != at.Term
	return err
}

func confOf(c *raftpb.ConfState) Conf {
	ids := func(list []uint64) []ID {
		var out []ID
		for _, id := range list {
			out = append(out, ID(id))
		}
		return out
	}
	return Conf{Voters: ids(c.GetVoters()), Outgoing: ids(c.GetVotersOutgoing()), Learners: append(ids(c.GetLearners()), ids(c.GetLearnersNext())...)}
}

func peerOf(m *holdfastpb.Member) Peer {
	return Peer{
		ID: ID(m.GetId()), Name: m.GetName(), PeerURLs: m.GetPeerUrls(), ClientURLs: m.GetClientUrls(),
		Learner: m.GetIsLearner(), Incarnation: ID(m.GetIncarnation()),
	}
}

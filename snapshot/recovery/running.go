package recovery

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// Names of the socket in a running member's data directory, and of what it
// answers to HTTP. Only the owner of the directory can reach it.
const (
	SocketName = "admin.sock"
	FactsPath  = "/facts"  // GET: a document of facts.
	FreezePath = "/freeze" // POST: marks the directory as frozen and ends the member. The body says for whose sake.

	// FreezeReasonMax bounds that body.
	FreezeReasonMax = 1 << 10
)

// Running is what a running member knows of itself.
type Running struct {
	Source   Source
	Identity datadir.Identity
	State    *snapshot.Examined // As applied; nothing of it was verified.
	Log      *wal.Log
	Term     ident.Term
	Commit   ident.Index // The highest that it heard of, which no disk keeps.
	Leader   ident.MemberID
}

// CollectRunning says what a running member holds. Its files are not verified,
// and it moves on: such facts tell what is going on, and a plan of them is not
// applied.
func CollectRunning(ctx context.Context, cfg Config, r Running) (*Member, error) {
	x := r.State
	m := &Member{
		Source: r.Source, Collected: cfg.Clock.Wall().UTC(), Running: true, Leader: ID(r.Leader),
		ID: ID(r.Identity.Member), Incarnation: ID(r.Identity.Incarnation), Cluster: ID(r.Identity.Cluster), Timeline: r.Identity.Timeline,
		UUID: hex.EncodeToString(x.Facts.GetUuid()),
		State: &State{
			Applied: Mark{x.Position.Index, x.Term}, Time: time.Unix(0, x.Time).UTC(), Digest: x.Digest.String(),
			Revision: x.Revision, Compacted: x.Compacted, Recorded: Mark{x.Position.Index, x.Term}, Conf: confOf(x.Conf),
		},
	}
	for _, p := range x.Members {
		m.Peers = append(m.Peers, peerOf(p))
	}
	c := &collector{ctx: ctx, cfg: cfg, m: m, examined: x}
	c.self()
	l := &Log{Start: Mark(r.Log.Start()), Last: Mark(r.Log.Last()), Term: r.Term, Commit: min(r.Commit, r.Log.Last().Index)}
	err := c.joins(r.Log, l)
	if err == nil && !l.Apart {
		err = c.readLog(r.Log, l)
	}
	if err != nil {
		return nil, fmt.Errorf("log of the running member %s: %w", m.ID, err)
	}
	m.Log = l
	return m, nil
}

// unsynced ends what is read of a running member's log with what it has synced.
func (l *Log) unsynced(log *wal.Log, next ident.Index, err error) (bool, error) {
	if !errors.Is(err, wal.ErrUnavailable) {
		return false, err
	}
	term, err := log.Term(next - 1)
	l.Last = Mark{next - 1, term}
	return true, err
}

// running refuses where members that run have a leader, and so a quorum.
func (j *judge) running() error {
	for i := range j.facts.Members {
		if m := &j.facts.Members[i]; m.Running && m.Leader != 0 {
			return refuse("member %s runs and follows leader %s: the quorum is not lost", m.ID, m.Leader)
		}
	}
	return nil
}

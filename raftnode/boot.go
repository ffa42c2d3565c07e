package raftnode

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// Applied says where the state machine stands.
type Applied struct {
	wal.Mark
	Conf *raftpb.ConfState
	// Began is where the state stood when it took the place of another, or was
	// made. Nil: not known.
	Began *wal.Mark
}

// BootState is what log and state machine together say.
type BootState struct {
	Hard    wal.HardState
	Start   wal.Mark
	Last    wal.Mark
	Bytes   int64 // Of what lies between the two, about.
	Applied wal.Mark
	Conf    *raftpb.ConfState
	// Cut says that the log lost its tail, and with it perhaps a vote or an entry
	// that were promised: no vote and no campaign until a quorum's log is here.
	Cut bool
	// Reset says that the log must begin anew behind the applied entry: the state
	// was installed from a snapshot and the crash came before the log was reset.
	Reset bool
}

// PlanBoot joins what the log holds with what the state machine has applied. It
// reads and decides; Reset is for the caller to carry out.
func PlanBoot(r *wal.Recovered, applied Applied, log LogReader) (BootState, error) {
	b := BootState{
		Hard: r.HardState, Start: r.Start, Last: r.Last, Bytes: r.Bytes,
		Applied: applied.Mark, Conf: applied.Conf, Cut: r.Cut != nil,
	}
	if applied.Index < r.Start.Index {
		return b, fmt.Errorf("log begins behind entry %d, state ends with entry %d: %w", r.Start.Index, applied.Index, ErrLogGap)
	}
	joins, err := logJoins(r, applied.Mark, log)
	if err != nil {
		return b, err
	}
	if !joins && applied.Began != nil && *applied.Began != applied.Mark {
		// What is applied was in the log, synced: the state came to this point by it.
		// So the log has lost its end, and perhaps a vote with it.
		return b, fmt.Errorf("the state began at %s and has entry %s, the log goes from %s to %s: %w", *applied.Began, applied.Mark, r.Start, r.Last, ErrLogLost)
	}
	if !joins {
		b.Reset = true
		b.Start, b.Last, b.Bytes = applied.Mark, applied.Mark, 0
		b.Hard.Commit = applied.Index
	}
	b.Hard.Commit = max(b.Hard.Commit, applied.Index)
	if b.Hard.Commit > b.Last.Index {
		return b, fmt.Errorf("entry %d is known to be committed, the log ends at %d: %w", b.Hard.Commit, b.Last.Index, ErrLogLost)
	}
	if term := max(applied.Term, b.Last.Term); term > b.Hard.Term {
		b.Hard.Term, b.Hard.Vote = term, 0
	}
	return b, nil
}

// logJoins reports whether the log holds the entry that was applied last.
func logJoins(r *wal.Recovered, applied wal.Mark, log LogReader) (bool, error) {
	switch {
	case applied.Index > r.Last.Index:
		return false, nil
	case applied == r.Start || applied == r.Last:
		return true, nil
	case applied.Index == r.Start.Index || applied.Index == r.Last.Index:
		return false, nil
	}
	term, err := log.Term(applied.Index)
	if err != nil {
		return false, fmt.Errorf("read term of the applied entry %d: %w", applied.Index, err)
	}
	return term == applied.Term, nil
}

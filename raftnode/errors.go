package raftnode

import "errors"

// What becomes of a request that has no answer.
var (
	// ErrNoLeader means that no leader was known until the deadline. The request has no effect.
	ErrNoLeader = errors.New("no leader")
	// ErrBusy means that too many requests wait already, or that the leader took none before the deadline. The request has no effect.
	ErrBusy = errors.New("too many requests are waiting")
	// ErrTooLarge means that the request exceeds the limit. It has no effect.
	ErrTooLarge = errors.New("request is too large")
	// ErrLeaderChanged means that the leader that got the request lost its office before the request was in the log of a quorum. It has no effect.
	ErrLeaderChanged = errors.New("leader changed")
	// ErrUnknownOutcome means that the request was handed to Raft, and that nobody can tell yet what becomes of it.
	ErrUnknownOutcome = errors.New("outcome of the request is unknown")
	// ErrStopped means that this member stops. Alone it says that the request has no effect.
	ErrStopped = errors.New("member is stopped")

	// ErrNoQuorum means that no quorum confirmed in time how far the log is committed.
	ErrNoQuorum = errors.New("no quorum confirmed the read in time")

	// ErrConfPending means that another configuration change is not applied yet. This one has no effect.
	ErrConfPending = errors.New("another configuration change is under way")
	// ErrConfInvalid means that the change makes no sense in the present configuration. It has no effect.
	ErrConfInvalid = errors.New("configuration change is not possible now")

	// ErrNotLeader means that only the leader can do this.
	ErrNotLeader = errors.New("not the leader")
	// ErrTransferee means that this member cannot become leader.
	ErrTransferee = errors.New("not a member that can take over leadership")
	// ErrTransferFailed means that leadership did not change hands in time.
	ErrTransferFailed = errors.New("leadership was not transferred in time")
)

// Why a member stops, or does not start.
var (
	// ErrRemoved means that this member is no longer part of the cluster.
	ErrRemoved = errors.New("member was removed from the cluster")
	// ErrLogLost means that entries are missing that this member had acknowledged.
	ErrLogLost = errors.New("raft log ends before what this member acknowledged; remove the member and add it again")
	// ErrLogGap means that log and state do not join.
	ErrLogGap = errors.New("raft log begins after the state that it continues; restore the member from its peers or a snapshot")
	// ErrRaft means that Raft found its own rules broken.
	ErrRaft = errors.New("raft stopped")
	// ErrEntry means that a committed entry cannot be read.
	ErrEntry = errors.New("committed entry cannot be decoded")

	// ErrSnapshot means that a received snapshot was refused.
	ErrSnapshot = errors.New("snapshot refused")
	// ErrFrame means that a peer sent what cannot be read.
	ErrFrame = errors.New("malformed frame from a peer")
)

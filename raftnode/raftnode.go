// Package raftnode orders requests: what is proposed on any member comes out
// on all of them as the same sequence of entries. It knows bytes, not keys.
//
// All decisions are made by Core, which has no goroutine, lock or clock: events
// go in, effects come out, and what an effect did comes back as a later event.
// A Node carries them with three goroutines:
//
//	loop    owns Core and the recent log; takes proposals, ticks, messages, results
//	append  owns the tail of the Raft log on disk: one sync for all that is queued
//	apply   owns the state machine: entries in order, each once; answers requests
//
// A fourth, prepare, only keeps the next segment of the log ready.
//
// The loop never waits for the other two; append may wait for apply (when a
// snapshot is installed), apply may wait for the loop (when a configuration
// changes). A simulation carries events and effects on one goroutine.
//
// Called by package server: Propose, ReadIndex, and the methods that package
// transport calls when frames arrive.
//
// Invariant: a message or answer that depends on something stored leaves after
// the sync that covers it, in order. An answer leaves after apply (I-6).
// Invariant: a request that was handed to Raft once is never handed to it again.
// After a crash: the log on disk and the state machine's own position say all;
// Boot joins them. Waiters are gone, their outcome is unknown.
// A member whose log lost its tail waits for a leader; when that befell too many
// at once, the longest log of all voters leads (survey.go).
//
// Frames to peers are described in docs/format/forward.md.
package raftnode

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// StateMachine is what the entries are for. Apply, Freeze and Install are
// called from one goroutine; Have and Receive from any.
type StateMachine interface {
	// Apply executes entries, in order, each once. The entries and their request
	// slices belong to the caller again when it returns; request data does not
	// change. An error stops the member.
	Apply(entries []entry.Entry) ([]entry.Answer, error)
	// Freeze returns the state after the last applied entry. It is cheap, and
	// stays valid while Apply goes on.
	Freeze() (Frozen, error)
	// Have says where this state stands, so that a sender of a snapshot can leave
	// out what is here already.
	Have() []byte
	// Receive reads and verifies a snapshot while Apply goes on.
	Receive(r io.Reader) (Staged, error)
	// Install replaces the state by a staged one, atomically and durably.
	Install(s Staged) error
}

// SnapMeta says which entry a snapshot stands behind.
type SnapMeta struct {
	Index ident.Index
	Term  ident.Term
	Conf  *raftpb.ConfState
}

// Frozen is a state that can be sent. WriteTo may be called more than once,
// also at the same time.
type Frozen interface {
	transport.SnapshotSource
	Meta() SnapMeta
	Close() error
}

// Staged is a received state that is not in force yet.
type Staged interface {
	Meta() SnapMeta
	Discard() error
}

// Network reaches the other members.
type Network interface {
	// Send queues a frame and never blocks; frames may be lost.
	Send(to ident.MemberID, f transport.Frame)
	// SendSnapshot streams a snapshot in the background and calls done once.
	SendSnapshot(to ident.MemberID, msg *raftpb.Message, src transport.SnapshotSource, done func(error))
}

// LogReader reads what was synced. Any goroutine may call it.
type LogReader interface {
	Entries(lo, hi ident.Index, maxBytes uint64) ([]*raftpb.Entry, error)
	Term(i ident.Index) (ident.Term, error)
}

// Log is the Raft log on disk, wal.Log in a server. It has as many methods as
// there are things that happen to a log. Only the append goroutine calls those
// that write, but for Prepare.
type Log interface {
	LogReader
	Append(entries []*raftpb.Entry, hs *wal.HardState) error
	Sync() error
	Note(n wal.Note) error
	ClearCut() error
	Compact(index ident.Index) error
	Reset(start wal.Mark) error
	// Prepare makes room ahead and recycles what was given up, in the
	// background; Prepared tells whether there is none to make.
	Prepare() error
	Prepared() bool
}

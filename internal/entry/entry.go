// Package entry is what lies between the log and the state machine: the
// batch of requests that one Raft entry carries, and the answers to them.
//
// raftnode makes and orders batches without knowing what a request says;
// statemachine executes requests without knowing how they were ordered.
package entry

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Request is one client request inside an entry.
type Request struct {
	ID   ident.RequestID
	Data []byte // A holdfastpb.Command in wire form. Read-only.
}

// Batch is the payload of an ordinary entry: all requests that waited when the
// leader's loop turned.
type Batch struct {
	Time     int64 // The leader's wall clock, nanoseconds since 1970: a hint, apply makes it rise strictly.
	Requests []Request
}

// Entry is one committed entry on its way to the state machine.
type Entry struct {
	Index    ident.Index
	Term     ident.Term
	Time     int64 // Stamp of the batch, 0 for entries without one.
	Requests []Request
	Conf     *ConfChange // Set for a configuration change; then Requests is empty and the entry is alone in its Apply call.
}

// ConfChange is a membership change that the state machine may still refuse.
type ConfChange struct {
	Change  *raftpb.ConfChangeV2
	Request Request // Who asked, and the command that says what the change means. Data is empty for raft's own changes (auto-leave).

	// Resolve tells the log whether the change takes effect and returns the
	// configuration in force after this entry. The state machine calls it
	// exactly once and stores the result together with the entry's index (I-2).
	Resolve func(accept bool) *raftpb.ConfState
}

// Answer is the outcome of one request. Err is part of the deterministic
// outcome: equal on all members.
type Answer struct {
	ID    ident.RequestID
	Value any
	Err   error
}

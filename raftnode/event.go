package raftnode

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// EventKind says what happened.
type EventKind uint8

const (
	EventTick        EventKind = iota + 1 // A heartbeat interval passed.
	EventCampaign                         // Start an election now.
	EventPropose                          // Proposals, from this member's clients or forwarded by Peer.
	EventMessage                          // Message arrived from Peer; Staged is set for a snapshot.
	EventAppended                         // Append is durable.
	EventApplied                          // Apply was executed.
	EventRead                             // Reads up to Round wait.
	EventTransfer                         // Make Peer the leader.
	EventUnreachable                      // Frames to Peer were lost.
	EventFrozen                           // The state was frozen as Frozen, nil when it could not be.
	EventSent                             // The snapshot to Peer ended; Failed when it did not arrive.
	EventCheckpoint                       // The state up to Index is durable outside the log.
	EventNotice                           // Peer asks, or tells, where a log ends.
	EventClock                            // The wall clock of Peer was found to be Offset ahead of ours.
	EventPeerApplied                      // Peer has applied all up to Index.
)

// Event is something that happened to a member.
type Event struct {
	Kind      EventKind
	Failed    bool
	Peer      ident.MemberID
	Index     ident.Index
	Round     uint64
	Offset    time.Duration
	Message   *raftpb.Message
	Notice    *Notice
	Staged    Staged
	Append    *Append
	Apply     *Apply
	Frozen    Frozen
	Proposals []Proposal
}

// Proposal is a request that wants to become an entry.
type Proposal struct {
	Request entry.Request
	Conf    *raftpb.ConfChangeV2 // Set for a configuration change; Context is filled in by the core.
	From    ident.MemberID       // Who forwarded it; 0 for this member's own.
	Term    ident.Term           // With From: in no other term may it be proposed.
	Ticket  Ticket               // Own only, may be nil.
	Refused bool                 // Was refused by a member taken for the leader: wait for a tick before the next try.
}

// Ticket lets the one who waits for a request give up as long as Raft has not got it.
type Ticket interface {
	Gone() bool                 // Nobody waits any more.
	Claim(term ident.Term) bool // Raft is about to get it, in this term or never; false when nobody waits any more.
	Release()                   // Raft did not take it after all.
}

// EffectKind says what is to be done.
type EffectKind uint8

const (
	EffectSend     EffectKind = iota + 1 // Send Frame to Peer.
	EffectAppend                         // Store Append, then deliver its responses and report EventAppended.
	EffectApply                          // Apply the entries, then report EventApplied.
	EffectRead                           // Reads up to Round may look at the state once Index is applied.
	EffectDrop                           // Proposal has no effect, because of Err.
	EffectFreeze                         // Freeze the state, report EventFrozen.
	EffectSnapshot                       // Send the frozen state to Peer with Message, report EventSent.
	EffectThaw                           // The frozen state is not needed any more.
	EffectDiscard                        // Staged is not wanted.
	EffectCompact                        // The log up to Index may go.
	EffectClearCut                       // What a torn tail lost is back.
)

// Effect is something that a member must do. Effects are carried out in order,
// but for those that take long: appends among themselves, applies and freezes
// among themselves.
type Effect struct {
	Kind     EffectKind
	Peer     ident.MemberID
	Index    ident.Index
	Round    uint64
	Frame    transport.Frame
	Message  *raftpb.Message
	Append   *Append
	Apply    *Apply
	Staged   Staged
	Proposal Proposal
	Err      error
}

// Append is what the log must store. All of it, and everything handed out
// before, is durable before a response leaves.
type Append struct {
	Entries   []*raftpb.Entry
	Hard      *wal.HardState    // nil when unchanged.
	Start     wal.Mark          // With Staged: the log begins anew behind this entry.
	Staged    Staged            // Install this first, after everything handed to apply so far.
	Sync      bool              // Something here must not be lost.
	Responses []*raftpb.Message // To peers, and to the core itself (EventAppended takes those).

	conf *raftpb.ConfState // With Staged: of the snapshot.
}

// Apply is a run of committed entries.
type Apply struct {
	Entries   []*raftpb.Entry
	responses []*raftpb.Message
}

// end is the index of the last entry.
func (a *Apply) end() ident.Index { return ident.Index(a.Entries[len(a.Entries)-1].GetIndex()) }

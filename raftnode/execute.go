package raftnode

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// Executor turns committed entries of Raft into entries of the state machine.
// It starts no goroutine: in a server apply calls it, in a simulation its loop.
type Executor struct {
	Machine StateMachine
	// Resolve is Core.ResolveConf, on the core's goroutine.
	Resolve func(index ident.Index, change *raftpb.ConfChangeV2, accept bool) *raftpb.ConfState
	Publish func(index ident.Index) // Everything up to index can be seen.
	Answer  func(*entry.Answer)     // After Publish.

	// Settled is called after the answers when an entry of a new term was
	// applied. Terms never fall along the log: requests that were handed to Raft
	// in an earlier term and are not applied by now never will be.
	Settled func(term ident.Term)

	term ident.Term // Of the last applied entry.

	entries  []entry.Entry      // The run that is being gathered.
	requests [8][]entry.Request // Kept for reuse by the first entries of a run: when all goes well it has few.
}

// Apply executes committed entries. A configuration change is alone in its run
// (rule 18).
func (x *Executor) Apply(entries []*raftpb.Entry) error {
	for _, e := range entries {
		if e.GetType() == raftpb.EntryNormal {
			if err := x.gather(e); err != nil {
				return err
			}
			continue
		}
		if err := x.execute(); err != nil {
			return err
		}
		if err := x.gatherConf(e); err != nil {
			return err
		}
		if err := x.execute(); err != nil {
			return err
		}
	}
	return x.execute()
}

func (x *Executor) gather(e *raftpb.Entry) error {
	next := entry.Entry{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm())}
	if len(e.GetData()) > 0 { // An empty one is a new leader's first, or stands for a refused change.
		var reuse []entry.Request
		n := len(x.entries)
		if n < len(x.requests) {
			reuse = x.requests[n]
		}
		batch, err := entry.DecodeBatch(e.GetData(), reuse)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), errors.Join(ErrEntry, err))
		}
		if n < len(x.requests) {
			x.requests[n] = batch.Requests
		}
		next.Time, next.Requests = batch.Time, batch.Requests
	}
	x.entries = append(x.entries, next)
	return nil
}

func (x *Executor) gatherConf(e *raftpb.Entry) error {
	change, batch, err := decodeConf(e)
	if err != nil {
		return fmt.Errorf("configuration change %d: %w", e.GetIndex(), errors.Join(ErrEntry, err))
	}
	next := entry.Entry{Index: ident.Index(e.GetIndex()), Term: ident.Term(e.GetTerm()), Time: batch.Time}
	next.Conf = &entry.ConfChange{Change: change}
	if len(batch.Requests) == 1 {
		next.Conf.Request = batch.Requests[0]
	}
	resolved := false
	next.Conf.Resolve = func(accept bool) *raftpb.ConfState {
		assert.That(!resolved, "a configuration change is resolved once")
		resolved = true
		return x.Resolve(next.Index, change, accept)
	}
	x.entries = append(x.entries, next)
	return nil
}

// decodeConf reads a configuration change. Leaving a joint configuration is
// Raft's own doing and has no request.
func decodeConf(e *raftpb.Entry) (*raftpb.ConfChangeV2, entry.Batch, error) {
	change := &raftpb.ConfChangeV2{}
	if e.GetType() == raftpb.EntryConfChange {
		old := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), old); err != nil {
			return nil, entry.Batch{}, err
		}
		change = old.AsV2()
	} else if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return nil, entry.Batch{}, err
	}
	if len(change.Context) == 0 {
		return change, entry.Batch{}, nil
	}
	batch, err := entry.DecodeBatch(change.Context, nil)
	if err == nil && len(batch.Requests) != 1 {
		err = fmt.Errorf("%d requests: %w", len(batch.Requests), entry.ErrBatch)
	}
	change.Context = nil
	return change, batch, err
}

// execute applies the gathered run and answers who waits.
func (x *Executor) execute() error {
	if len(x.entries) == 0 {
		return nil
	}
	fail.Here("raftnode/apply/before")
	answers, err := x.Machine.Apply(x.entries)
	if err != nil {
		return fmt.Errorf("apply entries %d to %d: %w", x.entries[0].Index, x.entries[len(x.entries)-1].Index, err)
	}
	fail.Here("raftnode/apply/after")
	x.Publish(x.entries[len(x.entries)-1].Index)
	for i := range answers {
		if fail.Skip("raftnode/answer") {
			continue
		}
		x.Answer(&answers[i])
	}
	if term := x.entries[len(x.entries)-1].Term; term != x.term {
		x.term = term
		x.Settled(term)
	}
	for i := range x.entries {
		clear(x.entries[i].Requests)
	}
	clear(x.entries)
	x.entries = x.entries[:0]
	return nil
}

package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
)

var _ transport.Handler = (*Node)(nil)

// Deliver implements transport.Handler. It never waits.
func (n *Node) Deliver(from ident.MemberID, frames []transport.Frame) {
	for i := range frames {
		if err := n.deliver(from, &frames[i]); err != nil {
			n.cfg.Logger.Warn("dropped a frame of a peer", "from", from, "error", err)
		}
	}
}

func (n *Node) deliver(from ident.MemberID, f *transport.Frame) error {
	switch f.Kind {
	case transport.KindRaft:
		if f.Message.GetType() == raftpb.MsgSnap {
			return fmt.Errorf("snapshot without its data: %w", ErrFrame)
		}
		n.inbox.deliver(Event{Kind: EventMessage, Peer: from, Message: f.Message})
		return nil
	case transport.KindForward:
		list, err := DecodeForward(from, f.Data)
		if err != nil {
			return err
		}
		if !n.inbox.proposeForwarded(list) {
			n.refuseAll(from, list)
		}
		return nil
	case transport.KindAnswer:
		return n.refused(f.Data)
	case transport.KindNotice:
		notice, err := DecodeNotice(f.Data)
		if err != nil {
			return err
		}
		n.inbox.deliver(Event{Kind: EventNotice, Peer: from, Notice: notice})
		return nil
	}
	return fmt.Errorf("frame of kind %d: %w", f.Kind, ErrFrame)
}

// refuseAll says that forwarded requests have no effect, so that they can be tried again.
func (n *Node) refuseAll(from ident.MemberID, list []Proposal) {
	requests := make([]entry.Request, len(list))
	for i := range list {
		requests[i] = list[i].Request
	}
	n.cfg.Network.Send(from, transport.Frame{Kind: transport.KindAnswer, Data: encodeRefusal(ErrNotLeader, requests)})
}

// refused gives requests that another member did not take another try, or ends them.
func (n *Node) refused(data []byte) error {
	reason, ids, err := DecodeRefusal(data)
	if err != nil {
		return err
	}
	var again []Proposal
	for _, id := range ids {
		if !errors.Is(reason, ErrNotLeader) {
			n.waiters.resolve(id, nil, reason)
			continue
		}
		if p, waits := n.waiters.again(id); waits {
			again = append(again, p)
		}
	}
	if len(again) > 0 {
		n.inbox.proposeAll(again)
	}
	return nil
}

// Unreachable implements transport.Handler.
func (n *Node) Unreachable(to ident.MemberID) {
	n.inbox.deliver(Event{Kind: EventUnreachable, Peer: to})
}

// Have implements transport.Handler.
func (n *Node) Have() []byte { return n.cfg.StateMachine.Have() }

// ReceiveSnapshot implements transport.Handler. The state is installed later;
// the leader learns of it by Raft's own answer.
func (n *Node) ReceiveSnapshot(from ident.MemberID, msg *raftpb.Message, r io.Reader) error {
	if err := checkMessage(msg, from, n.cfg.ID); err != nil {
		return err
	}
	if msg.GetType() != raftpb.MsgSnap {
		return fmt.Errorf("%s with data: %w", msg.GetType(), ErrFrame)
	}
	meta := msg.GetSnapshot().GetMetadata()
	if meta.GetIndex() <= n.apply.applied.Load() {
		// The leader does not know that we are there, for our answers were lost, and
		// its log begins behind what it knows of. Raft ignores a state that it has, and
		// says how far it is: without that the same would come again for ever, while
		// this member may be the one that a quorum needs.
		n.inbox.put(Event{Kind: EventMessage, Peer: from, Message: msg})
		return nil
	}
	if !n.receiving.TryLock() {
		return fmt.Errorf("another one is being received: %w", ErrSnapshot)
	}
	defer n.receiving.Unlock()
	if n.staged.Load() > 0 {
		// On a full disk it may wait for long; more of them would make that worse.
		return fmt.Errorf("one that came before waits to be put into force: %w", ErrSnapshot)
	}
	staged, err := n.cfg.StateMachine.Receive(r)
	if err != nil {
		return fmt.Errorf("receive snapshot at %d: %w", meta.GetIndex(), err)
	}
	if got := staged.Meta(); uint64(got.Index) != meta.GetIndex() || uint64(got.Term) != meta.GetTerm() ||
		got.Conf == nil || got.Conf.Equivalent(meta.GetConfState()) != nil {
		n.discard(staged)
		return fmt.Errorf("announced at %d of term %d, holds %d of term %d: %w", meta.GetIndex(), meta.GetTerm(), got.Index, got.Term, ErrSnapshot)
	}
	if err := n.confirm(from, staged); err != nil {
		n.discard(staged)
		return err
	}
	n.cfg.Logger.Info("received a snapshot", "from", from, "index", meta.GetIndex())
	n.staged.Add(1)
	n.inbox.put(Event{Kind: EventMessage, Peer: from, Message: msg, Staged: staged})
	return nil
}

// install puts a received state into force.
func (n *Node) install(ctx context.Context, s Staged) error {
	err := n.apply.installNext(ctx, s)
	if err == nil {
		n.staged.Add(-1)
	}
	return err
}

// confirm has a received state compared, as long as the member runs.
func (n *Node) confirm(from ident.MemberID, s Staged) error {
	if n.cfg.Confirm != nil {
		if err := n.cfg.Confirm(n.group.Context(), from, s); err != nil {
			n.cfg.Logger.Error("a received snapshot is refused", "from", from, "index", uint64(s.Meta().Index), "error", err)
			return fmt.Errorf("snapshot of member %s at %d: %w", from, s.Meta().Index, err)
		}
	}
	select {
	case <-n.stopped:
		return ErrStopped
	default:
		return nil
	}
}

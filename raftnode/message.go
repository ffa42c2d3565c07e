package raftnode

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// message takes what a peer sent. What no peer may say is dropped before Raft
// sees it, since Raft trusts its peers and would panic.
func (c *Core) message(e *Event) error {
	m := e.Message
	if err := checkMessage(m, e.Peer, c.id); err != nil {
		c.logger.Warn("dropped a message that no peer may send", "peer", e.Peer, "error", err)
		if e.Staged != nil {
			c.effects = append(c.effects, Effect{Kind: EffectDiscard, Staged: e.Staged})
		}
		return nil
	}
	c.heard(m)
	switch m.GetType() {
	case raftpb.MsgSnap:
		return c.offerSnapshot(e)
	case raftpb.MsgHeartbeat:
		if ident.Term(m.GetTerm()) >= c.hard.Term && ident.Index(m.GetCommit()) > c.log.last.Index {
			return fmt.Errorf("leader %s says that entry %d was acknowledged here, the log ends at %d: %w",
				e.Peer, m.GetCommit(), c.log.last.Index, ErrLogLost)
		}
	case raftpb.MsgAppResp:
		if ident.Index(m.GetIndex()) > c.log.last.Index && !m.GetReject() {
			return nil // An acknowledgement of what was never sent in this term.
		}
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgTimeoutNow:
		if !c.mayHelp(m) {
			return nil
		}
	case raftpb.MsgReadIndex:
		if c.role == raft.StateLeader && !c.mayRead() {
			return nil // The peer asks again.
		}
	}
	return ignoreDropped(c.raft.Step(m))
}

// checkMessage refuses what Raft could not bear.
func checkMessage(m *raftpb.Message, from, self ident.MemberID) error {
	if err := checkAddress(m, from, self); err != nil {
		return err
	}
	switch m.GetType() {
	case raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		return nil
	case raftpb.MsgApp:
		return checkAppend(m)
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		if n := len(m.GetContext()); n != 0 && n != 8 {
			return fmt.Errorf("%s with a context of %d bytes: %w", m.GetType(), n, ErrFrame)
		}
		return nil
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		if len(m.GetEntries()) != 1 || len(m.GetEntries()[0].GetData()) > readContextBytesMax {
			return fmt.Errorf("%s with %d contexts: %w", m.GetType(), len(m.GetEntries()), ErrFrame)
		}
		return nil
	case raftpb.MsgSnap:
		return checkSnapshot(m)
	}
	return fmt.Errorf("message of type %s: %w", m.GetType(), ErrFrame)
}

func checkAddress(m *raftpb.Message, from, self ident.MemberID) error {
	if m == nil || m.GetFrom() != uint64(from) || m.GetTo() != uint64(self) {
		return fmt.Errorf("%s from %x to %x, received from %s: %w", m.GetType(), m.GetFrom(), m.GetTo(), from, ErrFrame)
	}
	if from == self || from == 0 || raft.IsLocalMsgTarget(uint64(from)) {
		return fmt.Errorf("%s from %s: %w", m.GetType(), from, ErrFrame)
	}
	if m.GetTerm() == 0 && m.GetType() != raftpb.MsgReadIndex { // Raft would take it for its own.
		return fmt.Errorf("%s without a term: %w", m.GetType(), ErrFrame)
	}
	return nil
}

func checkAppend(m *raftpb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		index++
		if e.GetIndex() != index || e.GetTerm() < term || e.GetTerm() == 0 || e.GetTerm() > m.GetTerm() ||
			e.GetType() < raftpb.EntryNormal || e.GetType() > raftpb.EntryConfChangeV2 {
			return fmt.Errorf("append behind %d holds entry %d of term %d and type %d at %d: %w",
				m.GetIndex(), e.GetIndex(), e.GetTerm(), e.GetType(), index, ErrFrame)
		}
		term = e.GetTerm()
	}
	return nil
}

func checkSnapshot(m *raftpb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	if meta.GetIndex() == 0 || meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm() {
		return fmt.Errorf("snapshot at %d of term %d: %w", meta.GetIndex(), meta.GetTerm(), ErrFrame)
	}
	if err := checkConfState(meta.GetConfState()); err != nil {
		return fmt.Errorf("snapshot at %d: %w", meta.GetIndex(), err)
	}
	return nil
}

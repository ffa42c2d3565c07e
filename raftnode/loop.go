package raftnode

import (
	"context"
	"slices"
)

// loop carries events to the core and its effects to those who do them. It
// never waits for append or apply. It is the last to end, because apply needs
// its answers to finish what it began.
func (n *Node) loop(ctx context.Context) error {
	defer close(n.done)
	ticker := n.cfg.Clock.NewTicker(n.cfg.HeartbeatInterval)
	defer ticker.Stop()
	var spare letters
	tick := false
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-n.inbox.wake:
		case <-ticker.C(): // At most one waits: a member that was suspended does not count the ticks it slept through.
			tick = true
		}
		spare = n.turn(ctx, n.inbox.take(spare), tick)
		if tick && n.core.Removed() {
			n.leave()
		}
		tick = false
		n.stop(n.core.Err())
	}
	n.stop(errClosed)
	n.linger()
	return nil
}

// leave stops a removed member, but not before it had a chance to vote for a
// successor and to acknowledge what the others need to go on without it.
func (n *Node) leave() {
	if n.leaving++; n.leaving == 1 {
		n.cfg.Logger.Info("this member was removed from the cluster", "member", n.cfg.ID)
	}
	if n.leaving >= n.core.electionTicks {
		n.stop(ErrRemoved)
	}
}

// turn does one round and returns the emptied letters.
func (n *Node) turn(ctx context.Context, l letters, tick bool) letters {
	for i := range l.resolves {
		l.resolves[i].reply <- n.core.ResolveConf(l.resolves[i].index, l.resolves[i].change, l.resolves[i].accept)
	}
	for i := range l.events {
		e := &l.events[i]
		if e.Kind == EventFrozen {
			n.frozen = e.Frozen
		}
		n.core.Step(e)
	}
	if tick {
		n.core.Step(&Event{Kind: EventTick})
	}
	if len(l.proposals) > 0 {
		n.core.Step(&Event{Kind: EventPropose, Proposals: l.proposals})
	}
	if l.read {
		n.core.Step(&Event{Kind: EventRead, Round: n.readers.seal()})
	}
	effects := n.core.Take(n.cfg.Clock.Wall().UnixNano())
	n.publish(tick) // Before anything leaves: who acts on what we say may rely on what we know.
	inline := n.core.isSingle() && !n.cfg.AlwaysAppendAside
	for i := range effects {
		if e := &effects[i]; inline && e.Kind == EffectAppend && e.Append.Staged == nil {
			n.mine = append(n.mine, appendTask{append: e.Append})
		} else {
			n.carry(e)
		}
	}
	if len(n.mine) > 0 { // Last, so that apply works meanwhile.
		n.stop(n.append.workInline(ctx, n.mine))
		clear(n.mine)
		n.mine = n.mine[:0]
	}
	return l
}

// carry has one effect done.
func (n *Node) carry(e *Effect) {
	switch e.Kind {
	case EffectSend:
		n.cfg.Network.Send(e.Peer, e.Frame)
	case EffectAppend:
		n.append.put(appendTask{append: e.Append})
	case EffectApply:
		n.apply.put(applyTask{apply: e.Apply})
	case EffectRead:
		n.readers.confirm(e.Round, e.Index)
	case EffectDrop:
		n.waiters.resolve(e.Proposal.Request.ID, nil, e.Err)
	case EffectFreeze:
		n.apply.put(applyTask{freeze: func(f Frozen, err error) {
			if err != nil {
				n.cfg.Logger.Warn("state cannot be frozen for a follower", "error", err)
				f = nil
			}
			n.inbox.put(Event{Kind: EventFrozen, Frozen: f})
		}})
	case EffectSnapshot:
		n.sendSnapshot(e)
	case EffectThaw:
		f := n.frozen
		n.frozen = nil
		if !n.group.Go("raft thaw", func(context.Context) error { n.closeFrozen(f); return nil }) {
			n.closeFrozen(f) // This member stops, and its store could not.
		}
	case EffectDiscard:
		staged := e.Staged // The effect is reused.
		discard := func(context.Context) error {
			n.discard(staged)
			n.staged.Add(-1)
			return nil
		}
		if !n.group.Go("raft discard", discard) {
			_ = discard(n.group.Context()) // It always returns nil.
		}
	case EffectCompact:
		n.append.put(appendTask{compact: e.Index})
	case EffectClearCut:
		n.cfg.Logger.Info("what the log had lost in a crash is back, this member votes again")
		n.append.put(appendTask{clearCut: true})
	}
}

func (n *Node) sendSnapshot(e *Effect) {
	peer, meta := e.Peer, e.Message.GetSnapshot().GetMetadata()
	if n.frozen == nil || uint64(n.frozen.Meta().Index) != meta.GetIndex() {
		n.inbox.put(Event{Kind: EventSent, Peer: peer, Failed: true})
		return
	}
	n.cfg.Logger.Info("member is too far behind for the log, sending it a snapshot", "to", peer, "index", meta.GetIndex(), "first", n.core.log.start.Index+1)
	n.cfg.Network.SendSnapshot(peer, e.Message, n.frozen, func(err error) {
		if err != nil {
			n.cfg.Logger.Warn("snapshot did not arrive", "to", peer, "error", err)
		}
		n.inbox.put(Event{Kind: EventSent, Peer: peer, Failed: err != nil})
	})
}

// closeFrozen and discard may touch many files, so the loop leaves them to others.
func (n *Node) closeFrozen(f Frozen) {
	if f == nil {
		return
	}
	if err := f.Close(); err != nil {
		n.cfg.Logger.Warn("closing a frozen state failed", "error", err)
	}
}

func (n *Node) discard(s Staged) {
	if err := s.Discard(); err != nil {
		n.cfg.Logger.Warn("discarding a received snapshot failed", "error", err)
	}
}

// publish shows others where this member stands.
func (n *Node) publish(tick bool) {
	c := n.core
	n.commit.Store(uint64(c.hard.Commit))
	n.last.Store(uint64(c.log.last.Index))
	old := n.status.Load()
	if old != nil && !tick && !n.changedSince(&old.Status) {
		return
	}
	next := &statusBox{Status: c.Status()}
	n.shown = c.conf
	n.alone.Store(c.isAlone())
	if old != nil && sameStanding(&old.Status, &next.Status) {
		next.changed = old.changed
		n.status.Store(next)
		return
	}
	next.changed = make(chan struct{})
	n.status.Store(next)
	if old == nil {
		return
	}
	close(old.changed)
	if old.Leader != next.Leader || old.Term != next.Term {
		n.cfg.Logger.Info("leader or term changed", "leader", next.Leader, "term", uint64(next.Term), "role", next.Role.String())
	}
}

// changedSince is what can be told without making a new status.
func (n *Node) changedSince(old *Status) bool {
	c := n.core
	return old.Leader != c.leader || old.Term != c.hard.Term || old.Role != c.roleName() || n.shown != c.conf ||
		old.Role == Leader && !old.Settled
}

// sameStanding compares what StatusChanged promises to report.
func sameStanding(a, b *Status) bool {
	return a.Leader == b.Leader && a.Term == b.Term && a.Role == b.Role && a.Settled == b.Settled && a.Joint == b.Joint &&
		slices.Equal(a.Voters, b.Voters) && slices.Equal(a.Learners, b.Learners)
}

// linger answers apply until it has ended, then lets go of what is left.
func (n *Node) linger() {
	var spare letters
	for ended := false; !ended; {
		select {
		case <-n.idle:
			ended = true
		case <-n.inbox.wake:
		}
		spare = n.inbox.take(spare)
		for i := range spare.resolves {
			spare.resolves[i].reply <- n.core.ResolveConf(spare.resolves[i].index, spare.resolves[i].change, spare.resolves[i].accept)
		}
		for i := range spare.events {
			if s := spare.events[i].Staged; s != nil {
				n.discard(s)
			}
			if f := spare.events[i].Frozen; f != nil {
				n.frozen = f
			}
		}
	}
	n.closeFrozen(n.frozen)
}

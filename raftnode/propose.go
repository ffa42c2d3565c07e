package raftnode

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/transport"
)

// proposals is what waits to become entries.
type proposals struct {
	waiting []Proposal // In order of arrival; configuration changes among them.
	refused []Proposal // Wait for the next tick or leader.
	confs   []Proposal // Wait until another configuration change is applied.
	blocked bool       // Raft took none; no use to try again before something changed.
	foreign bool       // Some were forwarded by peers.
	batch   []entry.Request
}

func (p *proposals) add(list []Proposal) {
	for i := range list {
		p.foreign = p.foreign || list[i].From != 0
		if list[i].Refused {
			p.refused = append(p.refused, list[i])
		} else {
			p.waiting = append(p.waiting, list[i])
		}
	}
}

// tick tries again what was refused, and forgets what nobody waits for any more:
// nothing may claim it for long, without a leader, or with a disk or a quorum
// that stands still.
func (p *proposals) tick() {
	p.retry()
	gone := func(w Proposal) bool { return w.Ticket != nil && w.Ticket.Gone() }
	p.waiting = slices.DeleteFunc(p.waiting, gone)
	p.confs = slices.DeleteFunc(p.confs, gone)
}

// retry gives everything another try.
func (p *proposals) retry() {
	p.blocked = false
	p.waiting = append(p.waiting, p.refused...)
	clear(p.refused)
	p.refused = p.refused[:0]
}

// drop removes the first n that wait.
func (p *proposals) drop(n int) {
	rest := copy(p.waiting, p.waiting[n:])
	clear(p.waiting[rest:])
	p.waiting = p.waiting[:rest]
}

// propose does with the waiting proposals what the present role asks for.
func (c *Core) propose(now int64) error {
	if p := &c.proposals; len(p.confs) > 0 && (c.role != raft.StateLeader || !c.confPending()) {
		p.waiting = append(p.confs, p.waiting...)
		p.confs = nil
		p.foreign = true // Perhaps.
	}
	if len(c.proposals.waiting) == 0 {
		return nil
	}
	if c.proposals.foreign {
		c.refuseForwarded()
	}
	if c.removed {
		for _, w := range c.proposals.waiting {
			c.refuse(w, ErrRemoved)
		}
		c.proposals.drop(len(c.proposals.waiting))
		return nil
	}
	if c.role == raft.StateLeader {
		return c.proposeAsLeader(now)
	}
	if c.leader != 0 && c.leader != c.id {
		return c.forward()
	}
	return nil // Wait for a leader.
}

// proposeAsLeader gathers what waits into as few entries as the limits allow
// and hands them to Raft at once.
func (c *Core) proposeAsLeader(now int64) error {
	p := &c.proposals
	for len(p.waiting) > 0 && !p.blocked && c.batches < AppendsInFlightMax {
		if p.waiting[0].Conf != nil {
			if err := c.proposeConf(now); err != nil {
				return err
			}
			continue
		}
		taken := 0
		var entries []*raftpb.Entry
		for taken < len(p.waiting) && p.waiting[taken].Conf == nil && len(entries) < BatchesMax {
			data, n := p.encodeBatch(taken, now, c.hard.Term)
			taken += n
			if data != nil {
				entries = append(entries, &raftpb.Entry{Data: data})
			}
		}
		if len(entries) == 0 {
			p.drop(taken) // Nobody waits for any of them.
			continue
		}
		err := c.raft.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(c.id)), Entries: entries})
		if errors.Is(err, raft.ErrProposalDropped) {
			p.release(taken)
			p.blocked = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("propose: %w", err)
		}
		p.drop(taken)
		c.drain() // So that the number of appends under way is known.
	}
	return nil
}

// encodeBatch makes one entry of the proposals from first on and claims them.
// data is nil when nobody waits for any of the n that it looked at.
func (p *proposals) encodeBatch(first int, now int64, term ident.Term) (data []byte, n int) {
	batch := entry.Batch{Time: now, Requests: p.batch[:0]}
	size := 0
	for i := first; i < len(p.waiting) && p.waiting[i].Conf == nil; i++ {
		w := &p.waiting[i]
		size += entry.RequestSizeMax(&w.Request)
		if n > 0 && size > BatchBytesMax || len(batch.Requests) == BatchRequestsMax {
			break
		}
		n++
		if w.Ticket == nil || w.Ticket.Claim(term) {
			batch.Requests = append(batch.Requests, w.Request)
		} else {
			w.Ticket = abandoned{}
		}
	}
	if len(batch.Requests) > 0 {
		data = entry.AppendBatch(make([]byte, 0, entry.BatchSizeMax(&batch)), &batch)
	}
	clear(batch.Requests)
	p.batch = batch.Requests[:0]
	return data, n
}

// release gives back what was claimed for entries that Raft did not take.
func (p *proposals) release(n int) {
	for i := range p.waiting[:n] {
		if t := p.waiting[i].Ticket; t != nil {
			t.Release()
		}
	}
}

// abandoned is the ticket of a proposal whose owner gave up: it never comes back.
type abandoned struct{}

func (abandoned) Gone() bool            { return true }
func (abandoned) Claim(ident.Term) bool { return false }
func (abandoned) Release()              {}

// proposeConf proposes the first waiting configuration change. Raft takes one
// at a time and turns another into an empty entry, which is seen here.
func (c *Core) proposeConf(now int64) error {
	w := c.proposals.waiting[0]
	if c.confPending() {
		c.proposals.drop(1)
		c.proposals.confs = append(c.proposals.confs, w)
		return nil
	}
	if w.Ticket != nil && !w.Ticket.Claim(c.hard.Term) {
		c.proposals.drop(1)
		return nil
	}
	if err := checkChange(c.conf, w.Conf); err != nil {
		c.proposals.drop(1)
		c.refuse(w, err)
		return nil
	}
	change := proto.CloneOf(w.Conf)
	change.Context = entry.AppendBatch(nil, &entry.Batch{Time: now, Requests: []entry.Request{w.Request}})
	data, err := proto.Marshal(change)
	if err != nil {
		return fmt.Errorf("encode configuration change: %w", err)
	}
	entries := []*raftpb.Entry{{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}}
	err = c.raft.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(c.id)), Entries: entries})
	if errors.Is(err, raft.ErrProposalDropped) {
		c.proposals.release(1)
		c.proposals.blocked = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("propose configuration change: %w", err)
	}
	c.proposals.drop(1)
	if entries[0].GetType() == raftpb.EntryNormal {
		c.refuse(w, ErrConfPending)
	}
	c.drain()
	c.confIndex = c.log.last.Index
	return nil
}

// confPending reports whether a configuration change may be on its way: one at
// a time takes effect, and a joint configuration is left by itself.
func (c *Core) confPending() bool {
	return c.applied < c.confIndex || c.conf.GetAutoLeave()
}

// refuse ends a proposal that has no effect, here or at the member it came from.
func (c *Core) refuse(w Proposal, reason error) {
	if w.From == 0 {
		c.effects = append(c.effects, Effect{Kind: EffectDrop, Proposal: w, Err: reason})
		return
	}
	c.effects = append(c.effects, Effect{
		Kind: EffectSend, Peer: w.From,
		Frame: transport.Frame{Kind: transport.KindAnswer, Data: encodeRefusal(reason, []entry.Request{w.Request})},
	})
}

// refuseForwarded answers members that took this one for the leader of a term
// that it does not lead. What they forwarded is never passed on, and never
// proposed in another term, so that they can tell when it is gone for good. Who
// forwarded it may have given it up long ago and goes on forwarding: while Raft
// takes nothing, more than a bound of it is refused too.
func (c *Core) refuseForwarded() {
	p := &c.proposals
	kept := p.waiting[:0]
	p.foreign = false
	count, bytes := 0, 0 // Kept, of what was forwarded.
	var peers []ident.MemberID
	byPeer := map[ident.MemberID][]entry.Request{}
	for _, w := range p.waiting {
		if w.From == 0 {
			kept = append(kept, w)
			continue
		}
		if c.role == raft.StateLeader && w.Term == c.hard.Term && !c.removed && count < WaitingRequestsMax && bytes <= WaitingBytesMax {
			p.foreign = true
			count, bytes = count+1, bytes+len(w.Request.Data)
			kept = append(kept, w)
			continue
		}
		if byPeer[w.From] == nil {
			peers = append(peers, w.From)
		}
		byPeer[w.From] = append(byPeer[w.From], w.Request)
	}
	clear(p.waiting[len(kept):])
	p.waiting = kept
	for _, peer := range peers {
		c.effects = append(c.effects, Effect{
			Kind: EffectSend, Peer: peer,
			Frame: transport.Frame{Kind: transport.KindAnswer, Data: encodeRefusal(ErrNotLeader, byPeer[peer])},
		})
	}
}

// forward sends own requests to the leader, as few frames as the limit allows.
func (c *Core) forward() error {
	p := &c.proposals
	var requests []entry.Request
	size := 0
	flush := func() {
		if len(requests) > 0 {
			c.sendForward(encodeForward(c.hard.Term, requests))
		}
		requests, size = requests[:0], 0
	}
	for i := range p.waiting {
		w := &p.waiting[i]
		if w.Ticket != nil && !w.Ticket.Claim(c.hard.Term) {
			continue
		}
		if w.Conf != nil {
			flush()
			data, err := encodeForwardConf(c.hard.Term, w.Conf, w.Request)
			if err != nil {
				return err
			}
			c.sendForward(data)
			continue
		}
		requests = append(requests, w.Request)
		if size += entry.RequestSizeMax(&w.Request); size >= FrameRequestBytesMax {
			flush()
		}
	}
	flush()
	p.drop(len(p.waiting))
	return nil
}

func (c *Core) sendForward(data []byte) {
	c.effects = append(c.effects, Effect{
		Kind: EffectSend, Peer: c.leader,
		Frame: transport.Frame{Kind: transport.KindForward, Data: data},
	})
}

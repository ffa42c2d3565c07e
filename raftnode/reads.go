package raftnode

import (
	"bytes"
	"encoding/binary"

	"go.etcd.io/raft/v3"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// readRounds asks a quorum how far the log is committed, once for all reads
// that wait. A round serves the reads that arrived before it was issued and no
// others; one round is under way at a time (rule 22).
type readRounds struct {
	nonce   ident.Nonce
	counter uint64 // Of rounds issued: each try has a context of its own.

	wanted  uint64 // Reads up to here wait or are done.
	done    uint64
	upTo    uint64 // What the round under way serves.
	context []byte // Of the round under way; nil when there is none.
	ticks   int    // Since it was issued.
	due     bool   // A tick passed: a member with a cut asks once a tick.
}

// abandon forgets the round under way: its answer may never come.
func (r *readRounds) abandon() { r.context = nil }

func (r *readRounds) tick(timeout int) {
	r.due = true
	if r.context == nil {
		return
	}
	if r.ticks++; r.ticks >= timeout/2 { // Lost on its way, perhaps.
		r.abandon()
	}
}

// startRead issues a round when there is reason and nothing speaks against it.
func (c *Core) startRead() bool {
	r := &c.reads
	if r.context != nil || c.failed != nil || c.leader == 0 || c.removed {
		return false
	}
	if r.wanted == r.done && !(c.cut && r.due) {
		return false
	}
	if c.leader == c.id && !c.mayRead() {
		return false
	}
	r.counter++
	r.upTo, r.ticks, r.due = r.wanted, 0, false
	r.context = make([]byte, 16)
	binary.LittleEndian.PutUint64(r.context, uint64(r.nonce))
	binary.LittleEndian.PutUint64(r.context[8:], r.counter)
	c.raft.ReadIndex(r.context)
	return true
}

// mayRead reports whether this leader can tell a commit index. Raft holds reads
// back until an entry of the term is committed, but not where one voter is a
// quorum: there it tells its stored commit index, which may be old.
func (c *Core) mayRead() bool {
	return len(c.conf.Voters) != 1 || len(c.conf.VotersOutgoing) > 0 || c.committedInTerm()
}

func (c *Core) readConfirmed(s *raft.ReadState) {
	r := &c.reads
	if r.context == nil || !bytes.Equal(s.RequestCtx, r.context) {
		return // Of a round that was given up.
	}
	r.context = nil
	index := ident.Index(s.Index)
	if c.cut && c.log.durable >= index {
		// A quorum's whole log is here again, so nothing that was lost matters.
		c.cut = false
		c.effects = append(c.effects, Effect{Kind: EffectClearCut})
	}
	if r.upTo > r.done {
		r.done = r.upTo
		c.effects = append(c.effects, Effect{Kind: EffectRead, Round: r.upTo, Index: index})
	}
}

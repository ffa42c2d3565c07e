package raftnode

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// inbox is what waits for the loop. Nobody who puts something in ever waits.
type inbox struct {
	wake chan struct{} // Holds a token when there is something.

	mu struct {
		sync.Mutex
		next letters
	}
}

// letters is what one turn of the loop takes out.
type letters struct {
	proposals []Proposal
	events    []Event
	resolves  []resolve
	read      bool // Somebody waits for a read round.
	messages  int  // Of the events, those of peers.
	bytes     int  // Of requests in the proposals.
}

// resolve is apply's question to the loop. Apply waits for the reply.
type resolve struct {
	index  ident.Index
	change *raftpb.ConfChangeV2
	accept bool
	reply  chan *raftpb.ConfState
}

func (b *inbox) init() { b.wake = make(chan struct{}, 1) }

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// propose puts a request of this member in unless too many wait: those who gave
// up are among them for as long as the loop stands still.
func (b *inbox) propose(p Proposal) bool {
	b.mu.Lock()
	full := b.mu.next.isFull()
	if !full {
		b.mu.next.bytes += len(p.Request.Data)
		b.mu.next.proposals = append(b.mu.next.proposals, p)
	}
	first := len(b.mu.next.proposals) == 1
	b.mu.Unlock()
	if first { // Others have been announced by the first.
		b.signal()
	}
	return !full
}

// isFull reports whether as much waits as clients may pile up.
func (l *letters) isFull() bool {
	return len(l.proposals) >= WaitingRequestsMax || l.bytes > WaitingBytesMax
}

func (b *inbox) proposeAll(list []Proposal) {
	b.mu.Lock()
	b.mu.next.proposals = append(b.mu.next.proposals, list...)
	b.mu.Unlock()
	b.signal()
}

// proposeForwarded puts in what peers forward unless too much waits.
func (b *inbox) proposeForwarded(list []Proposal) bool {
	b.mu.Lock()
	full := b.mu.next.isFull()
	if !full {
		for i := range list {
			b.mu.next.bytes += len(list[i].Request.Data)
		}
		b.mu.next.proposals = append(b.mu.next.proposals, list...)
	}
	b.mu.Unlock()
	b.signal()
	return !full
}

func (b *inbox) put(events ...Event) {
	b.mu.Lock()
	b.mu.next.events = append(b.mu.next.events, events...)
	b.mu.Unlock()
	b.signal()
}

// deliver puts a message in unless too many wait.
func (b *inbox) deliver(e Event) bool {
	b.mu.Lock()
	full := b.mu.next.messages >= InboxMessagesMax
	if !full {
		b.mu.next.messages++
		b.mu.next.events = append(b.mu.next.events, e)
	}
	b.mu.Unlock()
	if !full {
		b.signal()
	}
	return !full
}

func (b *inbox) wantRead() {
	b.mu.Lock()
	b.mu.next.read = true
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) ask(r resolve) {
	b.mu.Lock()
	b.mu.next.resolves = append(b.mu.next.resolves, r)
	b.mu.Unlock()
	b.signal()
}

// take swaps the full letters for empty ones of an earlier turn.
func (b *inbox) take(spare letters) letters {
	clear(spare.proposals)
	clear(spare.events)
	clear(spare.resolves)
	spare = letters{proposals: spare.proposals[:0], events: spare.events[:0], resolves: spare.resolves[:0]}
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.mu.next
	b.mu.next = spare
	return taken
}

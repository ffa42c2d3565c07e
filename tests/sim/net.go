package sim

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/transport"
)

type reading = io.Reader

// network carries frames between members, one link for each direction.
type network struct {
	w      *World
	chance *raftnodetest.Random
	links  map[route]*link

	loss, duplicate int // Percent.
	reorder         bool
	delay           int64 // Factor on delays.
	cutSnapshots    int   // Percent of snapshot streams that break.
	flapping        bool
}

type route struct{ from, to ident.MemberID }

// link is one direction between two members.
type link struct {
	cut    string // The fault that cut it; empty: it works.
	clog   bool   // Keeps frames back, and delivers them at once when it is let go.
	last   int64  // When the newest frame arrives: frames keep their order.
	queued []transport.Frame
}

func (n *network) init(w *World) {
	*n = network{w: w, chance: stream(w.cfg.Seed, "network"), links: map[route]*link{}, delay: 1}
	n.loss, n.duplicate, n.reorder = w.cfg.Loss, w.cfg.Duplicate, w.cfg.Reorder
}

func (n *network) link(from, to ident.MemberID) *link {
	l := n.links[route{from, to}]
	if l == nil {
		l = &link{}
		n.links[route{from, to}] = l
	}
	return l
}

// cut takes a link away, or gives it back when no fault is named.
func (n *network) cut(from, to ident.MemberID, fault string) {
	if from != to {
		n.link(from, to).cut = fault
	}
}

func (n *network) clog(from, to ident.MemberID, on bool) {
	l := n.link(from, to)
	l.clog = on
	if on {
		return
	}
	frames := l.queued
	l.queued = nil
	for _, f := range frames {
		n.w.after(1, func() { n.deliver(from, to, f) })
	}
}

// heal ends everything that troubles links between some members.
func (n *network) heal(ids []ident.MemberID) {
	for _, a := range ids {
		for _, b := range ids {
			if a != b {
				n.cut(a, b, "")
				n.clog(a, b, false)
			}
		}
	}
}

// calm ends what troubles all links.
func (n *network) calm() {
	n.loss, n.duplicate, n.reorder, n.delay, n.cutSnapshots, n.flapping = 0, 0, false, 1, 0, false
}

// send puts a frame on its way.
func (n *network) send(m *Member, to ident.MemberID, f transport.Frame) {
	w := n.w
	if f.Kind == transport.KindRaft {
		w.check.Sent(m, f.Message)
		w.note(4, uint64(f.Message.GetType()), f.Message.GetTerm(), f.Message.GetIndex(), f.Message.GetCommit(), uint64(len(f.Message.GetEntries())))
	}
	l := n.link(m.id, to)
	if l.clog {
		w.fired("N5")
		l.queued = append(l.queued, f)
		return
	}
	copies := 1
	if n.chance.Chance(n.loss) {
		w.fired("N1")
		copies = 0
	} else if f.Kind == transport.KindRaft && n.chance.Chance(n.duplicate) {
		w.fired("N2")
		copies = 2
	}
	for range copies {
		due := w.now + n.w.between(w.cfg.DelayMin, w.cfg.DelayMax)*n.delay
		if n.delay > 1 {
			w.fired("N4")
		}
		if due < l.last {
			if n.reorder {
				w.fired("N3")
			} else {
				due = l.last
			}
		}
		l.last = max(l.last, due)
		from := m.id
		w.at(due, func() { n.deliver(from, to, f) })
	}
}

// passes tells whether something gets from one member to another now.
func (n *network) passes(from, to ident.MemberID) bool {
	if l := n.link(from, to); l.cut != "" {
		n.w.fired(l.cut)
		return false
	}
	m := n.w.members[to]
	return m != nil && m.alive
}

func (n *network) deliver(from, to ident.MemberID, f transport.Frame) {
	if !n.passes(from, to) {
		return
	}
	m := n.w.members[to]
	if m.paused(func() { n.deliver(from, to, f) }) { // It waits in the receiver's socket.
		return
	}
	if n.refuses(m, from) {
		return
	}
	n.w.running = m
	m.receive(from, f)
	m.settle()
}

// refuses is the handshake: a member that was removed is told so.
func (n *network) refuses(m *Member, from ident.MemberID) bool {
	if !m.replica.Machine.Members.Removed(from) {
		return false
	}
	if r := n.w.members[from]; r.alive && n.passes(m.id, from) {
		n.w.after(n.w.cfg.DelayMin, func() { r.stop(raftnode.ErrRemoved) })
	}
	return true
}

// dial is what the transport does all the time: it calls every member that it
// knows, also those that Raft has nothing for.
func (m *Member) dial() {
	for _, id := range append(slices.Clone(m.shown.Voters), m.shown.Learners...) {
		if to := m.w.members[id]; to != nil && id != m.id && m.w.net.passes(m.id, id) && to.pausedUntil <= m.w.now {
			m.w.net.refuses(to, m.id)
		}
	}
}

func (m *Member) receive(from ident.MemberID, f transport.Frame) {
	switch f.Kind {
	case transport.KindRaft:
		m.step(&raftnode.Event{Kind: raftnode.EventMessage, Peer: from, Message: f.Message})
	case transport.KindForward:
		list, err := raftnode.DecodeForward(from, f.Data)
		if err != nil {
			m.w.fail("member %s: %v", m.id, err)
		}
		m.step(&raftnode.Event{Kind: raftnode.EventPropose, Proposals: list})
	case transport.KindAnswer:
		m.refused(f.Data)
	case transport.KindNotice:
		notice, err := raftnode.DecodeNotice(f.Data)
		if err != nil {
			m.w.fail("member %s: %v", m.id, err)
		}
		m.step(&raftnode.Event{Kind: raftnode.EventNotice, Peer: from, Notice: notice})
	}
}

// ask runs a question at another member and its answer here, if both arrive.
func (n *network) ask(m *Member, to ident.MemberID, question func(peer *Member, reply func(answer func()))) {
	from, w := m.id, n.w
	trip := func() int64 { return w.between(w.cfg.DelayMin, w.cfg.DelayMax) * n.delay }
	w.after(trip(), func() {
		peer := w.members[to]
		if !n.passes(from, to) || peer.pausedUntil > w.now {
			return
		}
		question(peer, func(answer func()) {
			w.after(trip(), func() {
				if n.passes(to, from) && m.pausedUntil <= w.now {
					answer()
				}
			})
		})
		peer.settle()
	})
}

// sendSnapshot streams the frozen state to a member that is too far behind.
func (m *Member) sendSnapshot(to ident.MemberID, msg *raftpb.Message) {
	w := m.w
	sent := func(failed bool) {
		m.live(0, func() { m.step(&raftnode.Event{Kind: raftnode.EventSent, Peer: to, Failed: failed}) })
	}
	if m.frozen == nil || uint64(m.frozen.Meta().Index) != msg.GetSnapshot().GetMetadata().GetIndex() {
		sent(true)
		return
	}
	r := w.members[to]
	if r == nil || !r.alive || !w.net.passes(m.id, to) {
		m.live(w.cfg.DelayMax, func() { sent(true) })
		return
	}
	var buf bytes.Buffer
	if err := m.frozen.WriteTo(&buf, r.replica.Have()); err != nil {
		w.logf(m.id, "cannot write the snapshot for %s: %v", to, err)
		sent(true)
		return
	}
	w.count.Reached["snapshot sent"]++
	w.note(hashBytes(buf.Bytes()))
	w.logf(m.id, "sends %s the snapshot at %d, %d bytes", to, m.frozen.Meta().Index, buf.Len())
	data := buf.Bytes()
	if w.net.chance.Chance(w.net.cutSnapshots) {
		w.fired("N11")
		data = data[:w.net.chance.Below(len(data))]
	}
	trip := w.between(w.cfg.DelayMin, w.cfg.DelayMax)*3*w.net.delay + int64(len(data)/100)
	from := m.id
	w.after(trip, func() {
		err := w.net.receiveSnapshot(from, to, msg, data)
		if err != nil {
			w.logf(m.id, "snapshot to %s: %v", to, err)
		}
		sent(err != nil)
	})
}

func (n *network) receiveSnapshot(from, to ident.MemberID, msg *raftpb.Message, data []byte) error {
	if !n.passes(from, to) || n.w.members[to].pausedUntil > n.w.now {
		return fmt.Errorf("snapshot to %s: %w", to, transport.ErrUnreachable)
	}
	r := n.w.members[to]
	defer r.settle()
	if index := msg.GetSnapshot().GetMetadata().GetIndex(); index <= uint64(r.published) {
		n.w.count.Reached["snapshot that is not needed"]++
		r.step(&raftnode.Event{Kind: raftnode.EventMessage, Peer: from, Message: msg})
		return nil
	}
	staged, err := r.replica.Receive(bytes.NewReader(data))
	if err != nil {
		n.w.count.Reached["snapshot refused"]++
		return err
	}
	if r.disk.dead {
		return errPower
	}
	meta := msg.GetSnapshot().GetMetadata()
	if got := staged.Meta(); uint64(got.Index) != meta.GetIndex() || uint64(got.Term) != meta.GetTerm() || got.Conf.Equivalent(meta.GetConfState()) != nil {
		n.w.fail("snapshot announced at %d of term %d holds %d of term %d", meta.GetIndex(), meta.GetTerm(), got.Index, got.Term)
	}
	n.w.count.Reached["snapshot received"]++
	r.step(&raftnode.Event{Kind: raftnode.EventMessage, Peer: from, Message: msg, Staged: staged})
	return nil
}

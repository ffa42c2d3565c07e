package raftnodetest

import (
	"bytes"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
)

func (m *Member) sendSnapshot(to ident.MemberID, msg *raftpb.Message) {
	c := m.cluster
	var buf bytes.Buffer
	m.must(m.frozen.WriteTo(&buf, nil))
	c.logf(m, "sends %s the snapshot at %d", to, m.frozen.Meta().Index)
	lost := c.random.Chance(c.cfg.LossPercent)
	from := m.id
	m.live(c.between(c.cfg.DelayMin, c.cfg.DelayMax)*3, func() {
		err := c.receiveSnapshot(from, to, msg, buf.Bytes(), lost)
		if m.alive {
			m.step(&raftnode.Event{Kind: raftnode.EventSent, Peer: to, Failed: err != nil})
		}
	})
}

func (c *Cluster) receiveSnapshot(from, to ident.MemberID, msg *raftpb.Message, data []byte, lost bool) error {
	r := c.members[to]
	if lost || r == nil || !r.alive || c.cut[[2]ident.MemberID{from, to}] {
		return fmt.Errorf("snapshot to %s: %w", to, transport.ErrUnreachable)
	}
	if c.refuses[to] {
		return fmt.Errorf("snapshot to %s: %w", to, raftnode.ErrSnapshot)
	}
	staged, err := r.machine.Receive(bytes.NewReader(data))
	r.must(err)
	r.step(&raftnode.Event{Kind: raftnode.EventMessage, Peer: from, Message: msg, Staged: staged})
	return nil
}

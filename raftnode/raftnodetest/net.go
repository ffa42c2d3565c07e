package raftnodetest

import (
	"bytes"
	"context"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/transport"
)

// Net joins real nodes in one process. Frames arrive in order, on a goroutine
// for each receiver, unless the link is cut.
type Net struct {
	group *task.Group
	mu    struct {
		sync.Mutex
		nodes map[ident.MemberID]*station
		cut   map[[2]ident.MemberID]bool
	}
}

type station struct {
	handler transport.Handler
	wake    chan struct{}
	mu      struct {
		sync.Mutex
		queue []arrival
	}
}

type arrival struct {
	from  ident.MemberID
	frame transport.Frame
}

// NewNet returns a net without nodes.
func NewNet() *Net {
	n := &Net{group: task.New(context.Background())}
	n.mu.nodes = map[ident.MemberID]*station{}
	n.mu.cut = map[[2]ident.MemberID]bool{}
	return n
}

// Close ends all deliveries.
func (n *Net) Close() error {
	n.group.Stop()
	return n.group.Wait()
}

// At is the net as one member sees it.
func (n *Net) At(id ident.MemberID) raftnode.Network { return &port{net: n, self: id} }

// Attach lets frames to a member arrive at h; nil takes it off the net.
func (n *Net) Attach(id ident.MemberID, h transport.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.nodes, id)
	if h == nil {
		return
	}
	s := &station{handler: h, wake: make(chan struct{}, 1)}
	n.mu.nodes[id] = s
	n.group.Go("net", s.run)
}

// Isolate cuts or joins a member from all others.
func (n *Net) Isolate(id ident.MemberID, isolated bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.mu.nodes {
		n.mu.cut[[2]ident.MemberID{id, other}] = isolated
		n.mu.cut[[2]ident.MemberID{other, id}] = isolated
	}
}

// Cut cuts or joins one direction.
func (n *Net) Cut(from, to ident.MemberID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut[[2]ident.MemberID{from, to}] = cut
}

func (s *station) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		s.mu.Lock()
		queue := s.mu.queue
		s.mu.queue = nil
		s.mu.Unlock()
		for _, a := range queue {
			s.handler.Deliver(a.from, []transport.Frame{a.frame})
		}
	}
}

func (n *Net) station(from, to ident.MemberID) *station {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.cut[[2]ident.MemberID{from, to}] {
		return nil
	}
	return n.mu.nodes[to]
}

type port struct {
	net  *Net
	self ident.MemberID
}

// Send implements raftnode.Network.
func (p *port) Send(to ident.MemberID, f transport.Frame) {
	s := p.net.station(p.self, to)
	if s == nil {
		return
	}
	s.mu.Lock()
	s.mu.queue = append(s.mu.queue, arrival{from: p.self, frame: f})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SendSnapshot implements raftnode.Network.
func (p *port) SendSnapshot(to ident.MemberID, msg *raftpb.Message, src transport.SnapshotSource, done func(error)) {
	p.net.group.Go("snapshot", func(context.Context) error {
		s := p.net.station(p.self, to)
		if s == nil {
			done(transport.ErrUnreachable)
			return nil
		}
		var buf bytes.Buffer
		err := src.WriteTo(&buf, s.handler.Have())
		if err == nil {
			err = s.handler.ReceiveSnapshot(p.self, msg, &buf)
		}
		done(err)
		return nil
	})
}

package sim

import (
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
)

const (
	leaseTTLMin = 2 // Seconds, of package server at this election timeout.
	expiryTime  = 250 * millisecond
)

// lead tells the keeper whether this member leads, as package server does.
func (m *Member) lead() {
	if m.keeper == nil {
		return
	}
	if m.shown.Leader == m.id && m.shown.Role == raftnode.Leader {
		m.keeper.Lead(m.shown.Term)
	} else {
		m.keeper.Follow()
	}
}

// expireLeases proposes the end of leases that have run out.
func (m *Member) expireLeases() {
	m.live(m.clock.stretch(expiryTime), m.expireLeases)
	ids, term := m.keeper.Due()
	if len(ids) == 0 {
		return
	}
	c := &holdfastpb.LeaseExpire{Term: uint64(term)}
	for _, id := range ids {
		c.Ids = append(c.Ids, int64(id))
	}
	m.w.logf(m.id, "finds that leases %v have run out", ids)
	k := m.keeper
	m.propose(&holdfastpb.Command{Command: &holdfastpb.Command_LeaseExpire{LeaseExpire: c}}, func(_ any, err error) {
		if err != nil {
			k.Retry(ids)
		}
	})
}

// renew renews a lease for a client of this member: here, or at the leader.
// then hears the seconds that it has, 0 when there is no such lease.
func (m *Member) renew(id ident.LeaseID, then func(ttl int64, err error)) {
	switch leader := m.shown.Leader; leader {
	case m.id:
		m.renewHere(id, then)
	case 0:
		then(0, raftnode.ErrNoLeader)
	default:
		m.w.net.ask(m, leader, func(peer *Member, reply func(func())) {
			peer.renewHere(id, func(ttl int64, err error) { reply(func() { then(ttl, err) }) })
		})
	}
}

// renewHere renews on the leader, once a quorum has confirmed that it is that.
func (m *Member) renewHere(id ident.LeaseID, then func(ttl int64, err error)) {
	asked := m.clock.Mono()
	m.read(func() {
		if m.clock.Mono()-asked > durationOf(electionTime) { // Long ago a quorum followed.
			m.renewHere(id, then)
			return
		}
		if m.shown.Leader != m.id {
			then(0, raftnode.ErrNotLeader)
			return
		}
		ttl, gone, leading := m.keeper.Renew(id)
		switch {
		case !leading:
			then(0, raftnode.ErrNotLeader)
		case gone != nil:
			then(0, raftnode.ErrBusy) // It has run out, and will be taken away.
		default:
			if l := m.w.shadow.leases[int64(id)]; l != nil && ttl > 0 {
				handled := m.w.now
				then(ttl, nil)
				l.renewed = max(l.renewed, handled)
				return
			}
			then(ttl, nil)
		}
	})
}

package server_test

import (
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// muted is a listener that can keep what was accepted from saying anything.
type muted struct {
	net.Listener

	mu   sync.Mutex
	wait chan struct{} // Until it is closed nothing is written; nil: at once.
}

func (m *muted) Accept() (net.Conn, error) {
	conn, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &mutedConn{conn, m}, nil
}

func (m *muted) mute() (speak func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wait = make(chan struct{})
	return sync.OnceFunc(func() { close(m.wait) })
}

type mutedConn struct {
	net.Conn
	of *muted
}

func (c *mutedConn) Write(b []byte) (int, error) {
	c.of.mu.Lock()
	wait := c.of.wait
	c.of.mu.Unlock()
	if wait != nil {
		<-wait
	}
	return c.Conn.Write(b)
}

// A leader that has stopped answering is asked until its connection is given up,
// after five seconds or more: too long for a lease, when another leads already.
func TestARenewalDoesNotWaitForWhoLeadsNoMore(t *testing.T) {
	var took time.Duration
	for range 5 { // A machine that stands still for seconds makes it late by chance.
		if took = renewWhileLeadershipMoves(t); took <= 3*time.Second {
			return
		}
	}
	t.Errorf("renewed after %s, while another leads", took)
}

// renewWhileLeadershipMoves is how long after that somebody has the answer to a renewal
// which the leader before has taken and cannot answer.
func renewWhileLeadershipMoves(t *testing.T) time.Duration {
	t.Helper()
	doors := make([]*muted, 3)
	c := servertest.New(t, 3, func(i int, cfg *server.Config) {
		u, err := url.Parse(cfg.ListenPeerURLs[0])
		if err != nil {
			t.Fatal(err)
		}
		listen := cfg.Listen
		cfg.Listen = func(network, address string) (net.Listener, error) {
			l, err := listen(network, address)
			if err == nil && address == u.Host {
				doors[i] = &muted{Listener: l}
				return doors[i], nil
			}
			return l, err
		}
	})
	leader := c.Leader()
	var quiet *muted
	var others []*servertest.Member
	for i, m := range c.Members {
		if m == leader {
			quiet = doors[i]
		} else {
			others = append(others, m)
		}
	}
	id := grantLease(t, dial(t, others[0]))
	stream, err := pb.NewLeaseClient(dial(t, others[0])).LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.mute()()
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leader renews, and its answer is lost", func() bool {
		_, _, metrics := ask(t, "GET", leader.Config.ListenClientURLs[0]+"/metrics")
		return strings.Contains(metrics, "\netcd_debugging_lease_renewed_total 1\n")
	})
	succeed(t)(pb.NewMaintenanceClient(dial(t, leader)).MoveLeader(t.Context(), &pb.MoveLeaderRequest{TargetID: uint64(others[1].MemberID())}))
	began := time.Now()
	r, err := stream.Recv()
	took := time.Since(began)
	if err != nil || r.TTL <= 0 {
		t.Errorf("renewed after %s, while another leads: %v, %v", took, r, err)
	}
	return took
}

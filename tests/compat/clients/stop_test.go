package clients

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	electionpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// How long a process takes to end. The best of some tries counts, as a machine may
// do other things too.
const (
	endMax  = 1500 * time.Millisecond
	endsMax = 10
)

// stoppable is a cluster whose members are told to end while clients are at them.
type stoppable struct {
	*fixture
	what string
	best time.Duration
}

func newStoppable(t *testing.T, what string, args ...string) *stoppable {
	cluster := member.StartCluster(t, 3, args...)
	s := &stoppable{fixture: &fixture{T: t, Client: dial(t, cluster), cluster: cluster, prefix: "h/"}, what: what, best: patience}
	for i := range 100 { // More than a stream holds that nobody reads.
		s.put(fmt.Sprint("large/", i), strings.Repeat("x", 100<<10))
	}
	return s
}

func (s *stoppable) status(endpoint string) *clientv3.StatusResponse {
	return must[*clientv3.StatusResponse](s.fixture)(s.Client.Status(s.ctx(), endpoint))
}

// leader is the index of who leads.
func (s *stoppable) leader() int {
	endpoints := s.cluster.Endpoints()
	i := -1
	s.eventually("somebody leads", func() bool {
		i = slices.IndexFunc(endpoints, func(e string) bool {
			st, err := s.Client.Status(s.ctx(), e)
			return err == nil && st.Leader == st.Header.MemberId
		})
		return i >= 0
	})
	return i
}

// busy has a client open streams of all kinds at one member. Two are not read.
func (s *stoppable) busy(endpoint string) (ctx context.Context, alone *fixture) {
	s.T.Helper()
	ctx, cancel := context.WithCancel(s.T.Context())
	s.T.Cleanup(cancel)
	f := &fixture{T: s.T, Client: dial(s.T, s.cluster, endpoint), cluster: s.cluster, prefix: s.prefix}
	f.next(f.Client.Watch(ctx, f.key("a"), clientv3.WithCreatedNotify()))
	lease := must[*clientv3.LeaseGrantResponse](f)(f.Client.Grant(f.ctx(), 60))
	<-must[<-chan *clientv3.LeaseKeepAliveResponse](f)(f.Client.KeepAlive(ctx, lease.ID))
	elections := electionpb.NewElectionClient(f.ActiveConnection())
	name := []byte(f.key(fmt.Sprint("election", lease.ID)))
	must[*electionpb.CampaignResponse](f)(elections.Campaign(f.ctx(), &electionpb.CampaignRequest{Name: name, Lease: int64(lease.ID)}))
	observed, err := elections.Observe(ctx, &electionpb.LeaderRequest{Name: name})
	if err == nil {
		_, err = observed.Recv()
	}
	if err != nil {
		s.T.Fatal(err)
	}
	must[clientv3.GetStreamChan](f)(f.Client.GetStream(ctx, f.key("large/"), clientv3.WithPrefix()))
	file, err := f.Client.Snapshot(ctx)
	if err == nil {
		_, err = file.Read(make([]byte, 1))
	}
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = file.Close() })
	return ctx, f
}

// stop tells one to end, and reports whether that went quickly enough at last.
func (s *stoppable) stop(i int) bool {
	start := time.Now()
	s.cluster.Members[i].Stop()
	s.best = min(s.best, time.Since(start))
	s.T.Logf("%s ended after %v", s.what, time.Since(start))
	return s.best <= endMax
}

func (s *stoppable) tooSlow() {
	s.T.Errorf("the best of %d tries to end %s took %v", endsMax, s.what, s.best)
}

// A leader that is told to end hands over first, and waits for none of its clients.
func TestALeaderThatIsToldToEndHandsOver(t *testing.T) {
	t.Parallel()
	s := newStoppable(t, "a leader", member.SlowElections) // Nobody else is elected meanwhile.
	for range endsMax {
		i := s.leader()
		endpoints := s.cluster.Endpoints()
		before := s.status(endpoints[i])
		s.busy(endpoints[i])
		quick := s.stop(i)
		other := endpoints[(i+1)%len(endpoints)]
		s.eventually("another leads", func() bool {
			st, err := s.Client.Status(s.ctx(), other)
			return err == nil && st.Leader != 0 && st.Leader != before.Leader
		})
		s.want("term", s.status(other).RaftTerm, before.RaftTerm+1)
		if quick {
			return
		}
		s.cluster.Members[i].Start()
	}
	s.tooSlow()
}

// A member that has lost its quorum can hand over to nobody, and answers neither the
// write nor the read that wait for one.
func TestAMemberWithoutAQuorumThatIsToldToEndDoes(t *testing.T) {
	t.Parallel()
	s := newStoppable(t, "a member without a quorum")
	for try := range endsMax {
		i := s.leader()
		if try%2 == 1 {
			i = (i + 1) % 3
		}
		ctx, alone := s.busy(s.cluster.Endpoints()[i])
		s.cluster.Members[(i+1)%3].Kill()
		s.cluster.Members[(i+2)%3].Kill()
		go func() { _, _ = alone.Client.Put(ctx, "k", "v") }() // Neither has an answer.
		go func() { _, _ = alone.Client.Get(ctx, "k") }()
		if s.stop(i) && try > 0 { // Once as the leader that was, once as a follower.
			return
		}
		for _, m := range s.cluster.Members {
			m.Spawn()
		}
		for _, m := range s.cluster.Members {
			m.WaitReady()
		}
	}
	s.tooSlow()
}

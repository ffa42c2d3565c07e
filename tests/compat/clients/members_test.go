package clients

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func TestMembersComeAsLearnersArePromotedUpdatedAndLeave(t *testing.T) {
	t.Parallel()
	began := time.Now()
	cluster := member.StartCluster(t, 3)
	f := &fixture{T: t, Client: dial(t, cluster), cluster: cluster, prefix: "m/"}
	f.put("a", "1")

	ports := member.FreePorts(t, 2)
	fourth := member.New(t, member.Config{
		Name: "m4", Scheme: "https", Args: cluster.Certs.Flags(), Existing: true, ClientPort: ports[0], PeerPort: ports[1],
		InitialCluster: initial(cluster, "m4=https://127.0.0.1:"+strconv.Itoa(ports[1])),
	})
	added, err := f.Client.MemberAddAsLearner(f.ctx(), []string{"https://" + fourth.Peer})
	if err != nil || time.Since(began) < metMin { // A busy machine may need longer to come here.
		f.wantError("right after the start", err, "etcdserver: unhealthy cluster")
		f.eventually("a learner is added", func() bool {
			added, err = f.Client.MemberAddAsLearner(f.ctx(), []string{"https://" + fourth.Peer})
			return err == nil
		})
	}
	f.want("all", len(added.Members), 4)
	f.want("a learner", added.Member.IsLearner && added.Member.Name == "", true)
	f.refused("two learners", "too many learner members in cluster", func() error {
		_, err := f.Client.MemberAddAsLearner(f.ctx(), []string{"https://127.0.0.1:1"})
		return err
	})
	f.refused("a URL twice", "Peer URLs already exists", func() error {
		_, err := f.Client.MemberAdd(f.ctx(), []string{"https://127.0.0.1:1", "https://" + fourth.Peer})
		return err
	})
	_, err = f.Client.MemberPromote(f.ctx(), added.Member.ID)
	f.wantError("not started", err, "can only promote a learner member which is in sync with leader")

	fourth.Start()
	alone := dial(t, cluster, "https://"+fourth.Client)
	f.eventually("the learner has the keys", func() bool {
		r, err := alone.Get(f.ctx(), f.key("a"), clientv3.WithSerializable())
		return err == nil && r.Count == 1
	})
	st := must[*clientv3.StatusResponse](f)(alone.Status(f.ctx(), "https://"+fourth.Client))
	f.want("a learner", st.IsLearner, true)
	f.eventually("promoted", func() bool {
		_, err := f.Client.MemberPromote(f.ctx(), added.Member.ID)
		return err == nil
	})
	f.eventually("it takes writes", func() bool {
		_, err := alone.Put(f.ctx(), f.key("b"), "2")
		return err == nil
	})
	f.want("a voter", must[*clientv3.StatusResponse](f)(alone.Status(f.ctx(), "https://"+fourth.Client)).IsLearner, false)

	other := "https://localhost:" + strconv.Itoa(ports[1])
	updated := must[*clientv3.MemberUpdateResponse](f)(f.Client.MemberUpdate(f.ctx(), added.Member.ID, []string{other}))
	at := slices.IndexFunc(updated.Members, func(m *pb.Member) bool { return m.ID == added.Member.ID })
	f.want("updated", updated.Members[at].PeerURLs, []string{other})

	removed := must[*clientv3.MemberRemoveResponse](f)(f.Client.MemberRemove(f.ctx(), added.Member.ID))
	f.want("left", len(removed.Members), 3)
	select {
	case <-fourth.Exited():
	case <-time.After(goneMax):
		t.Error("a member that was removed runs on")
	}
	_, err = f.Client.MemberRemove(f.ctx(), added.Member.ID)
	f.wantError("again", err, "etcdserver: member not found")
	f.want("keys", f.pairs(f.get("", clientv3.WithPrefix())), "a=1 b=2")
}

// refused wants an error, from a member that thinks the cluster healthy: each
// finds that out for itself.
func (f *fixture) refused(what, words string, call func() error) {
	f.T.Helper()
	var err error
	f.eventually(what, func() bool {
		err = call()
		return err == nil || !strings.Contains(err.Error(), "unhealthy cluster")
	})
	f.wantError(what, err, words)
}

func initial(c *member.Cluster, more string) string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Name+"=https://"+m.Peer)
	}
	return strings.Join(append(all, more), ",")
}

func TestTheLeaderIsMoved(t *testing.T) {
	t.Parallel()
	cluster := member.StartCluster(t, 3, member.SlowElections)
	f := &fixture{T: t, Client: dial(t, cluster), cluster: cluster}
	endpoints := f.Client.Endpoints()
	before := must[*clientv3.StatusResponse](f)(f.Client.Status(f.ctx(), endpoints[0]))
	var leader, follower string
	var target uint64
	for _, e := range endpoints {
		st := must[*clientv3.StatusResponse](f)(f.Client.Status(f.ctx(), e))
		if st.Header.MemberId == before.Leader {
			leader = e
		} else {
			follower, target = e, st.Header.MemberId
		}
	}
	_, err := dial(t, cluster, follower).MoveLeader(f.ctx(), target)
	f.wantError("asked of a follower", err, "etcdserver: not leader")
	_, err = dial(t, cluster, leader).MoveLeader(f.ctx(), 12345)
	f.wantError("to nobody", err, "etcdserver: bad leader transferee")
	must[*clientv3.MoveLeaderResponse](f)(dial(t, cluster, leader).MoveLeader(f.ctx(), target))
	for _, e := range endpoints {
		f.eventually(e+" knows the new leader", func() bool {
			return must[*clientv3.StatusResponse](f)(f.Client.Status(f.ctx(), e)).Leader == target
		})
	}
	after := must[*clientv3.StatusResponse](f)(f.Client.Status(f.ctx(), endpoints[0]))
	f.want("term", after.RaftTerm, before.RaftTerm+1)
}

// metMin is how long members must have been in touch to count as healthy.
const metMin = 5 * time.Second

// goneMax is for a busy machine: a removed member ends an election timeout after it
// has heard, which raftnode and server show without a clock.
const goneMax = patience

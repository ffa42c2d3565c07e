package clients

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	electionpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lockpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

func serverLocks(f *fixture) {
	c := lockpb.NewLockClient(f.ActiveConnection())
	name := []byte(f.key("lock"))
	first := must[*lockpb.LockResponse](f)(c.Lock(f.ctx(), &lockpb.LockRequest{Name: name}))
	f.want("keys of the lock", f.get("lock/", clientv3.WithPrefix()).Count, 1)
	second := make(chan error, 1)
	go func() {
		r, err := c.Lock(f.ctx(), &lockpb.LockRequest{Name: name, Lease: int64(f.session().Lease())})
		if err == nil {
			_, err = c.Unlock(f.ctx(), &lockpb.UnlockRequest{Key: r.Key})
		}
		second <- err
	}()
	f.eventually("a second one waits", func() bool { return f.get("lock/", clientv3.WithPrefix()).Count == 2 })
	must[*lockpb.UnlockResponse](f)(c.Unlock(f.ctx(), &lockpb.UnlockRequest{Key: first.Key}))
	if err := <-second; err != nil {
		f.T.Error(err)
	}
	f.want("keys of the lock", f.get("lock/", clientv3.WithPrefix()).Count, 0)
}

func serverElections(f *fixture) {
	c := electionpb.NewElectionClient(f.ActiveConnection())
	name := []byte(f.key("election"))
	_, err := c.Leader(f.ctx(), &electionpb.LeaderRequest{Name: name})
	f.wantError("nobody leads", err, "election: no leader")
	ctx, cancel := context.WithCancel(f.ctx())
	defer cancel()
	seen, err := c.Observe(ctx, &electionpb.LeaderRequest{Name: name})
	if err != nil {
		f.T.Fatal(err)
	}
	see := func(want string) {
		f.T.Helper()
		r, err := seen.Recv()
		if err != nil || string(r.Kv.Value) != want {
			f.T.Errorf("observed %v, %v, want %s", r, err, want)
		}
	}
	won := must[*electionpb.CampaignResponse](f)(c.Campaign(f.ctx(), &electionpb.CampaignRequest{Name: name, Value: []byte("one")}))
	see("one")
	must[*electionpb.ProclaimResponse](f)(c.Proclaim(f.ctx(), &electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("two")}))
	see("two")
	leader := must[*electionpb.LeaderResponse](f)(c.Leader(f.ctx(), &electionpb.LeaderRequest{Name: name}))
	f.want("leader", string(leader.Kv.Value), "two")
	must[*electionpb.ResignResponse](f)(c.Resign(f.ctx(), &electionpb.ResignRequest{Leader: won.Leader}))
	_, err = c.Resign(f.ctx(), &electionpb.ResignRequest{})
	f.wantError("no proof", err, `"leader" field must be provided`)
	// A leader of etcd's own recipe is one for the service, and the other way round.
	f.put(fmt.Sprintf("election/%x", f.session().Lease()), "three")
	see("three")
}

func rangeStream(f *fixture) {
	value := strings.Repeat("v", 100<<10)
	for i := range 20 {
		f.put(fmt.Sprintf("part/%02d", i), value)
	}
	parts := must[clientv3.GetStreamChan](f)(f.Client.GetStream(f.ctx(), f.key("part/"), clientv3.WithPrefix()))
	got := must[*clientv3.GetResponse](f)(clientv3.GetStreamToGetResponse(parts))
	want := f.get("part/", clientv3.WithPrefix())
	f.want("keys", f.pairs(got), f.pairs(want))
	f.want("count", got.Count, want.Count)
	f.want("revision", got.Header.Revision, want.Header.Revision)
}

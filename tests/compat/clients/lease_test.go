package clients

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func leases(f *fixture) {
	given := must[*clientv3.LeaseGrantResponse](f)(f.Client.Grant(f.ctx(), 600))
	f.put("b", "1", clientv3.WithLease(given.ID))
	f.put("a", "1", clientv3.WithLease(given.ID))
	f.put("free", "1", clientv3.WithLease(given.ID))
	now := f.put("free", "2").Header.Revision

	ttl := must[*clientv3.LeaseTimeToLiveResponse](f)(f.Client.TimeToLive(f.ctx(), given.ID, clientv3.WithAttachedKeys()))
	f.want("granted", ttl.GrantedTTL, 600)
	f.want("remaining", ttl.TTL > 500 && ttl.TTL <= 600, true)
	var keys []string
	for _, k := range ttl.Keys {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	f.want("keys", keys, []string{f.key("a"), f.key("b")})
	all := must[*clientv3.LeaseLeasesResponse](f)(f.Client.Leases(f.ctx()))
	f.want("listed", slices.Contains(all.Leases, clientv3.LeaseStatus{ID: given.ID}), true)

	ch, cancel := f.watch("", clientv3.WithPrefix(), clientv3.WithRev(now+1))
	defer cancel()
	must[*clientv3.LeaseRevokeResponse](f)(f.Client.Revoke(f.ctx(), given.ID))
	f.want("keys go in order", f.take(ch, 2), "delete a= delete b=")
	f.want("the free one stays", f.pairs(f.get("", clientv3.WithPrefix())), "free=2")
	_, err := f.Client.Revoke(f.ctx(), given.ID)
	f.wantError("again", err, "requested lease not found")
	_, err = f.Client.Put(f.ctx(), f.key("x"), "", clientv3.WithLease(given.ID))
	f.wantError("put on it", err, "requested lease not found")
	f.want("no effect", f.get("x").Count, 0)
	ttl = must[*clientv3.LeaseTimeToLiveResponse](f)(f.Client.TimeToLive(f.ctx(), given.ID))
	f.want("remaining of none", ttl.TTL, -1)
	_, err = f.Client.KeepAliveOnce(f.ctx(), given.ID)
	f.wantError("keep alive", err, "requested lease not found")
}

// heldTTL is of leases that end within a test, but not before they have their keys
// where a busy machine holds somebody up for seconds.
const heldTTL = 5 // The least that there is with slow elections.

func keepAlive(f *fixture) {
	short := must[*clientv3.LeaseGrantResponse](f)(f.Client.Grant(f.ctx(), heldTTL))
	kept := must[*clientv3.LeaseGrantResponse](f)(f.Client.Grant(f.ctx(), heldTTL))
	ctx, cancel := context.WithCancel(f.ctx())
	defer cancel()
	alive := must[<-chan *clientv3.LeaseKeepAliveResponse](f)(f.Client.KeepAlive(ctx, kept.ID))
	f.put("short", "1", clientv3.WithLease(short.ID))
	now := f.put("kept", "1", clientv3.WithLease(kept.ID)).Header.Revision
	once := must[*clientv3.LeaseKeepAliveResponse](f)(f.Client.KeepAliveOnce(f.ctx(), short.ID))
	f.want("renewed for", once.TTL, heldTTL)

	start := time.Now()
	ch, cancelWatch := f.watch("", clientv3.WithPrefix(), clientv3.WithRev(now+1))
	defer cancelWatch()
	f.want("expired", f.take(ch, 1), "delete short=")
	if took := time.Since(start); took < time.Second {
		f.T.Errorf("expired after %v", took)
	}
	f.want("kept", f.pairs(f.get("", clientv3.WithPrefix())), "kept=1")
	f.want("told of it", (<-alive).ID, kept.ID)
	cancel()
	f.want("expired too", f.take(ch, 1), "delete kept=")
}

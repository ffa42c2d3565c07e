package linear

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

// leases: granted, used, kept alive for a while, then let go or revoked.
func leases(*run) work {
	step := func(ctx context.Context, c *client) {
		grant := &pb.LeaseGrantRequest{TTL: 1 + c.rng.Int63n(4)}
		if c.rng.Intn(2) == 0 {
			grant.ID = int64(c.id)<<32 | c.rng.Int63n(1<<20) + 1
		}
		res, err := c.do(ctx, grant)
		if err != nil {
			return
		}
		lease := res.(*pb.LeaseGrantResponse)
		for i := range 1 + c.rng.Intn(3) {
			c.do(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "lease/%d/%d", c.id, i), Value: c.value(), Lease: lease.ID})
		}
		for range c.rng.Intn(25) {
			switch c.rng.Intn(8) {
			case 0:
				c.do(ctx, &pb.LeaseTimeToLiveRequest{ID: lease.ID, Keys: c.rng.Intn(2) == 0})
			case 1:
				c.do(ctx, below("lease/"))
			case 2:
				c.do(ctx, &pb.LeaseKeepAliveRequest{ID: lease.ID})
			default:
				c.do(ctx, get(fmt.Sprintf("lease/%d/%d", c.rng.Intn(clientsMax), c.rng.Intn(3))))
			}
			if ctx.Err() != nil {
				return
			}
			sleep(ctx, time.Duration(c.rng.Int63n(lease.TTL*40))*time.Millisecond)
		}
		switch c.rng.Intn(4) {
		case 0:
			c.do(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
		case 1: // The key outlives it.
			c.do(ctx, put(fmt.Sprintf("lease/%d/0", c.id), c.value()))
		}
	}
	return work{prefix: "lease/", step: step}
}

// locks: whoever creates the key holds the lock as long as the lease lives.
// What holders do is fenced by the revision at which the key was made: the
// counter tells whether fences ever went back.
func locks(r *run) work {
	step := func(ctx context.Context, c *client) {
		res, err := c.do(ctx, &pb.LeaseGrantRequest{TTL: 2})
		if err != nil {
			return
		}
		lease := res.(*pb.LeaseGrantResponse).ID
		defer c.do(ctx, &pb.LeaseRevokeRequest{ID: lease})
		for range 20 {
			name := fmt.Sprint(c.rng.Intn(locksMax))
			key := "lock/key/" + name
			res, err := c.do(ctx, &pb.TxnRequest{
				Compare: []*pb.Compare{ifCreated(key, 0)},
				Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: []byte(key), Value: c.value(), Lease: lease})},
				Failure: []*pb.RequestOp{opGet(get(key))},
			})
			if err != nil || ctx.Err() != nil {
				return
			}
			if t := res.(*pb.TxnResponse); t.Succeeded {
				r.rec.hold(check.Hold{Client: c.id, Prefix: key, Token: t.Header.Revision})
				hold(ctx, c, key, counterPrefix+name, lease, t.Header.Revision)
				return
			}
			sleep(ctx, time.Duration(5+c.rng.Intn(30))*time.Millisecond)
		}
	}
	finish := func() {
		last := map[string]int64{}
		for _, e := range r.shadow.log() {
			key := string(e.Kv.Key)
			if !strings.HasPrefix(key, counterPrefix) || e.Type != mvccpb.Event_PUT {
				continue
			}
			fence := int64(0)
			if _, err := fmt.Sscanf(string(e.Kv.Value), "%d", &fence); err != nil || fence < last[key] {
				r.rec.violate("at revision %d the holder of fence %q wrote after that of fence %d", e.Kv.ModRevision, e.Kv.Value, last[key])
			}
			last[key] = fence
		}
	}
	return work{prefix: "lock/", step: step, finish: finish}
}

const (
	locksMax      = 4
	counterPrefix = "lock/counter/"
)

// hold writes as long as the lock is held, and sometimes tries after the lease
// must have run out.
func hold(ctx context.Context, c *client, key, counter string, lease, fence int64) {
	for range 1 + c.rng.Intn(8) {
		_, err := c.do(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{ifCreated(key, fence)},
			Success: []*pb.RequestOp{opPut(put(counter, fmt.Appendf(nil, "%d %s", fence, c.value())))},
			Failure: []*pb.RequestOp{opGet(get(key)), opGet(get(counter))},
		})
		if err != nil {
			return
		}
		if c.rng.Intn(3) == 0 {
			c.do(ctx, &pb.LeaseKeepAliveRequest{ID: lease})
		}
		pause := time.Duration(c.rng.Intn(30)) * time.Millisecond
		if c.rng.Intn(30) == 0 {
			pause = 3 * time.Second
		}
		sleep(ctx, pause)
	}
	if c.rng.Intn(2) == 0 {
		c.do(ctx, &pb.TxnRequest{Compare: []*pb.Compare{ifCreated(key, fence)}, Success: []*pb.RequestOp{opDelete(key)}})
	}
}

// kube: objects that are listed in pages at one revision, watched from there,
// and changed only by those who have seen their last state. Mirrors follow as
// the caches of control planes do and must end up with what is stored.
func kube(r *run) work {
	step := func(ctx context.Context, c *client) {
		key := fmt.Sprintf("kube/pods/ns%d/pod%02d", c.rng.Intn(3), c.rng.Intn(8))
		switch c.rng.Intn(6) {
		case 0:
			listInPages(ctx, c)
		case 1:
			r := get(key)
			r.Serializable = c.rng.Intn(2) == 0
			c.do(ctx, r)
		default:
			guardedUpdate(ctx, c, key)
		}
	}
	var mirrors []*mirror
	follow := func() []follower {
		var list []follower
		for i := range 2 {
			m := &mirror{kvs: map[string]*mvccpb.KeyValue{}}
			mirrors = append(mirrors, m)
			req := &pb.WatchCreateRequest{Key: []byte("kube/"), RangeEnd: prefixEnd("kube/"), StartRevision: 1, PrevKv: true, ProgressNotify: true}
			list = append(list, follower{name: fmt.Sprintf("mirror %d", i), req: req, each: m.take})
		}
		return list
	}
	finish := func() {
		for i, m := range mirrors {
			if !m.whole() {
				continue // Compacted under it; a control plane would list again.
			}
			m.compare(r, i)
		}
	}
	return work{prefix: "kube/", step: step, finish: finish, follow: follow}
}

func guardedUpdate(ctx context.Context, c *client, key string) {
	res, err := c.do(ctx, get(key))
	if err != nil {
		return
	}
	kv := &mvccpb.KeyValue{}
	if kvs := res.(*pb.RangeResponse).Kvs; len(kvs) > 0 {
		kv = kvs[0]
	}
	change := opPut(put(key, c.value()))
	if kv.ModRevision > 0 && c.rng.Intn(4) == 0 {
		change = opDelete(key)
	}
	c.do(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{ifModified(key, kv.ModRevision)},
		Success: []*pb.RequestOp{change},
		Failure: []*pb.RequestOp{opGet(get(key))},
	})
}

func listInPages(ctx context.Context, c *client) {
	r := below("kube/pods/")
	for range 10 {
		r.Limit = 1 + c.rng.Int63n(6)
		res, err := c.do(ctx, r)
		if err != nil {
			return
		}
		page := res.(*pb.RangeResponse)
		if r.Revision == 0 {
			r.Revision = page.Header.Revision
		}
		if !page.More {
			return
		}
		r.Key = append(slices.Clone(page.Kvs[len(page.Kvs)-1].Key), 0)
	}
}

// mirror is a cache that a watch keeps.
type mirror struct {
	mu    sync.Mutex
	kvs   map[string]*mvccpb.KeyValue
	at    int64
	begun bool
	holed bool
}

func (m *mirror) take(res *pb.WatchResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun = true
	if res.CompactRevision > 0 {
		m.holed = true
	}
	for _, e := range res.Events {
		if e.Type == mvccpb.Event_DELETE {
			delete(m.kvs, string(e.Kv.Key))
		} else {
			m.kvs[string(e.Kv.Key)] = e.Kv
		}
		m.at = e.Kv.ModRevision
	}
}

func (m *mirror) whole() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.begun && !m.holed
}

func (m *mirror) compare(r *run, i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := r.shadow.state(m.at)
	for key, kv := range want {
		if strings.HasPrefix(key, "kube/") && !proto.Equal(kv, m.kvs[key]) {
			r.rec.violate("mirror %d at revision %d holds %v, stored is %v", i, m.at, m.kvs[key], kv)
		}
	}
	for key, kv := range m.kvs {
		if want[key] == nil {
			r.rec.violate("mirror %d at revision %d holds %v, which is gone", i, m.at, kv)
		}
	}
}

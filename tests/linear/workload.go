package linear

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// work is what clients do in a run. The checkers judge all of it by its
// requests and answers; what a workload promises beyond, such as that no money
// is lost, it looks at itself.
type work struct {
	prefix string // Of its keys, for watchers.
	setup  func(ctx context.Context, c *client) error
	step   func(ctx context.Context, c *client)
	finish func()
	follow func() []follower // Watchers of its own.
}

// follower is a watcher that a workload wants.
type follower struct {
	name string
	req  *pb.WatchCreateRequest
	each func(*pb.WatchResponse)
}

// workloads by name. A run has one, or several (mixed).
var workloads = map[string]func(r *run) work{
	"register":     registers,
	"bank":         bank,
	"append":       appendLists,
	"set":          sets,
	"watch":        watches,
	"lease":        leases,
	"lock":         locks,
	"kube":         kube,
	"serializable": serializable,
	"users":        users,
	"mixed":        mixed,
}

// registers: few keys, everybody compares and sets.
func registers(*run) work {
	step := func(ctx context.Context, c *client) {
		key := fmt.Sprintf("register/%d", c.rng.Intn(5))
		switch c.rng.Intn(10) {
		case 0, 1:
			c.do(ctx, put(key, c.value()))
		case 2:
			c.do(ctx, &pb.PutRequest{Key: []byte(key), Value: c.value(), PrevKv: true})
		case 3:
			c.do(ctx, &pb.DeleteRangeRequest{Key: []byte(key), PrevKv: c.rng.Intn(2) == 0})
		case 4, 5:
			c.do(ctx, get(key))
		case 6:
			r := get(key)
			r.Serializable = true
			c.do(ctx, r)
		default:
			compareAndSet(ctx, c, key)
		}
	}
	return work{prefix: "register/", step: step}
}

// compareAndSet reads a key and writes it if nothing has come between. What it
// compares is drawn.
func compareAndSet(ctx context.Context, c *client, key string) {
	res, err := c.do(ctx, get(key))
	if err != nil {
		return
	}
	kv := &mvccpb.KeyValue{}
	if kvs := res.(*pb.RangeResponse).Kvs; len(kvs) > 0 {
		kv = kvs[0]
	}
	var cmp *pb.Compare
	switch pick := c.rng.Intn(4); {
	case pick == 0 && kv.Version > 0:
		cmp = ifValue(key, kv.Value)
	case pick == 1:
		cmp = ifVersion(key, kv.Version)
	case pick == 2:
		cmp = ifCreated(key, kv.CreateRevision)
	default:
		cmp = ifModified(key, kv.ModRevision)
	}
	c.do(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{cmp},
		Success: []*pb.RequestOp{opPut(put(key, c.value()))},
		Failure: []*pb.RequestOp{opGet(get(key))},
	})
}

const (
	accounts = 5
	balance  = 100
)

func account(i int) string { return fmt.Sprintf("bank/%d", i) }

// bank: money moves between accounts; no reader ever sees any of it missing.
func bank(r *run) work {
	audit := func(what string, kvs []*mvccpb.KeyValue) (balances []int) {
		sum := 0
		for _, kv := range kvs {
			n, err := strconv.Atoi(strings.Split(string(kv.Value), " ")[0])
			if err != nil {
				r.rec.violate("%s: account %s holds %q", what, kv.Key, kv.Value)
			}
			sum += n
			balances = append(balances, n)
		}
		if len(kvs) > 0 && (sum != accounts*balance || len(kvs) != accounts) {
			r.rec.violate("%s: %d accounts hold %d in all", what, len(kvs), sum)
		}
		return balances
	}
	setup := func(ctx context.Context, c *client) error {
		txn := &pb.TxnRequest{Compare: []*pb.Compare{ifModified(account(0), 0)}}
		for i := range accounts {
			txn.Success = append(txn.Success, opPut(put(account(i), fmt.Appendf(nil, "%d %s", balance, c.value()))))
		}
		_, err := c.do(ctx, txn)
		return err
	}
	step := func(ctx context.Context, c *client) {
		read := below("bank/")
		read.Serializable = c.rng.Intn(5) == 0
		res, err := c.do(ctx, read)
		if err != nil {
			return
		}
		kvs := res.(*pb.RangeResponse).Kvs
		balances := audit("a read", kvs)
		if c.rng.Intn(3) == 0 || len(balances) != accounts {
			read.Revision = max(1, res.(*pb.RangeResponse).Header.Revision-c.rng.Int63n(30))
			if res, err := c.do(ctx, read); err == nil {
				audit("a read of the past", res.(*pb.RangeResponse).Kvs)
			}
			return
		}
		from, to, much := c.rng.Intn(accounts), c.rng.Intn(accounts), c.rng.Intn(10)
		if from == to || balances[from] < much {
			return
		}
		set := func(i, n int) *pb.RequestOp {
			return opPut(put(account(i), fmt.Appendf(nil, "%d %s", n, c.value())))
		}
		res, err = c.do(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{ifModified(account(from), kvs[from].ModRevision), ifModified(account(to), kvs[to].ModRevision)},
			Success: []*pb.RequestOp{set(from, balances[from]-much), set(to, balances[to]+much), opGet(below("bank/"))},
			Failure: []*pb.RequestOp{opGet(below("bank/"))},
		})
		if err == nil {
			for _, op := range res.(*pb.TxnResponse).Responses {
				if seen := op.GetResponseRange(); seen != nil {
					audit("a read in a transfer", seen.Kvs)
				}
			}
		}
	}
	return work{prefix: "bank/", setup: setup, step: step}
}

// appendLists: lists that only grow. What was read at any time begins what is
// read later.
func appendLists(r *run) work {
	var mu sync.Mutex
	longest := map[string][]byte{}
	saw := func(kv *mvccpb.KeyValue) {
		mu.Lock()
		defer mu.Unlock()
		key, had := string(kv.Key), longest[string(kv.Key)]
		short, long := had, kv.Value
		if len(short) > len(long) {
			short, long = long, short
		}
		if !bytes.HasPrefix(long, short) {
			r.rec.violate("list %s was read as %q and as %q", key, had, kv.Value)
		}
		longest[key] = long
	}
	step := func(ctx context.Context, c *client) {
		keys := []string{fmt.Sprintf("append/%d", c.rng.Intn(4)), fmt.Sprintf("append/%d", 4+c.rng.Intn(4))}
		read := &pb.TxnRequest{Success: []*pb.RequestOp{opGet(get(keys[0])), opGet(get(keys[1]))}}
		for _, op := range read.Success {
			op.GetRequestRange().Serializable = c.rng.Intn(4) == 0
		}
		res, err := c.do(ctx, read)
		if err != nil {
			return
		}
		txn := &pb.TxnRequest{}
		for i, op := range res.(*pb.TxnResponse).Responses {
			kv := &mvccpb.KeyValue{Key: []byte(keys[i])}
			if kvs := op.GetResponseRange().Kvs; len(kvs) > 0 {
				kv = kvs[0]
			}
			saw(kv)
			if len(kv.Value) < listBytesMax && (i == 0 || c.rng.Intn(2) == 0) {
				txn.Compare = append(txn.Compare, ifModified(keys[i], kv.ModRevision))
				longer := append(bytes.Clone(kv.Value), append(c.value(), ' ')...)
				txn.Success = append(txn.Success, opPut(put(keys[i], longer)))
			}
		}
		if len(txn.Success) > 0 && c.rng.Intn(4) > 0 {
			c.do(ctx, txn)
		}
	}
	return work{prefix: "append/", step: step}
}

const listBytesMax = 2000 // A list that has grown so far stays.

// sets: keys that are written once, listed in all ways, and removed by range.
func sets(*run) work {
	step := func(ctx context.Context, c *client) {
		switch c.rng.Intn(12) {
		case 0:
			c.do(ctx, &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "set/%d/", c.id), RangeEnd: fmt.Appendf(nil, "set/%d0", c.id), PrevKv: c.rng.Intn(2) == 0})
		case 1, 2, 3:
			r := below("set/")
			r.Limit = c.rng.Int63n(20)
			r.SortOrder = pb.RangeRequest_SortOrder(c.rng.Intn(3))
			r.SortTarget = pb.RangeRequest_SortTarget(c.rng.Intn(5))
			r.CountOnly, r.KeysOnly = c.rng.Intn(4) == 0, c.rng.Intn(4) == 0
			r.Serializable = c.rng.Intn(4) == 0
			if c.rng.Intn(3) == 0 {
				head := c.run.shadow.at()
				r.MinModRevision, r.MaxCreateRevision = max(0, head-c.rng.Int63n(100)), head
			}
			c.do(ctx, r)
		case 4:
			var ops []*pb.RequestOp
			for range 1 + c.rng.Intn(5) {
				v := c.value()
				ops = append(ops, opPut(put(fmt.Sprintf("set/%d/%s", c.id, v), v)))
			}
			c.do(ctx, &pb.TxnRequest{Success: ops})
		default:
			v := c.value()
			c.do(ctx, put(fmt.Sprintf("set/%d/%s", c.id, v), v))
		}
	}
	return work{prefix: "set/", step: step}
}

// watches: much changes at once, large and small, and many watch.
func watches(r *run) work {
	step := func(ctx context.Context, c *client) {
		key := fmt.Sprintf("watch/%d", c.rng.Intn(20))
		switch c.rng.Intn(8) {
		case 0:
			var ops []*pb.RequestOp
			for i := range 10 {
				ops = append(ops, opPut(put(fmt.Sprintf("watch/%d", (c.rng.Intn(2)*10)+i), c.value())))
			}
			c.do(ctx, &pb.TxnRequest{Success: dedup(ops)})
		case 1, 2:
			c.do(ctx, &pb.DeleteRangeRequest{Key: []byte(key)})
		case 3:
			c.do(ctx, put(key, append(c.value(), bytes.Repeat([]byte("."), c.rng.Intn(20_000))...)))
		case 4:
			c.do(ctx, &pb.DeleteRangeRequest{Key: []byte("watch/1"), RangeEnd: []byte("watch/2")})
		default:
			c.do(ctx, put(key, c.value()))
		}
	}
	follow := func() []follower {
		var all []follower
		for i := range 6 {
			all = append(all, follower{name: fmt.Sprintf("watch %d", i), req: nil})
		}
		return all
	}
	return work{prefix: "watch/", step: step, follow: follow}
}

// dedup keeps the first put of each key: two in one transaction are refused.
func dedup(ops []*pb.RequestOp) []*pb.RequestOp {
	seen := map[string]bool{}
	var out []*pb.RequestOp
	for _, op := range ops {
		if key := string(op.GetRequestPut().Key); !seen[key] {
			seen[key] = true
			out = append(out, op)
		}
	}
	return out
}

// serializable: each client stays with one member and reads what that has,
// while it writes anywhere.
func serializable(*run) work {
	step := func(ctx context.Context, c *client) {
		key := fmt.Sprintf("serial/%d", c.rng.Intn(8))
		own := c.id % len(c.wires)
		switch c.rng.Intn(4) {
		case 0:
			c.do(ctx, put(key, c.value()))
		case 1:
			c.at(ctx, own, &pb.TxnRequest{
				Compare: []*pb.Compare{ifModified(key, 0)},
				Success: []*pb.RequestOp{opGet(&pb.RangeRequest{Key: []byte(key), Serializable: true})},
				Failure: []*pb.RequestOp{opGet(&pb.RangeRequest{Key: []byte("serial/"), RangeEnd: prefixEnd("serial/"), Serializable: true})},
			})
		default:
			r := below("serial/")
			r.Serializable = true
			c.at(ctx, own, r)
		}
	}
	return work{prefix: "serial/", step: step}
}

// mixed: everybody does something else.
func mixed(r *run) work {
	var all []work
	for _, make := range []func(*run) work{registers, bank, appendLists, sets, watches, leases, locks, kube, serializable} {
		all = append(all, make(r))
	}
	out := work{prefix: ""}
	out.setup = func(ctx context.Context, c *client) error {
		for _, w := range all {
			if w.setup == nil {
				continue
			}
			if err := w.setup(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
	out.step = func(ctx context.Context, c *client) { all[(c.id+c.rng.Intn(2))%len(all)].step(ctx, c) }
	out.finish = func() {
		for _, w := range all {
			if w.finish != nil {
				w.finish()
			}
		}
	}
	out.follow = func() []follower {
		var list []follower
		for _, w := range all {
			if w.follow != nil {
				list = append(list, w.follow()...)
			}
		}
		return list
	}
	return out
}

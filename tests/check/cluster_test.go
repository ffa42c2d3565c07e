package check

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/server/servertest"
	"github.com/holdfast-db/holdfast/tests/model"
)

// recorder writes down what the clients of a real cluster see.
type recorder struct {
	t     *testing.T
	start time.Time
	conns []*grpc.ClientConn

	mu struct {
		sync.Mutex
		History
	}
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) }

// knowledge is what one client has seen.
type knowledge struct{ revision, compacted int64 }

func (k *knowledge) Revision() int64  { return k.revision }
func (k *knowledge) Compacted() int64 { return k.compacted }

func (r *recorder) client(id, ops int, seed uint64) {
	d, k := model.NewDraw(rand.New(rand.NewPCG(seed, uint64(id)))), &knowledge{revision: 1, compacted: -1}
	member := id % len(r.conns)
	for range ops {
		req := d.Request(k)
		if g, ok := req.(*pb.LeaseGrantRequest); ok && g.TTL < 60 {
			g.TTL = 1 // Runs out meanwhile.
		}
		op := r.do(id, member, req)
		if op.Outcome != Acknowledged {
			continue
		}
		k.revision = max(k.revision, op.Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision())
		if c, ok := req.(*pb.CompactionRequest); ok {
			k.compacted = c.Revision
		}
	}
}

func (r *recorder) do(client, member int, req proto.Message) Op {
	op := Op{Client: client, Member: member, Call: r.now(), Request: req}
	res, err := r.call(r.conns[member], req)
	op.Return = r.now()
	if op.Outcome, op.Error = OutcomeOf(err); op.Outcome == Acknowledged {
		op.Response = res
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID = len(r.mu.Ops) + 1
	r.mu.Ops = append(r.mu.Ops, op)
	return op
}

func (r *recorder) call(conn grpc.ClientConnInterface, req proto.Message) (proto.Message, error) {
	ctx := r.t.Context()
	kv, leases := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	switch q := req.(type) {
	case *pb.RangeRequest:
		return kv.Range(ctx, q)
	case *pb.PutRequest:
		return kv.Put(ctx, q)
	case *pb.DeleteRangeRequest:
		return kv.DeleteRange(ctx, q)
	case *pb.TxnRequest:
		return kv.Txn(ctx, q)
	case *pb.CompactionRequest:
		return kv.Compact(ctx, q)
	case *pb.LeaseGrantRequest:
		return leases.LeaseGrant(ctx, q)
	}
	return leases.LeaseRevoke(ctx, req.(*pb.LeaseRevokeRequest))
}

// watch follows one member until the last key has been put.
func (r *recorder) watch(ctx context.Context, w Watch) Watch {
	stream, err := pb.NewWatchClient(r.conns[w.Member]).Watch(ctx)
	if err == nil {
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: w.Request}})
	}
	for ended := false; err == nil && !ended; {
		var res *pb.WatchResponse
		if res, err = stream.Recv(); err == nil {
			w.Seen = append(w.Seen, WatchSeen{r.now(), res})
			ended = slices.ContainsFunc(res.Events, func(e *mvccpb.Event) bool { return string(e.Kv.Key) == "last" })
		}
	}
	if err != nil {
		r.t.Errorf("watch %d: %v", w.ID, err)
	}
	return w
}

// events are all that a watch brought.
func (w *Watch) events() (all []*mvccpb.Event) {
	for _, s := range w.Seen {
		all = append(all, s.Response.Events...)
	}
	return all
}

// TestARealClusterIsRight has clients of three members do what comes to mind,
// without faults: what is found wrong is wrong here or there.
func TestARealClusterIsRight(t *testing.T) {
	quick.LeaveOut(t)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	r := &recorder{t: t, start: time.Now()}
	for _, m := range servertest.New(t, 3, nil).Members {
		conn, err := m.DialInside()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r.conns = append(r.conns, conn)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var watchers, clients sync.WaitGroup
	watches := make([]Watch, 3)
	for i := range watches {
		w := Watch{ID: i + 1, Client: 100 + i, Member: i, Call: r.now(), Request: &pb.WatchCreateRequest{
			Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1, PrevKv: true,
		}}
		watchers.Go(func() { watches[i] = r.watch(ctx, w) })
	}
	for id := range 6 {
		clients.Go(func() { r.client(id, 250, seed) })
	}
	clients.Wait()
	r.do(7, 0, &pb.PutRequest{Key: []byte("last")})
	watchers.Wait()
	h := &r.mu.History
	h.Watches = watches
	for i := range watches { // Leases may have run out behind the last key.
		if all := watches[i].events(); len(all) > len(h.Log) {
			h.Log = all
		}
	}
	report := Check(h, Options{})
	report.Windows(SearchOptions{Ops: 400})
	if c := report.Counts; c.Acknowledged < 700 || c.Events < 3*int(c.Head)/2 || report.Searched.Searched == 0 {
		t.Errorf("too little happened")
	}
	t.Logf("%+v %+v", report.Counts, report.Searched)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}

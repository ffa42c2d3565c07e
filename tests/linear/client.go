package linear

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/check"
)

const receiveMax = 64 << 20 // Bytes of an answer.

// wire is one connection of one client to one member. It never retries.
type wire struct {
	*grpc.ClientConn
	kv    pb.KVClient
	lease pb.LeaseClient
	watch pb.WatchClient
	admin pb.MaintenanceClient
	group pb.ClusterClient
	auth  pb.AuthClient
}

func connect(url string, secure *tls.Config, dial func(context.Context, string) (net.Conn, error)) (*wire, error) {
	cc, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(url, "https://"),
		grpc.WithTransportCredentials(credentials.NewTLS(secure)),
		grpc.WithContextDialer(dial),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveMax)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return nil, err
	}
	return &wire{
		cc, pb.NewKVClient(cc), pb.NewLeaseClient(cc), pb.NewWatchClient(cc), pb.NewMaintenanceClient(cc), pb.NewClusterClient(cc), pb.NewAuthClient(cc),
	}, nil
}

// send makes the call that belongs to a request.
func (w *wire) send(ctx context.Context, req proto.Message) (proto.Message, error) {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return w.kv.Range(ctx, r)
	case *pb.PutRequest:
		return w.kv.Put(ctx, r)
	case *pb.DeleteRangeRequest:
		return w.kv.DeleteRange(ctx, r)
	case *pb.TxnRequest:
		return w.kv.Txn(ctx, r)
	case *pb.CompactionRequest:
		return w.kv.Compact(ctx, r)
	case *pb.LeaseGrantRequest:
		return w.lease.LeaseGrant(ctx, r)
	case *pb.LeaseRevokeRequest:
		return w.lease.LeaseRevoke(ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		return w.lease.LeaseTimeToLive(ctx, r)
	case *pb.LeaseKeepAliveRequest:
		stream, err := w.lease.LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(r); err != nil {
			_, err = stream.Recv() // Says why.
			return nil, err
		}
		return stream.Recv()
	}
	return nil, fmt.Errorf("no call for %T", req)
}

// client is one that does one thing after the other, at any member.
type client struct {
	run   *run
	id    int
	wires []*wire // By place.
	rng   *rand.Rand
	place int // Where it is at home; it strays.
	seq   int // For values that nobody else writes.
}

func (r *run) newClient(id int) (*client, error) {
	c := &client{run: r, id: id, rng: rand.New(rand.NewSource(r.s.Seed ^ int64(id)*7919))}
	c.place = c.rng.Intn(r.s.Members)
	for _, m := range r.cluster.Members {
		w, err := connect(m.ClientURL, r.secure, r.mesh.Dial)
		if err != nil {
			return nil, err
		}
		c.wires = append(c.wires, w)
	}
	return c, nil
}

func (c *client) close() {
	for _, w := range c.wires {
		w.Close()
	}
}

// timeouts of requests: some clients give up early, and what they asked for may
// happen long after.
var timeouts = []time.Duration{400 * time.Millisecond, time.Second, 3 * time.Second}

// do sends a request to some member and writes down what became of it.
func (c *client) do(ctx context.Context, req proto.Message) (proto.Message, error) {
	if c.rng.Intn(10) == 0 {
		c.place = c.rng.Intn(len(c.wires))
	}
	return c.at(ctx, c.place, req)
}

// at sends a request to one member.
func (c *client) at(ctx context.Context, place int, req proto.Message) (proto.Message, error) {
	limit := timeouts[c.rng.Intn(len(timeouts))]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	rec := c.run.rec
	op := check.Op{Client: c.id, Member: c.run.memberAt(place), Request: proto.Clone(req), Call: rec.now()} // The caller may go on with req.
	res, err := c.wires[place].send(ctx, req)
	op.Return = rec.now()
	op.Outcome = outcomeOf(err)
	if err == nil {
		op.Response = res
	} else {
		op.Error = status.Convert(err).Message()
		if c.rng.Intn(3) == 0 {
			c.place = c.rng.Intn(len(c.wires))
		}
	}
	if late := time.Duration(op.Return-op.Call) - limit; late > lateMax {
		if _, void := c.run.stalls.void(); !void {
			rec.violate("a request outlived its deadline by %v: %T", late, req)
		}
	}
	rec.op(op)
	if op.Outcome == check.Refused && time.Duration(op.Return-op.Call) < refusedPause {
		sleep(ctx, refusedPause) // Nobody is there: a thousand such answers say no more than ten.
	}
	return res, err
}

const refusedPause = 40 * time.Millisecond

// lateMax is how much longer than its deadline a request may take.
const lateMax = time.Second

// refusals are the errors after which a request has no effect, ever: those of
// the protocol's table but for time-outs, and those of a connection that was
// never there.
var refusals = []string{
	"etcdserver: no leader",
	"etcdserver: leader changed",
	"etcdserver: server stopped",
	"etcdserver: too many requests",
	"transport: Error while dialing",
	"transport: authentication handshake failed",
	"while waiting for connections to become ready",
	"stream is rejected because server is draining the connection",
}

func outcomeOf(err error) check.Outcome {
	if err == nil {
		return check.Acknowledged
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss:
		return check.Refused
	case codes.ResourceExhausted:
		if strings.HasPrefix(st.Message(), "etcdserver:") {
			return check.Refused
		}
	}
	for _, text := range refusals {
		if strings.Contains(st.Message(), text) {
			return check.Refused
		}
	}
	return check.Unknown
}

// value is one that no other write has.
func (c *client) value() []byte {
	c.seq++
	return fmt.Appendf(nil, "%d.%d", c.id, c.seq)
}

// Requests in few words.

func get(key string) *pb.RangeRequest { return &pb.RangeRequest{Key: []byte(key)} }

// below is everything that begins with a prefix that ends in a slash.
func below(prefix string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix)}
}

func prefixEnd(prefix string) []byte { return []byte(strings.TrimSuffix(prefix, "/") + "0") } // '0' follows '/'.

func put(key string, value []byte) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: value}
}

func opPut(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opGet(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opDelete(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

func ifModified(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

func ifCreated(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

func ifValue(key string, value []byte) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: value}}
}

func ifVersion(key string, v int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: v}}
}

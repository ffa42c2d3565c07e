package differential

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

const (
	callTimeout  = 30 * time.Second // Longer than any answer that a server gives by itself.
	messageBytes = 64 << 20         // What a client takes.
)

// options of a pair, the same for both sides.
type options struct {
	progress time.Duration // Between progress notices.
	quota    int64
	election time.Duration // Heartbeats are a tenth of it.
	cheap    bool          // Passwords, as the test makes many.
	token    string        // Kind of tokens.
}

func (o options) flags() []string {
	var flags []string
	if o.progress != 0 {
		flags = append(flags, "--watch-progress-notify-interval", o.progress.String())
	}
	if o.quota != 0 {
		flags = append(flags, "--quota-backend-bytes", fmt.Sprint(o.quota))
	}
	if o.election != 0 {
		flags = append(flags, "--election-timeout", fmt.Sprint(o.election.Milliseconds()),
			"--heartbeat-interval", fmt.Sprint(o.election.Milliseconds()/10))
	}
	if o.cheap {
		flags = append(flags, "--bcrypt-cost", "4")
	}
	if o.token != "" {
		flags = append(flags, "--auth-token", o.token)
	}
	return flags
}

// target is one member of one of the two sides.
type target struct {
	side   string
	conn   *grpc.ClientConn
	names  *names
	client string // Address.
	peer   string
	stop   func()
	start  func() // Again, on the same data.
}

func (t *target) peerURL() string { return "http://" + t.peer }

// dial connects without retries: each request is sent once.
func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytes), grpc.MaxCallSendMsgSize(messageBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// place is where a member runs and whom it finds there.
type place struct {
	name         string
	client, peer int
	initial      string // Empty: alone.
}

// startOurs runs a member of holdfast.
func startOurs(t testing.TB, at place, o options) *target {
	m := member.New(t, member.Config{
		Name: at.name, ClientPort: at.client, PeerPort: at.peer,
		InitialCluster: at.initial, Existing: at.initial != "", Args: o.flags(),
	})
	m.Start()
	return &target{side: "holdfast", conn: dial(t, m.Client), client: m.Client, peer: m.Peer, stop: m.Stop, start: m.Start}
}

// startEtcd runs an etcd in this process.
func startEtcd(t testing.TB, at place, o options) *target {
	t.Helper()
	dir := t.TempDir()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = at.name, filepath.Join(dir, "data")
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(dir, "log")}
	cfg.UnsafeNoFsync = true // It is the oracle: what a crash leaves of it is nobody's business.
	local := func(port int) []url.URL {
		return []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}}
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = local(at.client), local(at.client)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = local(at.peer), local(at.peer)
	cfg.InitialCluster = at.name + "=http://" + cfg.ListenPeerUrls[0].Host
	if at.initial != "" {
		cfg.InitialCluster, cfg.ClusterState = at.initial, embed.ClusterStateFlagExisting
	}
	cfg.WatchProgressNotifyInterval = o.progress
	cfg.QuotaBackendBytes = o.quota
	cfg.EnableGRPCGateway = true
	if o.cheap {
		cfg.BcryptCost = 4
	}
	if o.token != "" {
		cfg.AuthToken = o.token
	}
	if o.election != 0 {
		cfg.ElectionMs, cfg.TickMs = uint(o.election.Milliseconds()), uint(o.election.Milliseconds()/10)
	}
	running := &target{side: "etcd", client: cfg.ListenClientUrls[0].Host, peer: cfg.ListenPeerUrls[0].Host}
	running.start = func() {
		again := *cfg
		e, err := embed.StartEtcd(&again)
		if err != nil {
			t.Fatal(err)
		}
		stopped := false
		running.stop = func() {
			if !stopped {
				stopped = true
				e.Close()
			}
		}
		t.Cleanup(running.stop)
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(callTimeout):
			t.Fatal("etcd is not ready")
		}
	}
	running.start()
	running.conn = dial(t, running.client)
	running.awaitVersion(t)
	return running
}

// awaitVersion waits until an etcd has settled on the version of its storage,
// seconds after it serves.
func (t *target) awaitVersion(test testing.TB) {
	test.Helper()
	for start := time.Now(); time.Since(start) < callTimeout; time.Sleep(50 * time.Millisecond) {
		r, err := pb.NewMaintenanceClient(t.conn).Status(test.Context(), &pb.StatusRequest{})
		if err == nil && r.StorageVersion == "3.7.0" {
			return
		}
	}
	test.Error("etcd does not settle on a storage version")
}

// answer is what came back for a request.
type answer struct {
	msg proto.Message // Nil when it failed.
	st  *status.Status
}

func (a answer) String() string {
	if a.msg == nil {
		return fmt.Sprintf("%v: %s", a.st.Code(), a.st.Message())
	}
	return text(a.msg)
}

// method describes one RPC.
type method struct {
	path     string // As gRPC has it.
	in, out  protoreflect.MessageType
	streamed bool
}

// methods are all RPCs of the etcd API, by "Service/Method".
var methods = findMethods()

func findMethods() map[string]method {
	found := map[string]method{}
	services := pb.File_rpc_proto.Services()
	for i := range services.Len() {
		s := services.Get(i)
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			found[string(s.Name())+"/"+string(m.Name())] = method{
				path:     fmt.Sprintf("/%s/%s", s.FullName(), m.Name()),
				in:       typeOf(m.Input()),
				out:      typeOf(m.Output()),
				streamed: m.IsStreamingClient() || m.IsStreamingServer(),
			}
		}
	}
	return found
}

func typeOf(d protoreflect.MessageDescriptor) protoreflect.MessageType {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err) // Linked in by the import of pb.
	}
	return t
}

// methodOf finds the RPC of a request. Its type tells, but for Range.
func methodOf(req proto.Message) (string, method) {
	name := req.ProtoReflect().Descriptor().FullName()
	for key, m := range methods {
		if m.in.Descriptor().FullName() == name && key != "KV/RangeStream" {
			return key, m
		}
	}
	panic(fmt.Sprintf("no RPC takes %s", name))
}

// call sends one request to one side. What names the side is translated on the
// way out and back.
func (t *target) call(ctx context.Context, m method, req proto.Message) answer {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out := m.out.New().Interface()
	err := t.conn.Invoke(ctx, m.path, t.names.outward(req), out)
	if err != nil {
		return answer{st: status.Convert(err)}
	}
	return answer{msg: t.names.inward(out)}
}

// pair is the two sides and what is known of them.
type pair struct {
	t            testing.TB
	options      options
	ours, theirs *target
	drawn        atomic.Int64 // Names given so far.
	sent         int          // Step of a sequence.
	differences  atomic.Int64
	parted       atomic.Bool // One side did what the other refused.
	stopAfter    int64       // Differences until a sequence ends, 0 is never.
}

// place tells where in a sequence the test is.
func (p *pair) place() string {
	if p.stopAfter == 0 {
		return ""
	}
	return fmt.Sprintf("step %d: ", p.sent)
}

// spent tells whether enough differences were seen, or there is no more to compare.
func (p *pair) spent() bool {
	return p.parted.Load() || p.stopAfter > 0 && p.differences.Load() >= p.stopAfter
}

// newPair starts a member on each side.
func newPair(t testing.TB, o options) *pair {
	t.Helper()
	ports := member.FreePorts(t, 4)
	p := &pair{t: t, options: o}
	first, second := place{name: "m1", client: ports[0], peer: ports[1]}, place{name: "m1", client: ports[2], peer: ports[3]}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.theirs = startEtcd(t, second, o)
	}()
	if *self {
		p.ours = startEtcd(t, first, o)
	} else {
		p.ours = startOurs(t, first, o)
	}
	<-done
	if t.Failed() {
		t.FailNow()
	}
	for _, side := range p.sides() {
		side.names = newNames(side)
		p.introduce(side)
	}
	p.ours.names.first = true
	return p
}

// introduce gives names to a member and its cluster.
func (p *pair) introduce(side *target) {
	p.t.Helper()
	got := side.call(p.t.Context(), methods["Maintenance/Status"], &pb.StatusRequest{})
	if got.msg == nil {
		p.t.Fatalf("%s: %v", side.side, got)
	}
	h := got.msg.(*pb.StatusResponse).Header
	side.names.learn(clusterID, h.ClusterId, clusterName)
	side.names.learn(memberID, h.MemberId, memberNames)
}

// learn gives names to what the sides have drawn for one request.
func (p *pair) learn(req proto.Message, ours, theirs answer) {
	if ours.msg == nil || theirs.msg == nil {
		return
	}
	name := uint64(p.drawn.Add(1))
	for _, a := range []struct {
		side *target
		msg  proto.Message
	}{{p.ours, ours.msg}, {p.theirs, theirs.msg}} {
		switch msg := a.msg.(type) {
		case *pb.LeaseGrantResponse:
			if req.(*pb.LeaseGrantRequest).ID == 0 {
				a.side.names.learn(leaseID, uint64(msg.ID), leaseNames+name)
			}
		case *pb.MemberAddResponse:
			a.side.names.learn(memberID, msg.Member.GetID(), memberNames+name)
		}
		a.side.names.inward(a.msg)
	}
}

func (p *pair) sides() []*target { return []*target{p.ours, p.theirs} }

// both runs something on each side at the same time.
func both[T any](p *pair, run func(side *target) T) (ours, theirs T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		theirs = run(p.theirs)
	}()
	ours = run(p.ours)
	<-done
	return ours, theirs
}

// call sends a request to both sides, compares the answers, and returns ours.
func (p *pair) call(req proto.Message, meta ...string) answer {
	p.t.Helper()
	ours, _ := p.callBoth(req, meta...)
	return ours
}

func (p *pair) callBoth(req proto.Message, meta ...string) (ours, theirs answer) {
	p.t.Helper()
	name, m := methodOf(req)
	ctx := metadata.AppendToOutgoingContext(p.t.Context(), meta...)
	ours, theirs = both(p, func(side *target) answer { return side.call(ctx, m, req) })
	p.learn(req, ours, theirs)
	covered.request(name, req)
	covered.answer(ours)
	p.compare(name, req, ours, theirs)
	if writes := strings.HasPrefix(name, "KV/") || strings.HasPrefix(name, "Cluster/"); writes && ours.msg == nil && theirs.msg != nil {
		p.parted.Store(true) // Let pass, or an error by now: the states are not the same any more.
	}
	return ours, theirs
}

// want sends a request to both sides and wants an error of both.
func (p *pair) want(req proto.Message, words string, meta ...string) {
	p.t.Helper()
	got := p.call(req, meta...)
	if got.msg != nil || !strings.HasSuffix(got.st.Message(), words) {
		p.t.Errorf("%s %s\n  got  %v\n  want %s", req.ProtoReflect().Descriptor().Name(), text(req), got, words)
	}
}

// ok sends a request to both sides and wants it answered.
func ok[T proto.Message](p *pair, req proto.Message) T {
	p.t.Helper()
	got := p.call(req)
	if got.msg == nil {
		p.t.Fatalf("%s %s\n  got %v", req.ProtoReflect().Descriptor().Name(), text(req), got)
	}
	return got.msg.(T)
}

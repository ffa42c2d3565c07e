package state_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/kube/tunnel/tunneltest"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// reach is a cluster whose API is served over the network, with a kubelet's end of the
// tunnel for node-a, on which pod-a runs.
type reach struct {
	testing.TB
	cluster *kubetest.Cluster
	connect func(...tls.Certificate) *grpc.ClientConn
	node    *tunneltest.Node
	uid     string
	admin   kubepb.ClusterStateClient
}

// patient is a clock by which a node may take a minute for a session: hundreds begin at
// once, on a machine that may pause.
type patient struct{ clock.Clock }

func (p patient) After(d time.Duration) <-chan time.Time { return p.Clock.After(12 * d) }

func newReach(t testing.TB, set ...func(*state.Config)) *reach {
	t.Helper()
	set = append([]func(*state.Config){func(c *state.Config) { c.Clock = patient{clock.Real()} }}, set...)
	x := &reach{TB: t, cluster: kubetest.Start(t, set...), node: tunneltest.New()}
	x.uid = x.place(x.cluster.Client(auth.Admin("ann")), "pod-a", "node-a")
	x.connect = serve(t, x.cluster)
	x.admin = kubepb.NewClusterStateClient(x.connect(subject("ann", "admin")))
	return x
}

// place makes a pod and its node, and tells the pod's UID.
func (x *reach) place(c *objects.Client, pod, node string) string {
	x.Helper()
	if _, err := objects.Create(x.Context(), c, nodeOf(node, "4")); err != nil {
		x.Fatal(err)
	}
	p, err := objects.Create(x.Context(), c, podOf(pod, "1"))
	if err != nil {
		x.Fatal(err)
	}
	if _, err := c.Bind(x.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Namespace: "default", Name: pod}, Node: node}); err != nil {
		x.Fatal(err)
	}
	x.node.Write(string(p.UID), "c", "one", "two", "three")
	return string(p.UID)
}

// serveNode is the kubelet's end, until the test or the context that it returns ends.
func (x *reach) serveNode(conn grpc.ClientConnInterface) (stop func()) { return x.keeps(conn, x.node) }

func (x *reach) keeps(conn grpc.ClientConnInterface, node tunnel.Node) (stop func()) {
	g := task.New(context.Background())
	g.Go("kubelet", func(ctx context.Context) error {
		return tunnel.Serve(ctx, tunnel.Config{
			Name: "node-a", Instance: "1", Node: node, Servers: []tunnel.Server{{Name: "server", Conn: conn}}, Logger: hclog.NewNullLogger(),
			Spread: func() float64 { return 0 },
		})
	})
	stop = func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			x.Errorf("kubelet: %v", err)
		}
	}
	x.Cleanup(stop)
	return stop
}

func (x *reach) nodeConn() *grpc.ClientConn {
	return x.connect(subject("system:node:node-a", auth.NodesGroup))
}

// stands waits until the node can be reached by somebody.
func stands(t testing.TB, rpc kubepb.ClusterStateClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := tunnel.Images(ctx, rpc, "node-a")
		if err == nil {
			return
		}
		if c := status.Code(err); c != codes.FailedPrecondition && c != codes.Unavailable {
			t.Fatal(err)
		}
	}
}

func startReach(t testing.TB) *reach {
	x := newReach(t)
	x.serveNode(x.nodeConn())
	stands(t, x.admin)
	return x
}

func podA() *kubepb.PodContainer { return &kubepb.PodContainer{Namespace: "default", Pod: "pod-a"} }

func exec(command ...string) *kubepb.ExecRequest {
	return &kubepb.ExecRequest{Of: podA(), Command: command}
}

// idle waits until the node does nothing any more.
func (x *reach) idle() {
	x.Helper()
	x.await(0)
}

// await waits until the node does so much at a time.
func (x *reach) await(calls int) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), time.Minute)
	defer cancel()
	if err := x.node.Await(ctx, calls); err != nil {
		x.Error(err)
	}
}

func TestWhatIsAskedForGoesThroughTheTunnelAndBack(t *testing.T) {
	x := startReach(t)
	inside := newReachInside(x)
	for name, rpc := range map[string]kubepb.ClusterStateClient{"over the network": x.admin, "in this process": inside} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			reset := func() { out.Reset(); errs.Reset() }
			two := int64(2)
			if err := tunnel.Logs(t.Context(), rpc, &kubepb.LogsRequest{Of: podA(), TailLines: &two}, &out); err != nil || out.String() != "two\nthree\n" {
				t.Errorf("logs: %q, %v", &out, err)
			}
			reset()
			code, err := tunnel.Exec(t.Context(), rpc, exec("exit", "7"), runtime.Streams{})
			if code != 7 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
			code, err = tunnel.Exec(t.Context(), rpc, exec("fail", "oh", "no"), runtime.Streams{Stdout: &out, Stderr: &errs})
			if code != 1 || err != nil || out.Len() > 0 || errs.String() != "oh no\n" {
				t.Errorf("exit code %d, %v, %q, %q", code, err, &out, &errs)
			}
			reset()
			much := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
			r := exec("cat")
			r.Stdin = true
			if _, err := tunnel.Exec(t.Context(), rpc, r, runtime.Streams{Stdin: bytes.NewReader(much), Stdout: &out}); err != nil || !bytes.Equal(out.Bytes(), much) {
				t.Errorf("%d bytes of %d came back, %v", out.Len(), len(much), err)
			}
			reset()
			sizes := make(chan runtime.Size, 1)
			sizes <- runtime.Size{Columns: 80, Rows: 24}
			r = exec("size", "1")
			r.Tty = true
			if _, err := tunnel.Exec(t.Context(), rpc, r, runtime.Streams{Stdout: &out, Resize: sizes}); err != nil || out.String() != "80x24\n" {
				t.Errorf("size: %q, %v", &out, err)
			}
			if _, err := tunnel.Exec(t.Context(), rpc, exec("nothing"), runtime.Streams{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "nothing: the command cannot be run") {
				t.Errorf("a command that is not there: %v", err)
			}
			dialled(t, rpc)
			imaged(t, rpc)
			x.idle()
		})
	}
}

// newReachInside asks from within the process of the server.
func newReachInside(x *reach) kubepb.ClusterStateClient {
	return kubepb.NewClusterStateClient(x.cluster.Service.Dial(auth.Admin("ann")))
}

func dialled(t *testing.T, rpc kubepb.ClusterStateClient) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conn, err := tunnel.Dial(ctx, rpc, &kubepb.DialRequest{Of: podA(), Port: 8080})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Error(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	// The far side ends because it has read the end of what was sent.
	if got, err := io.ReadAll(conn); string(got) != "port 8080\nping" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func imaged(t *testing.T, rpc kubepb.ClusterStateClient) {
	t.Helper()
	made, err := tunnel.ImportImage(t.Context(), rpc, "node-a", strings.NewReader("demo:1\n"+strings.Repeat("x", 100_000)))
	if err != nil || len(made) != 1 || made[0].Bytes != 100_007 {
		t.Fatalf("%v, %v", made, err)
	}
	if list, err := tunnel.Images(t.Context(), rpc, "node-a"); err != nil || len(list) != 1 || list[0].Refs[0] != "demo:1" {
		t.Errorf("%v, %v", list, err)
	}
	broken := io.MultiReader(strings.NewReader("half"), brokenReader{})
	if _, err := tunnel.ImportImage(t.Context(), rpc, "node-a", broken); !errors.Is(err, errBroken) {
		t.Errorf("a file that cannot be read: %v", err)
	}
	if err := tunnel.RemoveImage(t.Context(), rpc, "node-a", "demo:1"); err != nil {
		t.Error(err)
	}
	if list, err := tunnel.Images(t.Context(), rpc, "node-a"); err != nil || len(list) != 0 {
		t.Errorf("after its removal, and half a file: %v, %v", list, err)
	}
	if err := tunnel.RemoveImage(t.Context(), rpc, "node-a", "demo:1"); status.Code(err) != codes.NotFound {
		t.Errorf("removed again: %v", err)
	}
}

var errBroken = errors.New("the disk is broken")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func TestASessionEndsWithItsUserItsNodeAndItsServer(t *testing.T) {
	leak.Check(t)
	// The store and its members have goroutines of their own, which end with the test.
	x := newReach(t)
	stop := x.serveNode(x.nodeConn())
	stands(t, x.admin)
	began := func() (context.CancelFunc, chan error) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 3)
		for _, command := range []string{"hang", "yes", "cat"} {
			r := exec(command)
			r.Stdin = command == "cat"
			in, feed := io.Pipe()
			out := newGate()
			close(out.open)
			go func() {
				_, err := tunnel.Exec(ctx, x.admin, r, runtime.Streams{Stdin: endless{ctx, in}, Stdout: out})
				ended <- err
			}()
			if r.Stdin {
				if _, err := feed.Write([]byte("and nothing more")); err != nil {
					t.Error(err)
				}
			}
			<-out.reached
		}
		return cancel, ended
	}
	want := func(what string, ended chan error, code codes.Code) {
		t.Helper()
		for range 3 {
			if err := <-ended; status.Code(err) != code {
				t.Errorf("%s: %v, want %v", what, err, code)
			}
		}
		x.idle()
	}
	cancel, ended := began()
	cancel()
	want("the user goes", ended, codes.Canceled)

	cancel, ended = began()
	stop()
	want("the node goes", ended, codes.Unavailable)
	cancel()

	x.serveNode(x.nodeConn())
	stands(t, x.admin)
	cancel, ended = began()
	if err := x.cluster.Service.Close(); err != nil {
		t.Error(err)
	}
	want("the service ends", ended, codes.Unavailable)
	cancel()
}

// endless is read until its context ends.
type endless struct {
	ctx context.Context
	r   *io.PipeReader
}

func (e endless) Read(b []byte) (int, error) {
	stop := context.AfterFunc(e.ctx, func() { e.r.Close() })
	defer stop()
	return e.r.Read(b)
}

func TestAUserWhoDoesNotReadHoldsUpNobodyElse(t *testing.T) {
	x := startReach(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stuck := make(chan error, 1)
	full := newGate()
	go func() {
		_, err := tunnel.Exec(ctx, x.admin, exec("yes"), runtime.Streams{Stdout: full})
		stuck <- err
	}()
	<-full.reached // From here on nothing is read.
	for i := range 50 {
		var out bytes.Buffer
		r := exec("cat")
		r.Stdin = true
		much := strings.Repeat(fmt.Sprint(i), 100_000)
		// The same connections, of user and node.
		if _, err := tunnel.Exec(t.Context(), x.admin, r, runtime.Streams{Stdin: strings.NewReader(much), Stdout: &out}); err != nil || out.String() != much {
			t.Fatalf("session %d: %d bytes of %d, %v", i, out.Len(), len(much), err)
		}
	}
	select {
	case err := <-stuck:
		t.Errorf("it ended: %v", err)
	default:
	}
	cancel()
	close(full.open)
	if err := <-stuck; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	x.idle()
}

// gate is a writer that stops its user.
type gate struct {
	reached, open chan struct{}
	once          sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) Write(b []byte) (int, error) {
	g.once.Do(func() { close(g.reached) })
	<-g.open
	return len(b), nil
}

func TestTwoHundredSessionsAtOnceKeepApart(t *testing.T) {
	x := startReach(t)
	const sessions = 200
	started := make(chan struct{})
	err := manyAtOnce(sessions, func(i int) error {
		in, feed := io.Pipe()
		var out bytes.Buffer
		text := strings.Repeat(fmt.Sprintf("session %d ", i), 2000)
		go func() {
			<-started
			_, err := io.WriteString(feed, text)
			feed.CloseWithError(err)
		}()
		r := exec("cat")
		r.Stdin = true
		if _, err := tunnel.Exec(t.Context(), x.admin, r, runtime.Streams{Stdin: in, Stdout: &out}); err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
		if out.String() != text {
			return fmt.Errorf("session %d: %d bytes of %d, or those of another", i, out.Len(), len(text))
		}
		return nil
	}, func() {
		x.await(sessions)
		close(started) // All are there.
	})
	if err != nil {
		t.Error(err)
	}
	x.idle()
}

// manyAtOnce calls f for each of n, all at the same time, and then beside.
func manyAtOnce(n int, f func(i int) error, beside func()) error {
	failed := make(chan error, n)
	for i := range n {
		go func() { failed <- f(i) }()
	}
	beside()
	var errs []error
	for range n {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

func TestNobodyHasAllSessionsOfANodeOrWithoutEnd(t *testing.T) {
	x := startReach(t)
	const most = 512
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	full := func() {
		x.await(most)
		for user, want := range map[string]string{"ann": `"ann" has 512 sessions open`, "bob": "512 sessions are open on node node-a"} {
			rpc := kubepb.NewClusterStateClient(x.connect(subject(user, "admin")))
			if _, err := tunnel.Images(t.Context(), rpc, "node-a"); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", user, err)
			}
		}
		cancel()
	}
	err := manyAtOnce(most, func(int) error {
		if _, err := tunnel.Exec(ctx, x.admin, exec("hang"), runtime.Streams{}); status.Code(err) != codes.Canceled {
			return err
		}
		return nil
	}, full)
	if err != nil {
		t.Error(err)
	}
	x.idle()
	stands(t, x.admin)
}

func TestAKubeletComesBackToAServerThatWasAway(t *testing.T) {
	x := newReach(t)
	ca, l := newIssuer(t), listen(t)
	address := l.Addr().String()
	first := ca.serve(x.cluster.Service, l)
	dial := func(of tls.Certificate) *grpc.ClientConn {
		conn, err := ca.dial(address, of)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ann := kubepb.NewClusterStateClient(dial(subject("ann", "admin")))
	x.serveNode(dial(subject("system:node:node-a", auth.NodesGroup)))
	stands(t, ann)
	following := make(chan error, 1)
	seen := newGate()
	close(seen.open)
	go func() {
		following <- tunnel.Logs(t.Context(), ann, &kubepb.LogsRequest{Of: podA(), Follow: true}, seen)
	}()
	<-seen.reached
	first.Stop()
	if err := <-following; status.Code(err) != codes.Unavailable {
		t.Errorf("who follows a log is told %v", err)
	}
	x.idle()
	l = listenAt(t, address)
	ca.serve(x.cluster.Service, l)
	stands(t, ann)
}

func TestWhoAsksForAPodWrongly(t *testing.T) {
	x := startReach(t)
	c := x.cluster.Client(auth.Admin("ann"))
	two := podOf("two", "1")
	two.Spec.Containers = append(two.Spec.Containers, *two.Spec.Containers[0].DeepCopy())
	two.Spec.Containers[1].Name = "d"
	if _, err := objects.Create(t.Context(), c, two); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Create(t.Context(), c, podOf("unbound", "1")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Bind(t.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Namespace: "default", Name: "two"}, Node: "node-a"}); err != nil {
		t.Fatal(err)
	}
	of := func(pod, container, uid string) *kubepb.LogsRequest {
		return &kubepb.LogsRequest{Of: &kubepb.PodContainer{Namespace: "default", Pod: pod, Container: container, Uid: uid}}
	}
	past := of("pod-a", "", "")
	past.SinceSeconds, past.SinceTime = 1, 1
	for _, w := range []struct {
		r    *kubepb.LogsRequest
		code codes.Code
		says string
	}{
		{of("none", "", ""), codes.NotFound, "Pod default/none: not found"},
		{of("", "", ""), codes.InvalidArgument, `pod: "" is no name`},
		{of("unbound", "", ""), codes.FailedPrecondition, "it is on no node yet"},
		{of("two", "", ""), codes.InvalidArgument, "a container name must be specified for pod two, choose one of: [c d]"},
		{of("two", "e", ""), codes.InvalidArgument, "container e is not valid for pod two"},
		{of("pod-a", "", "of-before"), codes.NotFound, "of the UID of-before"},
		{of("two", "d", ""), codes.NotFound, "no such container"}, // The node says so.
		{past, codes.InvalidArgument, "since_seconds and since_time"},
		{&kubepb.LogsRequest{}, codes.InvalidArgument, "must be named"},
	} {
		if err := tunnel.Logs(t.Context(), x.admin, w.r, io.Discard); status.Code(err) != w.code || !strings.Contains(err.Error(), w.says) {
			t.Errorf("%v: %v, want %v and %q", w.r, err, w.code, w.says)
		}
	}
	if _, err := tunnel.Exec(t.Context(), x.admin, exec(), runtime.Streams{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no command: %v", err)
	}
	for _, port := range []uint32{0, 70_000} {
		if _, err := tunnel.Dial(t.Context(), x.admin, &kubepb.DialRequest{Of: podA(), Port: port}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("port %d: %v", port, err)
		}
	}
	if _, err := tunnel.Images(t.Context(), x.admin, "nowhere"); status.Code(err) != codes.NotFound {
		t.Errorf("no such node: %v", err)
	}
	p, err := objects.Get[*corev1.Pod](t.Context(), c, "default", "pod-a")
	if err != nil {
		t.Fatal(err)
	}
	p.Status.Phase = corev1.PodSucceeded
	if _, err := objects.UpdateStatus(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	if _, err := tunnel.Exec(t.Context(), x.admin, exec("echo"), runtime.Streams{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "has ended, in phase Succeeded") {
		t.Errorf("a pod that has ended: %v", err)
	}
	if err := tunnel.Logs(t.Context(), x.admin, of("pod-a", "", ""), io.Discard); err != nil {
		t.Errorf("its logs: %v", err)
	}
}

// How long does a command in a container take, beside what the node does for it?
func BenchmarkExecThroughATunnel(b *testing.B) {
	x := startReach(b)
	for b.Loop() {
		if _, err := tunnel.Exec(b.Context(), x.admin, exec("echo", "hello"), runtime.Streams{Stdout: io.Discard}); err != nil {
			b.Fatal(err)
		}
	}
}

// How many bytes a second come out of a container?
func BenchmarkOutputThroughATunnel(b *testing.B) {
	x := startReach(b)
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		r := exec("cat")
		r.Stdin = true
		if _, err := tunnel.Exec(b.Context(), x.admin, r, runtime.Streams{Stdin: bytes.NewReader(text), Stdout: io.Discard}); err != nil {
			b.Fatal(err)
		}
	}
}

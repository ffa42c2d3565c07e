package state_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/kube/tunnel/tunneltest"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// asked is one thing that can be asked of a node.
type asked struct {
	verb string
	ask  func(rpc kubepb.ClusterStateClient) error
}

func asksOf(t *testing.T) []asked {
	return []asked{
		{"logs", func(rpc kubepb.ClusterStateClient) error {
			return tunnel.Logs(t.Context(), rpc, &kubepb.LogsRequest{Of: podA()}, io.Discard)
		}},
		{"exec", func(rpc kubepb.ClusterStateClient) error {
			_, err := tunnel.Exec(t.Context(), rpc, exec("echo"), runtime.Streams{})
			return err
		}},
		{"attach", func(rpc kubepb.ClusterStateClient) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := tunnel.Attach(ctx, rpc, &kubepb.AttachRequest{Of: podA()}, runtime.Streams{Stdout: cancelling{cancel}})
			if status.Code(err) == codes.Canceled {
				return nil // It was attached.
			}
			return err
		}},
		{"port-forward", func(rpc kubepb.ClusterStateClient) error {
			conn, err := tunnel.Dial(t.Context(), rpc, &kubepb.DialRequest{Of: podA(), Port: 80})
			if err == nil {
				err = conn.Close()
			}
			return err
		}},
		{"manage-images", func(rpc kubepb.ClusterStateClient) error {
			_, err := tunnel.Images(t.Context(), rpc, "node-a")
			return err
		}},
		{"manage-images", func(rpc kubepb.ClusterStateClient) error {
			_, err := tunnel.ImportImage(t.Context(), rpc, "node-a", strings.NewReader("i"))
			return err
		}},
	}
}

func TestWhoMayReachWhatOfANode(t *testing.T) {
	log := &text{}
	x := newReach(t, func(c *state.Config) { c.Logger = hclog.New(&hclog.LoggerOptions{Output: log}) })
	x.serveNode(x.nodeConn())
	stands(t, x.admin)
	for _, w := range []struct {
		name, group string
		may         string
	}{
		{"ann", "admin", "logs exec attach port-forward manage-images"},
		{"mia", "system:masters", "logs exec attach port-forward manage-images"},
		{"ed", "edit", "logs exec attach port-forward"},
		{"edna", "edit:default", "logs exec attach port-forward"},
		{"eve", "edit:shop", ""},
		{"vic", "view", "logs"},
		{"gus", "guests", ""},
		{"system:node:node-a", auth.NodesGroup, ""},
		{"system:node:node-b", auth.NodesGroup, ""},
		{auth.SchedulerUser, "", ""},
		{auth.ControllersUser, "", ""},
	} {
		rpc := kubepb.NewClusterStateClient(x.connect(subject(w.name, w.group)))
		for _, a := range asksOf(t) {
			before := strings.Count(log.String(), "denied: ")
			err := a.ask(rpc)
			denied := strings.Count(log.String(), "denied: ") - before
			if strings.Contains(w.may, a.verb) {
				if err != nil || denied != 0 {
					t.Errorf("%s, %s: %v, %d denials in the log", w.name, a.verb, err, denied)
				}
			} else if status.Code(err) != codes.PermissionDenied || denied != 1 {
				t.Errorf("%s, %s: %v, %d denials in the log", w.name, a.verb, err, denied)
			}
		}
	}
	if !strings.Contains(log.String(), "identity=vic groups=[\"view\"] verb=exec object=\"Pod default/pod-a\" missing=\"there is no row (view, exec, Pod)\"") {
		t.Errorf("the log:\n%s", log)
	}
	if !strings.Contains(log.String(), "session: identity=ann verb=exec object=default/pod-a container=c node=node-a") {
		t.Errorf("who executed what is not in the log:\n%s", log)
	}
}

type cancelling struct{ cancel context.CancelFunc }

func (c cancelling) Write(b []byte) (int, error) {
	c.cancel()
	return len(b), nil
}

// rawNode is a kubelet that does not what it should.
type rawNode struct {
	*testing.T
	rpc    kubepb.ClusterStateClient
	tunnel grpc.BidiStreamingClient[kubepb.TunnelRequest, kubepb.TunnelResponse]
}

func startRaw(x *reach, t *testing.T) *rawNode {
	t.Helper()
	n := &rawNode{T: t, rpc: kubepb.NewClusterStateClient(x.nodeConn())}
	n.tunnel = n.open(n.rpc, "node-a")
	if _, err := n.tunnel.Recv(); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *rawNode) open(rpc kubepb.ClusterStateClient, node string) grpc.BidiStreamingClient[kubepb.TunnelRequest, kubepb.TunnelResponse] {
	n.Helper()
	stream, err := rpc.Tunnel(n.Context())
	if err != nil {
		n.Fatal(err)
	}
	if err := stream.Send(&kubepb.TunnelRequest{Node: node, Instance: "raw"}); err != nil {
		n.Fatal(err)
	}
	return stream
}

// told is the next session that the server wants.
func (n *rawNode) told() *kubepb.Opening {
	n.Helper()
	for {
		r, err := n.tunnel.Recv()
		if err != nil {
			n.Fatal(err)
		}
		if r.Opening != nil {
			return r.Opening
		}
	}
}

// serve presents a credential, and returns the stream, or what the server says to it.
func (n *rawNode) serve(rpc kubepb.ClusterStateClient, c *kubepb.Credential, then ...*kubepb.Frame) error {
	n.Helper()
	stream, err := rpc.Session(n.Context())
	if err != nil {
		return err
	}
	for _, f := range append([]*kubepb.Frame{{What: &kubepb.Frame_Credential{Credential: c}}}, then...) {
		if err := stream.Send(f); err != nil {
			break // Recv says why.
		}
	}
	_, err = stream.Recv()
	return err
}

func outcome(exit int32) *kubepb.Frame {
	return &kubepb.Frame{What: &kubepb.Frame_Outcome{Outcome: &kubepb.Outcome{ExitCode: exit}}}
}

func TestACredentialIsForOneSessionOfOneNodeOnce(t *testing.T) {
	x := newReach(t)
	n := startRaw(x, t)
	other := kubepb.NewClusterStateClient(x.connect(subject("system:node:node-b", auth.NodesGroup)))
	if _, err := n.open(other, "node-a").Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the tunnel of another node: %v", err)
	}
	if _, err := n.open(other, "node-b").Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("a tunnel of a node that never registered: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		code, err := tunnel.Exec(t.Context(), x.admin, exec("anything"), runtime.Streams{})
		if err == nil && code != 3 {
			err = fmt.Errorf("exit code %d", code)
		}
		done <- err
	}()
	o := n.told()
	given := o.Credential
	if o.Ask.GetExec().GetOf().GetUid() != x.uid || o.Ask.GetExec().GetOf().GetContainer() != "c" || o.Ask.User != "" {
		t.Errorf("the node is told %v", o.Ask)
	}
	wrong := bytes.Clone(given.Secret)
	wrong[0] ^= 1
	for what, c := range map[string]*kubepb.Credential{
		"another secret":        {Node: "node-a", Session: given.Session, Secret: wrong},
		"no secret":             {Node: "node-a", Session: given.Session},
		"the start of a secret": {Node: "node-a", Session: given.Session, Secret: given.Secret[:8]},
		"another session":       {Node: "node-a", Session: given.Session + 1, Secret: given.Secret},
		"no session":            {Node: "node-a", Secret: given.Secret},
	} {
		if err := n.serve(n.rpc, c, outcome(9)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, c := range map[string]*kubepb.Credential{
		"in the name of the node":  given,
		"in the name of its thief": {Node: "node-b", Session: given.Session, Secret: given.Secret},
	} {
		if err := n.serve(other, c, outcome(9)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a stolen credential, %s: %v", what, err)
		}
	}
	if err := n.serve(x.admin, given, outcome(9)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stolen credential of an administrator: %v", err)
	}
	if err := n.serve(n.rpc, given, outcome(3)); err != io.EOF {
		t.Errorf("the credential itself: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := n.serve(n.rpc, given, outcome(9)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a second time: %v", err)
	}
}

func TestFramesOutOfPlaceEndTheSession(t *testing.T) {
	x := newReach(t)
	n := startRaw(x, t)
	begin := func() (grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame], *kubepb.Credential) {
		t.Helper()
		stream, err := x.admin.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&kubepb.Frame{What: &kubepb.Frame_Ask{Ask: &kubepb.Ask{What: &kubepb.Ask_Exec{Exec: exec("x")}}}}); err != nil {
			t.Fatal(err)
		}
		return stream, n.told().Credential
	}
	over := &kubepb.Frame{What: &kubepb.Frame_Input{Input: make([]byte, tunnel.FrameBytesMax+1)}}
	for _, f := range []*kubepb.Frame{outcome(0), over, {}} {
		user, c := begin()
		session, err := n.rpc.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Send(&kubepb.Frame{What: &kubepb.Frame_Credential{Credential: c}}); err != nil {
			t.Fatal(err)
		}
		if first, err := user.Recv(); err != nil || first.GetOpened().GetNode() != "node-a" {
			t.Fatalf("%v, %v", first, err)
		}
		if err := user.Send(f); err != nil {
			t.Error(err)
		}
		if _, err := user.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a user sends %T: %v", f.What, err)
		}
		if _, err := session.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("the node is told %v", err)
		}
	}
	too := &kubepb.Frame{What: &kubepb.Frame_Output{Output: make([]byte, tunnel.FrameBytesMax+1)}}
	for _, f := range []*kubepb.Frame{{What: &kubepb.Frame_Input{}}, too} {
		user, c := begin()
		if err := n.serve(n.rpc, c, f); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a node sends %T: %v", f.What, err)
		}
		if _, err := user.Recv(); err != nil {
			t.Error(err)
		}
		if _, err := user.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the user of a node that sends %T: %v", f.What, err)
		}
	}
	stream, err := x.admin.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(outcome(0)); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a stream that asks for nothing: %v", err)
	}
}

func TestANodeThatDoesNotOpenItsSessionIsToldOf(t *testing.T) {
	x := newReach(t)
	n := startRaw(x, t)
	done := make(chan error, 1)
	try := func() {
		_, err := tunnel.Exec(t.Context(), x.admin, exec("x"), runtime.Streams{})
		done <- err
	}
	go try()
	o := n.told()
	if err := n.tunnel.Send(&kubepb.TunnelRequest{Refusal: &kubepb.Refusal{Session: o.Credential.Session, Message: "I am full"}}); err != nil {
		t.Error(err)
	}
	if err := <-done; status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "node node-a: I am full") {
		t.Errorf("refused: %v", err)
	}
	go try()
	o = n.told()
	second := startRaw(x, t) // The kubelet has come back over another connection.
	if err := <-done; status.Code(err) != codes.FailedPrecondition {
		t.Errorf("its tunnel was replaced: %v", err)
	}
	if _, err := n.tunnel.Recv(); err == nil {
		if _, err = n.tunnel.Recv(); status.Code(err) != codes.Canceled { // After the news that the session is over.
			t.Errorf("the tunnel before is told %v", err)
		}
	}
	if err := n.serve(n.rpc, o.Credential, outcome(0)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a session that nobody waits for: %v", err)
	}
	go try()
	if err := n.serve(second.rpc, second.told().Credential, outcome(0)); err != io.EOF {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAServerWithoutTheTunnelPassesOn(t *testing.T) {
	x := startServers(t)
	x.lead("scheduler", 0)
	x.lead("controllers", 1)
	r := &reach{TB: t, cluster: x.cluster, node: tunneltest.New()}
	r.place(x.client(0, auth.Admin("ann")), "pod-a", "node-a")
	rpc := func(i int, id auth.Identity) kubepb.ClusterStateClient { return x.client(i, id).RPC() }
	vic, ed := auth.Identity{Name: "vic", Groups: []string{"view"}}, auth.Identity{Name: "ed", Groups: []string{"edit"}}
	if _, err := tunnel.Exec(t.Context(), rpc(0, ed), exec("echo"), runtime.Streams{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "its kubelet has never told") {
		t.Errorf("while no server has a tunnel: %v", err)
	}
	rpc(1, auth.Node("node-a"))
	stop := r.serveNode(x.services[1].Dial(auth.Node("node-a")))
	stands(t, rpc(1, auth.Admin("ann")))
	for asked := range x.services {
		var out bytes.Buffer
		cat := exec("cat")
		cat.Stdin = true
		much := strings.Repeat("0123456789", 50_000)
		if _, err := tunnel.Exec(t.Context(), rpc(asked, ed), cat, runtime.Streams{Stdin: strings.NewReader(much), Stdout: &out}); err != nil || out.String() != much {
			t.Errorf("server %d: %d bytes of %d, %v", asked, out.Len(), len(much), err)
		}
		if code, err := tunnel.Exec(t.Context(), rpc(asked, ed), exec("exit", "5"), runtime.Streams{}); code != 5 || err != nil {
			t.Errorf("server %d: exit code %d, %v", asked, code, err)
		}
		if _, err := tunnel.Exec(t.Context(), rpc(asked, ed), exec("nothing"), runtime.Streams{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "cannot be run") {
			t.Errorf("server %d: what the node refuses: %v", asked, err)
		}
		if _, err := tunnel.Exec(t.Context(), rpc(asked, vic), exec("echo"), runtime.Streams{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("server %d: %v", asked, err)
		}
		dialled(t, rpc(asked, ed))
		// Its user goes.
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := tunnel.Exec(ctx, rpc(asked, ed), exec("hang"), runtime.Streams{Stdout: cancelling{cancel}}); status.Code(err) != codes.Canceled {
			t.Errorf("server %d: %v", asked, err)
		}
		r.idle()
	}
	stop()
	// What was passed on is not passed on again, and not asked for in the name of others.
	passed := &kubepb.Ask{Node: "node-a", User: "ann", What: &kubepb.Ask_Exec{Exec: exec("echo")}}
	for _, w := range []struct {
		id   auth.Identity
		code codes.Code
	}{{auth.Identity{Name: auth.APIServerUser}, codes.Unavailable}, {vic, codes.PermissionDenied}} {
		stream, err := rpc(0, w.id).Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&kubepb.Frame{What: &kubepb.Frame_Ask{Ask: passed}}); err != nil {
			t.Error(err)
		}
		if _, err := stream.Recv(); status.Code(err) != w.code {
			t.Errorf("%s: %v", w.id.Name, err)
		}
	}
}

func TestANodeThatIsAwayIsToldOfWithWhatToDo(t *testing.T) {
	x := newReach(t)
	c := x.cluster.Client(auth.Admin("ann"))
	for _, w := range []struct {
		ready *corev1.NodeCondition
		says  string
	}{
		{nil, "node node-a has no tunnel to any control plane that answers: its kubelet has never told how the node is"},
		{&corev1.NodeCondition{Status: corev1.ConditionTrue}, "though it is ready: its kubelet has just started"},
		{&corev1.NodeCondition{Status: corev1.ConditionUnknown, LastTransitionTime: metav1.Unix(1893456000, 0)}, "its kubelet does not answer since 2030-01-01T00:00:00Z: see 'holdfastctl describe node node-a'"},
	} {
		if w.ready != nil {
			w.ready.Type = corev1.NodeReady
			n, err := objects.Get[*corev1.Node](t.Context(), c, "", "node-a")
			if err != nil {
				t.Fatal(err)
			}
			n.Status.Conditions = []corev1.NodeCondition{*w.ready}
			if _, err := objects.UpdateStatus(t.Context(), c, n); err != nil {
				t.Fatal(err)
			}
			if _, err := objects.Get[*corev1.Node](t.Context(), c, "", "node-a"); err != nil { // The cache has it.
				t.Fatal(err)
			}
		}
		err := tunnel.Logs(t.Context(), x.admin, &kubepb.LogsRequest{Of: podA()}, io.Discard)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), w.says) {
			t.Errorf("%v, want %q", err, w.says)
		}
	}
}

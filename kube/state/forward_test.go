package state_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// explainer is a scheduler that says who it is.
type explainer string

func (e explainer) Explain(_ context.Context, pod *kubepb.Ref) (*kubepb.ExplainResponse, error) {
	return &kubepb.ExplainResponse{Decisions: []*kubepb.Decision{{Note: string(e) + " on " + pod.Name}}}, nil
}

// servers are two over one store, which know of each other.
type servers struct {
	*testing.T
	cluster   *kubetest.Cluster
	clock     *ahead
	services  [2]*state.Service
	addresses [2]string
}

func startServers(t *testing.T) *servers {
	x := &servers{T: t, cluster: kubetest.Start(t), clock: &ahead{Clock: clock.Real()}}
	ca := newIssuer(t)
	for i := range x.services {
		l := listen(t)
		x.addresses[i] = l.Addr().String()
		x.services[i] = x.cluster.Another(func(c *state.Config) {
			c.Address, c.Clock, c.Explainer = x.addresses[i], x.clock, explainer(fmt.Sprint("scheduler ", i))
			c.Peer = func(address string) (*grpc.ClientConn, error) { return ca.dial(address, subject(auth.APIServerUser)) }
		})
		ca.serve(x.services[i], l)
	}
	return x
}

// client of one server, which has seen all that was written so far.
func (x *servers) client(i int, id auth.Identity) *objects.Client {
	x.Helper()
	admin := objects.New(x.services[i].Dial(auth.Admin("ann")), "test")
	if _, _, err := objects.List[*corev1.Node](x.Context(), admin, objects.ListOptions{}); err != nil {
		x.Fatal(err)
	}
	return objects.New(x.services[i].Dial(id), "test")
}

// lead has a part lead on one of the servers; -1: on none.
func (x *servers) lead(part string, i int) {
	x.Helper()
	prefix := leader.Prefix + part + "/"
	if _, err := x.cluster.Store().Delete(x.Context(), client.Delete{Range: client.Prefix(prefix)}); err != nil {
		x.Fatal(err)
	}
	if i < 0 {
		return
	}
	claim := leader.Claim{Name: fmt.Sprint("m", i), Address: x.addresses[i]}
	if _, err := x.cluster.Store().Put(x.Context(), client.Put{Key: prefix + "1", Value: []byte(claim.String())}); err != nil {
		x.Fatal(err)
	}
	// Who campaigns behind it does not lead.
	if _, err := x.cluster.Store().Put(x.Context(), client.Put{Key: prefix + "0", Value: []byte("later@127.0.0.1:1")}); err != nil {
		x.Fatal(err)
	}
}

func TestEachServerExplainsWhatTheSchedulerThatLeadsDecided(t *testing.T) {
	x := startServers(t)
	create(t, x.client(0, auth.Admin("ann")), podOf("p", "1"))
	viewer := auth.Identity{Name: "vic", Groups: []string{auth.ViewGroup}}
	for leads := range x.services {
		x.lead("scheduler", leads)
		for asked := range x.services {
			answer, err := x.client(asked, viewer).Explain(t.Context(), "default", "p")
			if want := fmt.Sprintf("scheduler %d on p", leads); err != nil || answer.Decisions[0].Note != want {
				t.Errorf("server %d, scheduler %d leads: %v, %v", asked, leads, answer, err)
			}
		}
	}
	nobody := auth.Identity{Name: "nobody", Groups: []string{"guests"}}
	if _, err := x.client(0, nobody).Explain(t.Context(), "default", "p"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("who may not ask: %v", err)
	}
	x.lead("scheduler", -1)
	if _, err := x.client(0, viewer).Explain(t.Context(), "default", "p"); status.Code(err) != codes.Unavailable {
		t.Errorf("while nobody leads: %v", err)
	}
}

func TestSamplesAreWhereTheControllersLead(t *testing.T) {
	x := startServers(t)
	admin := x.client(0, auth.Admin("ann"))
	x.lead("controllers", 1)
	for i := range x.services { // Each node speaks to another server.
		name := fmt.Sprint("n", i)
		create(t, admin, nodeOf(name, "4"))
		p := create(t, admin, podOf("p"+name, "1"))
		if err := bind(t, admin, p, name); err != nil {
			t.Fatal(err)
		}
	}
	speak := func() {
		t.Helper()
		for i := range x.services {
			name := fmt.Sprint("n", i)
			x.client(1, auth.Node(name)) // The other has seen the node, too.
			_, err := x.client(i, auth.Node(name)).RPC().Sample(t.Context(), &kubepb.SampleRequest{
				Node: name, Use: &kubepb.Use{CpuMillis: 7}, Pods: []*kubepb.PodUse{{Namespace: "default", Name: "p" + name}, {Namespace: "default", Name: "anothers"}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	used := func(want string) {
		t.Helper()
		for asked := range x.services {
			answer, err := x.client(asked, auth.Controllers()).Usage(t.Context(), &kubepb.UsageRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range answer.Nodes {
				got = append(got, n.Node)
			}
			for _, p := range answer.Pods {
				got = append(got, p.Name)
			}
			if fmt.Sprint(got) != want {
				t.Errorf("server %d: %v, want %s", asked, got, want)
			}
		}
	}
	speak()
	used("[n0 n1 pn0 pn1]")
	x.lead("controllers", 0) // Samples come again.
	used("[]")
	speak()
	used("[n0 n1 pn0 pn1]")
	x.clock.by.Add(int64(2 * time.Minute)) // Who falls silent uses nothing.
	used("[]")
}

func TestAnotherServerMayOnlyPassOn(t *testing.T) {
	cluster := twoNodes(t)
	other := cluster.Client(auth.Identity{Name: auth.APIServerUser})
	if _, err := objects.Get[*corev1.Secret](t.Context(), other, "default", "secret-a"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a secret: %v", err)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), other, "default", "pod-a"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a deletion: %v", err)
	}
	if _, err := other.Usage(t.Context(), &kubepb.UsageRequest{}); err != nil {
		t.Error(err)
	}
}

package state_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of random requests; 0: drawn and printed")
	requests = flag.Int("requests", 1500, "random requests")
)

func newRandom(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// twoNodes is a cluster in which each of two nodes has a pod that names a secret and a
// config map of its own.
func twoNodes(t *testing.T) *kubetest.Cluster {
	t.Helper()
	cluster, c := admin(t)
	for _, n := range []string{"a", "b"} {
		create(t, c, nodeOf("node-"+n, "4"))
		secret := &corev1.Secret{StringData: map[string]string{"k": "v"}}
		secret.Namespace, secret.Name = "default", "secret-"+n
		create(t, c, secret)
		m := &corev1.ConfigMap{Data: map[string]string{"k": "v"}}
		m.Namespace, m.Name = "default", "config-"+n
		create(t, c, m)
		p := podOf("pod-"+n, "1")
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret.Name}}}}
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: m.Name},
		}}}
		if err := bind(t, c, create(t, c, p), "node-"+n); err != nil {
			t.Fatal(err)
		}
	}
	return cluster
}

// try makes one random request about a thing, and reports what succeeded.
type try struct {
	*rand.Rand
	ctx  context.Context
	c    *objects.Client
	node string // Whose things: "a" or "b".
}

func (x *try) ref() *kubepb.Ref {
	refs := []*kubepb.Ref{
		{Kind: "Node", Name: "node-" + x.node}, {Kind: "Pod", Namespace: "default", Name: "pod-" + x.node},
		{Kind: "Secret", Namespace: "default", Name: "secret-" + x.node}, {Kind: "ConfigMap", Namespace: "default", Name: "config-" + x.node},
	}
	return refs[x.IntN(len(refs))]
}

func (x *try) object(ref *kubepb.Ref) *kubepb.Object {
	k, _ := api.ByName(ref.Kind)
	o := k.New()
	o.SetName(ref.Name)
	o.SetNamespace(ref.Namespace)
	switch o := o.(type) {
	case *corev1.Pod:
		o.Spec = podOf("", "1").Spec
		o.Spec.NodeName = "node-" + x.node
		o.Status.Phase = corev1.PodFailed
	case *corev1.Node:
		o.Status = nodeOf("", "8").Status
	}
	if x.IntN(2) == 0 {
		o.SetLabels(map[string]string{"x": "y"})
	}
	raw, _ := api.EncodeJSON(o)
	return &kubepb.Object{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, Encoding: kubepb.Encoding_JSON, Raw: raw}
}

// request makes one, and tells what it was.
func (x *try) request() (what string, err error) {
	rpc, ref := x.c.RPC(), x.ref()
	pod := &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: "pod-" + x.node}
	node := "node-" + x.node
	switch n := x.IntN(16); n {
	case 0:
		_, err = rpc.Get(x.ctx, &kubepb.GetRequest{Object: ref, Encoding: kubepb.Encoding(x.IntN(2)), ResourceVersion: int64(x.IntN(2))})
		return "get " + ref.String(), err
	case 1:
		_, err = rpc.List(x.ctx, &kubepb.ListRequest{Kind: ref.Kind, Namespace: ref.Namespace, FieldSelector: "metadata.name=" + ref.Name})
		return "list " + ref.String(), err
	case 2:
		_, err = rpc.List(x.ctx, &kubepb.ListRequest{Kind: "Pod", FieldSelector: []string{"", "spec.nodeName=" + node, "spec.nodeName!=x"}[x.IntN(3)]})
		return "list pods", err
	case 3:
		return "watch " + ref.String(), x.watch(&kubepb.WatchRequest{Kind: ref.Kind, FieldSelector: "metadata.name=" + ref.Name})
	case 4:
		return "watch pods", x.watch(&kubepb.WatchRequest{Kind: "Pod", FieldSelector: "spec.nodeName=" + node})
	case 5:
		_, err = rpc.Create(x.ctx, &kubepb.CreateRequest{Object: x.object(ref), DryRun: x.IntN(2) == 0})
	case 6:
		_, err = rpc.Update(x.ctx, &kubepb.UpdateRequest{Object: x.object(ref)})
	case 7:
		_, err = rpc.UpdateStatus(x.ctx, &kubepb.UpdateRequest{Object: x.object(ref)})
	case 8:
		_, err = rpc.Patch(x.ctx, &kubepb.PatchRequest{Object: ref, Type: kubepb.PatchRequest_MERGE, Patch: []byte(`{"metadata":{"labels":{"x":"y"}}}`), Status: x.IntN(2) == 0})
	case 9:
		_, err = rpc.Delete(x.ctx, &kubepb.DeleteRequest{Object: ref, GraceSet: true})
	case 10:
		_, err = rpc.Bind(x.ctx, &kubepb.BindRequest{Pod: pod, Node: node})
	case 11:
		_, err = rpc.Evict(x.ctx, &kubepb.EvictRequest{Pod: pod})
	case 12:
		return "heartbeat", x.heartbeat(node)
	case 13:
		_, err = rpc.Sample(x.ctx, &kubepb.SampleRequest{Node: node, Pods: []*kubepb.PodUse{{Namespace: "default", Name: "pod-" + x.node}}})
	case 14:
		return "event", x.event(pod.Name, node)
	case 15:
		_, err = rpc.Usage(x.ctx, &kubepb.UsageRequest{Node: node})
	}
	return ref.String(), err
}

func (x *try) watch(r *kubepb.WatchRequest) error {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	stream, err := x.c.RPC().Watch(ctx, r)
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func (x *try) heartbeat(node string) error {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	stream, err := x.c.RPC().Heartbeat(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&kubepb.HeartbeatRequest{Node: node, Instance: "i"}); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func (x *try) event(pod, node string) error {
	e := &corev1.Event{Reason: "Tested"}
	e.Namespace, e.GenerateName = "default", "e-"
	e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: pod}
	if x.IntN(2) == 0 {
		e.InvolvedObject = corev1.ObjectReference{Kind: "Node", Name: node}
	}
	_, err := objects.Create(x.ctx, x.c, e)
	return err
}

func TestANodeCanDoNothingToWhatIsAnothers(t *testing.T) {
	cluster := twoNodes(t)
	x := &try{Rand: newRandom(t), ctx: t.Context(), c: cluster.Client(auth.Node("node-a")), node: "b"}
	before := dump(t, cluster)
	for range *requests {
		if what, err := x.request(); err == nil {
			t.Fatalf("as node-a, about node-b: %s succeeded", what)
		}
	}
	if after := dump(t, cluster); after != before {
		t.Errorf("what is stored changed from\n%s\nto\n%s", before, after)
	}
	// The same requests about its own succeed, so that the others fail for the right reason.
	x.node = "a"
	did := map[string]bool{}
	for range *requests {
		if what, err := x.request(); err == nil {
			verb, _, _ := strings.Cut(what, " ")
			did[verb] = true
		}
	}
	for _, verb := range []string{"get", "list", "watch", "heartbeat", "event"} {
		if !did[verb] {
			t.Errorf("as node-a, about itself: no %s succeeded", verb)
		}
	}
}

// dump is all that is stored about node-b, without what beats.
func dump(t *testing.T, cluster *kubetest.Cluster) string {
	t.Helper()
	c := cluster.Client(auth.Admin("ann"))
	var b strings.Builder
	for _, k := range api.Kinds {
		r, err := c.RPC().List(t.Context(), &kubepb.ListRequest{Kind: k.Name})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range r.Items {
			b.WriteString(k.Key(o.Namespace, o.Name) + "@" + api.FormatVersion(o.ResourceVersion) + "\n")
		}
	}
	return b.String()
}

func TestAWatchOfASecretEndsWithThePodThatNamedIt(t *testing.T) {
	cluster := twoNodes(t)
	c := cluster.Client(auth.Admin("ann"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := cluster.Client(auth.Node("node-a")).RPC().Watch(ctx, &kubepb.WatchRequest{
		Kind: "Secret", Namespace: "default", FieldSelector: "metadata.name=secret-a",
	})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || len(m.Events) != 2 { // It, and SYNCED.
		t.Fatalf("%v, %v", m, err)
	}
	if err := objects.Delete[*corev1.Pod](ctx, c, "default", "pod-a", seconds(0)); err != nil {
		t.Fatal(err)
	}
	s, err := objects.Get[*corev1.Secret](ctx, c, "default", "secret-a")
	if err != nil {
		t.Fatal(err)
	}
	s.Data["k"] = []byte("new")
	if _, err := objects.Update(ctx, c, s); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err == nil || !strings.Contains(err.Error(), "may not watch") {
		t.Errorf("after its pod has gone: %v, %v", m, err)
	}
}

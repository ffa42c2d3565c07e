package state_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestAnEditorPutsNoPodOnANodeThroughATemplateEither(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n", "4"))
	editor := cluster.Client(auth.Identity{Name: "ed", Groups: []string{auth.EditGroup}})
	one := int32(1)
	app := map[string]string{"app": "web"}
	spec := podOf("", "1").Spec
	spec.NodeName = "n"
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: spec}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template}}
	r := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r"}, Spec: appsv1.ReplicaSetSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template}}
	for name, create := range map[string]func(*objects.Client) error{
		"deployment":  func(c *objects.Client) error { _, err := objects.Create(t.Context(), c, d); return err },
		"replica set": func(c *objects.Client) error { _, err := objects.Create(t.Context(), c, r); return err },
	} {
		if err := create(editor); !errors.Is(err, objects.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
		if err := create(c); err != nil {
			t.Errorf("%s by an administrator: %v", name, err)
		}
	}
	// What an administrator has put there, others may still scale and change.
	if _, err := editor.Scale(t.Context(), &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: "d"}, Replicas: 2}); err != nil {
		t.Error(err)
	}
}

func TestAnEditorDoesNotSayHowPodsAre(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n", "4"))
	p := create(t, c, podOf("p", "1"))
	if err := bind(t, c, p, "n"); err != nil {
		t.Fatal(err)
	}
	editor := cluster.Client(auth.Identity{Name: "ed", Groups: []string{auth.EditGroup}})
	p, err := objects.Get[*corev1.Pod](t.Context(), editor, "default", "p")
	if err != nil {
		t.Fatal(err)
	}
	p.Status.Phase = corev1.PodSucceeded
	if _, err := objects.UpdateStatus(t.Context(), editor, p); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("status: %v", err)
	}
	if l := ledgerOf(t, cluster, "n"); l.CpuMillis != 1000 {
		t.Errorf("ledger %v", l)
	}
}

func TestAGuardTellsNothingThatItsCallerMayNotRead(t *testing.T) {
	cluster := twoNodes(t)
	node := cluster.Client(auth.Node("node-a"))
	p, err := objects.Get[*corev1.Pod](t.Context(), node, "default", "pod-a")
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]error{"secret-b": objects.ErrDenied, "nowhere": objects.ErrDenied, "secret-a": objects.ErrGuard} {
		guard := objects.Option{Guards: []*kubepb.Guard{{Object: &kubepb.Ref{Kind: "Secret", Namespace: "default", Name: secret}, ResourceVersion: 1}}}
		if _, err := objects.UpdateStatus(t.Context(), node, p, guard); !errors.Is(err, want) {
			t.Errorf("%s: %v", secret, err)
		}
	}
}

func TestANodeRegistersWithoutOwnersAndFinalizers(t *testing.T) {
	cluster, _ := admin(t)
	node := cluster.Client(auth.Node("n"))
	n := nodeOf("n", "1")
	n.Finalizers = []string{"holdfast.io/stay"}
	if _, err := objects.Create(t.Context(), node, n); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("with a finalizer: %v", err)
	}
	create(t, node, nodeOf("n", "1"))
}

func TestANodeSeesOfOthersWhereTheyAreAndNoMore(t *testing.T) {
	cluster, c := admin(t)
	for _, name := range []string{"n", "other"} {
		n := nodeOf(name, "4")
		n.Labels = map[string]string{"secret": "label"}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}}
		create(t, c, n)
	}
	node := cluster.Client(auth.Node("n"))
	all, _, err := objects.List[*corev1.Node](t.Context(), node, objects.ListOptions{Limit: 1}) // Both parts of a list.
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, n := range all {
		if n.Spec.PodCIDR == "" || len(n.Status.Addresses) != 1 || n.UID == "" || n.ResourceVersion == "" {
			t.Errorf("it does not see where %s is: %+v", n.Name, n)
		}
		if len(n.Labels)+len(n.Status.Capacity)+len(n.Status.Conditions)+len(n.Annotations) > 0 {
			t.Errorf("it sees more of %s: %+v", n.Name, n)
		}
	}
	if _, err := objects.Get[*corev1.Node](t.Context(), node, "", "other"); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("get: %v", err)
	}
	for o, want := range map[objects.ListOptions]error{
		{Fields: "metadata.name=other"}: objects.ErrDenied, {Labels: "secret=label"}: objects.ErrInvalid, {Fields: "metadata.name!=n"}: objects.ErrInvalid,
	} {
		if _, _, err := objects.List[*corev1.Node](t.Context(), node, o); !errors.Is(err, want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	own, _, err := objects.List[*corev1.Node](t.Context(), node, objects.ListOptions{Fields: "metadata.name=n"})
	if err != nil || len(own) != 1 || own[0].Labels["secret"] == "" {
		t.Errorf("itself: %v, %v", own, err)
	}
}

func TestANodeIsToldOfChangesThatConcernItsRoutesOnly(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("n", "4"))
	i := objects.NewInformer[*corev1.Node](cluster.Client(auth.Node("n")), objects.ListOptions{}, hclog.NewNullLogger())
	told := make(chan string, 10)
	i.OnChange(func(old, now *corev1.Node) {
		if now == nil {
			told <- "gone " + old.Name
		} else {
			told <- now.Name + " " + fmt.Sprint(now.Status.Addresses)
		}
	})
	go i.Run(t.Context())
	if err := i.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-told
	other := create(t, c, nodeOf("other", "4"))
	other.Labels = map[string]string{"a": "b"}
	other, err := objects.Update(t.Context(), c, other)
	if err != nil {
		t.Fatal(err)
	}
	other.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}}
	if _, err := objects.UpdateStatus(t.Context(), c, other); err != nil {
		t.Fatal(err)
	}
	if err := objects.Delete[*corev1.Node](t.Context(), c, "", "other"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"other []", "other [{InternalIP 192.0.2.7}]", "gone other"} {
		if got := <-told; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

func TestANodeMakesMirrorsOfItsOwnPodsAndNoOthers(t *testing.T) {
	cluster, c := admin(t)
	create(t, c, nodeOf("a", "4"))
	create(t, c, nodeOf("b", "4"))
	node := cluster.Client(auth.Node("a"))
	mirror := func(set func(p *corev1.Pod)) error {
		p := podOf("m", "1")
		p.Spec.NodeName = "a"
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		if set != nil {
			set(p)
		}
		_, err := objects.Create(t.Context(), node, p)
		return err
	}
	for what, set := range map[string]func(p *corev1.Pod){
		"no mirror":       func(p *corev1.Pod) { p.Annotations = nil },
		"of another node": func(p *corev1.Pod) { p.Spec.NodeName = "b" },
		"of no node":      func(p *corev1.Pod) { p.Spec.NodeName = "" },
		"names a secret": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		},
		"names a config map": func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}}}
		},
		"owned": func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "r", UID: "u"}}
		},
	} {
		if err := mirror(set); !errors.Is(err, objects.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := mirror(nil); err != nil {
		t.Fatal(err)
	}
	if l := ledgerOf(t, cluster, "a"); l.CpuMillis != 1000 {
		t.Errorf("ledger %v", l)
	}
	if err := mirror(func(p *corev1.Pod) {
		p.Name = "n"
		p.Spec.Containers[0].Resources = podOf("", "4").Spec.Containers[0].Resources
	}); !errors.Is(err, objects.ErrFull) {
		t.Errorf("without room: %v", err)
	}
	now := int64(0)
	if err := objects.Delete[*corev1.Pod](t.Context(), cluster.Client(auth.Node("b")), "default", "m", objects.Option{Grace: &now}); !errors.Is(err, objects.ErrDenied) {
		t.Errorf("by another node: %v", err)
	}
	if err := objects.Delete[*corev1.Pod](t.Context(), node, "default", "m", objects.Option{Grace: &now}); err != nil {
		t.Error(err)
	}
}

// Who runs a pod tells so of itself alone, and nobody but an administrator decides.
func TestAfterARestoreNodesTellOfThemselvesAndAdministratorsDecide(t *testing.T) {
	timeline := func(c *state.Config) { c.Timeline = func() uint64 { return 1 } }
	cluster := kubetest.Start(t, timeline)
	for who, allowed := range map[string]struct {
		id                 auth.Identity
		look, tell, decide bool
	}{
		"node":      {auth.Node("a"), false, true, false},
		"another":   {auth.Node("b"), false, false, false},
		"scheduler": {auth.Scheduler(), true, false, false},
		"edit":      {auth.Identity{Name: "ed", Groups: []string{auth.EditGroup}}, true, false, false},
		"view":      {auth.Identity{Name: "vi", Groups: []string{auth.ViewGroup}}, true, false, false},
		"admin":     {auth.Admin("ann"), true, false, true},
	} {
		c := cluster.Client(allowed.id)
		_, look := c.Recovery(t.Context(), true)
		_, tell := c.RPC().Inventory(t.Context(), &kubepb.InventoryRequest{Node: "a"})
		_, decide := c.Recover(t.Context(), &kubepb.RecoverRequest{Action: kubepb.RecoverRequest_SETTLE})
		denied := func(err error) bool {
			return status.Code(err) == codes.PermissionDenied || errors.Is(err, objects.ErrDenied)
		}
		if denied(look) == allowed.look || denied(tell) == allowed.tell || denied(decide) == allowed.decide {
			t.Errorf("%s: looks %v, tells %v, decides %v", who, look, tell, decide)
		}
	}
}

// A node that never says that this was all must not fill the store.
func TestANodeTellsOfNoMorePodsThanItCanHave(t *testing.T) {
	cluster := kubetest.Start(t, func(c *state.Config) { c.Timeline = func() uint64 { return 1 } })
	// It waits until the history of the store is known, and refuses another.
	if _, err := cluster.Client(auth.Node("a")).RPC().Inventory(t.Context(), &kubepb.InventoryRequest{Node: "a", History: 1 << 62}); status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
	is, err := cluster.Client(auth.Admin("ann")).Recovery(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID, pod.Spec.NodeName = "default", "p", "u", "a"
	raw, err := api.Encode(pod)
	if err != nil {
		t.Fatal(err)
	}
	value, err := (&kubepb.InventoryEntry{History: is.History, Pod: raw}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		var puts []client.Op
		for j := range 100 {
			puts = append(puts, client.Put{Key: fmt.Sprintf("%sa/%d-%d", state.InventoryPrefix, i, j), Value: value})
		}
		if _, err := cluster.Store().Txn(t.Context(), client.Txn{Then: puts}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cluster.Client(auth.Admin("ann")).Recovery(t.Context(), false); err != nil { // It reads what was written.
		t.Fatal(err)
	}
	for node, refused := range map[string]bool{"a": true, "b": false} {
		pod.Spec.NodeName = node
		if raw, err = api.Encode(pod); err != nil {
			t.Fatal(err)
		}
		_, err := cluster.Client(auth.Node(node)).RPC().Inventory(t.Context(), &kubepb.InventoryRequest{
			Node: node, History: is.History, More: true, Pods: []*kubepb.InventoryPod{{Pod: raw}},
		})
		if (status.Code(err) == codes.FailedPrecondition) != refused || !refused && err != nil {
			t.Errorf("node %s: %v", node, err)
		}
	}
}

package state_test

import (
	"errors"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
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

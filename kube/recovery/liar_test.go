package recovery_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/recovery"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// tell has a node tell, in its own name, of pods that it says it runs.
func (w *world) tell(node string, pods ...*corev1.Pod) {
	w.Helper()
	is, err := w.admin.Recovery(w.Context(), false)
	if err != nil {
		w.Fatal(err)
	}
	r := &kubepb.InventoryRequest{Node: node, History: is.History}
	for _, p := range pods {
		p.Spec.NodeName = node
		raw, err := api.Encode(p.DeepCopy())
		if err != nil {
			w.Fatal(err)
		}
		r.Pods, r.Uids = append(r.Pods, &kubepb.InventoryPod{Pod: raw, Running: true}), append(r.Uids, string(p.UID))
	}
	if _, err := w.cluster.Client(auth.Node(node)).RPC().Inventory(w.Context(), r); err != nil {
		w.Fatal(err)
	}
}

// replicaSet is the ReplicaSet of a Deployment.
func (w *world) replicaSet(deployment string) *appsv1.ReplicaSet {
	w.Helper()
	var found *appsv1.ReplicaSet
	w.eventually("deployment "+deployment+" has a set", func() error {
		all, _, err := objects.List[*appsv1.ReplicaSet](w.Context(), w.admin, objects.ListOptions{Namespace: "default"})
		for _, s := range all {
			if o := metav1.GetControllerOf(s); o != nil && o.Name == deployment {
				found = s
				return nil
			}
		}
		return errors.Join(err, errors.New("there is none"))
	})
	return found
}

// copyOf is a pod as a set would make it.
func copyOf(s *appsv1.ReplicaSet, uid types.UID) *corev1.Pod {
	t := s.Spec.Template.DeepCopy()
	p := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	p.Namespace, p.Name, p.UID = s.Namespace, s.Name+"-"+string(uid), uid
	p.OwnerReferences = []metav1.OwnerReference{api.ControlledBy(s)}
	return p
}

// A node that says that it runs a singleton holds up that one, not others, and only
// until it is distrusted.
func TestAClaimHoldsUpTheSingletonThatItNamesAndNoOther(t *testing.T) {
	w := newWorld(t, 2, clock.Real())
	w.deployment("one", 0, one)
	w.deployment("two", 0, one)
	claimed := copyOf(w.replicaSet("one"), "claimed")
	w.replicaSet("two")
	w.restore(w.revision())
	w.told()
	w.tell("liar", claimed)
	is := w.told()
	for _, n := range is.Nodes {
		if n.Node == "liar" && (n.Claims != 1 || n.Doubt != "it is not recorded") {
			t.Errorf("%v", n)
		}
	}
	if r, err := recovery.Prune(t.Context(), w.admin); err != nil || !r.Settled {
		t.Fatalf("%+v, %v", r, err)
	}
	w.scale("one", 1)
	w.scale("two", 1)
	w.eventually("the other one runs", func() error { return w.runs(1) })
	var waits *corev1.Pod
	w.eventually("there is a pod of the claimed one", func() error {
		for _, p := range w.pods("one") {
			waits = p
			return nil
		}
		return errors.New("none")
	})
	_, err := w.admin.Bind(t.Context(), &kubepb.BindRequest{
		Pod: &kubepb.Ref{Kind: "Pod", Namespace: "default", Name: waits.Name}, Node: "n0",
	})
	if !errors.Is(err, objects.ErrGuard) || !strings.Contains(err.Error(), "node liar may run a copy") {
		t.Errorf("it gets a node: %v", err)
	}
	if err := w.runs(1); err != nil {
		t.Error(err)
	}
	if err := recovery.Distrust(t.Context(), w.admin, []string{"liar"}); err != nil {
		t.Fatal(err)
	}
	w.tell("liar", claimed) // To no effect.
	w.eventually("both run", func() error { return w.runs(2) })
	w.settled()
	w.exact()
}

// What a node says of a pod is recorded where the store says the same, or an operator.
func TestWhatOnlyItsNodeSaysOfAPodIsNotRecordedWithoutTheOperatorsWord(t *testing.T) {
	w := newWorld(t, 2, clock.Real())
	w.deployment("web", 1, nil)
	w.eventually("it runs", func() error { return w.runs(1) })
	set := w.replicaSet("web")
	good, labelled, secret := copyOf(set, "good"), copyOf(set, "labelled"), copyOf(set, "secret")
	labelled.Labels["app"], labelled.Labels["tier"] = "web", "front"
	secret.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "db"}}}}
	bare := &corev1.Pod{}
	bare.Namespace, bare.Name, bare.UID, bare.Spec, bare.Labels = "default", "bare", "bare", spec(), map[string]string{"app": "api"}
	one := w.pods("web")
	for i := range 1000 { // More than are shown.
		bare.Labels[fmt.Sprint("l", i)] = strings.Repeat("v", 30)
	}
	w.restore(w.revision())
	w.told()
	w.tell("teller", good, labelled, secret, bare)
	for _, p := range one { // A pod keeps its node.
		stolen := p.DeepCopy()
		stolen.ResourceVersion = ""
		w.tell("thief", stolen)
	}
	doubts := map[string]string{}
	for _, p := range w.told().Pods {
		if p.List == kubepb.RecoveredPod_RUNNING {
			doubts[strings.TrimPrefix(p.Name, set.Name+"-")+" "+p.Node] = p.Doubt
		}
		if p.Uid == "secret" && fmt.Sprint(p.Names) != "[Secret/db]" {
			t.Errorf("names %v", p.Names)
		}
		if p.Uid == "bare" && len(p.Labels) != 20 {
			t.Errorf("%d labels", len(p.Labels))
		}
	}
	for name := range one {
		name = strings.TrimPrefix(name, set.Name+"-") + " thief"
		if !strings.HasPrefix(doubts[name], "not plausible because it is recorded on node n") {
			t.Errorf("%v", doubts)
		}
		delete(doubts, name)
	}
	want := map[string]string{
		"good teller": "", "bare teller": "only its node says what it is",
		"labelled teller": "its labels are not those of the template of ReplicaSet " + set.Name,
		"secret teller":   "its spec is not that of the template of ReplicaSet " + set.Name,
	}
	if fmt.Sprint(doubts) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", doubts, want)
	}
	r, err := recovery.Adopt(t.Context(), w.admin, false)
	if err != nil || len(r.Adopted) != 1 || r.Adopted[0].Uid != "good" || len(r.Refused) != 4 || len(r.Scaled) != 2 || r.Scaled[0].After != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = recovery.Adopt(t.Context(), w.admin, true); err != nil || len(r.Adopted) != 3 || len(r.Refused) != 1 || r.Refused[0].Pod.Node != "thief" {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := recovery.Distrust(t.Context(), w.admin, []string{"thief"}); err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is undecided", func() error {
		is, err := w.admin.Recovery(t.Context(), false)
		if err == nil && is.Undecided > 0 {
			err = fmt.Errorf("%v", is)
		}
		return err
	})
	w.exact()
}

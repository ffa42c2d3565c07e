package state

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// claimed is a pod of a set, one core wide, as a node tells of it.
func claimed(uid string, set *appsv1.ReplicaSet, singleton bool) *told {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: "p" + uid, UID: types.UID(uid)}}
	p.OwnerReferences = []metav1.OwnerReference{api.ControlledBy(set)}
	p.Annotations = map[string]string{api.Singleton: fmt.Sprint(singleton)}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}
	return &told{&kubepb.InventoryEntry{Running: true, Reserved: true}, p}
}

func setOf(name string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
}

func TestWhatIsAgainstAClaimIsNamed(t *testing.T) {
	const restored = 1000
	one := setOf("one-a1")
	web := setOf("web-a1")
	alone := claimed("alone", web, false)
	v := &comparison{
		standing: standing{state: &kubepb.RecoveryState{Since: restored}},
		heads:    map[string]*kubepb.InventoryHead{"a": {}, "b": {}, "c": {}},
		entries: map[string]map[string]*told{
			"a": {"x": claimed("x", one, true), "twice": claimed("twice", web, false)},
			"b": {"y": claimed("y", one, true), "twice": claimed("twice", web, false), "alone": alone},
		},
		machines: map[string]*corev1.Node{},
		sets:     map[string]*appsv1.ReplicaSet{},
	}
	for name, made := range map[string]int64{"a": restored - 1, "b": restored - 1, "c": restored} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(made, 0))}}
		n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("2"), "pods": resource.MustParse("9")}
		v.machines[name] = n
	}
	for what, c := range map[string]struct{ is, want string }{
		"a second copy":    {v.doubt("a", v.entries["a"]["x"], nil), "not plausible because pod py of the same singleton runs on node b, as that tells"},
		"two nodes":        {v.doubt("b", v.entries["b"]["twice"], nil), "not plausible because node a tells of it too"},
		"nothing recorded": {v.doubt("b", alone, nil), "only its node says what it is"},
		"room":             {v.nodeDoubt("a"), ""},
		"no room":          {v.nodeDoubt("b"), "not plausible because it tells of more than it has room for: cpu millis: 3000 wanted, 0 of 2000 taken"},
		"a new node":       {v.nodeDoubt("c"), "it was not recorded when the store was saved"},
	} {
		if c.is != c.want {
			t.Errorf("%s: %q, want %q", what, c.is, c.want)
		}
	}
	elsewhere := setOf("web-a1") // The template is of another namespace.
	elsewhere.Namespace = "other"
	v.sets["web-a1"] = elsewhere
	if is := v.doubt("b", alone, nil); is != "only its node says what it is" {
		t.Error(is)
	}
}

// A claim reserves what may be the same singleton, until it is over.
func TestAClaimReservesTheSingletonThatItNames(t *testing.T) {
	v := newInventories()
	at := func(name, uid, node string, set *appsv1.ReplicaSet) *corev1.Pod {
		p := claimed(uid, set, true).pod.DeepCopy()
		p.Name, p.Spec.NodeName = name, node
		return p
	}
	is := claimed("x", setOf("db-a1"), true)
	v.reserve(claim{"n", "x"}, is, true)
	for what, c := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"itself":               {at("px", "x", "n", setOf("db-a1")), false},
		"itself elsewhere":     {at("px", "x", "m", setOf("db-a1")), true},
		"of its name":          {at("px", "z", "", setOf("other-a1")), true},
		"of its set":           {at("q", "z", "", setOf("db-a1")), true},
		"of a set made anew":   {at("q", "z", "", setOf("db-b2")), true},
		"of another":           {at("q", "z", "", setOf("cache-a1")), false},
		"of one called longer": {at("q", "z", "", setOf("db-two-a1")), false},
	} {
		if _, found := v.rival(c.pod); found != c.want {
			t.Errorf("%s: %t", what, found)
		}
	}
	lost := claimed("l", setOf("x-a1"), true)
	lost.pod.Annotations[api.Unreadable] = "checkpoint"
	v.reserve(claim{"n", "l"}, lost, true)
	if _, found := v.rival(at("q", "z", "", setOf("cache-a1"))); !found {
		t.Error("what nobody can read may be any")
	}
	v.reserve(claim{"n", "l"}, lost, false)
	v.reserve(claim{"n", "x"}, is, false)
	if len(v.reserved) > 0 {
		t.Errorf("%v", v.reserved)
	}
}

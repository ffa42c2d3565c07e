package replay

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// history writes revisions by hand.
type history struct {
	t *testing.T
	c *checker
}

func (h *history) revision(events ...*mvccpb.Event) {
	h.t.Helper()
	at := h.c.at + 1
	for _, e := range events {
		e.Kv.ModRevision = at
	}
	if err := h.c.take(at, events); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) put(o api.Object) *mvccpb.Event {
	h.t.Helper()
	value, err := api.Encode(o)
	if err != nil {
		h.t.Fatal(err)
	}
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(api.KindOf(o).Key(o.GetNamespace(), o.GetName())), Value: value}}
}

func gone(o api.Object) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(api.KindOf(o).Key(o.GetNamespace(), o.GetName()))}}
}

func (h *history) ledger(node string, millis, pods int64) *mvccpb.Event {
	h.t.Helper()
	value, err := (&kubepb.Ledger{CpuMillis: millis, Pods: pods}).MarshalVT()
	if err != nil {
		h.t.Fatal(err)
	}
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(ledgerPrefix + node), Value: value}}
}

func node(name string) *corev1.Node {
	n := &corev1.Node{}
	n.Name = name
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourcePods: resource.MustParse("2")}
	return n
}

func pod(name, on string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID, p.Spec.NodeName = "default", name, types.UID(name), on
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("600m")},
	}}}
	return p
}

func owned[T api.Object](o T, owner api.Object) T {
	yes := true
	o.SetOwnerReferences([]metav1.OwnerReference{{Kind: api.KindOf(owner).Name, Name: owner.GetName(), UID: owner.GetUID(), Controller: &yes}})
	return o
}

func set(name string, replicas int32) *appsv1.ReplicaSet {
	s := &appsv1.ReplicaSet{}
	s.Namespace, s.Name, s.UID, s.Spec.Replicas = "default", name, types.UID("set-"+name), &replicas
	return s
}

func TestEachThingThatMustNotHappenIsFound(t *testing.T) {
	d := &appsv1.Deployment{}
	four := int32(4)
	d.Namespace, d.Name, d.UID, d.Spec.Replicas = "default", "web", "d", &four
	ending := pod("a", "n")
	ending.DeletionTimestamp = &metav1.Time{}
	for _, c := range []struct {
		name string
		says string // Empty: all is well.
		run  func(h *history)
	}{
		{"a bind with its ledger", "", func(h *history) {
			h.revision(h.put(pod("a", "")))
			h.revision(h.put(pod("a", "n")), h.ledger("n", 600, 1))
		}},
		{"a bind without its ledger", "ledger of node n", func(h *history) { h.revision(h.put(pod("a", "n"))) }},
		{"more than a node has", "over-committed", func(h *history) {
			h.revision(h.put(pod("a", "n")), h.ledger("n", 600, 1))
			h.revision(h.put(pod("b", "n")), h.ledger("n", 1200, 2))
		}},
		{"a pod that moves", "moved from node n", func(h *history) {
			h.revision(h.put(pod("a", "n")), h.ledger("n", 600, 1))
			h.revision(h.put(pod("a", "m")), h.ledger("n", 0, 0), h.ledger("m", 600, 1))
		}},
		{"a pod that vanishes", "without being told to end", func(h *history) {
			h.revision(h.put(pod("a", "n")), h.ledger("n", 600, 1))
			h.revision(gone(pod("a", "n")), h.ledger("n", 0, 0))
		}},
		{"a pod that ends", "", func(h *history) {
			h.revision(h.put(pod("a", "n")), h.ledger("n", 600, 1))
			h.revision(h.put(ending))
			h.revision(gone(ending), h.ledger("n", 0, 0))
		}},
		{"a copy too many", "copy 2 of ReplicaSet s, which wants 1", func(h *history) {
			s := set("s", 1)
			h.revision(h.put(s))
			h.revision(h.put(owned(pod("a", ""), s)))
			h.revision(h.put(owned(pod("b", ""), s)))
		}},
		{"a rollout beyond its surge", "want 6 together, which is more than 5", func(h *history) {
			h.revision(h.put(d))
			h.revision(h.put(owned(set("old", 4), d)))
			h.revision(h.put(owned(set("new", 1), d)))
			h.revision(h.put(owned(set("new", 2), d)))
		}},
		{"a new template while there are too many copies", "", func(h *history) {
			h.revision(h.put(d))
			h.revision(h.put(owned(set("old", 4), d)))
			less := d.DeepCopy()
			*less.Spec.Replicas = 1
			h.revision(h.put(less))
			h.revision(h.put(owned(set("new", 0), d)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &history{t, newChecker()}
			h.revision(h.put(node("n")), h.put(node("m")))
			c.run(h)
			found := strings.Join(h.c.report.Violations, "\n")
			if c.says == "" && found != "" || !strings.Contains(found, c.says) {
				t.Errorf("found %q, want %q", found, c.says)
			}
		})
	}
}

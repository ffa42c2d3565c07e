package controller

import (
	"context"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// yard is a store of sets and pods, and views of it that show what a test says.
type yard struct {
	*testing.T
	collector *collector
	stored    map[*api.Kind][]api.Object
	shown     map[*api.Kind][]api.Object
	written   []api.Object
}

func newYard(t *testing.T) *yard {
	y := &yard{T: t, stored: map[*api.Kind][]api.Object{}, shown: map[*api.Kind][]api.Object{}}
	leads := &term{clock: clocktest.New(), log: hclog.NewNullLogger(), views: &views{shelves: map[*api.Kind]shelf{}}}
	y.collector = &collector{leads, map[*api.Kind]*loop{}}
	for _, k := range []*api.Kind{api.ReplicaSet, api.Pod} {
		leads.views.shelves[k] = y.shelf(k)
		y.collector.loops[k] = leads.loop(k.Resource, nil)
	}
	return y
}

func (y *yard) shelf(k *api.Kind) shelf {
	find := func(all []api.Object, name string) (api.Object, bool) {
		i := slices.IndexFunc(all, func(o api.Object) bool { return o.GetName() == name })
		if i < 0 {
			return nil, false
		}
		return all[i], true
	}
	return shelf{
		get: func(_, name string) (api.Object, bool) { return find(y.shown[k], name) },
		byOwner: func(uid string) (all []api.Object) {
			for _, o := range y.shown[k] {
				if slices.Contains(ownersOf(o), uid) {
					all = append(all, o)
				}
			}
			return all
		},
		live: func(_ context.Context, _, name string) (api.Object, error) {
			if o, ok := find(y.stored[k], name); ok {
				return o.DeepCopyObject().(api.Object), nil
			}
			return nil, objects.ErrNotFound
		},
		stored: func(context.Context, string) ([]api.Object, error) { return y.stored[k], nil },
		update: func(_ context.Context, o api.Object, _ ...objects.Option) error {
			y.written = append(y.written, o)
			y.stored[k] = slices.DeleteFunc(slices.Clone(y.stored[k]), func(was api.Object) bool { return was.GetName() == o.GetName() })
			y.stored[k] = append(y.stored[k], o)
			return nil
		},
	}
}

func setOf(uid types.UID) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: uid}}
}

func ownedBy(owner *appsv1.ReplicaSet) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1", OwnerReferences: []metav1.OwnerReference{api.ControlledBy(owner)}}}
}

// TestAnOwnerThatGoesAloneFreesWhatTheViewsDoNotShowYet: else it would be garbage as soon
// as they do.
func TestAnOwnerThatGoesAloneFreesWhatTheViewsDoNotShowYet(t *testing.T) {
	y := newYard(t)
	owner, now := setOf("one"), metav1.Now()
	owner.DeletionTimestamp, owner.Finalizers = &now, []string{metav1.FinalizerOrphanDependents}
	y.stored[api.ReplicaSet], y.shown[api.ReplicaSet] = []api.Object{owner}, []api.Object{owner}
	y.stored[api.Pod] = []api.Object{ownedBy(owner)} // Made just before, and told to nobody yet.
	if err := y.collector.sync(t.Context(), api.ReplicaSet, keyOf(owner)); err != nil {
		t.Fatal(err)
	}
	if len(y.written) != 2 || y.written[0].GetName() != "web-1" || len(y.written[0].GetOwnerReferences()) > 0 || len(y.written[1].GetFinalizers()) > 0 {
		t.Errorf("written, in this order: %+v", y.written)
	}
}

// TestWhatAnOwnerLeftIsLookedAtThoughAnotherHasItsName: a view that lists anew tells of
// both at once.
func TestWhatAnOwnerLeftIsLookedAtThoughAnotherHasItsName(t *testing.T) {
	y := newYard(t)
	first, second := setOf("one"), setOf("two")
	y.shown[api.Pod] = []api.Object{ownedBy(first)}
	y.collector.changed(api.ReplicaSet, first, second)
	if y.collector.loops[api.Pod].queue.Idle() {
		t.Error("nobody looks at the pod of the one that is gone")
	}
}

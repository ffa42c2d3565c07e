package state_test

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestAnOverviewCountsNodesAndKnowsOfARestore(t *testing.T) {
	timeline := func(n uint64) func(*state.Config) {
		return func(c *state.Config) { c.Timeline = func() uint64 { return n } }
	}
	cluster := kubetest.Start(t, timeline(1))
	admin := cluster.Client(auth.Admin("ann"))
	for name, ready := range map[string]corev1.ConditionStatus{"a": corev1.ConditionTrue, "b": corev1.ConditionFalse, "c": corev1.ConditionUnknown, "d": corev1.ConditionTrue, "new": ""} {
		n := &corev1.Node{}
		n.Name = name
		if ready != "" {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse}, {Type: corev1.NodeReady, Status: ready}}
		}
		if _, err := objects.Create(t.Context(), admin, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Recovery(t.Context(), false); err != nil { // It waits until the cache has what was written.
		t.Fatal(err)
	}
	check := func(s *state.Service, hold kubepb.Hold) {
		t.Helper()
		o, err := s.Overview()
		want := map[corev1.ConditionStatus]int{corev1.ConditionTrue: 2, corev1.ConditionFalse: 1, corev1.ConditionUnknown: 2}
		if err != nil || o.Hold != hold || !maps.Equal(o.Nodes, want) {
			t.Errorf("%+v, %v; want hold %v and %v", o, err, hold, want)
		}
	}
	check(cluster.Service, kubepb.Hold_HOLD_NONE)
	is, err := cluster.Store().Get(t.Context(), client.Get{Range: client.One("/"), CountOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	restored := cluster.Restore(is.Header.Revision, timeline(2))
	if err := restored.Service.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := restored.Client(auth.Admin("ann")).Recovery(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	check(restored.Service, kubepb.Hold_HOLD_ALL)
}

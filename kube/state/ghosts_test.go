package state

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// While a restore is being settled pods get nodes again. One whose node has not told of
// it yet is no ghost: it may have begun.
func TestAPodThatGotItsNodeAfterTheRestoreIsNoGhost(t *testing.T) {
	const restored = 1000
	yes := true
	pod := func(name string, scheduled int64) *corev1.Pod {
		p := &corev1.Pod{}
		p.Name, p.UID, p.Spec.NodeName = name, types.UID(name), "n"
		p.CreationTimestamp = metav1.NewTime(time.Unix(restored-500, 0))
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web", UID: "web", Controller: &yes}}
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Unix(scheduled, 0)),
		}}
		return p
	}
	v := &comparison{
		standing: standing{state: &kubepb.RecoveryState{Since: restored}},
		heads:    map[string]*kubepb.InventoryHead{"n": {}},
		entries:  map[string]map[string]*told{"n": {}},
		pods:     []*corev1.Pod{pod("before", restored-100), pod("after", restored+1)},
	}
	ghosts := v.ghosts()
	if len(ghosts) != 1 || ghosts[0].Name != "before" {
		t.Errorf("%d ghosts: %v", len(ghosts), ghosts)
	}
}

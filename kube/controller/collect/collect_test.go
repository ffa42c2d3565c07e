package collect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestAnObjectGoesWithItsLastOwner(t *testing.T) {
	stands, gone, waits := Owner{}, Owner{Gone: true}, Owner{Waits: true}
	for _, c := range []struct {
		what       string
		owners     []Owner
		dependents bool
		want       string
	}{
		{"nobody ever owned it", nil, false, "kept"},
		{"its owner stands", []Owner{stands}, false, "kept"},
		{"its owner is gone", []Owner{gone}, true, "deleted"},
		{"both are gone", []Owner{gone, gone}, false, "deleted"},
		{"one of two is gone", []Owner{gone, stands}, false, "kept, without 0"},
		{"one of two waits for it", []Owner{stands, waits}, false, "kept, without 1"},
		{"its owner waits for it", []Owner{waits}, false, "deleted"},
		{"its owner waits for it and what it owns", []Owner{waits}, true, "deleted after its own"},
		{"one is gone, the other waits", []Owner{gone, waits}, true, "deleted after its own"},
	} {
		for i := range c.owners {
			c.owners[i].Ref.UID = types.UID(fmt.Sprint(i))
		}
		v := Judge(c.owners, c.dependents)
		got := "kept"
		switch {
		case v.Delete && v.Foreground:
			got = "deleted after its own"
		case v.Delete:
			got = "deleted"
		case len(v.Drop) > 0:
			got = fmt.Sprintf("kept, without %s", v.Drop[0])
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func pod(name string, owner string, blocks bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(owner), BlockOwnerDeletion: &blocks}}
	return p
}

func TestAnOwnerWaitsForWhatItsFinalizersSay(t *testing.T) {
	now := metav1.Now()
	ending := pod("ending", "owner", true)
	ending.DeletionTimestamp = &now
	for _, c := range []struct {
		what       string
		finalizer  string
		deleting   bool
		dependents []metav1.Object
		want       string
	}{
		{"it is not being deleted", metav1.FinalizerDeleteDependents, false, []metav1.Object{pod("a", "owner", true)}, ""},
		{"a finalizer of others", "example.com/mine", true, []metav1.Object{pod("a", "owner", true)}, ""},
		{"foreground", metav1.FinalizerDeleteDependents, true, []metav1.Object{pod("a", "owner", true), ending}, "delete a"},
		{"foreground, the last one ends", metav1.FinalizerDeleteDependents, true, []metav1.Object{ending}, ""},
		{"foreground, one that blocks nothing", metav1.FinalizerDeleteDependents, true, []metav1.Object{pod("a", "owner", false)}, "delete a, done foregroundDeletion"},
		{"foreground, nothing is left", metav1.FinalizerDeleteDependents, true, nil, "done foregroundDeletion"},
		{"orphan", metav1.FinalizerOrphanDependents, true, []metav1.Object{pod("a", "owner", true)}, "free a"},
		{"orphan, nothing is left", metav1.FinalizerOrphanDependents, true, nil, "done orphan"},
	} {
		owner := pod("owner", "", false)
		owner.Finalizers = []string{c.finalizer}
		if c.deleting {
			owner.DeletionTimestamp = &now
		}
		p := Part(owner, c.dependents)
		var words []string
		for _, d := range p.Delete {
			words = append(words, "delete "+d.GetName())
		}
		for _, d := range p.Orphan {
			words = append(words, "free "+d.GetName())
		}
		if p.Done != "" {
			words = append(words, "done "+p.Done)
		}
		if got := strings.Join(words, ", "); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestOfPodsThatHaveEndedTheOldestGo(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 5 {
		p := pod(fmt.Sprint("p", i), "", false)
		p.CreationTimestamp = metav1.NewTime(time.Unix(int64(100-i), 0))
		p.Status.Phase = corev1.PodSucceeded
		pods = append(pods, p)
	}
	pods[4].Status.Phase = corev1.PodRunning
	if got := Finished(pods, 2); len(got) != 2 || got[0].Name != "p3" || got[1].Name != "p2" {
		t.Errorf("%v", got)
	}
	if got := Finished(pods, 10); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

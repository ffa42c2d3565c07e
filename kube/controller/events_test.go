package controller

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/api"
)

// TestAnEventAboutALongNameOrOfManyWordsIsOneThatIsTaken: else nobody hears of it.
func TestAnEventAboutALongNameOrOfManyWordsIsOneThatIsTaken(t *testing.T) {
	r := newRecorder(&term{clock: clocktest.New()})
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strings.Repeat("n", 250), UID: "one"}}
	r.note(set, true, "FailedCreate", strings.Repeat("it cannot be. ", 10_000))
	e := <-r.queue
	if wrong := api.Validate(e); len(wrong) > 0 || e.Size() > 8<<10 {
		t.Errorf("%d bytes, %v", e.Size(), wrong)
	}
}

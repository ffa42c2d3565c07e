package budget

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCounts(t *testing.T) {
	golden.Script(t, "testdata/counts", func(c golden.Command) string {
		app := map[string]string{"app": "web"}
		f := Facts{Budget: &policyv1.PodDisruptionBudget{}, Wanted: map[types.UID]Scale{}, Now: now}
		f.Budget.Generation = 3
		f.Budget.Spec.Selector = &metav1.LabelSelector{MatchLabels: app}
		for _, a := range c.Args {
			value := intstr.Parse(a.Value)
			switch a.Key {
			case "min":
				f.Budget.Spec.MinAvailable = &value
			case "max":
				f.Budget.Spec.MaxUnavailable = &value
			case "sets": // Of one Deployment, which wants so many pods.
				f.Wanted["old"], f.Wanted["new"] = Scale{"dep", value.IntVal}, Scale{"dep", value.IntVal}
			case "evicted": // pod@seconds ago
				name, ago, _ := strings.Cut(a.Value, "@")
				f.Budget.Status.DisruptedPods = map[string]metav1.Time{name: metav1.NewTime(now.Add(-time.Duration(number(t, ago)) * time.Second))}
			}
		}
		for line := range strings.Lines(c.Input) {
			words := strings.Fields(line)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: words[0], Labels: app}}
			pod.Status.Phase = corev1.PodRunning
			for _, w := range words[1:] {
				switch key, value, _ := strings.Cut(w, "="); key {
				case "ready":
					replica.SetReady(&pod.Status, true, "", now)
				case "of":
					yes := true
					pod.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(value), Controller: &yes}}
				case "terminating":
					at := metav1.NewTime(now)
					pod.DeletionTimestamp = &at
				case "failed":
					pod.Status.Phase = corev1.PodFailed
				case "other":
					pod.Labels = nil
				default:
					t.Fatalf("unknown word %q", w)
				}
			}
			f.Pods = append(f.Pods, pod)
		}
		s, again, err := Status(f)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("allowed %d: %d of %d healthy, expected %d, evicted %d, again in %v, %s\n",
			s.DisruptionsAllowed, s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, len(s.DisruptedPods), again, s.Conditions[0].Reason)
	})
}

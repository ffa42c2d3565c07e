package rollout

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

func newDeployment(replicas int32, image string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "dep", Generation: 1, Annotations: map[string]string{}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Template: template(image), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType},
		},
	}
}

func number(t *testing.T, text string) int32 {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func bound(text string) *intstr.IntOrString {
	v := intstr.Parse(text)
	return &v
}

// setField reads one word of a scenario's first line.
func setField(t *testing.T, d *appsv1.Deployment, key, value string) {
	t.Helper()
	rolling := func() *appsv1.RollingUpdateDeployment {
		if d.Spec.Strategy.RollingUpdate == nil {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		return d.Spec.Strategy.RollingUpdate
	}
	switch key {
	case "replicas":
		*d.Spec.Replicas = number(t, value)
	case "image":
		d.Spec.Template = template(value)
	case "surge":
		rolling().MaxSurge = bound(value)
	case "unavailable":
		rolling().MaxUnavailable = bound(value)
	case "recreate":
		d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	case "singleton":
		d.Spec.Template.Annotations = map[string]string{replica.Singleton: "true"}
	case "paused":
		d.Spec.Paused = true
	case "history":
		n := number(t, value)
		d.Spec.RevisionHistoryLimit = &n
	case "deadline":
		n := number(t, value)
		d.Spec.ProgressDeadlineSeconds = &n
	case "undo":
		d.Annotations[RollbackTo] = value
	case "rollback":
		d.Annotations[RollbackOnDeadline] = "true"
	case "rolled-back-to":
		image := template(value)
		d.Annotations[RolledBack] = Hash(&image, nil)
	case "progressing": // reason@seconds ago
		reason, ago, _ := strings.Cut(value, "@")
		status := corev1.ConditionTrue
		if reason == reasonDeadline {
			status = corev1.ConditionFalse
		}
		if reason == reasonPaused {
			status = corev1.ConditionUnknown
		}
		at := metav1.NewTime(now.Add(-time.Duration(number(t, ago)) * time.Second))
		d.Status.Conditions = append(d.Status.Conditions, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentProgressing, Status: status, Reason: reason, LastUpdateTime: at, LastTransitionTime: at,
		})
	case "was": // pods/updated/available of the status before
		n := strings.Split(value, "/")
		d.Status.Replicas, d.Status.UpdatedReplicas = number(t, n[0]), number(t, n[1])
		d.Status.ReadyReplicas, d.Status.AvailableReplicas = number(t, n[2]), number(t, n[2])
	default:
		t.Fatalf("unknown word %q", key)
	}
}

// readSet reads a line such as: set image=a rev=1 size=10 pods=10 ok=10 for=10.
func readSet(t *testing.T, line string, order int) *appsv1.ReplicaSet {
	t.Helper()
	size := int32(0)
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Generation: 2, Annotations: map[string]string{}, CreationTimestamp: metav1.NewTime(now.Add(time.Duration(order) * time.Minute)),
	}}
	set.Spec.Replicas, set.Status.ObservedGeneration = &size, 2
	for _, w := range strings.Fields(line)[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "image":
			set.Spec.Template = template(value)
			set.Name = "web-" + value
			set.Labels = map[string]string{"app": "web", HashLabel: Hash(&set.Spec.Template, nil)}
			set.Spec.Template.Labels[HashLabel] = set.Labels[HashLabel]
			set.UID = types.UID(value)
		case "rev":
			set.Annotations[Revision] = value
		case "size":
			size = number(t, value)
		case "pods":
			set.Status.Replicas = number(t, value)
		case "ok":
			set.Status.ReadyReplicas, set.Status.AvailableReplicas = number(t, value), number(t, value)
		case "leaving":
			n := number(t, value)
			set.Status.TerminatingReplicas = &n
		case "for":
			set.Annotations[DesiredReplicas] = value
		case "cause":
			set.Annotations["kubernetes.io/change-cause"] = value
		case "unsettled":
			set.Status.ObservedGeneration = 1
		default:
			t.Fatalf("%q: unknown word %q", line, key)
		}
	}
	return set
}

func TestPlans(t *testing.T) {
	golden.Script(t, "testdata/plans", func(c golden.Command) string {
		d := newDeployment(1, "a")
		for _, a := range c.Args {
			setField(t, d, a.Key, a.Value)
		}
		f := Facts{Deployment: d, Now: now}
		for line := range strings.Lines(c.Input) {
			set := readSet(t, line, len(f.Sets))
			if replica.IsSingleton(d.Spec.Template.Annotations) {
				set.Spec.Template.Annotations = d.Spec.Template.Annotations
			}
			f.Sets = append(f.Sets, set)
		}
		p, err := Make(f)
		if err != nil {
			return err.Error()
		}
		return text(p)
	})
}

func text(p Plan) string {
	var b strings.Builder
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note %s: %s\n", n.Reason, n.Message)
	}
	if p.Undo != nil {
		fmt.Fprintf(&b, "undo to image=%s annotations=%v\n", p.Undo.Spec.Template.Spec.Containers[0].Image, p.Undo.Annotations)
		return b.String()
	}
	for _, set := range p.Update {
		fmt.Fprintf(&b, "update %s revision=%s history=%s\n", set.Name, set.Annotations[Revision], set.Annotations[RevisionHistory])
	}
	if p.Create != nil {
		fmt.Fprintf(&b, "create size=%d revision=%s for=%s max=%s\n", *p.Create.Spec.Replicas, p.Create.Annotations[Revision],
			p.Create.Annotations[DesiredReplicas], p.Create.Annotations[MaxReplicas])
	}
	for _, z := range p.Sizes {
		fmt.Fprintf(&b, "size %s=%d\n", z.Set.Name, z.Replicas)
	}
	for _, set := range p.Delete {
		fmt.Fprintf(&b, "delete %s\n", set.Name)
	}
	s := p.Status
	fmt.Fprintf(&b, "status %d replicas, %d updated, %d ready, %d available, %d unavailable\n",
		s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas, s.UnavailableReplicas)
	for _, c := range s.Conditions {
		fmt.Fprintf(&b, "condition %s=%s %s\n", c.Type, c.Status, c.Reason)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %v\n", p.Again)
	}
	return b.String()
}

func TestAnUndoBringsBackTemplateAndCauseAndNamesWhatThereIs(t *testing.T) {
	d := newDeployment(3, "c")
	d.Annotations = map[string]string{Revision: "3", "kubernetes.io/change-cause": "c", lastApplied: "x"}
	var sets []*appsv1.ReplicaSet
	for i, image := range []string{"a", "b", "c"} {
		sets = append(sets, readSet(t, fmt.Sprintf("set image=%s rev=%d cause=%s", image, i+1, image), i))
	}
	undone, to, err := Undo(d, sets, 0)
	if err != nil || to != 2 || undone.Spec.Template.Spec.Containers[0].Image != "b" || undone.Annotations["kubernetes.io/change-cause"] != "b" ||
		undone.Annotations[lastApplied] != "x" || undone.Spec.Template.Labels[HashLabel] != "" {
		t.Errorf("%v, %d, %+v", err, to, undone)
	}
	if _, to, err := Undo(d, sets, 1); err != nil || to != 1 {
		t.Errorf("%d, %v", to, err)
	}
	if _, _, err := Undo(d, sets, 7); !errors.Is(err, ErrNoRevision) || !strings.Contains(err.Error(), "there are 1, 2, 3") {
		t.Error(err)
	}
	if _, _, err := Undo(d, sets, 3); !errors.Is(err, ErrSame) {
		t.Error(err)
	}
	if _, _, err := Undo(d, sets[:1], 0); !errors.Is(err, ErrNoRevision) {
		t.Error(err)
	}
	d.Spec.Paused = true
	if _, _, err := Undo(d, sets, 0); !errors.Is(err, ErrPaused) {
		t.Error(err)
	}
}

func TestABoundThatIsNoneIsAnErrorThatNamesIt(t *testing.T) {
	d := newDeployment(3, "a")
	d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: bound("many")}
	if _, err := Make(Facts{Deployment: d, Now: now}); err == nil || !strings.Contains(err.Error(), "maxSurge") {
		t.Error(err)
	}
}

// TestADeploymentSaysWhyItsSetCannotMakePods, as long as it cannot, and is not written
// again while nothing changes.
func TestADeploymentSaysWhyItsSetCannotMakePods(t *testing.T) {
	d := newDeployment(3, "a")
	set := readSet(t, "set image=a rev=1 size=3 for=3", 0)
	why := appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "root is not allowed"}
	set.Status.Conditions = []appsv1.ReplicaSetCondition{why}
	for i := range 3 {
		p, err := Make(Facts{Deployment: d, Sets: []*appsv1.ReplicaSet{set}, Now: now.Add(time.Duration(i) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		c := find(p.Status.Conditions, appsv1.DeploymentReplicaFailure)
		if c == nil || c.Status != why.Status || c.Reason != why.Reason || c.Message != why.Message {
			t.Errorf("condition %+v", c)
		}
		if i > 0 && Changed(d.Status, p.Status) {
			t.Errorf("written again: %+v after %+v", p.Status, d.Status)
		}
		d.Status = p.Status
	}
	set.Status.Conditions = nil
	p, err := Make(Facts{Deployment: d, Sets: []*appsv1.ReplicaSet{set}, Now: now})
	if c := find(p.Status.Conditions, appsv1.DeploymentReplicaFailure); err != nil || c != nil {
		t.Errorf("it can again, and says %+v, %v", c, err)
	}
}
